//! Writing shards: a range of nodes becomes an ONNX model of its own.
//!
//! The outputs of shard `i` and the inputs of shard `i + 1` have the same names in the same order. No two boundaries share
//! a name: a tensor that passes through a shard leaves it, through an `Identity`, under a name of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::cuts::{Cuts, TensorId};
use crate::graph::Graph;
use crate::proto::{self, NodeProto};

/// The tensors at each boundary under the names that they have there.
pub(crate) struct Boundaries {
    /// Per boundary, in order: which tensor and its name there.
    pub(crate) tensors: Vec<Vec<(TensorId, String)>>,
}

impl Boundaries {
    /// Names what crosses at each of `positions`, which include 0 and the number of nodes.
    pub(crate) fn name(graph: &Graph, cuts: &Cuts, positions: &[usize]) -> Self {
        let by_name: HashMap<&str, TensorId> =
            cuts.tensors.iter().enumerate().map(|(id, life)| (life.name.as_str(), id)).collect();
        let mut taken: HashSet<String> = graph.facts.keys().chain(graph.constants.keys()).cloned().collect();
        let last = positions.len() - 1;
        let mut first_boundary: HashMap<TensorId, usize> = HashMap::new();
        let mut tensors = Vec::with_capacity(positions.len());
        for (boundary, &position) in positions.iter().enumerate() {
            let ids: Vec<TensorId> = if boundary == 0 || boundary == last {
                let ends = if boundary == 0 { &graph.inputs } else { &graph.outputs };
                ends.iter().map(|name| by_name[name.as_str()]).collect()
            } else {
                (0..cuts.tensors.len()).filter(|&id| cuts.tensors[id].crosses(position)).collect()
            };
            let mut named = Vec::with_capacity(ids.len());
            for id in ids {
                let life = &cuts.tensors[id];
                let first = *first_boundary.entry(id).or_insert(boundary);
                // An output of the model has its own name at the last boundary, anything else at its first.
                let home = if life.last_use == graph.nodes.len() { last } else { first };
                let name = if boundary == home { life.name.clone() } else { fresh(&mut taken, &life.name, boundary) };
                named.push((id, name));
            }
            tensors.push(named);
        }
        Self { tensors }
    }
}

fn fresh(taken: &mut HashSet<String>, name: &str, boundary: usize) -> String {
    let mut candidate = format!("{name}@{boundary}");
    while !taken.insert(candidate.clone()) {
        candidate.push('_');
    }
    candidate
}

/// The shard of the nodes in `range` between boundaries `index` and `index + 1`, as the bytes of an ONNX file.
pub(crate) fn write(
    graph: &Graph,
    cuts: &Cuts,
    boundaries: &Boundaries,
    index: usize,
    range: std::ops::Range<usize>,
) -> Vec<u8> {
    let (entering, leaving) = (&boundaries.tensors[index], &boundaries.tensors[index + 1]);
    let mut names: HashMap<String, String> = HashMap::new();
    let mut facts = HashMap::new();
    for (id, name) in entering {
        let own = cuts.tensors[*id].name.clone();
        facts.insert(name.clone(), graph.fact(&own).clone());
        names.insert(own, name.clone());
    }
    let mut passing = Vec::new();
    for (id, name) in leaving {
        let own = cuts.tensors[*id].name.clone();
        facts.insert(name.clone(), graph.fact(&own).clone());
        match names.get(&own) {
            Some(entered) => passing.push(pass_on(entered, name)),
            None => drop(names.insert(own, name.clone())),
        }
    }
    let rename = |list: &mut Vec<String>| {
        list.iter_mut().for_each(|name| {
            if let Some(new) = names.get(name) {
                name.clone_from(new)
            }
        })
    };
    let mut nodes: Vec<NodeProto> = graph.nodes[range].to_vec();
    for node in &mut nodes {
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            let named = names.get(output).unwrap_or(output);
            facts.insert(named.clone(), graph.fact(output).clone());
        }
        rename(&mut node.input);
        rename(&mut node.output);
    }
    nodes.extend(passing);
    let used: HashSet<&String> = nodes.iter().flat_map(|node| &node.input).collect();
    let constants = graph.constants.iter().filter(|(name, _)| used.contains(name));
    let shard = Graph {
        name: format!("{}_shard_{index}", graph.name),
        ir_version: graph.ir_version,
        opset: graph.opset,
        inputs: entering.iter().map(|(_, name)| name.clone()).collect(),
        outputs: leaving.iter().map(|(_, name)| name.clone()).collect(),
        facts,
        constants: constants.map(|(name, constant)| (name.clone(), constant.clone())).collect::<BTreeMap<_, _>>(),
        nodes,
    };
    proto::encode_model(&shard.to_model())
}

fn pass_on(from: &str, to: &str) -> NodeProto {
    NodeProto {
        name: format!("{to}/pass"),
        op_type: "Identity".to_owned(),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        ..NodeProto::default()
    }
}
