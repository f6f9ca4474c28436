//! Constants of a graph: weights, and the small tensors that steer operators.

use tract_onnx::prelude::{DatumType, Tensor};

use crate::error::ModelError;
use crate::proto::{DataType, TensorProto};

/// Most elements that a tensor anywhere in a graph may have.
pub(crate) const MAX_GRAPH_ELEMENTS: u64 = 1 << 31;
/// Most dimensions that a tensor anywhere in a graph may have.
pub(crate) const MAX_GRAPH_RANK: usize = 12;

/// A constant with its data as little-endian bytes, row-major, whichever way the file stored them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub(crate) data_type: DataType,
    pub(crate) shape: Vec<u64>,
    pub(crate) raw: Vec<u8>,
    /// Whether it holds trained values, in contrast to a constant that belongs to the architecture.
    pub(crate) trained: bool,
}

impl Constant {
    /// Reads an initializer and checks its type, its length and that its values are numbers.
    pub(crate) fn read(proto: &TensorProto, trained: bool) -> Result<Self, ModelError> {
        let name = || proto.name.clone();
        let bad = |reason: String| ModelError::BadConstant { tensor: name(), reason };
        if proto.data_location == Some(1) || !proto.external_data.is_empty() {
            return Err(ModelError::ExternalData { tensor: name() });
        }
        let data_type =
            DataType::try_from(proto.data_type).map_err(|_| bad(format!("unknown type {}", proto.data_type)))?;
        let width =
            width_of(data_type).ok_or_else(|| bad(format!("type {} is not supported", data_type.as_str_name())))?;
        let shape = proto.dims.iter().map(|&d| u64::try_from(d).map_err(|_| bad(format!("negative extent {d}"))));
        let shape = shape.collect::<Result<Vec<_>, _>>()?;
        let elements = elements_of(&proto.name, &shape)?;
        let raw = raw_bytes(proto, data_type);
        if raw.len() as u64 != elements * width {
            let (expected, found) = (elements * width, raw.len());
            return Err(bad(format!(
                "shape {shape:?} of type {} needs {expected} bytes, found {found}",
                data_type.as_str_name()
            )));
        }
        let constant = Self { data_type, shape, raw, trained: trained && is_float(data_type) };
        // Whether `-inf` is a mask shows only where it is used.
        match constant.first_non_finite(true) {
            Some((index, value)) => Err(ModelError::NonFinite { tensor: name(), index, value }),
            None => Ok(constant),
        }
    }

    /// Takes over a tensor that the inference engine computed; nothing where its type has no ONNX counterpart.
    pub(crate) fn from_tensor(tensor: &Tensor, trained: bool) -> Option<Self> {
        let shape = tensor.shape().iter().map(|&d| d as u64).collect();
        let converted;
        let (data_type, tensor) = match data_type_of(tensor.datum_type())? {
            // Sizes are symbolic integers inside the engine, whatever their ONNX type was.
            DataType::Int64 if tensor.datum_type() != DatumType::I64 => {
                converted = tensor.cast_to_dt(DatumType::I64).ok()?;
                (DataType::Int64, converted.as_ref())
            }
            data_type => (data_type, tensor),
        };
        let raw = tensor.as_plain_ram()?.as_bytes().to_vec();
        Some(Self { data_type, shape, raw, trained: trained && is_float(data_type) })
    }

    /// Number of elements.
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The constant as an initializer.
    pub(crate) fn to_proto(&self, name: &str) -> TensorProto {
        TensorProto { raw_data: self.raw.clone(), ..self.outline(name) }
    }

    /// Name, type and shape without the data.
    pub(crate) fn outline(&self, name: &str) -> TensorProto {
        TensorProto {
            name: name.to_owned(),
            dims: self.shape.iter().map(|&d| d as i64).collect(),
            data_type: self.data_type as i32,
            ..TensorProto::default()
        }
    }

    /// Place and value of the first element that is no finite number, nor `-inf` if it `may_mask`.
    pub(crate) fn first_non_finite(&self, may_mask: bool) -> Option<(usize, f64)> {
        fn find<const N: usize>(raw: &[u8], mask: f64, read: impl Fn([u8; N]) -> f64) -> Option<(usize, f64)> {
            let values = raw.chunks_exact(N).map(|chunk| read(chunk.try_into().expect("chunks of this length")));
            values.enumerate().find(|&(_, value)| !value.is_finite() && value != mask)
        }
        let mask = if may_mask { f64::NEG_INFINITY } else { f64::NAN };
        match self.data_type {
            DataType::Float => find(&self.raw, mask, |b| f64::from(f32::from_le_bytes(b))),
            DataType::Double => find(&self.raw, mask, f64::from_le_bytes),
            DataType::Float16 => find(&self.raw, mask, |b| half(u16::from_le_bytes(b))),
            _ => None,
        }
    }
}

/// Whether a half float is finite, as a float that is finite exactly then.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    match (bits >> 10 & 0x1f, bits & 0x3ff) {
        (0x1f, 0) => sign * f64::INFINITY,
        (0x1f, _) => f64::NAN,
        _ => 0.0,
    }
}

/// Number of elements of a tensor, or an error where it exceeds what is handled.
pub(crate) fn elements_of(tensor: &str, shape: &[u64]) -> Result<u64, ModelError> {
    let product = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    match product {
        // Extents of an empty tensor can still be absurd, so each is checked as well.
        Some(n)
            if n <= MAX_GRAPH_ELEMENTS
                && shape.len() <= MAX_GRAPH_RANK
                && shape.iter().all(|&d| d <= MAX_GRAPH_ELEMENTS) =>
        {
            Ok(n)
        }
        _ => Err(ModelError::TensorTooLarge {
            tensor: tensor.to_owned(),
            shape: shape.to_vec(),
            limit: MAX_GRAPH_ELEMENTS,
            rank: MAX_GRAPH_RANK,
        }),
    }
}

pub(crate) fn is_float(data_type: DataType) -> bool {
    matches!(data_type, DataType::Float | DataType::Double | DataType::Float16)
}

/// Bytes per element of the types that constants may have.
fn width_of(data_type: DataType) -> Option<u64> {
    Some(match data_type {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        _ => return None,
    })
}

/// The ONNX type of an engine's type.
pub(crate) fn data_type_of(datum_type: DatumType) -> Option<DataType> {
    Some(match datum_type {
        DatumType::Bool => DataType::Bool,
        DatumType::U8 => DataType::Uint8,
        DatumType::U16 => DataType::Uint16,
        DatumType::U32 => DataType::Uint32,
        DatumType::U64 => DataType::Uint64,
        DatumType::I8 => DataType::Int8,
        DatumType::I16 => DataType::Int16,
        DatumType::I32 => DataType::Int32,
        DatumType::I64 | DatumType::TDim => DataType::Int64,
        DatumType::F16 => DataType::Float16,
        DatumType::F32 => DataType::Float,
        DatumType::F64 => DataType::Double,
        _ => return None,
    })
}

fn raw_bytes(proto: &TensorProto, data_type: DataType) -> Vec<u8> {
    if !proto.raw_data.is_empty() {
        return proto.raw_data.clone();
    }
    let ints = &proto.int32_data;
    match data_type {
        DataType::Float => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Double => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Int64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Uint64 => proto.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Uint32 => proto.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        DataType::Int32 => ints.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Int16 | DataType::Uint16 | DataType::Float16 => {
            ints.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect()
        }
        _ => ints.iter().map(|&x| x as u8).collect(),
    }
}
