//! The model card: the one file that a model's owner publishes and against which anyone verifies.
//!
//! It holds everything that must come from the owner's side: the plan, the identity of every verifying key with its
//! settings and SRS, the quantisation, and the authority that admits workers. The owner signs the content, not the file's
//! text, so that white space does not matter; unknown fields are refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Digest, PROTOCOL_VERSION};
use crate::plan::{BackendOptions, Plan};
use crate::receipt::{Identity, PublicKey, SignatureBytes, SignatureError};
use crate::statement::BackendId;
use crate::tensor::TensorSpec;

/// Largest card that is read, in bytes.
pub const MAX_CARD_BYTES: u64 = 16 << 20;

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

impl ShardKeys {
    /// The digest that statements name.
    pub fn digest(&self) -> Digest {
        Digest::derive("shardproof 1 keys", self)
    }

    /// Whether proofs under these keys rest on an SRS that is for tests only.
    pub fn insecure_test_srs(&self) -> bool {
        match self {
            Self::Float => false,
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

    fn check(&self) -> Result<(), CardError> {
        let body = &self.body;
        if body.protocol != PROTOCOL_VERSION || body.plan.protocol != PROTOCOL_VERSION {
            return Err(CardError::Protocol { expected: PROTOCOL_VERSION, found: body.protocol });
        }
        let shards = body.plan.shards.len();
        if shards == 0 || body.shards.len() != shards || body.plan.boundaries.len() != shards + 1 {
            return Err(CardError::Counts { shards, cards: body.shards.len(), boundaries: body.plan.boundaries.len() });
        }
        for (index, (shard, plan)) in body.shards.iter().zip(&body.plan.shards).enumerate() {
            let keys_fit = matches!(
                (&shard.keys, &plan.backend),
                (ShardKeys::Float, BackendOptions::Float) | (ShardKeys::Ezkl(_), BackendOptions::Ezkl(_))
            );
            if !keys_fit || shard.backend.kind != plan.backend.kind() {
                return Err(CardError::Backend { shard: index });
            }
            for (specs, boundary) in [(&shard.input, index), (&shard.output, index + 1)] {
                let planned = &body.plan.boundaries[boundary].tensors;
                let same = specs.len() == planned.len()
                    && specs.iter().zip(planned).all(|(spec, tensor)| spec.name == tensor.name && spec.shape == tensor.shape);
                if !same {
                    return Err(CardError::Boundary { shard: index, boundary });
                }
            }
            if index > 0 && body.shards[index - 1].output != shard.input {
                return Err(CardError::Boundary { shard: index, boundary: index });
            }
        }
        Ok(self.owner.verify(self.digest(), &self.signature)?)
    }

    fn digest_of(body: &CardBody) -> Digest {
        Digest::derive("shardproof 1 card", body)
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
    /// Not the owner's.
    #[error("the owner's signature does not hold: {0}")]
    Signature(#[from] SignatureError),
}
