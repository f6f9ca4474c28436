//! What a shard costs: operations counted from shapes, and what they come to in a proof system.
//!
//! The counts are exact. Everything named *predicted* is an estimate made before anything is run; the constants of the
//! ezkl estimate are in [`ezkl`], with where each comes from.

use serde::{Deserialize, Serialize};
use shardproof_common::plan::{BackendKind, BoundaryMode};

use crate::graph::Graph;
use crate::proto::{NodeProto, int_of, ints_of, text_of};

/// Operations of a node or a shard, counted from shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Multiplications that are summed up: matrix products, convolutions.
    pub macs: u64,
    /// Additions, multiplications and the like, one per element.
    pub arithmetic: u64,
    /// Comparisons: ReLU, max-pooling, clipping.
    pub comparisons: u64,
    /// Non-linear functions that need a table: sigmoid, exponential, roots, divisions.
    pub tables: u64,
    /// Elements that are moved without being changed.
    pub moves: u64,
}

impl Operations {
    fn macs(macs: u64) -> Self {
        Self { macs, ..Self::default() }
    }

    /// What is left of a sum without one of its parts.
    pub(crate) fn minus(self, part: Self) -> Self {
        Self {
            macs: self.macs.saturating_sub(part.macs),
            arithmetic: self.arithmetic.saturating_sub(part.arithmetic),
            comparisons: self.comparisons.saturating_sub(part.comparisons),
            tables: self.tables.saturating_sub(part.tables),
            moves: self.moves.saturating_sub(part.moves),
        }
    }

    /// All counts, each of them weighed alike.
    pub fn total(&self) -> u64 {
        let parts = [self.macs, self.arithmetic, self.comparisons, self.tables, self.moves];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

impl std::ops::Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            macs: self.macs.saturating_add(other.macs),
            arithmetic: self.arithmetic.saturating_add(other.arithmetic),
            comparisons: self.comparisons.saturating_add(other.comparisons),
            tables: self.tables.saturating_add(other.tables),
            moves: self.moves.saturating_add(other.moves),
        }
    }
}

impl std::iter::Sum for Operations {
    fn sum<I: Iterator<Item = Self>>(operations: I) -> Self {
        operations.fold(Self::default(), |sum, one| sum + one)
    }
}

/// Counts the operations of one node of a normalised graph.
pub(crate) fn operations(graph: &Graph, node: &NodeProto) -> Operations {
    let elements = |name: &String| graph.shape(name).map_or(0, |shape| shape.iter().product::<u64>());
    let output: u64 = node.output.iter().filter(|name| !name.is_empty()).map(elements).sum();
    let input = node.input.first().map_or(0, elements);
    let shape = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).unwrap_or(&[]);
    let weights_per_element = || shape(1).iter().skip(1).product::<u64>();
    match node.op_type.as_str() {
        "Conv" | "ConvInteger" | "QLinearConv" => Operations::macs(output.saturating_mul(weights_per_element())),
        "ConvTranspose" => Operations::macs(input.saturating_mul(weights_per_element())),
        "Gemm" => {
            let inner = shape(0).get(usize::from(int_of(node, "transA") != Some(1)));
            Operations::macs(output.saturating_mul(inner.copied().unwrap_or(1)))
        }
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => Operations::macs(output.saturating_mul(shape(0).last().copied().unwrap_or(1))),
        "Einsum" => Operations::macs(einsum_products(graph, node).unwrap_or(output)),
        "LSTM" | "GRU" | "RNN" => recurrent(graph, node, output),
        "Identity" | "Flatten" | "Reshape" | "Transpose" | "Concat" | "Split" | "Slice" | "Gather" | "GatherElements" | "GatherND"
        | "Squeeze" | "Unsqueeze" | "Expand" | "Tile" | "Pad" | "DepthToSpace" | "SpaceToDepth" | "Cast" | "Shape" | "Size" => {
            Operations { moves: output, ..Operations::default() }
        }
        "Relu" | "LeakyRelu" | "PRelu" | "Clip" | "Abs" | "Sign" | "ThresholdedRelu" | "Shrink" | "HardSigmoid" | "HardSwish" | "Max"
        | "Min" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Equal" | "Floor" | "Ceil" | "Round" => {
            Operations { comparisons: output, ..Operations::default() }
        }
        "MaxPool" => {
            let window: i64 = ints_of(node, "kernel_shape").unwrap_or(&[]).iter().product();
            Operations { comparisons: output.saturating_mul(window.max(1) as u64 - 1), ..Operations::default() }
        }
        "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "ArgMax" | "ArgMin" | "TopK" | "Hardmax" => {
            Operations { comparisons: input, ..Operations::default() }
        }
        "AveragePool" => {
            let window: i64 = ints_of(node, "kernel_shape").unwrap_or(&[]).iter().product();
            Operations { arithmetic: output.saturating_mul(window.max(1) as u64), tables: output, ..Operations::default() }
        }
        "Softmax" | "LogSoftmax" => Operations { arithmetic: input, comparisons: input, tables: input.saturating_mul(2), ..Operations::default() },
        "LayerNormalization" | "GroupNormalization" | "InstanceNormalization" | "RMSNormalization" | "MeanVarianceNormalization"
        | "LpNormalization" | "LRN" => Operations { arithmetic: input.saturating_mul(5), tables: input, ..Operations::default() },
        "Add" | "Sub" | "Mul" | "Neg" | "Sum" | "And" | "Or" | "Xor" | "Not" | "Where" => {
            Operations { arithmetic: output, ..Operations::default() }
        }
        "BatchNormalization" => Operations { arithmetic: output.saturating_mul(2), ..Operations::default() },
        "Mean" | "ReduceSum" | "ReduceMean" | "ReduceProd" | "ReduceSumSquare" | "ReduceL1" | "ReduceL2" | "GlobalAveragePool" | "CumSum" => {
            Operations { arithmetic: input, tables: output, ..Operations::default() }
        }
        // Whatever is left is a function of its elements, and the dearest kind of those is assumed.
        _ => Operations { tables: output.max(input), ..Operations::default() },
    }
}

/// Product of the extents of all letters in the equation.
fn einsum_products(graph: &Graph, node: &NodeProto) -> Option<u64> {
    let equation = text_of(node, "equation")?;
    let terms = equation.split("->").next()?.split(',');
    let mut extents = std::collections::BTreeMap::new();
    for (term, name) in terms.zip(&node.input) {
        let letters: Vec<char> = term.chars().filter(|letter| letter.is_alphabetic()).collect();
        let shape = graph.shape(name)?;
        // Letters stand for the last axes when an ellipsis takes the first; its extents are left out.
        let offset = shape.len().checked_sub(letters.len())?;
        extents.extend(letters.into_iter().zip(shape[offset..].iter().copied()));
    }
    Some(extents.values().fold(1, |product: u64, &extent| product.saturating_mul(extent)))
}

/// `[sequence, batch, features]` in, weights `[directions, gates * hidden, features]` and `[.., hidden]`.
fn recurrent(graph: &Graph, node: &NodeProto, output: u64) -> Operations {
    let shape = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).unwrap_or(&[]);
    let steps: u64 = shape(0).iter().take(2).product();
    let weights: u64 = shape(1).iter().product::<u64>() + shape(2).iter().product::<u64>();
    let gates: u64 = shape(1).iter().take(2).product();
    Operations {
        macs: steps.saturating_mul(weights),
        arithmetic: output,
        tables: steps.saturating_mul(gates),
        ..Operations::default()
    }
}

/// What one shard is predicted to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// What the planner balances: rows of the circuit for ezkl, operations for `float`.
    pub cost: u64,
    /// What the shard needs under ezkl; nothing in `float` mode.
    pub ezkl: Option<EzklPrediction>,
}

/// Estimates for one ezkl shard; see [`ezkl`] for how they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EzklPrediction {
    /// Rows that the operations and boundaries fill.
    pub rows: u64,
    /// log2 of the circuit's rows.
    pub logrows: u32,
    /// Size of the proving key, bytes.
    pub proving_key_bytes: u64,
    /// Peak memory of setup and proving, bytes.
    pub peak_memory_bytes: u64,
}

/// Operations, parameters and boundaries of a shard, from which its cost follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) operations: Operations,
    pub(crate) input_elements: u64,
    pub(crate) output_elements: u64,
}

/// What a shard costs on `backend` when its boundaries are in these modes.
pub(crate) fn predict(backend: BackendKind, load: &Load, input: BoundaryMode, output: BoundaryMode) -> Prediction {
    match backend {
        BackendKind::Float => {
            let boundaries = load.input_elements.saturating_add(load.output_elements);
            Prediction { cost: load.operations.total().saturating_add(boundaries), ezkl: None }
        }
        BackendKind::Ezkl => {
            let rows = ezkl::rows(&load.operations)
                .saturating_add(ezkl::boundary_rows(load.input_elements, input))
                .saturating_add(ezkl::boundary_rows(load.output_elements, output));
            Prediction { cost: rows, ezkl: Some(ezkl::predict(rows)) }
        }
    }
}

/// The ezkl estimate: all its constants, and nothing else.
pub mod ezkl {
    use super::{BoundaryMode, EzklPrediction, Operations};

    /// Rows that a multiplication of a sum takes: two inner columns hold two factors' products per row.
    pub const ROWS_PER_MAC: f64 = 0.5;
    /// Rows per element-wise addition or multiplication.
    pub const ROWS_PER_ARITHMETIC: f64 = 0.5;
    /// Rows per comparison, which decomposes the difference into digits that are range-checked.
    pub const ROWS_PER_COMPARISON: f64 = 12.0;
    /// Rows per table look-up, with the decomposition that brings the value into the table's range.
    pub const ROWS_PER_TABLE: f64 = 12.0;
    /// Rows per element that only moves.
    pub const ROWS_PER_MOVE: f64 = 0.0;
    /// Rows per element of a `hashed` boundary: the Poseidon permutation, measured.
    pub const ROWS_PER_HASHED_ELEMENT: u64 = 41;
    /// Rows per element of any other boundary: it is assigned once.
    pub const ROWS_PER_PLAIN_ELEMENT: u64 = 1;
    /// The smallest circuit: range checks need a table of 2^14 rows, and blinding rows beside it.
    pub const LOGROWS_LOWEST: u32 = 15;
    /// Bytes of proving key per row: 4.6 GB at 2^19 rows, measured on the zoo's `cnn`.
    pub const KEY_BYTES_PER_ROW: u64 = 8_800;
    /// Bytes of peak memory per row: 11.5 GB at 2^19 rows, measured on the zoo's `cnn`.
    pub const MEMORY_BYTES_PER_ROW: u64 = 22_000;

    /// Rows that operations take.
    pub fn rows(operations: &Operations) -> u64 {
        let terms = [
            (operations.macs, ROWS_PER_MAC),
            (operations.arithmetic, ROWS_PER_ARITHMETIC),
            (operations.comparisons, ROWS_PER_COMPARISON),
            (operations.tables, ROWS_PER_TABLE),
            (operations.moves, ROWS_PER_MOVE),
        ];
        terms.iter().map(|&(count, rows)| count as f64 * rows).sum::<f64>().ceil() as u64
    }

    /// Rows that a boundary of `elements` takes on each of its sides.
    pub fn boundary_rows(elements: u64, mode: BoundaryMode) -> u64 {
        let each = match mode {
            BoundaryMode::Hashed => ROWS_PER_HASHED_ELEMENT,
            BoundaryMode::Public | BoundaryMode::Polycommit => ROWS_PER_PLAIN_ELEMENT,
        };
        elements.saturating_mul(each)
    }

    /// Size of the circuit that holds `rows`, and what it needs.
    pub fn predict(rows: u64) -> EzklPrediction {
        let logrows = rows.max(1).checked_next_power_of_two().map_or(63, u64::trailing_zeros).max(LOGROWS_LOWEST);
        let circuit = 1u64 << logrows;
        EzklPrediction {
            rows,
            logrows,
            proving_key_bytes: circuit.saturating_mul(KEY_BYTES_PER_ROW),
            peak_memory_bytes: circuit.saturating_mul(MEMORY_BYTES_PER_ROW),
        }
    }
}
