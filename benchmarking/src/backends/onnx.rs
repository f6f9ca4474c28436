//! Small ONNX models, written node by node.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An integer.
    Int(i64),
    /// A real.
    Float(f32),
    /// Integers.
    Ints(&'a [i64]),
    /// Text.
    Text(&'a str),
}

/// A model that is being written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    graph: GraphProto,
}

impl Writer {
    /// A model of nothing.
    pub fn new() -> Self {
        Self { graph: GraphProto { name: "probe".to_owned(), ..GraphProto::default() } }
    }

    /// With another input.
    pub fn input(mut self, name: &str, shape: &[i64]) -> Self {
        self.graph.input.push(value_info(name, shape));
        self
    }

    /// With another output.
    pub fn output(mut self, name: &str, shape: &[i64]) -> Self {
        self.graph.output.push(value_info(name, shape));
        self
    }

    /// With weights: reals in -0.5 to 0.5 that follow no simple pattern, and are the same every time.
    pub fn weights(self, name: &str, shape: &[i64]) -> Self {
        let count = shape.iter().product::<i64>();
        let values = (0..count).map(|index| ((index * 37 + 11) % 101) as f32 / 100.0 - 0.5);
        self.initializer(name, DataType::Float, shape, values.flat_map(f32::to_le_bytes).collect())
    }

    /// With weights that are all alike.
    pub fn filled(self, name: &str, shape: &[i64], value: f32) -> Self {
        let count = shape.iter().product::<i64>();
        let bytes = (0..count).flat_map(|_| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Float, shape, bytes)
    }

    /// With a list of integers that steers an operator.
    pub fn integers(self, name: &str, values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Int64, &[values.len() as i64], bytes)
    }

    /// With a list of reals that steers an operator.
    pub fn reals(self, name: &str, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Float, &[values.len() as i64], bytes)
    }

    fn initializer(mut self, name: &str, data_type: DataType, shape: &[i64], raw_data: Vec<u8>) -> Self {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            data_type: data_type as i32,
            dims: shape.to_vec(),
            raw_data,
            ..TensorProto::default()
        });
        self
    }

    /// With another node.
    pub fn node(mut self, operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Value<'_>)]) -> Self {
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.graph.node.push(NodeProto {
            name: format!("{}{}", operator.to_lowercase(), self.graph.node.len()),
            op_type: operator.to_owned(),
            input: texts(inputs),
            output: texts(outputs),
            attribute: attributes.iter().map(|&(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        self
    }

    /// The bytes of the ONNX file.
    pub fn bytes(self) -> Vec<u8> {
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(self.graph),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }
}

fn attribute(name: &str, value: Value<'_>) -> AttributeProto {
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
        Value::Ints(ints) => {
            written.set_type(AttributeType::Ints);
            written.ints = ints.to_vec();
        }
        Value::Text(text) => {
            written.set_type(AttributeType::String);
            written.s = text.as_bytes().to_vec();
        }
    }
    written
}

fn value_info(name: &str, shape: &[i64]) -> ValueInfoProto {
    let fixed = |&extent: &i64| Dimension { value: Some(dimension::Value::DimValue(extent)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: shape.iter().map(fixed).collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
