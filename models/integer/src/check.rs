//! Checked graphs: what every other module builds on.
//!
//! A verifier is handed graphs by others. [`Graph::check`] refuses, with a cause, every graph whose operators do not fit
//! together, whose sizes exceed the caps, or whose values could leave the range in which the field represents them. Its
//! interval analysis knows only the declared bounds of inputs and weights, never a weight's values, so that prover and
//! verifier reach the same verdict; the price is that some graphs are refused whose actual weights would be harmless.

mod intervals;
mod shapes;
#[cfg(test)]
mod tests;

use crate::error::{GraphError, Site};
use crate::graph::{BOUNDARY_BITS, Graph, MAX_TABLE_BITS, Op, Table, TensorId};

/// Most elements of one tensor, one run's padding included.
pub const MAX_ELEMENTS: usize = 1 << 28;
/// Most nodes, inputs, weights, tables, outputs, and operands of one node.
pub const MAX_ITEMS: usize = 1 << 16;
/// Most axes of a tensor.
pub const MAX_RANK: usize = 8;
/// Every value, intermediate sums included, is below 2^62 in magnitude.
pub const VALUE_BITS: u32 = 62;

/// What values a tensor can have, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Least value.
    pub low: i64,
    /// Greatest value.
    pub high: i64,
}

impl Bounds {
    /// What crosses a boundary: magnitudes of at most 2^[`BOUNDARY_BITS`].
    pub const BOUNDARY: Self = Self { low: -(1 << BOUNDARY_BITS), high: 1 << BOUNDARY_BITS };

    /// Whether `value` is in them.
    pub const fn contains(self, value: i64) -> bool {
        self.low <= value && value <= self.high
    }

    /// The larger of the ends' magnitudes.
    pub fn magnitude(self) -> u64 {
        self.low.unsigned_abs().max(self.high.unsigned_abs())
    }
}

/// A graph that [`Graph::check`] accepts, with the shapes and bounds that it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedGraph {
    graph: Graph,
    shapes: Vec<Vec<usize>>,
    bounds: Vec<Bounds>,
    accumulator_bits: u32,
}

impl CheckedGraph {
    /// The graph itself.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Number of tensors: the inputs and one for each node.
    pub fn tensors(&self) -> usize {
        self.shapes.len()
    }

    /// Extents of a tensor of one run, outermost first.
    ///
    /// # Panics
    /// If the graph has no such tensor.
    pub fn shape(&self, tensor: TensorId) -> &[usize] {
        &self.shapes[tensor.0 as usize]
    }

    /// Bounds of a tensor's values in every run that succeeds.
    ///
    /// # Panics
    /// If the graph has no such tensor.
    pub fn bounds(&self, tensor: TensorId) -> Bounds {
        self.bounds[tensor.0 as usize]
    }

    /// Number of elements of a tensor of one run.
    ///
    /// # Panics
    /// If the graph has no such tensor.
    pub fn elements(&self, tensor: TensorId) -> usize {
        self.shape(tensor).iter().product()
    }

    /// The least b such that every tensor's magnitude is below 2^b; at most 62.
    pub fn max_accumulator_bits(&self) -> u32 {
        self.accumulator_bits
    }
}

impl Graph {
    /// Checks that the graph is legal and that none of its values can leave the 62 bits that are proven exactly.
    ///
    /// # Errors
    /// The first cause to refuse it; see [`GraphError`].
    pub fn check(self) -> Result<CheckedGraph, GraphError> {
        check_counts(&self)?;
        for (index, weight) in self.weights.iter().enumerate() {
            check_shape(&weight.shape, || Site::weight(&self, index))?;
            if weight.bits > 31 {
                return Err(GraphError::WeightBits { site: Site::weight(&self, index), bits: weight.bits });
            }
        }
        let mut tables = Vec::with_capacity(self.tables.len());
        for (index, table) in self.tables.iter().enumerate() {
            tables.push(check_table(table, || Site::table(&self, index))?);
        }
        let mut shapes = Vec::with_capacity(self.inputs.len() + self.nodes.len());
        let mut bounds = Vec::with_capacity(self.inputs.len() + self.nodes.len());
        for (index, input) in self.inputs.iter().enumerate() {
            check_shape(&input.shape, || Site::input(&self, index))?;
            shapes.push(input.shape.clone());
            bounds.push(Bounds::BOUNDARY);
        }
        for index in 0..self.nodes.len() {
            check_references(&self, index)?;
            let shape = shapes::infer(&self, index, &shapes)?;
            check_shape(&shape, || Site::node(&self, index))?;
            check_scale(&self, index)?;
            bounds.push(intervals::infer(&self, index, &shapes, &bounds, &tables)?);
            shapes.push(shape);
        }
        for (index, &tensor) in self.outputs.iter().enumerate() {
            let site = || Box::new(Site::Output { index });
            let known = shapes.len();
            let bounds = *bounds.get(tensor.0 as usize).ok_or_else(|| GraphError::UnknownTensor {
                site: site(),
                tensor,
                known,
            })?;
            if bounds.magnitude() > Bounds::BOUNDARY.magnitude() {
                return Err(GraphError::OutputRange { site: site(), bounds });
            }
        }
        let widest = bounds.iter().map(|bounds| bounds.magnitude()).max().unwrap_or(0);
        Ok(CheckedGraph { graph: self, shapes, bounds, accumulator_bits: u64::BITS - widest.leading_zeros() })
    }
}

fn check_counts(graph: &Graph) -> Result<(), GraphError> {
    let counts = [
        ("inputs", graph.inputs.len()),
        ("weights", graph.weights.len()),
        ("tables", graph.tables.len()),
        ("nodes", graph.nodes.len()),
        ("outputs", graph.outputs.len()),
    ];
    for (items, count) in counts {
        if count > MAX_ITEMS {
            return Err(GraphError::TooMany { items, count });
        }
    }
    if graph.outputs.is_empty() {
        return Err(GraphError::NoOutputs);
    }
    Ok(())
}

/// Number of elements of `shape`; nothing beyond [`MAX_ELEMENTS`].
pub(crate) fn capped_elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &extent| product.checked_mul(extent))
        .filter(|&count| count <= MAX_ELEMENTS)
}

fn check_shape(shape: &[usize], site: impl Fn() -> Box<Site>) -> Result<(), GraphError> {
    if shape.len() > MAX_RANK {
        return Err(GraphError::Rank { site: site(), rank: shape.len() });
    }
    if let Some(axis) = shape.iter().position(|&extent| extent == 0) {
        return Err(GraphError::EmptyAxis { site: site(), axis });
    }
    capped_elements(shape).map(|_| ()).ok_or_else(|| GraphError::Elements { site: site() })
}

/// Checks a table's sizes and values, and gives the bounds of the values.
fn check_table(table: &Table, site: impl Fn() -> Box<Site>) -> Result<Bounds, GraphError> {
    let Table { bits, values, .. } = table;
    if *bits == 0 || *bits > MAX_TABLE_BITS {
        return Err(GraphError::TableBits { site: site(), bits: *bits });
    }
    let expected = 1 << bits;
    if values.len() != expected {
        return Err(GraphError::TableLength { site: site(), expected, found: values.len() });
    }
    if let Some(entry) = values.iter().position(|&value| !Bounds::BOUNDARY.contains(value.into())) {
        return Err(GraphError::TableValue { site: site(), entry, value: values[entry] });
    }
    let (low, high) = values.iter().fold((i32::MAX, i32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    Ok(Bounds { low: low.into(), high: high.into() })
}

/// Checks that what the node reads exists before it.
fn check_references(graph: &Graph, index: usize) -> Result<(), GraphError> {
    let site = || Site::node(graph, index);
    let op = &graph.nodes[index].op;
    let operands = op.inputs();
    if operands.is_empty() {
        return Err(GraphError::NoOperands { site: site() });
    }
    if operands.len() > MAX_ITEMS {
        return Err(GraphError::TooManyOperands { site: site(), count: operands.len() });
    }
    let known = graph.inputs.len() + index;
    for tensor in operands {
        if tensor.0 as usize >= known {
            return Err(GraphError::UnknownTensor { site: site(), tensor, known });
        }
    }
    match op {
        Op::MatMul { weight, .. } | Op::MulWeight { weight, .. } | Op::AddWeight { weight, .. } => Some(*weight),
        Op::Conv(conv) => Some(conv.weight),
        _ => None,
    }
    .map_or(Ok(()), |weight| {
        let known = graph.weights.len();
        if weight.0 as usize >= known { Err(GraphError::UnknownWeight { site: site(), weight, known }) } else { Ok(()) }
    })?;
    if let Op::Table { table, .. } = op {
        let known = graph.tables.len();
        if table.0 as usize >= known {
            return Err(GraphError::UnknownTable { site: site(), table: *table, known });
        }
    }
    Ok(())
}

/// Checks the declared scale where the operator leaves no choice. Weights and tables carry no scale of their own, and a
/// Combine's coefficients can stand for powers of two, so these may declare any.
fn check_scale(graph: &Graph, index: usize) -> Result<(), GraphError> {
    let node = &graph.nodes[index];
    let expected = match &node.op {
        Op::MatMul { .. } | Op::Conv(_) | Op::MulWeight { .. } | Op::Combine { .. } | Op::Table { .. } => return Ok(()),
        Op::AddWeight { input, .. }
        | Op::WindowSum { input, .. }
        | Op::Reshape { input, .. }
        | Op::Transpose { input, .. }
        | Op::Slice { input, .. }
        | Op::Pad { input, .. }
        | Op::ReduceSum { input, .. }
        | Op::Expand { input, .. }
        | Op::Gather { input, .. }
        | Op::Max { input } => i64::from(graph.scale(*input)),
        Op::MatMulTensors { left, right } | Op::MulTensors { left, right } => {
            i64::from(graph.scale(*left)) + i64::from(graph.scale(*right))
        }
        Op::Divide { numerator, denominator, .. } => {
            i64::from(graph.scale(*numerator)) - i64::from(graph.scale(*denominator))
        }
        Op::Sqrt { input, .. } => {
            let scale = graph.scale(*input);
            if scale % 2 != 0 {
                return Err(GraphError::RootScale { site: Site::node(graph, index), scale });
            }
            i64::from(scale / 2)
        }
        Op::Requant { input, shift, .. } => i64::from(graph.scale(*input)) - i64::from(*shift),
        Op::Concat { inputs, .. } => {
            let expected = graph.scale(inputs[0]);
            for (index_of_input, &input) in inputs.iter().enumerate() {
                let found = graph.scale(input);
                if found != expected {
                    let site = Site::node(graph, index);
                    return Err(GraphError::ConcatScale { site, index: index_of_input, expected, found });
                }
            }
            i64::from(expected)
        }
    };
    if i64::from(node.scale) != expected {
        return Err(GraphError::Scale { site: Site::node(graph, index), expected, found: node.scale });
    }
    Ok(())
}
