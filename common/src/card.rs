//! The model card: the one file that a model's owner publishes and against which anyone verifies.
//!
//! It holds everything that must come from the owner's side: the plan, the identity of every verifying key with its
//! settings and SRS, the quantisation, and the authority that admits workers. The owner signs the content, not the file's
//! text, so that white space does not matter; unknown fields are refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::MAX_SHARDS;
use crate::ids::{Digest, PROTOCOL_VERSION, ShardIndex};
use crate::plan::{BackendKind, BackendOptions, BoundaryMode, BoundaryTensor, Plan, ShardPlan, WeightVisibility};
use crate::receipt::{Identity, PublicKey, SignatureBytes, SignatureError};
use crate::statement::BackendId;
use crate::tensor::{MAX_ELEMENTS, MAX_RANK, MAX_TENSORS, TensorSpec};

/// Largest card that is read, in bytes.
pub const MAX_CARD_BYTES: u64 = 16 << 20;
/// Largest scale of a tensor, and the smallest with its sign turned: every integer of 64 bits stands for a finite real.
pub const MAX_SCALE: u32 = 128;

/// What the owner states about a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardBody {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The model's name, for people.
    pub name: String,
    /// How the model is cut.
    pub plan: Plan,
    /// Keys and quantisation of each shard, in order.
    pub shards: Vec<ShardCard>,
    /// Whoever this key signs an admission for may give receipts.
    pub authority: PublicKey,
}

/// What is registered for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCard {
    /// The proof system and its pinned version.
    pub backend: BackendId,
    /// Names, shapes and scales of the inputs.
    pub input: Vec<TensorSpec>,
    /// Names, shapes and scales of the outputs.
    pub output: Vec<TensorSpec>,
    /// Verifying key, settings and SRS.
    pub keys: ShardKeys,
}

/// The owner-side parameters of a shard's proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardKeys {
    /// `float` mode has none.
    Float,
    /// What fixes an ezkl circuit.
    Ezkl(Box<EzklKeys>),
    /// What fixes an integer graph with its weights.
    Gkr(GkrKeys),
}

/// What fixes an integer graph with its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GkrKeys {
    /// Digest of the verifying key's file, which travels in the bundle and holds the graph, and the commitment to the
    /// weights or the weights themselves.
    pub verifying_key: Digest,
    /// How the key fixes the weights; nothing where the graph has none.
    pub weights: Option<WeightVisibility>,
}

/// What fixes an ezkl circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EzklKeys {
    /// Digest of the verifying key's bytes, which travel in the bundle.
    pub verifying_key: Digest,
    /// The circuit's settings, ezkl's `settings.json` without its timestamp.
    pub settings: String,
    /// The structured reference string.
    pub srs: Srs,
    /// Poseidon hashes of the weights (32 bytes each, little-endian, hexadecimal) when they are `hashed`, else empty.
    pub parameter_hashes: Vec<String>,
}

/// Identity of a KZG structured reference string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Srs {
    /// log2 of its length.
    pub logrows: u32,
    /// Made by one party that could have kept the secret: proofs under it convince nobody.
    pub insecure_test: bool,
    /// The few points that a verifier needs, a whole SRS file of logrows 1, hexadecimal.
    pub verifier: String,
}

impl EzklKeys {
    /// log2 of the circuit's rows, from the settings; nothing when they do not say.
    pub fn circuit_logrows(&self) -> Option<u64> {
        let settings: serde_json::Value = serde_json::from_str(&self.settings).ok()?;
        settings.pointer("/run_args/logrows")?.as_u64()
    }
}

impl ShardKeys {
    /// The digest that statements name.
    pub fn digest(&self) -> Digest {
        Digest::derive("shardproof 2 keys", self)
    }

    /// Digest of the verifying key's bytes, where there is one.
    pub fn verifying_key(&self) -> Option<Digest> {
        match self {
            Self::Float => None,
            Self::Ezkl(keys) => Some(keys.verifying_key),
            Self::Gkr(keys) => Some(keys.verifying_key),
        }
    }

    /// The registered hashes of the weights; empty unless the weights are hashed.
    pub fn parameter_hashes(&self) -> &[String] {
        match self {
            Self::Float | Self::Gkr(_) => &[],
            Self::Ezkl(keys) => &keys.parameter_hashes,
        }
    }

    /// Whether proofs under these keys rest on an SRS that is for tests only.
    pub fn insecure_test_srs(&self) -> bool {
        match self {
            Self::Float | Self::Gkr(_) => false,
            Self::Ezkl(keys) => keys.srs.insecure_test,
        }
    }
}

/// A card with its owner's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The content.
    pub body: CardBody,
    /// The owner's key.
    pub owner: PublicKey,
    /// Over the content.
    pub signature: SignatureBytes,
}

impl CardBody {
    /// Whether a bundle shows what shard `index` puts out: the tensors of a public boundary between shards that are proven. Its
    /// worker stores them with the coordinator before it gives the receipt.
    pub fn shows_output_of(&self, index: ShardIndex) -> bool {
        let inner = index.as_usize() + 1 < self.plan.shards.len();
        let public = self.plan.boundaries_of(index).is_some_and(|(_, output)| output.mode == BoundaryMode::Public);
        inner && public && self.shards.get(index.as_usize()).is_some_and(|shard| shard.keys.provable())
    }
}

impl ModelCard {
    /// Signs `body` as its owner.
    pub fn sign(body: CardBody, owner: &Identity) -> Self {
        let signature = owner.sign(Self::digest_of(&body));
        Self { body, owner: owner.public(), signature }
    }

    /// The digest of the content, which names the card.
    pub fn digest(&self) -> Digest {
        Self::digest_of(&self.body)
    }

    /// Reads a card and checks that it is whole: signature, version, and that its parts fit together.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, CardError> {
        if bytes.len() as u64 > MAX_CARD_BYTES {
            return Err(CardError::TooLarge { bytes: bytes.len() as u64 });
        }
        let card: Self = serde_json::from_slice(bytes).map_err(CardError::Json)?;
        card.check()?;
        Ok(card)
    }

    /// The card as a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a card has string keys only") + "\n"
    }

    /// Checks what [`ModelCard::parse`] checks, for a card that was made in memory.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn check(&self) -> Result<(), CardError> {
        let body = &self.body;
        for found in [body.protocol, body.plan.protocol] {
            if found != PROTOCOL_VERSION {
                return Err(CardError::Protocol { expected: PROTOCOL_VERSION, found });
            }
        }
        let shards = body.plan.shards.len();
        if shards == 0 || shards > MAX_SHARDS || body.shards.len() != shards || body.plan.boundaries.len() != shards + 1
        {
            return Err(CardError::Counts { shards, cards: body.shards.len(), boundaries: body.plan.boundaries.len() });
        }
        for (index, (shard, plan)) in body.shards.iter().zip(&body.plan.shards).enumerate() {
            check_backend(index, shard, plan)?;
            for (specs, boundary) in [(&shard.input, index), (&shard.output, index + 1)] {
                check_tensors(shard.backend.kind, specs, boundary)?;
                let planned = &body.plan.boundaries[boundary].tensors;
                let same = |(spec, tensor): (&TensorSpec, &BoundaryTensor)| {
                    spec.name == tensor.name && spec.shape == tensor.shape
                };
                if specs.len() != planned.len() || !specs.iter().zip(planned).all(same) {
                    return Err(CardError::Boundary { shard: index, boundary });
                }
            }
        }
        for (index, pair) in body.shards.windows(2).enumerate() {
            check_neighbours(index + 1, &pair[0], &pair[1], body.plan.boundaries[index + 1].mode)?;
        }
        for (index, shard) in body.shards.iter().enumerate() {
            for boundary in [index, index + 1] {
                let (mode, backend) = (body.plan.boundaries[boundary].mode, shard.backend.kind);
                if !backend.has_mode(mode) {
                    return Err(CardError::Mode { boundary, mode, backend });
                }
            }
        }
        // Shards of gkr prove their outputs in range from inputs in range; nothing proves that of a committed boundary 0.
        if body.plan.boundaries[0].mode == BoundaryMode::Committed {
            return Err(CardError::CommittedInput);
        }
        Ok(self.owner.verify(self.digest(), &self.signature)?)
    }

    fn digest_of(body: &CardBody) -> Digest {
        Digest::derive("shardproof 2 card", body)
    }
}

/// Plan and keys are of one backend, and the hashes of weights are what they should be.
fn check_backend(index: usize, shard: &ShardCard, plan: &ShardPlan) -> Result<(), CardError> {
    let keys_fit = matches!(
        (&shard.keys, &plan.backend),
        (ShardKeys::Float, BackendOptions::Float)
            | (ShardKeys::Ezkl(_), BackendOptions::Ezkl(_))
            | (ShardKeys::Gkr(_), BackendOptions::Gkr(_))
    );
    if !keys_fit || shard.backend.kind != plan.backend.kind() {
        return Err(CardError::Backend { shard: index });
    }
    match shard.keys.parameter_hashes().iter().find(|hash| hash.parse::<Digest>().is_err()) {
        Some(hash) => Err(CardError::ParameterHash { shard: index, found: hash.chars().take(80).collect() }),
        None => Ok(()),
    }
}

/// The tensors of a boundary are ones that can be encoded, exist, and have finite reals.
fn check_tensors(kind: BackendKind, specs: &[TensorSpec], boundary: usize) -> Result<(), CardError> {
    if specs.is_empty() || specs.len() > MAX_TENSORS {
        return Err(CardError::TensorCount { boundary, found: specs.len() });
    }
    for spec in specs {
        let scale_fits =
            if kind == BackendKind::Float { spec.scale == 0 } else { spec.scale.unsigned_abs() <= MAX_SCALE };
        if spec.shape.len() > MAX_RANK || !(1..=MAX_ELEMENTS).contains(&spec.elements()) || !scale_fits {
            let (tensor, shape, scale) = (spec.name.clone(), spec.shape.clone(), spec.scale);
            return Err(CardError::Tensor { boundary, tensor, shape, scale });
        }
    }
    Ok(())
}

/// What makes equal commitments on both sides of a boundary mean equal tensors.
fn check_neighbours(boundary: usize, left: &ShardCard, right: &ShardCard, mode: BoundaryMode) -> Result<(), CardError> {
    if left.output != right.input {
        return Err(CardError::Boundary { shard: boundary, boundary });
    }
    if mode != BoundaryMode::Public && left.backend != right.backend {
        return Err(CardError::CommittedAcross { boundary, mode });
    }
    match (&left.keys, &right.keys) {
        (ShardKeys::Float, ShardKeys::Float) => Ok(()),
        (ShardKeys::Float, _) | (_, ShardKeys::Float) => Err(CardError::FloatMixed { boundary }),
        (ShardKeys::Ezkl(left), ShardKeys::Ezkl(right)) if mode == BoundaryMode::Polycommit => {
            let logrows = (left.circuit_logrows(), right.circuit_logrows());
            let same_domain = logrows.0.is_some() && logrows.0 == logrows.1;
            if left.srs == right.srs && same_domain { Ok(()) } else { Err(CardError::Polycommit { boundary }) }
        }
        _ => Ok(()),
    }
}

/// What can be wrong with a card.
#[derive(Debug, Error)]
pub enum CardError {
    /// Larger than any card.
    #[error("the card has {bytes} bytes, more than the {MAX_CARD_BYTES} that a card may have")]
    TooLarge {
        /// Bytes found.
        bytes: u64,
    },
    /// Not a card's JSON.
    #[error("not a model card: {0}")]
    Json(#[source] serde_json::Error),
    /// Of another version.
    #[error("the card is of protocol version {found}, this program speaks {expected}")]
    Protocol {
        /// This program's.
        expected: u32,
        /// The card's.
        found: u32,
    },
    /// Lists of different lengths.
    #[error("the card's plan has {shards} shards, but {cards} entries and {boundaries} boundaries")]
    Counts {
        /// Shards in the plan.
        shards: usize,
        /// Entries in the card.
        cards: usize,
        /// Boundaries in the plan.
        boundaries: usize,
    },
    /// Plan and keys name different proof systems.
    #[error("shard {shard}: the plan and the keys are of different backends")]
    Backend {
        /// Which shard.
        shard: usize,
    },
    /// Tensors that do not fit.
    #[error("shard {shard}: its tensors differ from those of boundary {boundary}")]
    Boundary {
        /// Which shard.
        shard: usize,
        /// Which boundary.
        boundary: usize,
    },
    /// No tensors, or too many.
    #[error("boundary {boundary}: expected 1 to {MAX_TENSORS} tensors, found {found}")]
    TensorCount {
        /// Which boundary.
        boundary: usize,
        /// Tensors found.
        found: usize,
    },
    /// A shape or scale that no tensor can have.
    #[error("boundary {boundary}: tensor `{tensor}` has shape {shape:?} and scale {scale}, which no tensor can have")]
    Tensor {
        /// Which boundary.
        boundary: usize,
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its scale.
        scale: i32,
    },
    /// A hash of weights that is not 32 bytes of hexadecimal.
    #[error("shard {shard}: expected a hash of weights of 64 lower-case hexadecimal digits, found `{found}`")]
    ParameterHash {
        /// Which shard.
        shard: usize,
        /// The text, cut to 80 characters.
        found: String,
    },
    /// Different proof systems do not share commitments.
    #[error("boundary {boundary} is {mode}, but the shards on its sides are of different backends: it must be public")]
    CommittedAcross {
        /// Which boundary.
        boundary: usize,
        /// Its mode.
        mode: BoundaryMode,
    },
    /// Nothing would show that the model's input consists of integers in range, from which all proofs start.
    #[error("boundary 0 is committed: the first shard's proof needs a public one, whose range is checked")]
    CommittedInput,
    /// Floats do not enter a proof.
    #[error("boundary {boundary} lies between a shard in float mode and one that is proven")]
    FloatMixed {
        /// Which boundary.
        boundary: usize,
    },
    /// A way of referring to a boundary that the proofs on one of its sides do not have.
    #[error("boundary {boundary} is {mode}, which {backend} does not have")]
    Mode {
        /// Which boundary.
        boundary: usize,
        /// Its mode.
        mode: BoundaryMode,
        /// Backend of a shard on one of its sides.
        backend: BackendKind,
    },
    /// KZG commitments compare only under one SRS and one domain.
    #[error("boundary {boundary} is polycommit, but the shards on its sides differ in SRS or log2 of rows")]
    Polycommit {
        /// Which boundary.
        boundary: usize,
    },
    /// Not the owner's.
    #[error("the owner's signature does not hold: {0}")]
    Signature(#[from] SignatureError),
}
