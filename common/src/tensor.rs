//! Tensors as they cross boundaries, and their one canonical encoding.
//!
//! What is proven is integers: a value `q` at scale `s` means the real number `q / 2^s`. Floats cross a boundary in `float`
//! mode only, which proves nothing. The encoding is used on the wire, in the spool, in bundles and under digests, so
//! decoding accepts exactly what encoding makes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::Digest;

/// Most tensors that one boundary may have.
pub const MAX_TENSORS: usize = 64;
/// Most dimensions that one tensor may have.
pub const MAX_RANK: usize = 8;
/// Most elements that one tensor may have.
pub const MAX_ELEMENTS: u64 = 1 << 28;

const MAGIC: &[u8; 4] = b"SPB1";
const TAG_INTEGER: u8 = 0;
const TAG_FLOAT: u8 = 1;

/// Name, shape and scale of a tensor at a boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name in the ONNX graph.
    pub name: String,
    /// Extents, row-major, outermost first.
    pub shape: Vec<u64>,
    /// `s` in `real = q / 2^s`.
    pub scale: i32,
}

impl TensorSpec {
    /// Number of elements; `u64::MAX` where it has no 64 bits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &extent| product.saturating_mul(extent))
    }
}

/// Integers with their shape and scale; `values` are row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegerTensor {
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// `s` in `real = q / 2^s`.
    pub scale: i32,
    /// One integer per element.
    pub values: Vec<i64>,
}

/// Floats with their shape; `values` are row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatTensor {
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// One float per element.
    pub values: Vec<f32>,
}

/// A tensor that crosses a boundary.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// What is proven.
    Integer(IntegerTensor),
    /// What `float` mode passes on.
    Float(FloatTensor),
}

impl IntegerTensor {
    /// The reals that the integers stand for.
    pub fn dequantise(&self) -> Vec<f64> {
        let unit = (-f64::from(self.scale)).exp2();
        self.values.iter().map(|&q| q as f64 * unit).collect()
    }
}

impl FloatTensor {
    /// `q = round(x * 2^scale)`, halves away from zero.
    ///
    /// # Errors
    /// When a value is not finite or its integer leaves 62 bits.
    pub fn quantise(&self, scale: i32) -> Result<IntegerTensor, TensorError> {
        let factor = f64::from(scale).exp2();
        let limit = 62f64.exp2();
        let quantise_one = |(index, &x): (usize, &f32)| {
            let scaled = (f64::from(x) * factor).round();
            if scaled.is_finite() && scaled.abs() < limit {
                Ok(scaled as i64)
            } else {
                Err(TensorError::NotQuantisable { index, value: x, scale })
            }
        };
        let values = self.values.iter().enumerate().map(quantise_one).collect::<Result<_, _>>()?;
        Ok(IntegerTensor { shape: self.shape.clone(), scale, values })
    }
}

impl Tensor {
    /// Extents, outermost first.
    pub fn shape(&self) -> &[u64] {
        match self {
            Self::Integer(tensor) => &tensor.shape,
            Self::Float(tensor) => &tensor.shape,
        }
    }

    /// Scale of integers; floats have none, which counts as 0.
    pub fn scale(&self) -> i32 {
        match self {
            Self::Integer(tensor) => tensor.scale,
            Self::Float(_) => 0,
        }
    }

    /// The reals that the tensor stands for.
    pub fn to_reals(&self) -> Vec<f64> {
        match self {
            Self::Integer(tensor) => tensor.dequantise(),
            Self::Float(tensor) => tensor.values.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Integer(tensor) => tensor.values.len() * 8,
            Self::Float(tensor) => tensor.values.len() * 4,
        }
    }

    /// The integers, or nothing when the tensor is of floats.
    pub fn as_integer(&self) -> Option<&IntegerTensor> {
        match self {
            Self::Integer(tensor) => Some(tensor),
            Self::Float(_) => None,
        }
    }
}

/// The canonical encoding of a boundary.
///
/// Little-endian throughout: magic, tensor count (u32), then per tensor a tag, the rank (u32), the extents (u64 each), the
/// scale (i32), the values (i64 or the bits of an f32).
pub fn encode_boundary(tensors: &[Tensor]) -> Vec<u8> {
    let payload: usize = tensors.iter().map(|t| 9 + t.shape().len() * 8 + t.value_bytes()).sum();
    let mut out = Vec::with_capacity(8 + payload);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(tensors.len() as u32).to_le_bytes());
    for tensor in tensors {
        out.push(match tensor {
            Tensor::Integer(_) => TAG_INTEGER,
            Tensor::Float(_) => TAG_FLOAT,
        });
        out.extend_from_slice(&(tensor.shape().len() as u32).to_le_bytes());
        tensor.shape().iter().for_each(|extent| out.extend_from_slice(&extent.to_le_bytes()));
        out.extend_from_slice(&tensor.scale().to_le_bytes());
        match tensor {
            Tensor::Integer(tensor) => tensor.values.iter().for_each(|q| out.extend_from_slice(&q.to_le_bytes())),
            Tensor::Float(tensor) => tensor.values.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        }
    }
    out
}

/// Bytes of the canonical encoding of tensors of these shapes: of integers, or of floats.
pub fn encoded_bytes<'a>(shapes: impl IntoIterator<Item = &'a [u64]>, integers: bool) -> u64 {
    let width = if integers { 8 } else { 4 };
    let tensor = |shape: &[u64]| 9 + shape.len() as u64 * 8 + shape.iter().product::<u64>().saturating_mul(width);
    shapes.into_iter().fold(8, |sum, shape| sum.saturating_add(tensor(shape)))
}

/// Digest of the canonical encoding of a boundary.
pub fn boundary_digest(tensors: &[Tensor]) -> Digest {
    Digest::of(&encode_boundary(tensors))
}

/// Reads what [`encode_boundary`] wrote.
///
/// # Errors
/// When the bytes are anything else; nothing is allocated beyond the size of `bytes`.
pub fn decode_boundary(bytes: &[u8]) -> Result<Vec<Tensor>, TensorError> {
    let mut reader = Reader { bytes, offset: 0 };
    if reader.take(4)? != MAGIC {
        return Err(TensorError::Malformed { offset: 0, expected: "a boundary of this version" });
    }
    let count = reader.u32()? as usize;
    if count > MAX_TENSORS {
        return Err(TensorError::Malformed { offset: 4, expected: "at most 64 tensors" });
    }
    let tensors = (0..count).map(|_| reader.tensor()).collect::<Result<_, _>>()?;
    if reader.offset != bytes.len() {
        return Err(TensorError::Malformed { offset: reader.offset, expected: "the end" });
    }
    Ok(tensors)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TensorError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..length).ok_or(TensorError::Truncated {
            offset: self.offset,
            needed: length,
            found: rest.len(),
        })?;
        self.offset += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TensorError> {
        Ok(self.take(N)?.try_into().expect("take returns exactly the length asked for"))
    }

    fn u32(&mut self) -> Result<u32, TensorError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn tensor(&mut self) -> Result<Tensor, TensorError> {
        let start = self.offset;
        let [tag] = self.array()?;
        let rank = self.u32()? as usize;
        if rank > MAX_RANK {
            return Err(TensorError::Malformed { offset: start, expected: "at most 8 dimensions" });
        }
        let shape =
            (0..rank).map(|_| Ok(u64::from_le_bytes(self.array()?))).collect::<Result<Vec<_>, TensorError>>()?;
        let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
        let elements = elements
            .filter(|&n| n <= MAX_ELEMENTS)
            .ok_or(TensorError::Malformed { offset: start, expected: "at most 2^28 elements" })?;
        let scale = i32::from_le_bytes(self.array()?);
        match tag {
            TAG_INTEGER => {
                let words = self.take(elements as usize * 8)?.chunks_exact(8);
                let values = words.map(|w| i64::from_le_bytes(w.try_into().expect("chunks of eight"))).collect();
                Ok(Tensor::Integer(IntegerTensor { shape, scale, values }))
            }
            TAG_FLOAT if scale == 0 => {
                let words = self.take(elements as usize * 4)?.chunks_exact(4);
                let values = words.map(|w| f32::from_le_bytes(w.try_into().expect("chunks of four"))).collect();
                Ok(Tensor::Float(FloatTensor { shape, values }))
            }
            _ => Err(TensorError::Malformed { offset: start, expected: "an integer or float tensor" }),
        }
    }
}

/// What can be wrong with a tensor or its encoding.
#[derive(Debug, Error, PartialEq)]
pub enum TensorError {
    /// The value has no integer at this scale.
    #[error("element {index} is {value}, which has no integer of 62 bits at scale {scale}")]
    NotQuantisable {
        /// Flat index of the element.
        index: usize,
        /// The value found.
        value: f32,
        /// The scale asked for.
        scale: i32,
    },
    /// The encoding ends early.
    #[error("boundary truncated at byte {offset}: needed {needed} bytes, found {found}")]
    Truncated {
        /// Where in the encoding.
        offset: usize,
        /// Bytes needed from there.
        needed: usize,
        /// Bytes that are left.
        found: usize,
    },
    /// The encoding is not canonical.
    #[error("boundary malformed at byte {offset}: expected {expected}")]
    Malformed {
        /// Where in the encoding.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<Tensor> {
        vec![
            Tensor::Integer(IntegerTensor { shape: vec![1, 3], scale: 7, values: vec![-1, 0, i64::MAX] }),
            Tensor::Float(FloatTensor { shape: vec![2], values: vec![0.5, -2.0] }),
        ]
    }

    #[test]
    fn encoding_round_trips_and_is_pinned() {
        let bytes = encode_boundary(&sample());
        assert_eq!(decode_boundary(&bytes).unwrap(), sample());
        assert_eq!(Digest::of(&bytes), boundary_digest(&sample()));
        let both = sample();
        let size = |index: usize, integers| encoded_bytes([both[index].shape()], integers);
        assert_eq!(bytes.len() as u64 + 8, size(0, true) + size(1, false));
        assert_eq!(hex::encode(&bytes[..17]), "5350423102000000000200000001000000");
    }

    #[test]
    fn truncated_extended_and_oversized_are_refused() {
        let bytes = encode_boundary(&sample());
        for length in 0..bytes.len() {
            assert!(decode_boundary(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut extended = bytes.clone();
        extended.push(0);
        assert!(matches!(decode_boundary(&extended), Err(TensorError::Malformed { expected: "the end", .. })));
        let mut huge = bytes;
        huge[13..21].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(decode_boundary(&huge), Err(TensorError::Malformed { .. })));
    }

    #[test]
    fn quantising_rounds_halves_away_from_zero_and_refuses_nan() {
        let tensor = FloatTensor { shape: vec![4], values: vec![0.25, -0.25, 1.0, 0.2] };
        assert_eq!(tensor.quantise(1).unwrap().values, [1, -1, 2, 0]);
        let bad = FloatTensor { shape: vec![2], values: vec![0.0, f32::NAN] };
        assert!(matches!(bad.quantise(1), Err(TensorError::NotQuantisable { index: 1, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let framed = [MAGIC.as_slice(), &bytes].concat();
            if let Ok(tensors) = decode_boundary(&framed) {
                prop_assert_eq!(encode_boundary(&tensors), framed);
            }
        }

        #[test]
        fn dequantised_is_within_half_a_unit(x in -1000f32..1000.0, scale in 0i32..20) {
            let tensor = FloatTensor { shape: vec![1], values: vec![x] };
            let back = tensor.quantise(scale).unwrap().dequantise()[0];
            prop_assert!((back - f64::from(x)).abs() <= 0.5 / f64::from(scale).exp2());
        }
    }
}
