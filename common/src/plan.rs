//! How a model is cut: the ordered shards, what crosses between them, and how each is proven.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Digest, ShardIndex};

/// The ordered shards of a model with their boundaries; `boundaries.len() == shards.len() + 1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`crate::ids::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Digest of the bytes of the model's ONNX file.
    pub model: Digest,
    /// Digest of the graph without its weights.
    pub architecture: Digest,
    /// Shards in the order in which a run passes them.
    pub shards: Vec<ShardPlan>,
    /// Boundary i is the input of shard i; the last one is the model's output.
    pub boundaries: Vec<BoundaryPlan>,
}

/// One shard of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPlan {
    /// Digest of the bytes of the shard's ONNX file.
    pub model: Digest,
    /// First and last node of the model in this shard, by name.
    pub first_node: String,
    /// See `first_node`.
    pub last_node: String,
    /// Layers of the model in this shard.
    pub layers: u32,
    /// Trained values in this shard.
    pub parameters: u64,
    /// The proof system and its parameters.
    pub backend: BackendOptions,
}

/// What crosses at one boundary and how the proofs refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundaryPlan {
    /// The tensors, in the order of the shards' inputs and outputs.
    pub tensors: Vec<BoundaryTensor>,
    /// Shown or committed to.
    pub mode: BoundaryMode,
}

/// Name and shape of a tensor that crosses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundaryTensor {
    /// Name in the ONNX graph.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
}

impl Plan {
    /// The digest that names the plan.
    pub fn digest(&self) -> Digest {
        Digest::derive("shardproof 2 plan", self)
    }

    /// The shard at `index`, if the plan has one.
    pub fn shard(&self, index: ShardIndex) -> Option<&ShardPlan> {
        self.shards.get(index.as_usize())
    }

    /// The shards' backends: one word where all have the same, or else one for each shard, with commas.
    pub fn backends(&self) -> String {
        let kinds: Vec<&str> = self.shards.iter().map(|shard| shard.backend.kind().as_str()).collect();
        match kinds.as_slice() {
            [first, rest @ ..] if rest.iter().all(|kind| kind == first) => (*first).to_owned(),
            kinds => kinds.join(","),
        }
    }

    /// Input and output boundary of the shard at `index`.
    pub fn boundaries_of(&self, index: ShardIndex) -> Option<(&BoundaryPlan, &BoundaryPlan)> {
        let i = index.as_usize();
        Some((self.boundaries.get(i)?, self.boundaries.get(i + 1)?))
    }
}

/// How a boundary appears in the proofs on its two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundaryMode {
    /// The integers are public instances and travel in the bundle.
    Public,
    /// ezkl: a Poseidon hash per tensor is a public instance.
    Hashed,
    /// ezkl: an unblinded KZG commitment per tensor leads the proof; both shards need one SRS and one k.
    Polycommit,
    /// gkr: a polynomial commitment per tensor, which the proofs on both sides open. Asked of ezkl it means `hashed`.
    Committed,
}

impl BoundaryMode {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Hashed => "hashed",
            Self::Polycommit => "polycommit",
            Self::Committed => "committed",
        }
    }
}

impl fmt::Display for BoundaryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A proof system with the parameters that the plan fixes for a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendOptions {
    /// Runs in floats and proves nothing.
    Float,
    /// Halo2/KZG through ezkl.
    Ezkl(EzklOptions),
    /// Sumcheck, logup and WHIR, native.
    Gkr(GkrOptions),
}

impl BackendOptions {
    /// Which backend these options are for.
    pub const fn kind(&self) -> BackendKind {
        match self {
            Self::Float => BackendKind::Float,
            Self::Ezkl(_) => BackendKind::Ezkl,
            Self::Gkr(_) => BackendKind::Gkr,
        }
    }
}

/// The backends by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Unproven inference in floats.
    Float,
    /// Halo2/KZG through ezkl.
    Ezkl,
    /// Sumcheck, logup and WHIR, native.
    Gkr,
}

impl BackendKind {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Ezkl => "ezkl",
            Self::Gkr => "gkr",
        }
    }

    /// Whether its proofs hide the witness, in words for people.
    pub const fn privacy(self) -> &'static str {
        match self {
            Self::Float => "unproven",
            Self::Ezkl => "zero-knowledge",
            Self::Gkr => "succinct, not zero-knowledge",
        }
    }

    /// Whether its proofs can refer to a boundary in this way.
    pub const fn has_mode(self, mode: BoundaryMode) -> bool {
        match mode {
            BoundaryMode::Public => true,
            BoundaryMode::Hashed | BoundaryMode::Polycommit => matches!(self, Self::Ezkl),
            BoundaryMode::Committed => matches!(self, Self::Gkr),
        }
    }

    /// The mode of a boundary between two of its shards where nothing else is asked for.
    pub const fn inner_mode(self) -> BoundaryMode {
        match self {
            Self::Float => BoundaryMode::Public,
            Self::Ezkl => BoundaryMode::Hashed,
            Self::Gkr => BoundaryMode::Committed,
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What ezkl's users know as run arguments and calibration settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EzklOptions {
    /// What calibration optimises.
    pub target: CalibrationTarget,
    /// How the weights enter the circuit.
    pub parameters: ParameterVisibility,
    /// Scale of the model's input instead of the calibrated one; later shards follow from the one before.
    pub input_scale: Option<i32>,
    /// Scale of the weights instead of the calibrated one.
    pub parameter_scale: Option<i32>,
    /// Lowest and highest value of the lookup tables instead of the calibrated ones.
    pub lookup_range: Option<(i64, i64)>,
    /// log2 of the circuit's rows instead of the calibrated one.
    pub logrows: Option<u32>,
}

impl Default for EzklOptions {
    fn default() -> Self {
        Self {
            target: CalibrationTarget::Resources,
            parameters: ParameterVisibility::Fixed,
            input_scale: None,
            parameter_scale: None,
            lookup_range: None,
            logrows: None,
        }
    }
}

/// How the native backend quantises and what its verifier has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GkrOptions {
    /// What the default bits of weights, activations and tables are chosen for.
    pub target: CalibrationTarget,
    /// Whether verifiers have the weights.
    pub weights: WeightVisibility,
    /// Scale of the model's input instead of the calibrated one; later shards follow from the one before.
    pub input_scale: Option<i32>,
    /// Bits of the weights' magnitudes instead of the target's.
    pub weight_bits: Option<u32>,
    /// Bits of the magnitudes of requantised values instead of the target's.
    pub activation_bits: Option<u32>,
    /// log2 of the number of entries of a table instead of the target's.
    pub table_bits: Option<u32>,
}

impl Default for GkrOptions {
    fn default() -> Self {
        Self {
            target: CalibrationTarget::Resources,
            weights: WeightVisibility::Committed,
            input_scale: None,
            weight_bits: None,
            activation_bits: None,
            table_bits: None,
        }
    }
}

/// How weights enter a gkr proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightVisibility {
    /// The verifying key commits to them, and every proof opens the commitment.
    Committed,
    /// They travel with the verifying key; verifiers evaluate them, which makes proofs smaller and verification slower.
    Public,
}

impl WeightVisibility {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for WeightVisibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What calibration optimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationTarget {
    /// The smallest circuit.
    Resources,
    /// The smallest quantisation error.
    Accuracy,
}

impl CalibrationTarget {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Accuracy => "accuracy",
        }
    }
}

/// How the weights enter an ezkl circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterVisibility {
    /// Baked into the verifying key.
    Fixed,
    /// A Poseidon hash of them is a public instance that the card registers.
    Hashed,
    /// Chosen by the prover: nothing binds them to the model.
    Private,
}

impl ParameterVisibility {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Hashed => "hashed",
            Self::Private => "private",
        }
    }
}

macro_rules! by_name {
    ($type:ident, $what:literal, $($name:literal => $value:ident),+) => {
        impl FromStr for $type {
            type Err = ParseOptionError;

            fn from_str(text: &str) -> Result<Self, ParseOptionError> {
                match text {
                    $($name => Ok(Self::$value),)+
                    _ => Err(ParseOptionError { what: $what, found: text.to_owned(), known: &[$($name),+] }),
                }
            }
        }
    };
}

by_name!(BoundaryMode, "boundary mode", "public" => Public, "hashed" => Hashed, "polycommit" => Polycommit,
    "committed" => Committed);
by_name!(BackendKind, "backend", "gkr" => Gkr, "ezkl" => Ezkl, "float" => Float);
by_name!(WeightVisibility, "weight visibility", "committed" => Committed, "public" => Public);
by_name!(CalibrationTarget, "calibration target", "resources" => Resources, "accuracy" => Accuracy);
by_name!(ParameterVisibility, "parameter visibility", "fixed" => Fixed, "hashed" => Hashed, "private" => Private);

/// A word that is none of the known options.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown {what} `{found}`: expected one of {}", known.join(", "))]
pub struct ParseOptionError {
    what: &'static str,
    found: String,
    known: &'static [&'static str],
}
