//! Operations that the integer graph does without, although the ONNX graph names them.
//!
//! - Products of two activations are exact for any integers, so what only they read is not brought back to scale.
//! - An activation in several operators, as exporters write GELU and SiLU, is one table.
//!
//! Whether there is room for the exact product, the quantiser sees by ranges that only calibration tells; the estimate
//! takes it that there is. A cut inside an activation has its operators computed one by one, which the estimate does not see.

use std::collections::{HashMap, HashSet};

use super::{Operations, operations};
use crate::graph::Graph;
use crate::proto::NodeProto;

/// Most operators that one table stands for, as in the quantiser.
const MAX_OPERATORS: usize = 16;

/// For each node, what is spared of its [`operations`].
pub(crate) fn spared(graph: &Graph) -> Vec<Operations> {
    let view = View::new(graph);
    let mut spared = vec![Operations::default(); graph.nodes.len()];
    let exact = view.only_multiplied();
    for (index, node) in graph.nodes.iter().enumerate() {
        let linear = matches!(node.op_type.as_str(), "MatMul" | "Gemm") || view.is_scaling(node);
        if linear && node.output.iter().all(|output| exact.contains(output.as_str())) {
            spared[index].rescales = operations(graph, node).rescales;
        }
    }
    for last in (0..graph.nodes.len()).rev() {
        let Some(members) = view.one_table(last) else { continue };
        let mut looked_up = false;
        for member in members {
            let counted = operations(graph, &graph.nodes[member]);
            let table = if looked_up { 0 } else { counted.tables };
            looked_up |= table > 0;
            spared[member] = counted.minus(Operations { tables: table, ..Operations::default() });
        }
    }
    spared
}

/// A graph with its edges.
struct View<'a> {
    graph: &'a Graph,
    /// The node that gives each tensor.
    producers: HashMap<&'a str, usize>,
    /// The nodes that read it.
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
}

impl<'a> View<'a> {
    fn new(graph: &'a Graph) -> Self {
        let (mut producers, mut readers) = (HashMap::new(), HashMap::<&str, Vec<&NodeProto>>::new());
        for (index, node) in graph.nodes.iter().enumerate() {
            producers.extend(node.output.iter().map(|output| (output.as_str(), index)));
            node.input.iter().for_each(|input| readers.entry(input).or_default().push(node));
        }
        Self { graph, producers, readers }
    }

    /// What a node reads that is no constant.
    fn activations(&self, node: &'a NodeProto) -> impl Iterator<Item = &'a str> {
        node.input.iter().map(String::as_str).filter(|input| self.graph.facts.contains_key(*input))
    }

    fn multiplies_activations(&self, node: &'a NodeProto) -> bool {
        node.op_type == "MatMul" && self.activations(node).count() == 2
    }

    /// Whether a node multiplies by a single number.
    fn is_scaling(&self, node: &'a NodeProto) -> bool {
        matches!(node.op_type.as_str(), "Mul" | "Div") && self.activations(node).count() == 1 && self.has_numbers(node)
    }

    /// Whether all constants that a node reads are single numbers.
    fn has_numbers(&self, node: &NodeProto) -> bool {
        let constants = node.input.iter().filter_map(|input| self.graph.constants.get(input));
        constants.into_iter().all(|constant| constant.elements() == 1)
    }

    /// Tensors that only products of two activations read, at once or moved, biased and scaled.
    fn only_multiplied(&self) -> HashSet<&'a str> {
        let mut found: HashSet<&str> = HashSet::new();
        for node in self.graph.nodes.iter().rev() {
            let passes = |reader: &&'a NodeProto| {
                let biased = reader.op_type == "Add" && self.activations(reader).count() == 1;
                let moved = operations(self.graph, reader).moves > 0;
                let onwards = reader.output.iter().all(|output| found.contains(output.as_str()));
                (moved || biased || self.is_scaling(reader)) && onwards
            };
            let only = |output: &&'a String| {
                let readers = self.readers.get(output.as_str()).map_or(&[][..], Vec::as_slice);
                let multiplied = |reader: &&'a NodeProto| self.multiplies_activations(reader) || passes(reader);
                !readers.is_empty() && !self.graph.outputs.contains(output) && readers.iter().all(multiplied)
            };
            let outputs: Vec<&String> = node.output.iter().filter(only).collect();
            found.extend(outputs.into_iter().map(String::as_str));
        }
        found
    }

    /// The nodes that make up a function of one tensor which ends in the product `last` and takes a table.
    fn one_table(&self, last: usize) -> Option<Vec<usize>> {
        let node = &self.graph.nodes[last];
        if node.op_type != "Mul" || self.activations(node).count() != 2 {
            return None;
        }
        let members = self.sources(last).into_iter().find_map(|source| self.between(source, last))?;
        let looks_up = |&member: &usize| operations(self.graph, &self.graph.nodes[member]).tables > 0;
        members.iter().any(looks_up).then_some(members)
    }

    /// Tensors that a node's result is computed from element by element, nearest first.
    fn sources(&self, last: usize) -> Vec<&'a str> {
        let mut found: Vec<&str> = self.activations(&self.graph.nodes[last]).collect();
        let mut next = 0;
        while next < found.len() && found.len() <= MAX_OPERATORS {
            let producer = self.producers.get(found[next]).map(|&index| &self.graph.nodes[index]);
            for input in
                producer.filter(|node| is_elementwise(node)).into_iter().flat_map(|node| self.activations(node))
            {
                if !found.contains(&input) {
                    found.push(input);
                }
            }
            next += 1;
        }
        found
    }

    /// The nodes from `source` to the node `last`, if its result depends on nothing else and each acts on elements.
    fn between(&self, source: &str, last: usize) -> Option<Vec<usize>> {
        let mut members = vec![last];
        let mut next = 0;
        while let Some(&member) = members.get(next) {
            let node = &self.graph.nodes[member];
            if members.len() > MAX_OPERATORS || !is_elementwise(node) || !self.has_numbers(node) {
                return None;
            }
            for input in self.activations(node).filter(|&input| input != source) {
                let producer = *self.producers.get(input)?;
                if !members.contains(&producer) {
                    members.push(producer);
                }
            }
            next += 1;
        }
        Some(members)
    }
}

fn is_elementwise(node: &NodeProto) -> bool {
    matches!(
        node.op_type.as_str(),
        "Add" | "Sub" | "Mul" | "Div" | "Neg" | "Pow" | "Tanh" | "Erf" | "Sigmoid" | "Exp" | "Softplus"
    )
}
