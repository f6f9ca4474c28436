//! Canonical bytes of graphs and weights, and their digests.
//!
//! One graph has exactly one encoding, so that a digest names an architecture and nothing can hide in unused bytes:
//! decoding encodes again and compares. A graph is a version byte and postcard; weights are a version byte and, for each
//! tensor, its values in little-endian two's complement of 1, 2 or 4 bytes, as their declared bits need.

#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::check::{CheckedGraph, MAX_ITEMS};
use crate::error::{EncodingError, WeightsError};
use crate::graph::{Graph, Weight, Weights};

/// Longest encoding of a graph, in bytes.
pub const MAX_GRAPH_BYTES: usize = 32 << 20;

const VERSION: u8 = 2;
const GRAPH_DIGEST: &str = "shardproof integer graph v2 architecture";
const WEIGHTS_DIGEST: &str = "shardproof integer graph v2 weights";

fn digest(context: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// Decodes a list of at most [`MAX_ITEMS`]: a few bytes can stand for an item of hundreds, so that the cap on the encoding
/// alone would let a forged graph take much memory.
pub(crate) fn capped_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(decoder: D) -> Result<Vec<T>, D::Error> {
    struct Capped<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Capped<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MAX_ITEMS} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX_ITEMS {
                    return Err(Error::custom("too many items"));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    decoder.deserialize_seq(Capped(PhantomData))
}

/// The bytes after the version.
fn versioned(bytes: &[u8]) -> Result<&[u8], EncodingError> {
    match bytes.split_first() {
        None => Err(EncodingError::Empty),
        Some((&VERSION, rest)) => Ok(rest),
        Some((&found, _)) => Err(EncodingError::Version { expected: VERSION, found }),
    }
}

impl Graph {
    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a vector takes every graph")
    }

    /// The graph of a canonical encoding, still to be checked.
    ///
    /// # Errors
    /// If the bytes are not the encoding that [`Graph::to_bytes`] makes of some graph, or exceed [`MAX_GRAPH_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EncodingError> {
        if bytes.len() > MAX_GRAPH_BYTES {
            return Err(EncodingError::TooLong { limit: MAX_GRAPH_BYTES, found: bytes.len() });
        }
        let (graph, rest) = postcard::take_from_bytes::<Self>(versioned(bytes)?).map_err(EncodingError::Malformed)?;
        if !rest.is_empty() {
            return Err(EncodingError::Trailing { count: rest.len() });
        }
        if graph.to_bytes() != bytes {
            return Err(EncodingError::NotCanonical);
        }
        Ok(graph)
    }

    /// The architecture digest: BLAKE3 of the encoding under a context of its own; weights have no part in it.
    pub fn digest(&self) -> [u8; 32] {
        digest(GRAPH_DIGEST, &self.to_bytes())
    }
}

/// Bytes of one value of a weight: the least that hold both -2^bits and 2^bits.
const fn value_bytes(weight: &Weight) -> usize {
    match weight.bits {
        0..=6 => 1,
        7..=14 => 2,
        _ => 4,
    }
}

impl Weights {
    /// The canonical encoding for `graph`.
    ///
    /// # Errors
    /// If the weights do not belong to the graph.
    pub fn to_bytes(&self, graph: &CheckedGraph) -> Result<Vec<u8>, WeightsError> {
        self.check(graph)?;
        let mut bytes = Vec::with_capacity(encoded_length(graph));
        bytes.push(VERSION);
        for (weight, values) in graph.graph().weights.iter().zip(&self.0) {
            let size = value_bytes(weight);
            for value in values {
                bytes.extend_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(bytes)
    }

    /// The weights of a canonical encoding, checked against `graph`, whose weights determine the length.
    ///
    /// # Errors
    /// If the bytes are not the encoding of weights of the graph.
    pub fn from_bytes(bytes: &[u8], graph: &CheckedGraph) -> Result<Self, EncodingError> {
        let mut rest = versioned(bytes)?;
        let expected = encoded_length(graph);
        if bytes.len() != expected {
            return Err(EncodingError::WeightsLength { expected, found: bytes.len() });
        }
        let mut weights = Vec::with_capacity(graph.graph().weights.len());
        for weight in &graph.graph().weights {
            let size = value_bytes(weight);
            let (values, after) = rest.split_at(elements(weight) * size);
            weights.push(values.chunks_exact(size).map(decode).collect());
            rest = after;
        }
        let weights = Self(weights);
        weights.check(graph)?;
        Ok(weights)
    }

    /// BLAKE3 of the encoding under a context of its own.
    ///
    /// # Errors
    /// If the weights do not belong to the graph.
    pub fn digest(&self, graph: &CheckedGraph) -> Result<[u8; 32], WeightsError> {
        Ok(digest(WEIGHTS_DIGEST, &self.to_bytes(graph)?))
    }
}

fn elements(weight: &Weight) -> usize {
    weight.shape.iter().product()
}

/// No overflow: at most 2^16 weights of at most 2^28 values.
fn encoded_length(graph: &CheckedGraph) -> usize {
    1 + graph.graph().weights.iter().map(|weight| elements(weight) * value_bytes(weight)).sum::<usize>()
}

/// Sign-extends 1 to 4 bytes.
fn decode(bytes: &[u8]) -> i32 {
    let mut wide = [0; 4];
    wide[4 - bytes.len()..].copy_from_slice(bytes);
    i32::from_le_bytes(wide) >> (32 - 8 * bytes.len())
}
