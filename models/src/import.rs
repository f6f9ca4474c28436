//! From the bytes of an ONNX file to a normalised graph, or to an error that names what is wrong and where.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use shardproof_common::tensor::{MAX_ELEMENTS, MAX_RANK, MAX_TENSORS};

use crate::constant::Constant;
use crate::error::ModelError;
use crate::graph::{Fact, Graph};
use crate::masks;
use crate::normalise;
use crate::proto::{self, AttributeType, DataType, GraphProto, NodeProto, ValueInfoProto, dimension, type_proto};

/// First operator set that is supported.
pub const OPSET_LOWEST: i64 = 9;
/// Last operator set that is supported; the last one of IR version 10.
pub const OPSET_HIGHEST: i64 = 21;
/// IR versions that shards are written in: initializers need not be inputs, and every checker in use knows them.
const IR_VERSIONS: (i64, i64) = (8, 10);

/// Reads, checks and normalises a model; `dims` gives sizes for symbolic dimensions by name.
pub(crate) fn import(bytes: &[u8], dims: &[(String, u64)]) -> Result<Graph, ModelError> {
    let model = proto::decode_model(bytes)?;
    if let Some(function) = model.functions.first() {
        return Err(ModelError::Function { name: function.name.clone().unwrap_or_default() });
    }
    let mut source = model.graph.ok_or(ModelError::Missing { what: "graph" })?;
    let own = model.opset_import.iter().find(|import| is_own_domain(&import.domain));
    let opset = own.ok_or(ModelError::Missing { what: "operator set" })?.version;
    if !(OPSET_LOWEST..=OPSET_HIGHEST).contains(&opset) {
        return Err(ModelError::Opset { found: opset, lowest: OPSET_LOWEST, highest: OPSET_HIGHEST });
    }
    name_nodes(&mut source.node);
    let constants = read_constants(&source)?;
    let inputs = read_inputs(&source, &constants, dims)?;
    let outputs: Vec<String> = source.output.iter().map(|output| output.name.clone()).collect();
    for (what, count) in [("node", source.node.len()), ("input", inputs.len()), ("output", outputs.len())] {
        if count == 0 {
            return Err(ModelError::Missing { what });
        }
    }
    for (what, found) in [("inputs", inputs.len()), ("outputs", outputs.len())] {
        if found > MAX_TENSORS {
            return Err(ModelError::TooManyTensors { what, found, limit: MAX_TENSORS });
        }
    }
    check_sources(&source, &inputs, &constants)?;
    let mut graph = Graph {
        name: if source.name.is_empty() { "main".to_owned() } else { source.name.clone() },
        ir_version: model.ir_version.clamp(IR_VERSIONS.0, IR_VERSIONS.1),
        opset,
        nodes: sorted(std::mem::take(&mut source.node))?,
        inputs: inputs.iter().map(|(name, _)| name.clone()).collect(),
        outputs,
        facts: inputs.into_iter().collect(),
        constants,
    };
    graph.prune();
    graph.nodes.iter().try_for_each(check_node)?;
    normalise::normalise(&mut graph)?;
    masks::check(&graph)?;
    check_outputs(&graph)?;
    normalise::check_runnable(&graph)?;
    Ok(graph)
}

fn is_own_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Gives every node a name of its own: messages, plans and layers refer to nodes by name.
fn name_nodes(nodes: &mut [NodeProto]) {
    let mut taken: HashSet<String> = HashSet::new();
    // The next suffix of each wanted name: a file in which all nodes have one name is not searched through for each.
    let mut suffixes: HashMap<String, usize> = HashMap::new();
    for (index, node) in nodes.iter_mut().enumerate() {
        let wanted = if node.name.is_empty() { format!("{}_{index}", node.op_type) } else { node.name.clone() };
        let mut name = wanted.clone();
        while !taken.insert(name.clone()) {
            let suffix = suffixes.entry(wanted.clone()).or_insert(0);
            *suffix += 1;
            name = format!("{wanted}_{suffix}");
        }
        node.name = name;
        node.doc_string.clear();
        if is_own_domain(&node.domain) {
            node.domain.clear();
        }
    }
}

fn read_constants(graph: &GraphProto) -> Result<BTreeMap<String, Constant>, ModelError> {
    if let Some(sparse) = graph.sparse_initializer.first() {
        let tensor = sparse.values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
        return Err(ModelError::Sparse { tensor });
    }
    let mut constants = BTreeMap::new();
    for initializer in &graph.initializer {
        let constant = Constant::read(initializer, true)?;
        if constants.insert(initializer.name.clone(), constant).is_some() {
            let name = || "an initializer".to_owned();
            return Err(ModelError::DuplicateTensor {
                tensor: initializer.name.clone(),
                first: name(),
                second: name(),
            });
        }
    }
    Ok(constants)
}

/// The inputs with all their dimensions fixed. Old files list their initializers among the inputs.
fn read_inputs(
    graph: &GraphProto,
    constants: &BTreeMap<String, Constant>,
    dims: &[(String, u64)],
) -> Result<Vec<(String, Fact)>, ModelError> {
    let inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|input| !constants.contains_key(&input.name)).collect();
    let shapes = inputs.iter().map(|input| declared_shape(input)).collect::<Result<Vec<_>, _>>()?;
    let sizes = symbol_sizes(&shapes, dims)?;
    let mut facts = Vec::with_capacity(inputs.len());
    for (input, shape) in inputs.iter().zip(&shapes) {
        let fix = |(axis, extent): (usize, &Extent)| match extent {
            Extent::Fixed(size) => Ok(*size),
            Extent::Symbol(name) => sizes.get(name.as_str()).copied().ok_or_else(|| ModelError::SymbolicDim {
                input: input.name.clone(),
                axis,
                dim: name.clone(),
            }),
        };
        let fixed = shape.iter().enumerate().map(fix).collect::<Result<Vec<u64>, _>>()?;
        check_crossing(&input.name, &fixed)?;
        facts.push((input.name.clone(), Fact { data_type: DataType::Float, shape: fixed }));
    }
    Ok(facts)
}

enum Extent {
    Fixed(u64),
    Symbol(String),
}

/// The declared shape; a dimension without size and name is called `INPUT.AXIS`.
fn declared_shape(input: &ValueInfoProto) -> Result<Vec<Extent>, ModelError> {
    let boundary_type = |found: String| ModelError::BoundaryType { what: "input", tensor: input.name.clone(), found };
    let declared = input.r#type.as_ref().and_then(|declared| declared.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = declared else {
        return Err(boundary_type("something else than a tensor".to_owned()));
    };
    match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Float) => {}
        Ok(other) => return Err(boundary_type(other.as_str_name().to_owned())),
        Err(_) => return Err(boundary_type(format!("number {}", tensor.elem_type))),
    }
    let shape = tensor.shape.as_ref().ok_or_else(|| ModelError::NoShape { input: input.name.clone() })?;
    let extent = |(axis, dim): (usize, &proto::Dimension)| match &dim.value {
        // Some exporters write an unknown batch as 0 or -1.
        Some(dimension::Value::DimValue(size)) if *size > 0 => Extent::Fixed(*size as u64),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Extent::Symbol(name.clone()),
        _ => Extent::Symbol(format!("{}.{axis}", input.name)),
    };
    Ok(shape.dim.iter().enumerate().map(extent).collect())
}

/// Sizes of the symbolic dimensions: as given, else 1 for those that are some input's first axis.
fn symbol_sizes<'a>(shapes: &'a [Vec<Extent>], dims: &'a [(String, u64)]) -> Result<HashMap<&'a str, u64>, ModelError> {
    let symbol = |extent: &'a Extent| match extent {
        Extent::Symbol(name) => Some(name.as_str()),
        Extent::Fixed(_) => None,
    };
    let known: BTreeSet<&str> = shapes.iter().flatten().filter_map(symbol).collect();
    let batches = shapes.iter().filter_map(|shape| shape.first()).filter_map(symbol);
    let mut sizes: HashMap<&str, u64> = batches.map(|name| (name, 1)).collect();
    for (position, (name, size)) in dims.iter().enumerate() {
        if !known.contains(name.as_str()) {
            return Err(ModelError::UnknownDim {
                dim: name.clone(),
                known: known.iter().map(|&n| n.to_owned()).collect(),
            });
        }
        if *size == 0 || *size > MAX_ELEMENTS {
            return Err(ModelError::DimSize { dim: name.clone(), size: *size, limit: MAX_ELEMENTS });
        }
        if dims[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(ModelError::DimTwice { dim: name.clone() });
        }
        sizes.insert(name, *size);
    }
    Ok(sizes)
}

/// Limits of tensors that enter or leave a model; tensors at cuts that exceed them make the cut impossible instead.
fn check_crossing(tensor: &str, shape: &[u64]) -> Result<(), ModelError> {
    if crossing_allowed(shape) {
        return Ok(());
    }
    Err(ModelError::TensorTooLarge {
        tensor: tensor.to_owned(),
        shape: shape.to_vec(),
        limit: MAX_ELEMENTS,
        rank: MAX_RANK,
    })
}

/// Whether a tensor of this shape may cross a boundary.
pub(crate) fn crossing_allowed(shape: &[u64]) -> bool {
    let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    shape.len() <= MAX_RANK && elements.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n))
}

/// Every tensor has a name and exactly one source, and every tensor that is used has one.
fn check_sources(
    graph: &GraphProto,
    inputs: &[(String, Fact)],
    constants: &BTreeMap<String, Constant>,
) -> Result<(), ModelError> {
    let mut sources: HashMap<&str, String> = HashMap::new();
    let given = constants.keys().map(|name| (name.as_str(), "an initializer".to_owned()));
    let given = given.chain(inputs.iter().map(|(name, _)| (name.as_str(), "an input of the model".to_owned())));
    let computed = graph.node.iter().flat_map(|node| {
        let outputs = node.output.iter().filter(|output| !output.is_empty());
        outputs.map(|output| (output.as_str(), described(node)))
    });
    for (tensor, second) in given.chain(computed) {
        // An empty name stands for what is left out.
        if tensor.is_empty() {
            return Err(ModelError::UnnamedTensor { what: second });
        }
        if let Some(first) = sources.insert(tensor, second.clone()) {
            return Err(ModelError::DuplicateTensor { tensor: tensor.to_owned(), first, second });
        }
    }
    let needed = graph.node.iter().flat_map(|node| {
        let inputs = node.input.iter().filter(|input| !input.is_empty());
        inputs.map(|input| (input, described(node)))
    });
    let wanted = graph.output.iter().map(|output| (&output.name, "the model's output".to_owned()));
    for (tensor, consumer) in needed.chain(wanted) {
        if !sources.contains_key(tensor.as_str()) {
            return Err(ModelError::UnknownTensor { tensor: tensor.clone(), consumer });
        }
    }
    let mut listed = HashSet::new();
    for output in &graph.output {
        let what = || "the list of outputs".to_owned();
        if !listed.insert(&output.name) {
            return Err(ModelError::DuplicateTensor { tensor: output.name.clone(), first: what(), second: what() });
        }
    }
    Ok(())
}

fn described(node: &NodeProto) -> String {
    format!("node `{}` ({})", node.name, node.op_type)
}

/// Topological order that keeps the file's order wherever that is one.
fn sorted(nodes: Vec<NodeProto>) -> Result<Vec<NodeProto>, ModelError> {
    let mut producer: HashMap<String, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        producer.extend(node.output.iter().filter(|output| !output.is_empty()).map(|output| (output.clone(), index)));
    }
    let mut waiting_for = vec![0usize; nodes.len()];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for &source in node.input.iter().filter_map(|input| producer.get(input)) {
            waiting_for[index] += 1;
            followers[source].push(index);
        }
    }
    let ready = (0..nodes.len()).filter(|&index| waiting_for[index] == 0).map(Reverse);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.collect();
    let mut rank = vec![None; nodes.len()];
    let mut placed = 0;
    while let Some(Reverse(index)) = ready.pop() {
        rank[index] = Some(placed);
        placed += 1;
        for &follower in &followers[index] {
            waiting_for[follower] -= 1;
            if waiting_for[follower] == 0 {
                ready.push(Reverse(follower));
            }
        }
    }
    if let Some(node) = nodes.iter().zip(&rank).find_map(|(node, rank)| rank.is_none().then_some(node)) {
        return Err(ModelError::Cycle { node: node.name.clone(), operator: node.op_type.clone() });
    }
    let mut ordered: Vec<(Option<usize>, NodeProto)> = rank.into_iter().zip(nodes).collect();
    ordered.sort_by_key(|(rank, _)| *rank);
    Ok(ordered.into_iter().map(|(_, node)| node).collect())
}

/// What a node may not be or have, whatever the operator.
fn check_node(node: &NodeProto) -> Result<(), ModelError> {
    let (name, operator) = (node.name.clone(), node.op_type.clone());
    if !node.domain.is_empty() {
        return Err(ModelError::UnsupportedOperator { node: name, operator: format!("{}.{operator}", node.domain) });
    }
    for attribute in &node.attribute {
        if matches!(attribute.r#type(), AttributeType::Graph | AttributeType::Graphs) {
            return Err(ModelError::Subgraph { node: name, operator, attribute: attribute.name.clone() });
        }
    }
    if operator.starts_with("Random") || matches!(operator.as_str(), "Multinomial" | "Bernoulli") {
        return Err(ModelError::NotInference { node: name, operator, what: "its result is random" });
    }
    if crate::defaults::trains(node) {
        return Err(ModelError::NotInference { node: name, operator, what: "it is in training mode" });
    }
    Ok(())
}

fn check_outputs(graph: &Graph) -> Result<(), ModelError> {
    for output in &graph.outputs {
        let trivial = |what| Err(ModelError::TrivialOutput { output: output.clone(), what });
        if graph.constants.contains_key(output) {
            return trivial("constant");
        }
        if graph.inputs.contains(output) {
            return trivial("an input passed on unchanged");
        }
        let fact = graph.fact(output);
        if fact.data_type != DataType::Float {
            let found = fact.data_type.as_str_name().to_owned();
            return Err(ModelError::BoundaryType { what: "output", tensor: output.clone(), found });
        }
        check_crossing(output, &fact.shape)?;
    }
    Ok(())
}
