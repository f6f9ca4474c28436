//! Which byte of a bundle's file belongs to what, and so which check must notice when it is another.

use std::ops::Range;

use anyhow::{Result, ensure};
use serde::Serialize;
use shardproof_common::bundle::{Bundle, ShardRecord};
use shardproof_common::chain::Check;

use crate::honest::Verdict;

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Magic and version, or a length, count or tag between the parts.
    Framing,
    /// Digest of the card.
    Card,
    /// The run.
    Run,
    /// A statement, its attempt, what is promised of it, or the worker's name on the receipt.
    Signed,
    /// The receipt's signature.
    Signature,
    /// An admission.
    Admission,
    /// A verifying key.
    VerifyingKey,
    /// A proof.
    Proof,
    /// The tensors of a public boundary.
    Tensors,
}

impl Part {
    /// Compares with what became of a bundle one of whose bytes here is another, with nothing sealed again.
    ///
    /// # Errors
    /// Says what differs.
    pub fn compare(self, verdict: &Verdict) -> Result<(), String> {
        let failed = verdict.failed.as_slice();
        let noticed = match self {
            // What follows is read as something else, or not at all.
            Self::Framing => !failed.is_empty(),
            Self::Card => failed == [Check::Card],
            Self::Run => failed == [Check::RunId],
            // A byte of a number may leave no statement at all; else no signature is over it, whatever else it breaks.
            Self::Signed => failed == [Check::Encoding] || failed.contains(&Check::Receipt),
            Self::Signature => failed == [Check::Receipt],
            Self::Admission => failed == [Check::Admission],
            Self::VerifyingKey => failed == [Check::VerifyingKey],
            Self::Proof => failed == [Check::Proof] || failed == [Check::Instances],
            Self::Tensors => failed == [Check::BoundaryTensors],
        };
        if noticed && verdict.status == "rejected" {
            return Ok(());
        }
        Err(format!("{self:?}: {} by {failed:?}: {}", verdict.status, verdict.reason))
    }

    /// Whether the part is short enough to change all of its bytes in turn, rather than a sample.
    pub const fn is_small(self) -> bool {
        !matches!(self, Self::VerifyingKey | Self::Proof | Self::Tensors)
    }
}

/// The parts of the file of `bundle`, in order and without gaps.
///
/// # Errors
/// When the file is not made of these parts, which means that this module is not of its format.
pub fn of(bundle: &Bundle) -> Result<Vec<(Range<usize>, Part)>> {
    let mut map = Map::default();
    map.add(Part::Framing, 8 + 4);
    map.value(Part::Card, &bundle.card)?;
    map.blob(Part::Run, bundle.run.as_bytes())?;
    map.value(Part::Framing, &bundle.shards.len())?;
    for ShardRecord { receipt, admission, proof } in &bundle.shards {
        map.value(Part::Signed, &(&receipt.statement, receipt.attempt, receipt.provable_until, receipt.worker))?;
        map.value(Part::Signature, &receipt.signature)?;
        map.value(Part::Admission, admission)?;
        map.add(Part::Framing, 1);
        if let Some(proof) = proof {
            map.blob(Part::VerifyingKey, &proof.verifying_key)?;
            map.blob(Part::Proof, &proof.proof)?;
        }
    }
    map.value(Part::Framing, &bundle.boundaries.len())?;
    for boundary in &bundle.boundaries {
        map.add(Part::Framing, 1);
        if let Some(tensors) = boundary {
            map.blob(Part::Tensors, tensors)?;
        }
    }
    let found = bundle.encode()?.len();
    ensure!(map.end == found, "the parts have {} bytes, the file has {found}", map.end);
    Ok(map.parts)
}

#[derive(Default)]
struct Map {
    parts: Vec<(Range<usize>, Part)>,
    end: usize,
}

impl Map {
    fn add(&mut self, part: Part, bytes: usize) {
        self.parts.push((self.end..self.end + bytes, part));
        self.end += bytes;
    }

    fn value<T: Serialize>(&mut self, part: Part, value: &T) -> Result<()> {
        self.add(part, postcard::to_allocvec(value)?.len());
        Ok(())
    }

    fn blob(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        self.value(Part::Framing, &bytes.len())?;
        self.add(part, bytes.len());
        Ok(())
    }
}
