//! The checks by name, and what became of each.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::ids::ShardIndex;
use crate::receipt::PublicKey;

/// Longest reason that is kept, in characters.
const MAX_REASON: usize = 600;

/// What the chain verifier looks at, in the order in which it is told. When several checks fail, the first names the cause
/// best: the later ones tend to follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The bundle is in its canonical encoding, whole, with nothing behind it.
    Encoding,
    /// The card is whole, signed by the owner it names, and the one that the bundle was made under.
    Card,
    /// The card's owner is the one expected.
    OwnerKey,
    /// The card is for the model file that the user has.
    ModelFile,
    /// The shards are the plan's: in order, none omitted, repeated or extra.
    ShardList,
    /// No value that nobody checks: no tensors where the plan commits, no proof where the backend proves nothing.
    Leftover,
    /// One run id throughout.
    RunId,
    /// Every statement is the one that card and place call for: protocol, backend, model, plan, keys.
    Statement,
    /// Every worker is admitted to the plan by the card's authority.
    Admission,
    /// Every statement is signed by its worker.
    Receipt,
    /// Every boundary has the registered tensors, shapes and scales, and is bound as the plan's mode says.
    BoundaryForm,
    /// What one shard put out is what the next took in: bytes, shape, scale.
    BoundaryLink,
    /// The tensors of public boundaries are there, are integers, and are those that the statements name.
    BoundaryTensors,
    /// Boundary 0 is the quantised input that the client sent.
    Input,
    /// Boundary n dequantises to the answer that was delivered.
    Output,
    /// The backend's version is the pinned one.
    BackendVersion,
    /// The registered settings are what the plan asks for, range checks included.
    Settings,
    /// The SRS is not one for tests.
    Srs,
    /// The verifying keys are the registered ones.
    VerifyingKey,
    /// Public instances have exactly the registered layout and length, in canonical encodings, and say what the statement
    /// says.
    Instances,
    /// The weights are the registered ones.
    Weights,
    /// Every proof verifies under its key.
    Proof,
}

impl Check {
    /// All checks, in order.
    pub const ALL: [Self; 22] = [
        Self::Encoding,
        Self::Card,
        Self::OwnerKey,
        Self::ModelFile,
        Self::ShardList,
        Self::Leftover,
        Self::RunId,
        Self::Statement,
        Self::Admission,
        Self::Receipt,
        Self::BoundaryForm,
        Self::BoundaryLink,
        Self::BoundaryTensors,
        Self::Input,
        Self::Output,
        Self::BackendVersion,
        Self::Settings,
        Self::Srs,
        Self::VerifyingKey,
        Self::Instances,
        Self::Weights,
        Self::Proof,
    ];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Card => "card",
            Self::OwnerKey => "owner-key",
            Self::ModelFile => "model-file",
            Self::ShardList => "shard-list",
            Self::Leftover => "leftover",
            Self::RunId => "run-id",
            Self::Statement => "statement",
            Self::Admission => "admission",
            Self::Receipt => "receipt",
            Self::BoundaryForm => "boundary-form",
            Self::BoundaryLink => "boundary-link",
            Self::BoundaryTensors => "boundary-tensors",
            Self::Input => "input",
            Self::Output => "output",
            Self::BackendVersion => "backend-version",
            Self::Settings => "settings",
            Self::Srs => "srs",
            Self::VerifyingKey => "verifying-key",
            Self::Instances => "instances",
            Self::Weights => "weights",
            Self::Proof => "proof",
        }
    }

    /// What it means that the check passed, in words for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Encoding => "the bundle is whole and canonical",
            Self::Card => "the card is signed and is the one this run was made under",
            Self::OwnerKey => "the card's owner is the one expected",
            Self::ModelFile => "the card is for the given model file",
            Self::ShardList => "the shards are the plan's, in order and complete",
            Self::Leftover => "the bundle holds nothing that nobody checks",
            Self::RunId => "all statements are of one run",
            Self::Statement => "all statements are for this model, plan and keys",
            Self::Admission => "all workers are admitted",
            Self::Receipt => "all statements are signed by their workers",
            Self::BoundaryForm => "boundaries have the registered shapes, scales and modes",
            Self::BoundaryLink => "each shard took in what the one before put out",
            Self::BoundaryTensors => "the tensors shown are those of the statements",
            Self::Input => "the run's input is the given one, quantised",
            Self::Output => "the run's output is the given one",
            Self::BackendVersion => "proofs are by the pinned version of the proof system",
            Self::Settings => "circuit settings are as planned, range checks on",
            Self::Srs => "the SRS is not one for tests",
            Self::VerifyingKey => "verifying keys are the registered ones",
            Self::Instances => "proofs are about exactly these boundaries",
            Self::Weights => "proofs are about the registered weights",
            Self::Proof => "all proofs verify",
        }
    }

    /// Whether the check compares with something that only the user can supply, so that a run counts as verified without.
    pub const fn needs_user(self) -> bool {
        matches!(self, Self::OwnerKey | Self::ModelFile | Self::Input | Self::Output)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It holds, for every shard.
    Passed,
    /// It does not hold, and the user said beforehand to go on.
    Waived {
        /// What was waived, and by what.
        reason: String,
    },
    /// It does not hold.
    Failed {
        /// The first shard concerned, where it is about one.
        shard: Option<ShardIndex>,
        /// What was expected and found.
        reason: String,
    },
    /// There is nothing to check against; never counted as passed.
    NotSupplied {
        /// What would supply it.
        missing: String,
    },
    /// An earlier failure left nothing to check, or made it pointless.
    NotReached,
}

impl Outcome {
    /// Whether this is [`Outcome::Failed`].
    pub const fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// A check that does not hold, with who is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
pub struct Refusal {
    /// Which check.
    pub check: Check,
    /// Which shard, where it is about one.
    pub shard: Option<ShardIndex>,
    /// The worker whose receipt stands for that shard. Whose fault it is depends on the check: a boundary that does not
    /// link concerns both its neighbours.
    pub worker: Option<PublicKey>,
    /// What was expected and found.
    pub reason: String,
}

impl Refusal {
    /// A failure of the whole, not of one shard.
    pub fn of_bundle(check: Check, reason: impl fmt::Display) -> Self {
        Self { check, shard: None, worker: None, reason: printable(&reason.to_string()) }
    }

    /// A failure at one shard, of which `worker` holds the receipt.
    pub fn of_shard(check: Check, shard: ShardIndex, worker: PublicKey, reason: impl fmt::Display) -> Self {
        Self { check, shard: Some(shard), worker: Some(worker), reason: printable(&reason.to_string()) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check `{}` failed", self.check)?;
        if let Some(shard) = self.shard {
            write!(f, " at shard {shard}")?;
        }
        if let Some(worker) = self.worker {
            // Whole, because the first digits of a key can be chosen to look like another's.
            write!(f, " (worker {worker})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Makes a reason one line of bounded length. Reasons quote untrusted text, which could otherwise draw lines of a report.
pub fn printable(reason: &str) -> String {
    let escape =
        |c: char| -> String { if matches!(c, '\'' | '"' | '\\') { c.to_string() } else { c.escape_debug().collect() } };
    let mut line: String = reason.chars().take(MAX_REASON).map(escape).collect();
    if reason.chars().nth(MAX_REASON).is_some() {
        line.push_str("...");
    }
    line
}
