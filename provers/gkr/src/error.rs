//! Why a proof is refused.

use thiserror::Error;

use crate::channel::ChannelError;
use crate::claims::TooManyCoefficients;
use crate::lookup::LookupError;
use crate::pcs::PcsError;
use crate::soundness::NoAccount;

/// Which of a proof's commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The trained values.
    Weights,
    /// What the prover adds: digits, table results, multiplicities.
    Witness,
    /// A tensor of the input boundary in one run.
    Input {
        /// Index of the tensor.
        tensor: usize,
        /// Index of the run.
        run: usize,
    },
    /// A tensor of the output boundary in one run.
    Output {
        /// Index of the tensor.
        tensor: usize,
        /// Index of the run.
        run: usize,
    },
}

impl std::fmt::Display for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Weights => f.write_str("the weights"),
            Self::Witness => f.write_str("the witness"),
            Self::Input { tensor, run } => write!(f, "input tensor {tensor} of run {run}"),
            Self::Output { tensor, run } => write!(f, "output tensor {tensor} of run {run}"),
        }
    }
}

/// Why a proof is refused; nodes are named as in the graph.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The bytes are no proof or key of this version, or not in its one encoding.
    #[error("not a {what}: {reason}")]
    Encoding {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The boundaries do not have the graph's layout.
    #[error("{0}")]
    Boundary(String),
    /// What is proven has no account.
    #[error(transparent)]
    Account(#[from] NoAccount),
    /// The claims of the proof cannot be held.
    #[error(transparent)]
    Claims(#[from] TooManyCoefficients),
    /// The account of what is proven has too few bits.
    #[error("a proof of this statement has {bits:.1} bits of soundness, {} are the least", crate::soundness::MIN_BITS)]
    Soundness {
        /// Bits of the union bound, work counted.
        bits: f64,
    },
    /// A commitment to a witness where the graph has none, or none where it has one.
    #[error("the proof {} a witness, the graph {}", if *.due { "lacks" } else { "commits to" }, if *.due { "has one" } else { "has none" })]
    Witness {
        /// Whether the graph has one.
        due: bool,
    },
    /// The weights are not the registered ones.
    #[error("{0}")]
    Weights(String),
    /// The proof has another number of openings than the statement asks for.
    #[error("the proof has {found} openings, {expected} are due")]
    Openings {
        /// Due.
        expected: usize,
        /// In the proof.
        found: usize,
    },
    /// The proof has another number of values than the graph asks for.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The lookup argument fails.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A sumcheck's last value is not the product of the values at its point.
    #[error("node `{node}` ({operator}): the claimed result does not follow from the operator's inputs")]
    Reduction {
        /// Name of the node.
        node: String,
        /// Its operator.
        operator: &'static str,
    },
    /// Values of several inputs do not add up to the result.
    #[error("node `{node}` ({operator}): the values of its inputs do not add up to that of its result")]
    Sum {
        /// Name of the node.
        node: String,
        /// Its operator.
        operator: &'static str,
    },
    /// A public weight gives another value than the proof says.
    #[error("weight `{weight}`: the proof is about other values than the model's")]
    WeightValue {
        /// Name of the weight.
        weight: String,
    },
    /// A public input tensor gives another value than the proof says.
    #[error("input {tensor}: the proof is about other values than the statement's")]
    InputValue {
        /// Index of the tensor.
        tensor: usize,
    },
    /// Values of the runs of a committed tensor do not add up.
    #[error("{tensor}: the values of its runs do not add up")]
    RunSum {
        /// Which tensor.
        tensor: Committed,
    },
    /// The batch of claims on a commitment does not reduce to its opened value.
    #[error("{0}: the opened value does not support the claims on it")]
    Batch(Committed),
    /// All is as it should be, but for another statement.
    #[error("the proof's seal is that of another statement or proof")]
    Seal,
    /// A commitment does not open to the value that the proof says.
    #[error("{what}: {source}")]
    Opening {
        /// Which commitment.
        what: Committed,
        /// Why.
        source: PcsError,
    },
}
