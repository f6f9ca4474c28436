//! Normalisation: shapes and types for every tensor, constants folded, dropout removed, defaults made explicit.

use std::collections::HashSet;

use crate::constant::{Constant, elements_of};
use crate::defaults;
use crate::engine::{Engine, Input, Output};
use crate::error::ModelError;
use crate::graph::Graph;
use crate::proto::{AttributeType, DataType, NodeProto, attribute};

/// Largest constant that folding may make: larger ones stay the nodes that compute them.
const FOLD_ELEMENTS: u64 = 1 << 24;
/// Operators with outputs besides the first that may be left out.
const OPTIONAL_OUTPUTS: [&str; 4] = ["Dropout", "MaxPool", "LayerNormalization", "BatchNormalization"];

/// Normalises a graph whose nodes are sorted and whose inputs are fixed.
pub(crate) fn normalise(graph: &mut Graph) -> Result<(), ModelError> {
    let engine = Engine::new(graph.opset);
    let mut used: HashSet<String> = graph.nodes.iter().flat_map(|node| node.input.iter().cloned()).collect();
    used.extend(graph.outputs.iter().cloned());
    for mut node in std::mem::take(&mut graph.nodes) {
        drop_unused_outputs(&mut node, &used);
        if node.op_type == "Constant" {
            let value = constant_value(&node)?;
            graph.constants.insert(node.output[0].clone(), value);
            continue;
        }
        if !engine.knows(&node.op_type) {
            return Err(ModelError::UnsupportedOperator { node: node.name, operator: node.op_type });
        }
        if node.op_type == "Dropout" {
            make_identity(&mut node, graph)?;
        }
        let shape_of = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).map(<[u64]>::to_vec);
        let mut explicit = node.clone();
        defaults::make_explicit(&mut explicit, graph.opset, &shape_of);
        settle(explicit, graph, &engine)?;
    }
    graph.prune();
    Ok(())
}

/// Checks that the graph can be run as a whole.
pub(crate) fn check_runnable(graph: &Graph) -> Result<(), ModelError> {
    let model = Engine::new(graph.opset).typed(&graph.to_model());
    model.map(drop).map_err(|reason| ModelError::NotRunnable { reason })
}

/// Either folds the node into constants or keeps it with the facts of its outputs.
fn settle(node: NodeProto, graph: &mut Graph, engine: &Engine) -> Result<(), ModelError> {
    let failed =
        |reason: String| ModelError::Operator { node: node.name.clone(), operator: node.op_type.clone(), reason };
    let named = node.input.iter().filter(|name| !name.is_empty());
    let inputs: Vec<(&str, Input<'_>)> = named
        .map(|name| match graph.constants.get(name) {
            Some(constant) => (name.as_str(), Input::Constant(constant)),
            None => (name.as_str(), Input::Computed(graph.fact(name))),
        })
        .collect();
    let outputs = engine.infer(&node, &inputs).map_err(failed)?;
    let names: Vec<&String> = node.output.iter().filter(|name| !name.is_empty()).collect();
    for (name, output) in names.iter().zip(&outputs) {
        match &output.fact {
            Some(fact) => elements_of(name, &fact.shape)?,
            None => {
                let (node, operator) = (node.name.clone(), node.op_type.clone());
                return Err(ModelError::UnknownShape { node, operator, tensor: (*name).clone() });
            }
        };
    }
    let all_constant = inputs.iter().all(|(_, input)| matches!(input, Input::Constant(_)));
    let small = outputs.iter().filter_map(|output| output.fact.as_ref()).all(|fact| fact.elements() <= FOLD_ELEMENTS);
    let folded = if all_constant && small {
        Some(engine.fold(&node, &inputs).map_err(failed)?)
    } else {
        outputs.iter().map(|output: &Output| output.value.clone()).collect()
    };
    match folded {
        Some(values) => graph.constants.extend(names.into_iter().cloned().zip(values)),
        None => {
            let facts = names.into_iter().cloned().zip(outputs.into_iter().filter_map(|output| output.fact));
            graph.facts.extend(facts);
            graph.nodes.push(node);
        }
    }
    Ok(())
}

/// Blanks optional outputs that nothing reads, such as a dropout's mask.
fn drop_unused_outputs(node: &mut NodeProto, used: &HashSet<String>) {
    if !OPTIONAL_OUTPUTS.contains(&node.op_type.as_str()) {
        return;
    }
    for output in node.output.iter_mut().skip(1) {
        if !used.contains(output) {
            output.clear();
        }
    }
    while node.output.len() > 1 && node.output.last().is_some_and(String::is_empty) {
        node.output.pop();
    }
}

/// In inference, dropout passes its input on.
fn make_identity(node: &mut NodeProto, graph: &Graph) -> Result<(), ModelError> {
    let error = |what| ModelError::NotInference { node: node.name.clone(), operator: node.op_type.clone(), what };
    let training = node.input.get(2).filter(|name| !name.is_empty());
    if let Some(training) = training {
        match graph.constants.get(training) {
            Some(constant) if constant.raw.iter().all(|&byte| byte == 0) => {}
            Some(_) => return Err(error("it is in training mode")),
            None => return Err(error("whether it is in training mode depends on data")),
        }
    }
    if node.output.len() > 1 {
        return Err(error("its mask is used"));
    }
    node.op_type = "Identity".to_owned();
    node.input.truncate(1);
    node.attribute.clear();
    Ok(())
}

fn constant_value(node: &NodeProto) -> Result<Constant, ModelError> {
    let failed = |reason: &str| ModelError::Operator {
        node: node.name.clone(),
        operator: node.op_type.clone(),
        reason: reason.to_owned(),
    };
    let name = node.output.first().filter(|name| !name.is_empty()).ok_or_else(|| failed("it has no output"))?;
    if let Some(tensor) = attribute(node, "value").and_then(|attribute| attribute.t.as_ref()) {
        let named = crate::proto::TensorProto { name: name.clone(), ..tensor.clone() };
        return Constant::read(&named, false);
    }
    let floats = |shape: Vec<u64>, values: &[f32]| {
        (DataType::Float, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    };
    let ints = |shape: Vec<u64>, values: &[i64]| {
        (DataType::Int64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    };
    let given = node.attribute.first().ok_or_else(|| failed("it has no value"))?;
    let (data_type, shape, raw) = match (given.name.as_str(), given.r#type()) {
        ("value_float", AttributeType::Float) => floats(vec![], &[given.f]),
        ("value_floats", AttributeType::Floats) => floats(vec![given.floats.len() as u64], &given.floats),
        ("value_int", AttributeType::Int) => ints(vec![], &[given.i]),
        ("value_ints", AttributeType::Ints) => ints(vec![given.ints.len() as u64], &given.ints),
        _ => return Err(failed("its value is neither of numbers nor a dense tensor")),
    };
    let constant = Constant { data_type, shape, raw, trained: false };
    Constant::read(&constant.to_proto(name), false)
}
