//! Small ONNX models for tests, written by hand.

#![allow(dead_code, reason = "each test uses its part of the builder")]
#![allow(clippy::unwrap_used, reason = "for tests only")]

pub(crate) mod python;

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// ONNX type numbers.
pub(crate) const FLOAT: i32 = 1;
pub(crate) const INT64: i32 = 7;
pub(crate) const BOOL: i32 = 9;

/// A dimension: fixed, named, or unknown.
pub(crate) enum Dim {
    Fixed(i64),
    Named(&'static str),
    Unknown,
}

/// A graph under construction.
pub(crate) struct Builder {
    pub(crate) model: ModelProto,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let graph = GraphProto { name: "test".to_owned(), ..GraphProto::default() };
        let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
        Self {
            model: ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() },
        }
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().unwrap()
    }

    pub(crate) fn opset(mut self, version: i64) -> Self {
        self.model.opset_import[0].version = version;
        self
    }

    pub(crate) fn input(self, name: &str, shape: &[i64]) -> Self {
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
        self.input_dims(name, FLOAT, &dims)
    }

    pub(crate) fn input_dims(mut self, name: &str, data_type: i32, dims: &[Dim]) -> Self {
        self.graph().input.push(info(name, data_type, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str) -> Self {
        self.graph().output.push(ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() });
        self
    }

    pub(crate) fn weights(mut self, name: &str, shape: &[i64], values: &[f32]) -> Self {
        let (dims, float_data) = (shape.to_vec(), values.to_vec());
        let tensor =
            TensorProto { name: name.to_owned(), dims, data_type: FLOAT, float_data, ..TensorProto::default() };
        self.graph().initializer.push(tensor);
        self
    }

    pub(crate) fn indices(mut self, name: &str, values: &[i64]) -> Self {
        let (dims, int64_data) = (vec![values.len() as i64], values.to_vec());
        let tensor =
            TensorProto { name: name.to_owned(), dims, data_type: INT64, int64_data, ..TensorProto::default() };
        self.graph().initializer.push(tensor);
        self
    }

    /// A constant of truth values.
    pub(crate) fn flags(mut self, name: &str, shape: &[i64], values: &[bool]) -> Self {
        let (dims, int32_data) = (shape.to_vec(), values.iter().map(|&value| i32::from(value)).collect());
        let tensor = TensorProto { name: name.to_owned(), dims, data_type: BOOL, int32_data, ..TensorProto::default() };
        self.graph().initializer.push(tensor);
        self
    }

    pub(crate) fn node(self, name: &str, operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.node_with(name, operator, inputs, outputs, vec![])
    }

    pub(crate) fn node_with(
        mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> Self {
        let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        self.graph().node.push(NodeProto {
            name: name.to_owned(),
            op_type: operator.to_owned(),
            input: owned(inputs),
            output: owned(outputs),
            attribute,
            ..NodeProto::default()
        });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }
}

pub(crate) fn info(name: &str, data_type: i32, dims: &[Dim]) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::Fixed(size) => Some(dimension::Value::DimValue(*size)),
            Dim::Named(name) => Some(dimension::Value::DimParam((*name).to_owned())),
            Dim::Unknown => None,
        };
        Dimension { value, ..Dimension::default() }
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: data_type, shape };
    let declared = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(declared), ..ValueInfoProto::default() }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i: value, ..AttributeProto::default() }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::String as i32,
        s: value.as_bytes().to_vec(),
        ..AttributeProto::default()
    }
}

/// The attributes of one node in the bytes of a model, by name.
pub(crate) fn attributes_of(onnx: &[u8], node: &str) -> Vec<AttributeProto> {
    let graph = ModelProto::decode(onnx).unwrap().graph.unwrap();
    let found = graph.node.into_iter().find(|candidate| candidate.name == node);
    found.unwrap_or_else(|| panic!("no node {node}")).attribute
}

/// The nodes in the bytes of a model, as `(name, operator)`.
pub(crate) fn nodes_of(onnx: &[u8]) -> Vec<(String, String)> {
    let graph = ModelProto::decode(onnx).unwrap().graph.unwrap();
    graph.node.into_iter().map(|node| (node.name, node.op_type)).collect()
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Float as i32, f: value, ..AttributeProto::default() }
}
