//! What one shard's proof asserts: this shard of this plan, in this run, took that input to that output.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Digest, RunId, ShardIndex};
use crate::plan::BackendKind;
use crate::tensor::{MAX_RANK, MAX_TENSORS, Tensor, TensorSpec};

/// Longest name of a backend's version, in bytes.
pub const MAX_VERSION_BYTES: usize = 64;
/// Longest commitment to one tensor, in bytes.
pub const MAX_COMMITMENT_BYTES: usize = 1024;

/// A proof system and the exact version that made a key or a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendId {
    /// Which proof system.
    pub kind: BackendKind,
    /// Its version, compared as a whole; at most [`MAX_VERSION_BYTES`].
    #[serde(deserialize_with = "crate::bounded::text::<_, MAX_VERSION_BYTES>")]
    pub version: String,
}

/// What a worker signs at inference time and proves on request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`crate::ids::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The proof system and its version.
    pub backend: BackendId,
    /// Digest of the model's ONNX file.
    pub model: Digest,
    /// Digest of the graph without weights.
    pub architecture: Digest,
    /// Digest of the plan.
    pub plan: Digest,
    /// Which shard.
    pub shard: ShardIndex,
    /// Of how many.
    pub shards: u32,
    /// Which run.
    pub run: RunId,
    /// What entered.
    pub input: Boundary,
    /// What left.
    pub output: Boundary,
    /// Digest of the shard's registered keys and settings, [`crate::card::ShardKeys::digest`].
    pub keys: Digest,
}

impl Statement {
    /// The digest that receipts sign.
    pub fn digest(&self) -> Digest {
        Digest::derive("shardproof 2 statement", self)
    }
}

/// One boundary as a statement refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// Shape and scale of each tensor that crosses, in order.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_TENSORS>")]
    pub tensors: Vec<BoundaryShape>,
    /// What fixes their values.
    pub binding: Binding,
}

/// Shape and scale of one tensor of a boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryShape {
    /// Extents, outermost first.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_RANK>")]
    pub shape: Vec<u64>,
    /// `s` in `real = q / 2^s`.
    pub scale: i32,
}

/// What fixes the values that cross a boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// Digest of the canonical encoding of the tensors, which travel in the bundle.
    Public(Digest),
    /// One commitment per tensor, in the encoding of the boundary's mode.
    Committed(
        #[serde(deserialize_with = "crate::bounded::byte_lists::<_, MAX_TENSORS, MAX_COMMITMENT_BYTES>")] Vec<Vec<u8>>,
    ),
}

impl Boundary {
    /// The boundary of tensors that are shown.
    pub fn public(tensors: &[Tensor]) -> Self {
        Self { tensors: shapes_of(tensors), binding: Binding::Public(crate::tensor::boundary_digest(tensors)) }
    }

    /// The boundary of tensors that are committed to.
    pub fn committed(tensors: &[Tensor], commitments: Vec<Vec<u8>>) -> Self {
        Self { tensors: shapes_of(tensors), binding: Binding::Committed(commitments) }
    }

    /// Compares the boundary with the registered shapes and scales.
    ///
    /// # Errors
    /// Names the first tensor that differs, and how.
    pub fn conforms_to(&self, registered: &[TensorSpec]) -> Result<(), BoundaryMismatch> {
        if self.tensors.len() != registered.len() {
            return Err(BoundaryMismatch::Count { expected: registered.len(), found: self.tensors.len() });
        }
        for (found, spec) in self.tensors.iter().zip(registered) {
            if found.shape != spec.shape {
                let (tensor, expected, found) = (spec.name.clone(), spec.shape.clone(), found.shape.clone());
                return Err(BoundaryMismatch::Shape { tensor, expected, found });
            }
            if found.scale != spec.scale {
                return Err(BoundaryMismatch::Scale {
                    tensor: spec.name.clone(),
                    expected: spec.scale,
                    found: found.scale,
                });
            }
        }
        match &self.binding {
            Binding::Committed(commitments) if commitments.len() != registered.len() => {
                Err(BoundaryMismatch::Commitments { expected: registered.len(), found: commitments.len() })
            }
            _ => Ok(()),
        }
    }
}

fn shapes_of(tensors: &[Tensor]) -> Vec<BoundaryShape> {
    tensors.iter().map(|tensor| BoundaryShape { shape: tensor.shape().to_vec(), scale: tensor.scale() }).collect()
}

/// How a boundary differs from the registered one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BoundaryMismatch {
    /// Another number of tensors.
    #[error("expected {expected} tensors, found {found}")]
    Count {
        /// Tensors registered.
        expected: usize,
        /// Tensors found.
        found: usize,
    },
    /// Another shape.
    #[error("tensor `{tensor}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Registered name.
        tensor: String,
        /// Shape registered.
        expected: Vec<u64>,
        /// Shape found.
        found: Vec<u64>,
    },
    /// Another scale.
    #[error("tensor `{tensor}`: expected scale {expected}, found {found}")]
    Scale {
        /// Registered name.
        tensor: String,
        /// Scale registered.
        expected: i32,
        /// Scale found.
        found: i32,
    },
    /// Another number of commitments than tensors.
    #[error("expected {expected} commitments, found {found}")]
    Commitments {
        /// Tensors registered.
        expected: usize,
        /// Commitments found.
        found: usize,
    },
}
