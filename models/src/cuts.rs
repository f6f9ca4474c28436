//! Where a graph can be cut, and what crosses there.
//!
//! A cut at position `p` parts the nodes before `p` from the rest, in the graph's order. Every tensor that is available
//! before and needed after crosses. A tensor that crosses several cuts passes through the shards between; so any set of
//! legal cuts can be combined.

use std::collections::HashMap;

use shardproof_common::tensor::{MAX_ELEMENTS, MAX_TENSORS};

use crate::graph::Graph;
use crate::import::crossing_allowed;
use crate::masks;
use crate::proto::DataType;

/// Index of a tensor in [`Cuts::tensors`].
pub(crate) type TensorId = usize;

/// The life of a tensor that is not a constant.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// Number of nodes that must have run before it exists: 0 for inputs.
    pub(crate) born: usize,
    /// Last node that reads it; the number of nodes for the model's outputs, 0 for inputs that nothing reads.
    pub(crate) last_use: usize,
    pub(crate) elements: u64,
}

impl Life {
    /// Whether it crosses the cut at `position`.
    pub(crate) fn crosses(&self, position: usize) -> bool {
        self.born <= position && self.last_use >= position
    }
}

/// A legal place to cut.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// Nodes before the cut.
    pub(crate) position: usize,
    /// Sum over the tensors that cross.
    pub(crate) elements: u64,
    /// Whether it lies between two layers.
    pub(crate) between_layers: bool,
}

/// All legal cuts of a graph, by position.
#[derive(Clone, Debug)]
pub(crate) struct Cuts {
    pub(crate) tensors: Vec<Life>,
    pub(crate) legal: Vec<Cut>,
}

/// Finds the legal cuts: those where only f32 tensors cross, not too many and not too large, and none that is masked.
pub(crate) fn find(graph: &Graph, layers: &[usize]) -> Cuts {
    let tensors = lives(graph);
    let mut crossing: Vec<Vec<TensorId>> = vec![Vec::new(); graph.nodes.len() + 1];
    for (id, life) in tensors.iter().enumerate() {
        (life.born..=life.last_use).for_each(|position| crossing[position].push(id));
    }
    let masked = masks::masked(graph);
    let may_cross: Vec<bool> =
        tensors.iter().map(|life| may_cross(graph, &life.name) && !masked.contains(life.name.as_str())).collect();
    let mut legal = Vec::new();
    for position in 1..graph.nodes.len() {
        let ids = std::mem::take(&mut crossing[position]);
        if ids.is_empty() || ids.len() > MAX_TENSORS || !ids.iter().all(|&id| may_cross[id]) {
            continue;
        }
        legal.push(Cut {
            position,
            elements: ids.iter().map(|&id| tensors[id].elements).sum(),
            between_layers: layers[position - 1] != layers[position],
        });
    }
    Cuts { tensors, legal }
}

/// Why there is no legal cut at `position`, for people.
pub(crate) fn objection(graph: &Graph, cuts: &Cuts, position: usize) -> String {
    let crossing: Vec<&Life> = cuts.tensors.iter().filter(|life| life.crosses(position)).collect();
    if let Some(life) = crossing.iter().find(|life| !may_cross(graph, &life.name)) {
        let fact = graph.fact(&life.name);
        return format!(
            "tensor `{}` ({:?}, {:?}) would cross, and only f32 tensors of 1 to {MAX_ELEMENTS} elements may",
            life.name, fact.data_type, fact.shape
        );
    }
    let masked = masks::masked(graph);
    if let Some(life) = crossing.iter().find(|life| masked.contains(life.name.as_str())) {
        return format!(
            "tensor `{}`, which a mask was added to, would cross; its softmax must be in the same shard",
            life.name
        );
    }
    match crossing.len() {
        0 => "no tensor would cross".to_owned(),
        count => format!("{count} tensors would cross, more than {MAX_TENSORS}"),
    }
}

fn may_cross(graph: &Graph, tensor: &str) -> bool {
    let fact = graph.fact(tensor);
    fact.data_type == DataType::Float && crossing_allowed(&fact.shape)
}

/// The inputs, and what nodes compute for others to read, in order of birth.
fn lives(graph: &Graph) -> Vec<Life> {
    let mut last_use: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        last_use.extend(node.input.iter().map(|input| (input.as_str(), index)));
    }
    last_use.extend(graph.outputs.iter().map(|output| (output.as_str(), graph.nodes.len())));
    let inputs = graph.inputs.iter().map(|name| (name, 0));
    let computed =
        graph.nodes.iter().enumerate().flat_map(|(index, node)| node.output.iter().map(move |name| (name, index + 1)));
    let alive = inputs.chain(computed).filter(|(name, _)| !name.is_empty());
    alive
        .filter_map(|(name, born)| {
            let unread = (born == 0).then_some(0);
            let last_use = last_use.get(name.as_str()).copied().or(unread)?;
            Some(Life { name: name.clone(), born, last_use, elements: graph.fact(name).elements() })
        })
        .collect()
}
