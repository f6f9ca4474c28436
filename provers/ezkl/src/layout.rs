//! What a proof says in public, in the one order that ezkl gives it.
//!
//! Instances are one list of field elements: hashes of the inputs, hashes of the weights, integers of the inputs, then
//! hashes or integers of the outputs. Commitments are no instances but the first points of the proof: those of the inputs,
//! then those of the outputs, one per tensor. The verifier makes all of them from the statement and the card.

use shardproof_common::backend::Registered;
use shardproof_common::card::EzklKeys;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::statement::{Binding, Boundary, Statement};
use shardproof_common::tensor::Tensor;
use thiserror::Error;

use crate::field::{Felt, FeltError};

/// Bytes of a commitment: the x coordinate, little-endian, with the parity of y in the top bit.
pub(crate) const POINT_BYTES: usize = 32;
/// Bytes of a point in a proof: both coordinates, big-endian.
const PROOF_POINT_BYTES: usize = 64;
const Y_IS_ODD: u8 = 0x80;
const FLAGS: u8 = 0xc0;

/// Public tensors of the two boundaries, where they are public.
#[derive(Clone, Copy)]
pub(crate) struct PublicTensors<'a> {
    pub(crate) input: Option<&'a [Tensor]>,
    pub(crate) output: Option<&'a [Tensor]>,
}

/// Why a statement has no instances.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum LayoutError {
    #[error("the {side} boundary is {mode}, but the statement does not bind it so")]
    Binding { side: &'static str, mode: BoundaryMode },
    #[error("the {side} boundary is public, but its tensors were not supplied")]
    NotSupplied { side: &'static str },
    #[error("{side} tensor {index}: expected integers of shape {shape:?} at scale {scale}")]
    Tensor { side: &'static str, index: usize, shape: Vec<u64>, scale: i32 },
    #[error("the {side} boundary has {expected} tensors, but {found} were supplied")]
    Count { side: &'static str, expected: usize, found: usize },
    #[error("{side} commitment {index}: {reason}")]
    Hash { side: &'static str, index: usize, reason: FeltError },
    #[error("{side} commitment {index}: a KZG commitment has {POINT_BYTES} bytes, found {found}")]
    Point { side: &'static str, index: usize, found: usize },
    #[error("registered weights' hash {index}: {reason}")]
    ParameterHash { index: usize, reason: FeltError },
}

/// The instances of a proof of `statement` under `keys`.
pub(crate) fn instances(
    statement: &Statement,
    keys: &EzklKeys,
    registered: &Registered<'_>,
    tensors: PublicTensors<'_>,
) -> Result<Vec<Felt>, LayoutError> {
    let input = boundary_instances("input", &statement.input, registered.input_mode, tensors.input)?;
    let output = boundary_instances("output", &statement.output, registered.output_mode, tensors.output)?;
    let parameters = parameter_hashes(keys)?;
    let ordered = match registered.input_mode {
        BoundaryMode::Public => [parameters, input, output],
        BoundaryMode::Hashed | BoundaryMode::Committed | BoundaryMode::Polycommit => [input, parameters, output],
    };
    Ok(ordered.concat())
}

/// The registered hashes of the weights.
pub(crate) fn parameter_hashes(keys: &EzklKeys) -> Result<Vec<Felt>, LayoutError> {
    let hashes = keys.parameter_hashes.iter().enumerate();
    hashes
        .map(|(index, text)| Felt::from_hex(text).map_err(|reason| LayoutError::ParameterHash { index, reason }))
        .collect()
}

fn boundary_instances(
    side: &'static str,
    boundary: &Boundary,
    mode: BoundaryMode,
    tensors: Option<&[Tensor]>,
) -> Result<Vec<Felt>, LayoutError> {
    match (mode, &boundary.binding) {
        (BoundaryMode::Public, Binding::Public(_)) => {
            integers(side, boundary, tensors.ok_or(LayoutError::NotSupplied { side })?)
        }
        (BoundaryMode::Hashed | BoundaryMode::Committed, Binding::Committed(hashes)) => {
            let read = |(index, bytes): (usize, &Vec<u8>)| {
                Felt::from_bytes(bytes).map_err(|reason| LayoutError::Hash { side, index, reason })
            };
            hashes.iter().enumerate().map(read).collect()
        }
        (BoundaryMode::Polycommit, Binding::Committed(_)) => Ok(Vec::new()),
        _ => Err(LayoutError::Binding { side, mode }),
    }
}

fn integers(side: &'static str, boundary: &Boundary, tensors: &[Tensor]) -> Result<Vec<Felt>, LayoutError> {
    if tensors.len() != boundary.tensors.len() {
        return Err(LayoutError::Count { side, expected: boundary.tensors.len(), found: tensors.len() });
    }
    let mut felts = Vec::new();
    for (index, (tensor, spec)) in tensors.iter().zip(&boundary.tensors).enumerate() {
        let fitting = tensor.as_integer().filter(|t| {
            let elements = spec.shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
            t.shape == spec.shape && t.scale == spec.scale && elements == Some(t.values.len() as u64)
        });
        let Some(tensor) = fitting else {
            return Err(LayoutError::Tensor { side, index, shape: spec.shape.clone(), scale: spec.scale });
        };
        felts.extend(tensor.values.iter().map(|&value| Felt::from(value)));
    }
    Ok(felts)
}

/// The commitments that must lead a proof of `statement`.
pub(crate) fn leading_points(
    statement: &Statement,
    registered: &Registered<'_>,
) -> Result<Vec<[u8; POINT_BYTES]>, LayoutError> {
    let mut points = Vec::new();
    let sides =
        [("input", &statement.input, registered.input_mode), ("output", &statement.output, registered.output_mode)];
    for (side, boundary, mode) in sides {
        match (mode, &boundary.binding) {
            (BoundaryMode::Polycommit, Binding::Committed(commitments)) => {
                for (index, bytes) in commitments.iter().enumerate() {
                    let found = bytes.len();
                    points.push(bytes.as_slice().try_into().map_err(|_| LayoutError::Point { side, index, found })?);
                }
            }
            (BoundaryMode::Polycommit, Binding::Public(_)) => return Err(LayoutError::Binding { side, mode }),
            (BoundaryMode::Public | BoundaryMode::Hashed | BoundaryMode::Committed, _) => {}
        }
    }
    Ok(points)
}

/// Whether `proof` starts with `points`, compared by x and the parity of y, which determine a point of the curve; ezkl
/// refuses points that are not on it.
pub(crate) fn starts_with(proof: &[u8], points: &[[u8; POINT_BYTES]]) -> bool {
    let found = proof.chunks_exact(PROOF_POINT_BYTES);
    found.len() >= points.len() && found.zip(points).all(|(found, point)| compress(found) == Some(*point))
}

/// The commitment's form of a point of a proof.
fn compress(point: &[u8]) -> Option<[u8; POINT_BYTES]> {
    let (x, y) = point.split_at_checked(POINT_BYTES)?;
    let mut bytes: [u8; POINT_BYTES] = x.try_into().ok()?;
    bytes.reverse();
    if bytes[POINT_BYTES - 1] & FLAGS != 0 {
        return None;
    }
    if y.last()? & 1 == 1 {
        bytes[POINT_BYTES - 1] |= Y_IS_ODD;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commitment of a witness and the same point at the start of the proof of it.
    const COMMITMENT: &str = "9a88d82cdcceb8cabc5d607dbc22b4bdfa3d740a5e5c27731fb44494df780ba6";
    const IN_PROOF: &str = "260b78df9444b41f73275c5e0a743dfabdb422bc7d605dbccab8cedc2cd8889a\
                            0881cad406fb875d68d07f6c7dc27412f6ba6f4871091188c3b3840b7d572f47";

    #[test]
    fn a_commitment_is_found_at_the_start_of_its_proof() {
        let point: [u8; 32] = hex::decode(COMMITMENT).unwrap().try_into().unwrap();
        let proof = hex::decode(IN_PROOF).unwrap();
        assert!(starts_with(&proof, &[point]));
        assert!(starts_with(&proof, &[]));
        assert!(!starts_with(&proof, &[point, point]), "more points than the proof has");
        assert!(!starts_with(&proof[..63], &[point]), "truncated");
        for bit in 0..256 {
            let mut other = point;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!starts_with(&proof, &[other]), "bit {bit}");
        }
        let mut negated = proof;
        negated[63] ^= 1;
        assert!(!starts_with(&negated, &[point]), "the other y");
    }
}
