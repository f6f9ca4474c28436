//! What the chain verifier found, for programs (`--json`) and for people.

use std::fmt;

use serde::Serialize;

use super::check::{Check, Outcome, Refusal};
use crate::ids::{Digest, RunId, ShardIndex};
use crate::plan::BackendKind;
use crate::receipt::PublicKey;
use crate::statement::BackendId;

/// What a run amounts to after all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", content = "refusal", rename_all = "kebab-case")]
pub enum Status {
    /// The receipts agree; nothing is proven.
    Answered,
    /// Something is proven, but not that the registered weights took this input to this output: some shards have no proof,
    /// or a shard's weights are private, so that nothing binds them to the model.
    Partial,
    /// Every shard is proven and every check holds, but for those that compare with what the user did not supply.
    Verified,
    /// A check does not hold.
    Rejected(Refusal),
}

impl Status {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Partial => "partial",
            Self::Verified => "verified",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// One check with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// Which check.
    pub check: Check,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One shard of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardLine {
    /// Which shard.
    pub shard: ShardIndex,
    /// The worker named by its receipt.
    pub worker: PublicKey,
    /// The registered proof system.
    pub backend: BackendId,
    /// What became of its proof.
    pub proof: ProofState,
}

/// What became of a shard's proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofState {
    /// The bundle has none.
    Absent,
    /// There is one, which an earlier failure made pointless to check.
    Unchecked,
    /// It was checked and does not hold.
    Refused,
    /// It was checked and holds.
    Verified,
}

impl ProofState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no proof",
            Self::Unchecked => "proof not checked",
            Self::Refused => "proof refused",
            Self::Verified => "proof verified",
        }
    }
}

/// What the chain verifier found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the run amounts to; in JSON the word under `status`, and a rejection's [`Refusal`] under `refusal`.
    #[serde(flatten)]
    pub status: Status,
    /// The card's name for the model.
    pub model_name: String,
    /// Digest of the model's file, as the card states it.
    pub model: Digest,
    /// Digest of the card.
    pub card: Digest,
    /// The card's owner.
    pub owner: PublicKey,
    /// The run, where the bundle could be read.
    pub run: Option<RunId>,
    /// Every check, in the order of [`Check::ALL`].
    pub checks: Vec<CheckLine>,
    /// Every shard of the bundle, in order; empty where the shards are not the plan's.
    pub shards: Vec<ShardLine>,
    /// The answer: boundary n dequantised, tensor after tensor, row-major. Nothing where the run is rejected or the plan
    /// does not show boundary n. It is proven where the status is `verified`; else it is what the workers signed.
    pub outputs: Option<Vec<f64>>,
    /// The answer comes from `float` mode, which proves nothing.
    pub float: bool,
}

impl Report {
    /// The outcome of one check.
    pub fn outcome(&self, check: Check) -> &Outcome {
        let line = self.checks.iter().find(|line| line.check == check);
        line.map_or(&Outcome::NotReached, |line| &line.outcome)
    }

    /// The refusal that rejects the run, if it is rejected.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.status {
            Status::Rejected(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether every shard is proven and every check holds: the one result with which `verify` exits 0.
    pub fn is_verified(&self) -> bool {
        self.status == Status::Verified
    }
}

/// One line per check and per shard, then what it amounts to.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckLine { check, outcome } in &self.checks {
            match outcome {
                Outcome::Passed => writeln!(f, "{check:<17} passed        {}", check.meaning())?,
                Outcome::Waived { reason } => writeln!(f, "{check:<17} WAIVED        {reason}")?,
                Outcome::NotSupplied { missing } => writeln!(f, "{check:<17} not supplied  {missing}")?,
                Outcome::NotReached => writeln!(f, "{check:<17} not reached")?,
                Outcome::Failed { shard: Some(shard), reason } => {
                    writeln!(f, "{check:<17} FAILED        shard {shard}: {reason}")?
                }
                Outcome::Failed { shard: None, reason } => writeln!(f, "{check:<17} FAILED        {reason}")?,
            }
        }
        for ShardLine { shard, worker, backend, proof } in &self.shards {
            let privacy = backend.kind.privacy();
            writeln!(
                f,
                "shard {shard}: {}, {} {} ({privacy}), worker {}",
                proof.as_str(),
                backend.kind,
                backend.version,
                worker.short()
            )?;
        }
        match &self.status {
            Status::Rejected(refusal) => write!(f, "REJECTED: {refusal}"),
            Status::Answered if self.float => {
                write!(f, "answered: computed in {} mode, which proves nothing", BackendKind::Float)
            }
            Status::Answered => write!(f, "answered: the receipts agree, nothing is proven"),
            Status::Partial => write!(f, "partial: not everything is proven, see above"),
            Status::Verified => write!(f, "verified: every shard is proven and every check that was supplied holds"),
        }
    }
}
