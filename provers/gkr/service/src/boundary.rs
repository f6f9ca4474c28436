//! Boundaries as shardproof's statements name them, and as the protocol takes them.

use shardproof_common::card::ShardCard;
use shardproof_common::statement::{Binding, Boundary, BoundaryShape, MAX_COMMITMENT_BYTES};
use shardproof_common::tensor::{Tensor, TensorSpec};
use shardproof_gkr::pcs::{Commitment, MIN_VARS};
use shardproof_integer::{BOUNDARY_BITS, CheckedGraph, TensorId};

/// One side of a shard in one run, or in several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The integers of each tensor, `[runs, ..shape]`.
    Public(Vec<Vec<i64>>),
    /// For each tensor the commitment of each run.
    Committed(Vec<Vec<Commitment>>),
}

impl Side {
    /// What a statement says of a boundary in its one run; `tensors` are its integers where it is public.
    ///
    /// # Errors
    /// When a commitment is not one to a tensor of that shape in its one encoding, or the integers are missing, are floats,
    /// or are larger than the protocol takes.
    pub(crate) fn of(boundary: &Boundary, tensors: Option<&[Tensor]>) -> Result<Self, String> {
        match (&boundary.binding, tensors) {
            (Binding::Public(_), Some(tensors)) => {
                let values = integers(tensors)?;
                values.iter().enumerate().try_for_each(|(tensor, values)| check_range(tensor, values))?;
                Ok(Self::Public(values))
            }
            (Binding::Public(_), None) => Err("the tensors of a public boundary are missing".to_owned()),
            (Binding::Committed(commitments), _) => {
                if commitments.len() != boundary.tensors.len() {
                    return Err(format!("{} commitments to {} tensors", commitments.len(), boundary.tensors.len()));
                }
                let decoded = commitments.iter().zip(&boundary.tensors).enumerate().map(|(tensor, (bytes, shape))| {
                    let commitment = decode(bytes).map_err(|reason| format!("tensor {tensor}: {reason}"))?;
                    let (found, due) = (commitment.num_vars, variables(shape));
                    if found != due {
                        return Err(format!("tensor {tensor}: a commitment to 2^{found} values, 2^{due} are due"));
                    }
                    Ok(vec![commitment])
                });
                Ok(Self::Committed(decoded.collect::<Result<_, String>>()?))
            }
        }
    }

    /// Adds the runs of `other`, which is of the same kind and has as many tensors. What is not adds nothing, and the
    /// protocol then finds too few runs.
    pub(crate) fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::Public(all), Self::Public(more)) => {
                all.iter_mut().zip(more).for_each(|(all, more)| all.extend(more))
            }
            (Self::Committed(all), Self::Committed(more)) => {
                all.iter_mut().zip(more).for_each(|(all, more)| all.extend_from_slice(more));
            }
            _ => {}
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

/// log2 of the values that a tensor is padded to before it is committed to.
fn variables(tensor: &BoundaryShape) -> usize {
    let elements = tensor.shape.iter().fold(1u64, |product, &extent| product.saturating_mul(extent));
    let bits = elements.checked_next_power_of_two().map_or(u64::BITS, u64::ilog2);
    (bits as usize).max(MIN_VARS)
}

fn check_range(tensor: usize, values: &[i64]) -> Result<(), String> {
    let bound = 1i64 << BOUNDARY_BITS;
    match values.iter().position(|value| !(-bound..=bound).contains(value)) {
        Some(place) => Err(format!("tensor {tensor}: element {place} is {}, beyond 2^{BOUNDARY_BITS}", values[place])),
        None => Ok(()),
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
pub(crate) fn decode(bytes: &[u8]) -> Result<Commitment, String> {
    if bytes.len() > MAX_COMMITMENT_BYTES {
        return Err(format!("a commitment of {} bytes", bytes.len()));
    }
    let commitment: Commitment = postcard::from_bytes(bytes).map_err(|error| format!("not a commitment: {error}"))?;
    let again = postcard::to_allocvec(&commitment).map_err(|error| format!("not a commitment: {error}"))?;
    if again == bytes { Ok(commitment) } else { Err("not the one encoding of a commitment".to_owned()) }
}

/// Compares a graph's inputs and outputs with those that a card registers: shapes and scales, and the inputs' names, which
/// are all that a graph has.
///
/// # Errors
/// Names the first tensor that differs.
pub(crate) fn check_tensors(graph: &CheckedGraph, card: &ShardCard) -> Result<(), String> {
    let inputs: Vec<TensorId> = (0..graph.graph().inputs.len() as u32).map(TensorId).collect();
    let names = graph.graph().inputs.iter().zip(&card.input);
    if let Some((input, spec)) = names.into_iter().find(|(input, spec)| input.name != spec.name) {
        return Err(format!("the shard's graph takes `{}`, the card registers `{}`", input.name, spec.name));
    }
    for (side, tensors, specs) in
        [("input", inputs.as_slice(), &card.input), ("output", graph.graph().outputs.as_slice(), &card.output)]
    {
        if tensors.len() != specs.len() {
            let (found, expected) = (tensors.len(), specs.len());
            return Err(format!("the shard's graph has {found} {side} tensors, the card registers {expected}"));
        }
        for (&tensor, spec) in tensors.iter().zip(specs) {
            let found = (extents(graph.shape(tensor)), graph.graph().scale(tensor));
            if found != (spec.shape.clone(), spec.scale) {
                let (TensorSpec { name, shape, scale }, (found_shape, found_scale)) = (spec, found);
                return Err(format!(
                    "{side} `{name}`: the shard's graph has shape {found_shape:?} and scale {found_scale}, the card registers \
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
