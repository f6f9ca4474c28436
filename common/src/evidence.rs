//! Evidence: one file from which anyone with the model card sees that a worker lied, whoever it is from.
//!
//! A worker that does what it is told cannot be convicted, not even by the owner of the model together with all other workers.
//! What convicts is in each case signed by the worker itself: two receipts that no honest worker gives both, or a receipt
//! whose output is not what the registered shard makes of its input. An accuser who alters anything breaks a signature, a
//! digest or a commitment, and the evidence proves nothing. The worker's key is one that the card's authority admitted, so that
//! nobody is convicted by a key of the accuser's own; everything else in the file is untrusted.
//!
//! The trade-off: much that looks like a lie convicts nobody. A refusal, a proof that fails or never comes, and a spool that
//! has expired leave nothing that its worker signed; neither do floats, whose arithmetic differs from machine to machine, nor
//! shards of ezkl re-executed, because nothing in the card pins the tables of the circuit that this machine would run.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::backend::{BackendError, Job};
use crate::bounded::Blob;
use crate::card::{CardError, ModelCard, ShardCard};
use crate::chain::{self, Refusal};
use crate::format::{Format, FormatError};
use crate::ids::{Digest, RunId, ShardIndex};
use crate::plan::{BackendKind, BackendOptions, BoundaryMode};
use crate::receipt::{Admission, PublicKey, Receipt};
use crate::statement::Boundary;
use crate::tensor::{Tensor, TensorError, decode_boundary};

/// Largest file of evidence, in bytes: it holds one boundary, and a shard's weights where it shows them.
pub const MAX_EVIDENCE_BYTES: u64 = 1 << 30;

const FORMAT: Format = Format { magic: b"SPEVIDEN", max_bytes: MAX_EVIDENCE_BYTES };

/// What is brought against one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`ModelCard::digest`] of the card that the run was made under.
    pub card: Digest,
    /// By the card's authority, for the accused worker and the card's plan.
    pub admission: Admission,
    /// What it did.
    pub charge: Charge,
}

/// What a worker is accused of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charge {
    /// It gave two receipts for one shard of one run that no honest worker gives both: for one input two outputs, or in one
    /// attempt two statements. In the order of their digests.
    Contradiction(Box<Receipt>, Box<Receipt>),
    /// It signed for another output than the registered shard gives.
    WrongExecution(Box<WrongExecution>),
}

/// A receipt, with what it takes to run its shard again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongExecution {
    /// The worker's receipt.
    pub receipt: Receipt,
    /// [`crate::tensor::encode_boundary`] of the input.
    pub input: Blob,
    /// The shard, unless it is left out; whoever checks must bring it then.
    pub executable: Option<Executable>,
}

/// A shard in integers, as its registered key commits to it. It shows the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// The integer graph.
    pub graph: Blob,
    /// The quantised weights.
    pub weights: Blob,
}

/// Whoever can run a registered shard again: a backend in which a receipt's input has one output on every machine.
pub trait Reexecutor {
    /// Checks that `executable` is what the card registers, runs it on `input`, and gives both boundaries as a statement names
    /// them.
    ///
    /// # Errors
    /// When the executable is not the registered one, the input does not fit it, or the job is cancelled or has no means.
    fn execute(
        &self,
        shard: &RegisteredShard<'_>,
        executable: &Executable,
        input: &[Tensor],
        job: &Job<'_>,
    ) -> Result<(Boundary, Boundary), BackendError>;
}

/// What the card says of a shard that is run again.
#[derive(Clone, Copy, Debug)]
pub struct RegisteredShard<'a> {
    /// Which one, for messages.
    pub index: ShardIndex,
    /// The card's entry.
    pub card: &'a ShardCard,
    /// The plan's parameters for it.
    pub options: &'a BackendOptions,
    /// Mode of its input boundary.
    pub input_mode: BoundaryMode,
    /// Mode of its output boundary.
    pub output_mode: BoundaryMode,
}

/// A worker that evidence convicts, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conviction {
    /// Its key.
    pub worker: PublicKey,
    /// The run in which it lied.
    pub run: RunId,
    /// The shard that it held.
    pub shard: ShardIndex,
    /// What it did.
    pub lie: Lie,
}

/// What a convicted worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// Signed two outputs of one input.
    TwoOutputs,
    /// Signed two statements in one attempt.
    TwoStatements,
    /// Signed an output that the shard does not give.
    WrongOutput,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoOutputs => "signed two different outputs of the same input",
            Self::TwoStatements => "signed two different statements in the same attempt",
            Self::WrongOutput => "signed another output than the registered shard gives",
        })
    }
}

impl fmt::Display for Conviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, run, shard, lie } = self;
        write!(f, "worker {worker} {lie} (run {run}, shard {shard})")
    }
}

impl Evidence {
    /// Two receipts of one worker, in whichever order.
    pub fn contradiction(card: &ModelCard, admission: Admission, one: Receipt, other: Receipt) -> Self {
        let (first, second) = if one.digest() <= other.digest() { (one, other) } else { (other, one) };
        let charge = Charge::Contradiction(Box::new(first), Box::new(second));
        Self { card: card.digest(), admission, charge }
    }

    /// A receipt whose output is not what `executable` makes of `input`, an encoded boundary.
    pub fn wrong_execution(
        card: &ModelCard,
        admission: Admission,
        receipt: Receipt,
        input: Vec<u8>,
        executable: Executable,
    ) -> Self {
        let execution = WrongExecution { receipt, input: input.into(), executable: Some(executable) };
        Self { card: card.digest(), admission, charge: Charge::WrongExecution(Box::new(execution)) }
    }

    /// The receipt, or the first of the two, that is brought against the worker.
    pub fn receipt(&self) -> &Receipt {
        match &self.charge {
            Charge::Contradiction(first, _) => first,
            Charge::WrongExecution(execution) => &execution.receipt,
        }
    }

    /// The shard that the evidence brings with it.
    pub fn executable(&self) -> Option<&Executable> {
        match &self.charge {
            Charge::Contradiction(..) => None,
            Charge::WrongExecution(execution) => execution.executable.as_ref(),
        }
    }

    /// Whether it takes a shard to check it, and none is brought.
    pub fn lacks_executable(&self) -> bool {
        matches!(&self.charge, Charge::WrongExecution(execution) if execution.executable.is_none())
    }

    /// The same without the weights, so that it can be shown to those who may not see them.
    #[must_use]
    pub fn without_executable(mut self) -> Self {
        if let Charge::WrongExecution(execution) = &mut self.charge {
            execution.executable = None;
        }
        self
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When there are more than [`MAX_EVIDENCE_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let payload = match &self.charge {
            Charge::Contradiction(..) => 0,
            Charge::WrongExecution(execution) => {
                let shard = execution.executable.as_ref().map_or(0, |shard| shard.graph.len() + shard.weights.len());
                execution.input.len() + shard
            }
        };
        FORMAT.encode(self, payload + 4096)
    }

    /// Reads what [`Evidence::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are anything else; names where.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        FORMAT.decode(bytes, MAX_EVIDENCE_BYTES)
    }

    /// Checks the evidence against the card. `brought` stands in for a shard that is left out.
    ///
    /// # Errors
    /// When it proves nothing, with the first thing that it lacks; [`EvidenceError::Unavailable`] when that cannot be told.
    pub fn check(
        &self,
        card: &ModelCard,
        brought: Option<&Executable>,
        executor: &dyn Reexecutor,
        job: &Job<'_>,
    ) -> Result<Conviction, EvidenceError> {
        card.check()?;
        let (expected, found) = (card.digest(), self.card);
        if expected != found {
            return Err(EvidenceError::OtherCard { expected, found });
        }
        let receipt = self.receipt();
        // Before its own statement says which shard and run it is of, the card must have such a shard.
        let check = |receipt: &Receipt| {
            let statement = &receipt.statement;
            chain::check_receipt(receipt, card, statement.run, statement.shard).map_err(EvidenceError::Receipt)
        };
        check(receipt)?;
        chain::check_admission(receipt, &self.admission, card).map_err(EvidenceError::NotAdmitted)?;
        let lie = match &self.charge {
            Charge::Contradiction(first, second) => {
                check(second)?;
                contradicts(first, second)?
            }
            Charge::WrongExecution(execution) => {
                execution.contradicts(card, execution.executable.as_ref().or(brought), executor, job)?
            }
        };
        let statement = &receipt.statement;
        Ok(Conviction { worker: receipt.worker, run: statement.run, shard: statement.shard, lie })
    }
}

/// What two receipts, each of which holds for itself, say together.
fn contradicts(first: &Receipt, second: &Receipt) -> Result<Lie, EvidenceError> {
    if first.digest() > second.digest() {
        return Err(EvidenceError::Order);
    }
    contradiction(first, second)
}

/// The lie of a worker that signed both receipts, in whichever order; their signatures are not looked at.
///
/// # Errors
/// When an honest worker may have given both, or they are not about the same.
pub fn contradiction(one: &Receipt, other: &Receipt) -> Result<Lie, EvidenceError> {
    let about = |receipt: &Receipt| (receipt.worker, receipt.statement.run, receipt.statement.shard);
    if about(one) != about(other) {
        return Err(EvidenceError::DifferentSubjects);
    }
    let same_attempt = one.attempt == other.attempt;
    let (one, other) = (&one.statement, &other.statement);
    if same_attempt && one != other {
        return Ok(Lie::TwoStatements);
    }
    if one.input == other.input && one.output != other.output {
        // The same floats give others on another machine, or with another number of threads.
        return if one.backend.kind == BackendKind::Float { Err(EvidenceError::Floats) } else { Ok(Lie::TwoOutputs) };
    }
    Err(EvidenceError::NoContradiction)
}

impl WrongExecution {
    fn contradicts(
        &self,
        card: &ModelCard,
        executable: Option<&Executable>,
        executor: &dyn Reexecutor,
        job: &Job<'_>,
    ) -> Result<Lie, EvidenceError> {
        let statement = &self.receipt.statement;
        match statement.backend.kind {
            BackendKind::Gkr => {}
            BackendKind::Float => return Err(EvidenceError::Floats),
            kind @ BackendKind::Ezkl => return Err(EvidenceError::NotReexecutable { kind }),
        }
        let input = decode_boundary(&self.input)?;
        let executable = executable.ok_or(EvidenceError::NoExecutable)?;
        let index = statement.shard;
        // The receipt was checked against the card, which therefore has the shard.
        let registered = RegisteredShard::of(card, index).ok_or(EvidenceError::NoExecutable)?;
        let (taken, given) = executor.execute(&registered, executable, &input, job).map_err(|error| match error {
            BackendError::Input(reason) => EvidenceError::NotExecuted { reason },
            error @ BackendError::Failed { .. } => EvidenceError::NotExecuted { reason: error.to_string() },
            error => EvidenceError::Unavailable(error),
        })?;
        if taken != statement.input {
            return Err(EvidenceError::OtherInput);
        }
        if given == statement.output { Err(EvidenceError::RightOutput) } else { Ok(Lie::WrongOutput) }
    }
}

impl<'a> RegisteredShard<'a> {
    /// What `card` says of shard `index`, if it has one.
    pub fn of(card: &'a ModelCard, index: ShardIndex) -> Option<Self> {
        let plan = card.body.plan.shard(index)?;
        let (input, output) = card.body.plan.boundaries_of(index)?;
        let entry = card.body.shards.get(index.as_usize())?;
        Some(Self { index, card: entry, options: &plan.backend, input_mode: input.mode, output_mode: output.mode })
    }
}

/// Why evidence convicts nobody.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The card itself does not hold.
    #[error("the card: {0}")]
    Card(#[from] CardError),
    /// It is about a run under another card.
    #[error("the evidence is about a run under card {found}, this one is {expected}")]
    OtherCard {
        /// The card given.
        expected: Digest,
        /// The card named.
        found: Digest,
    },
    /// A receipt is not one by its worker for a shard of the card.
    #[error("a receipt does not hold: {0}")]
    Receipt(Refusal),
    /// The card's authority did not admit the worker: anybody could have made its key.
    #[error("the worker is not one of the card's: {0}")]
    NotAdmitted(Refusal),
    /// The receipts are by two workers, or about two runs or shards.
    #[error("the two receipts are not by one worker about one shard of one run")]
    DifferentSubjects,
    /// Another order of the receipts would be a second file of the same evidence.
    #[error("the two receipts are not in the order of their digests")]
    Order,
    /// An honest worker gives both.
    #[error("the two receipts do not contradict each other: an honest worker may give both")]
    NoContradiction,
    /// Floats are not exact.
    #[error("the shard runs in floats, which give other values on another machine: nothing follows from them")]
    Floats,
    /// Nothing pins what would be run.
    #[error("a shard of {kind} is not run again: the card does not pin every table of its circuit")]
    NotReexecutable {
        /// Its backend.
        kind: BackendKind,
    },
    /// Not a boundary.
    #[error("the input: {0}")]
    Input(#[from] TensorError),
    /// The shard is left out.
    #[error("the evidence does not hold the shard: give the model (--model)")]
    NoExecutable,
    /// The shard is not the registered one, or does not take the input.
    #[error("the shard cannot be run again on this input: {reason}")]
    NotExecuted {
        /// Why.
        reason: String,
    },
    /// The worker did not sign for this input.
    #[error("the input tensors are not those that the receipt names")]
    OtherInput,
    /// The worker was right.
    #[error("run again, the shard gives the output that the receipt names: its worker was right")]
    RightOutput,
    /// It could not be found out.
    #[error(transparent)]
    Unavailable(BackendError),
}

impl EvidenceError {
    /// Whether the question is open, rather than answered by no.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoExecutable)
    }
}
