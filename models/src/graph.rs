//! A normalised graph: topologically ordered, shapes known, defaults explicit, constants folded.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use shardproof_common::ids::Digest;

use crate::constant::Constant;
use crate::proto::{self, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

/// Element type and shape of a tensor that nodes compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) data_type: DataType,
    pub(crate) shape: Vec<u64>,
}

impl Fact {
    /// Number of elements.
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A normalised graph. Every node's inputs are graph inputs, constants, or outputs of earlier nodes.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) name: String,
    pub(crate) ir_version: i64,
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    /// Of every tensor that is an input or a node's output.
    pub(crate) facts: HashMap<String, Fact>,
    pub(crate) constants: BTreeMap<String, Constant>,
}

impl Graph {
    /// The fact of a tensor that is not a constant.
    ///
    /// # Panics
    /// When the graph has no such tensor, which import rules out.
    pub(crate) fn fact(&self, tensor: &str) -> &Fact {
        self.facts.get(tensor).expect("import records a fact for every tensor that is not a constant")
    }

    /// Shape of any tensor, constant or not; nothing for an input that is left out.
    pub(crate) fn shape(&self, tensor: &str) -> Option<&[u64]> {
        let computed = self.facts.get(tensor).map(|fact| fact.shape.as_slice());
        computed.or_else(|| self.constants.get(tensor).map(|constant| constant.shape.as_slice()))
    }

    /// Trained values in the constants that `nodes` use, each constant counted once.
    pub(crate) fn parameters_of(&self, nodes: &[NodeProto]) -> u64 {
        self.trained(nodes).map(Constant::elements).sum()
    }

    /// The constants of trained values that `nodes` use, each once.
    pub(crate) fn trained<'a>(&'a self, nodes: &'a [NodeProto]) -> impl Iterator<Item = &'a Constant> {
        let used: HashSet<&str> = nodes.iter().flat_map(|node| &node.input).map(String::as_str).collect();
        used.into_iter().filter_map(|name| self.constants.get(name)).filter(|constant| constant.trained)
    }

    /// Removes nodes that no output depends on, then constants and facts that no node is left to use.
    pub(crate) fn prune(&mut self) {
        let mut needed: HashSet<String> = self.outputs.iter().cloned().collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..).rev() {
            if node.output.iter().any(|output| needed.contains(output)) {
                needed.extend(node.input.iter().filter(|input| !input.is_empty()).cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.constants.retain(|name, _| needed.contains(name));
        let computed: HashSet<&String> = self.nodes.iter().flat_map(|node| &node.output).chain(&self.inputs).collect();
        self.facts.retain(|name, _| computed.contains(name));
    }

    /// The graph as an ONNX model.
    pub(crate) fn to_model(&self) -> ModelProto {
        self.to_model_with(|name, constant| constant.to_proto(name))
    }

    /// Digest of the graph without its weights: the names, shapes and types of float constants enter, their values do not.
    ///
    /// Integer constants (target shapes, indices) are part of what the graph computes with any weights, so they enter whole.
    pub(crate) fn architecture(&self) -> Digest {
        #[derive(Serialize)]
        struct Architecture(Vec<u8>);
        let without_weights = self.to_model_with(|name, constant| {
            if crate::constant::is_float(constant.data_type) { constant.outline(name) } else { constant.to_proto(name) }
        });
        Digest::derive("shardproof 2 architecture", &Architecture(proto::encode_model(&without_weights)))
    }

    fn to_model_with(&self, initializer: impl Fn(&str, &Constant) -> proto::TensorProto) -> ModelProto {
        let info = |name: &String| {
            let fact = self.fact(name);
            proto::value_info(name, fact.data_type, &fact.shape)
        };
        let inner = self.nodes.iter().flat_map(|node| &node.output);
        let inner = inner.filter(|name| !name.is_empty() && !self.outputs.contains(name));
        let graph = GraphProto {
            name: self.name.clone(),
            node: self.nodes.clone(),
            initializer: self.constants.iter().map(|(name, constant)| initializer(name, constant)).collect(),
            input: self.inputs.iter().map(info).collect(),
            output: self.outputs.iter().map(info).collect(),
            value_info: inner.map(info).collect(),
            ..GraphProto::default()
        };
        wrap(graph, self.ir_version, self.opset)
    }
}

/// A model of this one graph in ONNX's own operator set.
pub(crate) fn wrap(graph: GraphProto, ir_version: i64, opset: i64) -> ModelProto {
    ModelProto {
        ir_version,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        producer_name: "shardproof".to_owned(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}
