//! The executor: what a graph computes, exactly, as fast as the bounds of its values allow.
//!
//! The served answer and the prover's witness are the same [`Trace`]. All arithmetic is exact: the checked graph's
//! interval analysis holds every value below 2^62, and the narrow inner loops are chosen by proven bounds. A value
//! outside the range that a Requant, a Table, a Divide or a Sqrt covers ends the run with an error that names it, because
//! such a run has no proof.

mod conv;
mod elementwise;
mod matmul;
mod moves;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::check::{Bounds, CheckedGraph, MAX_ELEMENTS};
use crate::error::{RunError, Site, WeightsError};
use crate::graph::{Op, TensorId, Weights};
use matmul::Matrix;
use moves::Pattern;

/// Most elements of one tensor over all runs of a call.
const MAX_BATCH_ELEMENTS: usize = MAX_ELEMENTS * 4;

/// Every tensor of some runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Number of runs.
    pub runs: usize,
    /// By [`TensorId`]; each is `[runs, elements]`, row-major.
    pub tensors: Vec<Vec<i64>>,
}

impl Trace {
    /// The values of `tensor`, `[runs, elements]`.
    ///
    /// # Panics
    /// If the graph has no such tensor.
    pub fn tensor(&self, tensor: TensorId) -> &[i64] {
        &self.tensors[tensor.0 as usize]
    }
}

/// A graph and its weights, ready to run.
#[derive(Clone, Debug)]
pub struct Executor {
    graph: Arc<CheckedGraph>,
    prepared: Vec<Prepared>,
}

/// What a node needs of its weight, in the form that its inner loop reads.
#[derive(Clone, Debug)]
enum Prepared {
    Nothing,
    /// For MatMul `[N, K]`, for Conv `[M, C / groups * kernel]`.
    Matrix(Matrix),
    /// For MulWeight and AddWeight.
    Values(Arc<[i32]>),
}

impl Executor {
    /// Prepares `weights` for running `graph`.
    ///
    /// # Errors
    /// If the weights do not belong to the graph.
    pub fn new(graph: Arc<CheckedGraph>, weights: &Weights) -> Result<Self, WeightsError> {
        weights.check(&graph)?;
        let nodes = &graph.graph().nodes;
        let prepared = nodes.iter().map(|node| Prepared::new(&graph, weights, &node.op)).collect();
        Ok(Self { graph, prepared })
    }

    /// The graph that it runs.
    pub fn graph(&self) -> &Arc<CheckedGraph> {
        &self.graph
    }

    /// Runs the graph `runs` times on `inputs`, each `[runs, elements]` in the order of the graph's inputs.
    ///
    /// # Errors
    /// If the inputs have the wrong sizes or leave the boundary's bounds, or if a value leaves the range of an operator; see
    /// [`RunError`].
    pub fn run(&self, inputs: &[Vec<i64>], runs: usize) -> Result<Trace, RunError> {
        self.check_inputs(inputs, runs)?;
        let mut tensors = Vec::with_capacity(self.graph.tensors());
        tensors.extend_from_slice(inputs);
        for index in 0..self.prepared.len() {
            let tensor = self.apply(index, &tensors, runs)?;
            tensors.push(tensor);
        }
        Ok(Trace { runs, tensors })
    }

    fn check_inputs(&self, inputs: &[Vec<i64>], runs: usize) -> Result<(), RunError> {
        let graph = self.graph.graph();
        if runs == 0 {
            return Err(RunError::NoRuns);
        }
        let most = (0..self.graph.tensors()).map(|tensor| self.graph.elements(TensorId(tensor as u32))).max();
        if most.unwrap_or(0).checked_mul(runs).is_none_or(|elements| elements > MAX_BATCH_ELEMENTS) {
            return Err(RunError::TooManyRuns { runs, limit: MAX_BATCH_ELEMENTS });
        }
        if inputs.len() != graph.inputs.len() {
            return Err(RunError::InputCount { expected: graph.inputs.len(), found: inputs.len() });
        }
        for (index, values) in inputs.iter().enumerate() {
            let elements = self.graph.elements(TensorId(index as u32));
            let expected = elements * runs;
            if values.len() != expected {
                let site = Site::input(graph, index);
                return Err(RunError::InputLength { site, runs, expected, found: values.len() });
            }
            if let Some(place) = values.iter().position(|&value| !Bounds::BOUNDARY.contains(value)) {
                return Err(RunError::InputRange {
                    site: Site::input(graph, index),
                    run: place / elements,
                    index: place % elements,
                    value: values[place],
                    allowed: Bounds::BOUNDARY,
                });
            }
        }
        Ok(())
    }

    /// Computes the tensor `[runs, elements]` that node `index` makes.
    fn apply(&self, index: usize, tensors: &[Vec<i64>], runs: usize) -> Result<Vec<i64>, RunError> {
        let graph = self.graph.graph();
        let result = self.graph.shape(graph.result(index));
        let values = |tensor: TensorId| tensors[tensor.0 as usize].as_slice();
        let shape = |tensor: TensorId| self.graph.shape(tensor);
        let op = &graph.nodes[index].op;
        Ok(match (op, &self.prepared[index]) {
            (Op::MatMul { input, .. }, Prepared::Matrix(matrix)) => matrix.times_rows(values(*input)),
            (Op::Conv(conv), Prepared::Matrix(matrix)) => {
                conv::convolve(conv, matrix, values(conv.input), shape(conv.input), result)
            }
            (Op::MulWeight { input, .. }, Prepared::Values(weight)) => {
                let pattern = self.broadcast(op, result);
                elementwise::broadcast(values(*input), weight, &pattern, |x, w| x * i64::from(w))
            }
            (Op::AddWeight { input, multiplier, .. }, Prepared::Values(weight)) => {
                let pattern = self.broadcast(op, result);
                elementwise::broadcast(values(*input), weight, &pattern, |x, w| x + multiplier * i64::from(w))
            }
            (Op::Combine { terms, constant }, _) => {
                let terms: Vec<_> = terms.iter().map(|&(tensor, factor)| (values(tensor), factor)).collect();
                elementwise::combine(&terms, *constant)
            }
            (Op::WindowSum { input, window }, _) => conv::window_sum(window, values(*input), shape(*input), result),
            (Op::Reshape { input, .. }, _) => values(*input).to_vec(),
            (Op::Transpose { input, axes }, _) => moves::transpose(values(*input), shape(*input), axes, runs),
            (Op::Slice { input, start, step, count }, _) => {
                moves::slice(values(*input), shape(*input), start, step, count, runs)
            }
            (Op::Pad { input, before, value, .. }, _) => {
                moves::pad(values(*input), shape(*input), before, result, *value, runs)
            }
            (Op::Concat { inputs, axis }, _) => {
                let parts: Vec<_> = inputs.iter().map(|&input| (values(input), shape(input))).collect();
                moves::concat(&parts, *axis, runs)
            }
            (Op::Requant { input, shift, bits, relu }, _) => elementwise::requant(values(*input), *shift, *bits, *relu)
                .map_err(|miss| self.requant_error(index, miss, *bits))?,
            (Op::Table { input, table }, _) => {
                let table = &graph.tables[table.0 as usize];
                elementwise::look_up(values(*input), &table.values)
                    .map_err(|miss| self.table_error(index, miss, table.bits))?
            }
            (Op::MatMulTensors { left, right }, _) => {
                let bounds = [*left, *right].map(|tensor| self.graph.bounds(tensor));
                matmul::times_tensor(values(*left), values(*right), shape(*left), result, bounds)
            }
            (Op::MulTensors { left, right }, _) => elementwise::multiply(values(*left), values(*right)),
            (Op::ReduceSum { input, axes }, _) => rows::reduce_sum(values(*input), shape(*input), axes),
            (Op::Expand { input, .. }, _) => moves::expand(values(*input), shape(*input), result, runs),
            (Op::Gather { input, axis, indices }, _) => {
                moves::gather(values(*input), shape(*input), *axis, indices, runs)
            }
            (Op::Max { input }, _) => rows::max(values(*input), shape(*input)),
            (Op::Divide { numerator, denominator, bits }, _) => {
                elementwise::divide(values(*numerator), values(*denominator), *bits)
                    .map_err(|miss| self.quotient_error(index, miss, *bits))?
            }
            (Op::Sqrt { input, bits }, _) => {
                elementwise::sqrt(values(*input), *bits).map_err(|miss| self.root_error(index, miss, *bits))?
            }
            (
                Op::MatMul { .. } | Op::Conv(_) | Op::MulWeight { .. } | Op::AddWeight { .. },
                Prepared::Nothing | Prepared::Matrix(_) | Prepared::Values(_),
            ) => unreachable!("Prepared::new prepares every operator with a weight"),
        })
    }

    fn broadcast(&self, op: &Op, shape: &[usize]) -> Pattern {
        let weight = op.weight().map_or(&[][..], |weight| &self.graph.graph().weights[weight.0 as usize].shape);
        Pattern::broadcast(shape, weight)
    }

    fn requant_error(&self, node: usize, miss: elementwise::Miss, bits: u32) -> RunError {
        let (site, elements) = self.place(node);
        let allowed = Bounds { low: -(1 << bits), high: (1 << bits) - 1 };
        let elementwise::Miss { place, value } = miss;
        RunError::RequantRange { site, run: place / elements, index: place % elements, value, allowed }
    }

    fn table_error(&self, node: usize, miss: elementwise::Miss, bits: u32) -> RunError {
        let (site, elements) = self.place(node);
        let allowed = Bounds { low: -(1 << (bits - 1)), high: (1 << (bits - 1)) - 1 };
        let elementwise::Miss { place, value } = miss;
        RunError::TableDomain { site, run: place / elements, index: place % elements, value, allowed }
    }

    fn quotient_error(&self, node: usize, miss: elementwise::QuotientMiss, bits: u32) -> RunError {
        let (site, elements) = self.place(node);
        match miss {
            elementwise::QuotientMiss::Denominator(elementwise::Miss { place, value }) => {
                RunError::Denominator { site, run: place / elements, index: place % elements, value }
            }
            elementwise::QuotientMiss::Quotient(elementwise::Miss { place, value }) => {
                let allowed = Bounds { low: -(1 << bits), high: (1 << bits) - 1 };
                RunError::QuotientRange { site, run: place / elements, index: place % elements, value, allowed }
            }
        }
    }

    fn root_error(&self, node: usize, miss: elementwise::Miss, bits: u32) -> RunError {
        let (site, elements) = self.place(node);
        let allowed = Bounds { low: 0, high: (1 << bits) - 1 };
        let elementwise::Miss { place, value } = miss;
        RunError::RootRange { site, run: place / elements, index: place % elements, value, allowed }
    }

    fn place(&self, node: usize) -> (Box<Site>, usize) {
        let graph = self.graph.graph();
        (Site::node(graph, node), self.graph.elements(graph.result(node)))
    }
}

impl Prepared {
    fn new(graph: &CheckedGraph, weights: &Weights, op: &Op) -> Self {
        let Some(weight) = op.weight() else { return Self::Nothing };
        let values = &weights.0[weight.0 as usize];
        let shape = &graph.graph().weights[weight.0 as usize].shape;
        let depth = || shape[1..].iter().product();
        match op {
            Op::MatMul { input, .. } => Self::Matrix(Matrix::new(values, depth(), graph.bounds(*input))),
            Op::Conv(conv) => Self::Matrix(Matrix::new(values, depth(), graph.bounds(conv.input))),
            _ => Self::Values(values.as_slice().into()),
        }
    }
}
