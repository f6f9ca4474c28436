//! The ONNX file format: decoding with a diagnosis, deterministic encoding, and attributes.
//!
//! The message types are the inference engine's own, so that what is split is what is run. They leave out metadata,
//! documentation and training parts, none of which changes what a model computes; everything else that they do not know
//! is refused on import rather than dropped.

use prost::Message;
pub(crate) use tract_onnx::pb::attribute_proto::AttributeType;
pub(crate) use tract_onnx::pb::tensor_proto::DataType;
pub(crate) use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
pub(crate) use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

mod written;

use crate::error::ModelError;

const IR_VERSION_FIELD: u64 = 1;
/// Field numbers of `ModelProto` with their wire types.
const MODEL_FIELDS: [(u64, u64); 13] = [
    (IR_VERSION_FIELD, 0),
    (2, 2),
    (3, 2),
    (4, 2),
    (5, 0),
    (6, 2),
    (7, 2),
    (8, 2),
    (14, 2),
    (20, 2),
    (25, 2),
    (26, 2),
    (27, 2),
];

/// Decodes a model, and says whether bytes that are none were cut short, damaged, or never ONNX.
pub(crate) fn decode_model(bytes: &[u8]) -> Result<ModelProto, ModelError> {
    if bytes.is_empty() {
        return Err(ModelError::Empty);
    }
    scan_outline(bytes)?;
    ModelProto::decode(bytes).map_err(|cause| ModelError::Malformed { reason: cause.to_string() })
}

/// Encodes a model; equal models give equal bytes, because no ONNX message has a map.
pub(crate) fn encode_model(model: &ModelProto) -> Vec<u8> {
    written::Model::from(model).encode_to_vec()
}

/// Walks the outermost fields only: cheap, and precise about where a file ends early.
fn scan_outline(bytes: &[u8]) -> Result<(), ModelError> {
    let mut offset = 0;
    let mut seen_version = false;
    while offset < bytes.len() {
        let start = offset;
        let not_onnx = |what: &str| ModelError::NotOnnx { reason: format!("byte {start} begins {what}") };
        let Some(tag) = varint(bytes, &mut offset) else {
            return Err(early_end(seen_version, start, 1, bytes));
        };
        let (field, wire) = (tag >> 3, tag & 7);
        if !MODEL_FIELDS.contains(&(field, wire)) {
            return Err(not_onnx("no part of a model"));
        }
        let Some(value) = varint(bytes, &mut offset) else {
            return Err(early_end(seen_version, start, 1, bytes));
        };
        seen_version |= field == IR_VERSION_FIELD;
        if wire == 2 {
            let left = bytes.len() - offset;
            if value > left as u64 {
                return Err(early_end(seen_version, offset, value, bytes));
            }
            offset += value as usize;
        }
    }
    Ok(())
}

/// Files begin with their format version; bytes that run out before any was seen are more likely no model at all.
fn early_end(seen_version: bool, offset: usize, expected: u64, bytes: &[u8]) -> ModelError {
    if seen_version {
        ModelError::Truncated { offset, expected, found: bytes.len() - offset.min(bytes.len()) }
    } else {
        ModelError::NotOnnx { reason: format!("byte {offset} begins no part of a model") }
    }
}

fn varint(bytes: &[u8], offset: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*offset)?;
        *offset += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The attribute of this name, if the node has it.
pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// An integer attribute.
pub(crate) fn int_of(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).filter(|a| a.r#type() == AttributeType::Int).map(|a| a.i)
}

/// A list of integers.
pub(crate) fn ints_of<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).filter(|a| a.r#type() == AttributeType::Ints).map(|a| a.ints.as_slice())
}

/// A text attribute.
pub(crate) fn text_of<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    let found = attribute(node, name).filter(|a| a.r#type() == AttributeType::String)?;
    std::str::from_utf8(&found.s).ok()
}

/// The value of an attribute that is written.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(Vec<i64>),
    Tensor(Box<TensorProto>),
}

/// Gives the node an attribute, in place of one of the same name.
pub(crate) fn set_attribute(node: &mut NodeProto, name: &str, value: Value) {
    node.attribute.retain(|attribute| attribute.name != name);
    let mut written = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Value::Int(i) => {
            written.set_type(AttributeType::Int);
            written.i = i;
        }
        Value::Float(f) => {
            written.set_type(AttributeType::Float);
            written.f = f;
        }
        Value::Text(s) => {
            written.set_type(AttributeType::String);
            written.s = s.as_bytes().to_vec();
        }
        Value::Ints(ints) => {
            written.set_type(AttributeType::Ints);
            written.ints = ints;
        }
        Value::Tensor(tensor) => {
            written.set_type(AttributeType::Tensor);
            written.t = Some(*tensor);
        }
    }
    node.attribute.push(written);
}

/// Name, element type and fixed shape of a tensor.
pub(crate) fn value_info(name: &str, data_type: DataType, shape: &[u64]) -> ValueInfoProto {
    let fixed =
        |&extent: &u64| Dimension { value: Some(dimension::Value::DimValue(extent as i64)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: data_type as i32,
        shape: Some(TensorShapeProto { dim: shape.iter().map(fixed).collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
