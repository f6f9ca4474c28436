//! Keys: what the owner registers of a shard, and what a prover works with.

use serde::{Deserialize, Serialize};
use shardproof_integer::{CheckedGraph, Graph, Weights};

use crate::error::VerifyError;
use crate::pcs::Commitment;

/// How the trained values are fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WeightsKey {
    /// The graph has none.
    None,
    /// By their digest: whoever verifies has the model.
    Public([u8; 32]),
    /// By a commitment that every proof opens.
    Committed(Commitment),
}

/// Whether the verifier has the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// The verifier has the trained values and evaluates them itself.
    Public,
    /// The verifier has a commitment to them.
    Committed,
}

/// What the owner registers of a shard: the architecture and what fixes the trained values.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    graph: CheckedGraph,
    weights: WeightsKey,
    digest: [u8; 32],
}

/// Trained values that were compared with the digest that a key registers.
#[derive(Clone, Debug)]
pub struct RegisteredWeights {
    weights: Weights,
    /// Of the key: the values' own does not tell how they are divided into tensors.
    key: [u8; 32],
}

impl VerifyingKey {
    /// A key of its parts.
    pub fn new(graph: CheckedGraph, weights: WeightsKey) -> Self {
        let mut key = Self { graph, weights, digest: [0; 32] };
        key.digest = blake3::derive_key("shardproof gkr 2 verifying key", &key.to_bytes());
        key
    }

    /// The architecture.
    pub fn graph(&self) -> &CheckedGraph {
        &self.graph
    }

    /// What fixes the trained values.
    pub fn weights(&self) -> &WeightsKey {
        &self.weights
    }

    /// Names the key; every transcript starts with it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The one encoding.
    ///
    /// # Panics
    /// Never: a vector takes all bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts = (&self.weights, self.graph.graph().to_bytes());
        postcard::to_allocvec(&parts).expect("a vector takes all bytes")
    }

    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are not a key in its one encoding, or the graph breaks a rule.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifyError> {
        let refuse = |reason: String| VerifyError::Encoding { what: "verifying key", reason };
        let (weights, graph): (WeightsKey, Vec<u8>) =
            postcard::from_bytes(bytes).map_err(|error| refuse(error.to_string()))?;
        let graph = Graph::from_bytes(&graph).map_err(|error| refuse(error.to_string()))?;
        let key = Self::new(graph.check().map_err(|error| refuse(error.to_string()))?, weights);
        if key.to_bytes() != bytes {
            return Err(refuse("another encoding of a key".to_owned()));
        }
        if key.graph.graph().weights.is_empty() != matches!(key.weights, WeightsKey::None) {
            return Err(refuse("weights are registered for a graph without any, or the reverse".to_owned()));
        }
        Ok(key)
    }

    /// Compares the model's trained values with the key, once for all verifications.
    ///
    /// # Errors
    /// When they are not the registered ones, or the key does not have them public.
    pub fn register(&self, weights: Weights) -> Result<RegisteredWeights, VerifyError> {
        let refuse = |reason: String| VerifyError::Weights(reason);
        let WeightsKey::Public(expected) = self.weights else {
            return Err(refuse("the key does not have its weights public".to_owned()));
        };
        let digest = weights.digest(&self.graph).map_err(|error| refuse(error.to_string()))?;
        if digest != expected {
            return Err(refuse("the model's weights are not the registered ones".to_owned()));
        }
        Ok(RegisteredWeights { weights, key: self.digest })
    }
}

impl RegisteredWeights {
    /// The values, if they were registered under `key`.
    pub(crate) fn under(&self, key: &VerifyingKey) -> Option<&Weights> {
        (self.key == key.digest).then_some(&self.weights)
    }
}
