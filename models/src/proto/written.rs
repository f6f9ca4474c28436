//! The messages as they are written.
//!
//! ONNX is defined in protobuf's second version, where a field that holds its default differs from one that is left out,
//! and checkers take an attribute whose value is left out for one that is not there: `axis = 0` would turn into the
//! operator's default. The engine's types know no such difference, so what is written has types of its own.

use prost::Message;

use super::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use super::{AttributeType, TypeProto};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    producer_name: Option<String>,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "13")]
    value_info: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    type_protos: Vec<TypeProto>,
    #[prost(int32, optional, tag = "20")]
    r#type: Option<i32>,
}

impl From<&ModelProto> for Model {
    fn from(model: &ModelProto) -> Self {
        Self {
            ir_version: Some(model.ir_version),
            producer_name: Some(model.producer_name.clone()),
            graph: model.graph.as_ref().map(Graph::from),
            opset_import: model.opset_import.clone(),
        }
    }
}

impl From<&GraphProto> for Graph {
    fn from(graph: &GraphProto) -> Self {
        Self {
            node: graph.node.iter().map(Node::from).collect(),
            name: Some(graph.name.clone()),
            initializer: graph.initializer.clone(),
            input: graph.input.clone(),
            output: graph.output.clone(),
            value_info: graph.value_info.clone(),
        }
    }
}

impl From<&NodeProto> for Node {
    fn from(node: &NodeProto) -> Self {
        Self {
            input: node.input.clone(),
            output: node.output.clone(),
            name: Some(node.name.clone()),
            op_type: Some(node.op_type.clone()),
            attribute: node.attribute.iter().map(Attribute::from).collect(),
        }
    }
}

impl From<&AttributeProto> for Attribute {
    fn from(attribute: &AttributeProto) -> Self {
        let of = |wanted: AttributeType| attribute.r#type() == wanted;
        Self {
            name: Some(attribute.name.clone()),
            f: of(AttributeType::Float).then_some(attribute.f),
            i: of(AttributeType::Int).then_some(attribute.i),
            s: of(AttributeType::String).then(|| attribute.s.clone()),
            t: attribute.t.clone(),
            floats: attribute.floats.clone(),
            ints: attribute.ints.clone(),
            strings: attribute.strings.clone(),
            tensors: attribute.tensors.clone(),
            type_protos: attribute.type_protos.clone(),
            r#type: Some(attribute.r#type),
        }
    }
}
