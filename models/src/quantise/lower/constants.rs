//! Constants as numbers.

use crate::constant::Constant;
use crate::proto::DataType;

fn numbers<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.chunks_exact(N).map(|chunk| read(chunk.try_into().expect("chunks of this length"))).collect()
}

/// The values of a constant of numbers.
pub(super) fn reals(constant: &Constant) -> Option<Vec<f64>> {
    Some(match constant.data_type {
        DataType::Int32 | DataType::Int64 => integers(constant)?.into_iter().map(|value| value as f64).collect(),
        DataType::Float => numbers(&constant.raw, |bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Double => numbers(&constant.raw, f64::from_le_bytes),
        DataType::Bool => constant.raw.iter().map(|&byte| f64::from(u8::from(byte != 0))).collect(),
        _ => return None,
    })
}

/// The values of an integer constant.
pub(super) fn integers(constant: &Constant) -> Option<Vec<i64>> {
    Some(match constant.data_type {
        DataType::Int64 => numbers(&constant.raw, i64::from_le_bytes),
        DataType::Int32 => numbers(&constant.raw, |bytes| i64::from(i32::from_le_bytes(bytes))),
        _ => return None,
    })
}
