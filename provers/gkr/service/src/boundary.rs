//! Boundaries as shardproof's statements name them, and as the protocol takes them.

use shardproof_common::card::ShardCard;
use shardproof_common::statement::{Binding, Boundary, MAX_COMMITMENT_BYTES};
use shardproof_common::tensor::{Tensor, TensorSpec};
use shardproof_gkr::VerifyingKey;
use shardproof_gkr::pcs::Commitment;
use shardproof_integer::TensorId;

/// One side of a shard in one run.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// The integers of each tensor.
    Public(Vec<Vec<i64>>),
    /// For each tensor the commitment of the one run.
    Committed(Vec<Vec<Commitment>>),
}

impl Side {
    /// What a statement says of a boundary; `tensors` are its integers where it is public.
    ///
    /// # Errors
    /// When a commitment is not one in its one encoding, or the integers are missing or are floats.
    pub(crate) fn of(boundary: &Boundary, tensors: Option<&[Tensor]>) -> Result<Self, String> {
        match (&boundary.binding, tensors) {
            (Binding::Public(_), Some(tensors)) => Ok(Self::Public(integers(tensors)?)),
            (Binding::Public(_), None) => Err("the tensors of a public boundary are missing".to_owned()),
            (Binding::Committed(commitments), _) => {
                let decoded = commitments.iter().enumerate().map(|(tensor, bytes)| {
                    let commitment = decode(bytes).map_err(|reason| format!("tensor {tensor}: {reason}"))?;
                    Ok(vec![commitment])
                });
                Ok(Self::Committed(decoded.collect::<Result<_, String>>()?))
            }
        }
    }

    /// As the protocol takes it.
    pub(crate) fn boundary(&self) -> shardproof_gkr::Boundary<'_> {
        match self {
            Self::Public(tensors) => shardproof_gkr::Boundary::Public(tensors),
            Self::Committed(commitments) => shardproof_gkr::Boundary::Committed(commitments),
        }
    }
}

/// The integers of tensors.
pub(crate) fn integers(tensors: &[Tensor]) -> Result<Vec<Vec<i64>>, String> {
    let values = tensors.iter().enumerate().map(|(position, tensor)| match tensor.as_integer() {
        Some(tensor) => Ok(tensor.values.clone()),
        None => Err(format!("tensor {position} is of floats, gkr takes integers")),
    });
    values.collect()
}

/// The one encoding of a commitment.
#[cfg(feature = "prover")]
pub(crate) fn encode(commitment: &Commitment) -> Vec<u8> {
    postcard::to_allocvec(commitment).expect("a vector takes all bytes")
}

/// Reads [`encode`].
fn decode(bytes: &[u8]) -> Result<Commitment, String> {
    if bytes.len() > MAX_COMMITMENT_BYTES {
        return Err(format!("a commitment of {} bytes", bytes.len()));
    }
    let commitment: Commitment = postcard::from_bytes(bytes).map_err(|error| format!("not a commitment: {error}"))?;
    let again = postcard::to_allocvec(&commitment).map_err(|error| format!("not a commitment: {error}"))?;
    if again == bytes { Ok(commitment) } else { Err("not the one encoding of a commitment".to_owned()) }
}

/// Compares the inputs and outputs of a key's graph with those that a card registers: shapes and scales, and the inputs'
/// names, which are all that a graph has.
///
/// # Errors
/// Names the first tensor that differs.
pub(crate) fn check_tensors(key: &VerifyingKey, card: &ShardCard) -> Result<(), String> {
    let graph = key.graph();
    let inputs: Vec<TensorId> = (0..graph.graph().inputs.len() as u32).map(TensorId).collect();
    let names = graph.graph().inputs.iter().zip(&card.input);
    if let Some((input, spec)) = names.into_iter().find(|(input, spec)| input.name != spec.name) {
        return Err(format!("the key's graph takes `{}`, the card registers `{}`", input.name, spec.name));
    }
    for (side, tensors, specs) in
        [("input", inputs.as_slice(), &card.input), ("output", graph.graph().outputs.as_slice(), &card.output)]
    {
        if tensors.len() != specs.len() {
            let (found, expected) = (tensors.len(), specs.len());
            return Err(format!("the key's graph has {found} {side} tensors, the card registers {expected}"));
        }
        for (&tensor, spec) in tensors.iter().zip(specs) {
            let found = (extents(graph.shape(tensor)), graph.graph().scale(tensor));
            if found != (spec.shape.clone(), spec.scale) {
                let (TensorSpec { name, shape, scale }, (found_shape, found_scale)) = (spec, found);
                return Err(format!(
                    "{side} `{name}`: the key's graph has shape {found_shape:?} and scale {found_scale}, the card registers \
                     {shape:?} and {scale}"
                ));
            }
        }
    }
    Ok(())
}

/// A shape as cards write it.
pub(crate) fn extents(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|&extent| extent as u64).collect()
}
