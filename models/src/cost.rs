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
    /// Values that come out of a multiplication, and so out of scale: integer arithmetic divides them back.
    pub rescales: u64,
    /// Additions and the like, one per element.
    pub arithmetic: u64,
    /// Comparisons with a constant: ReLU, clipping.
    pub comparisons: u64,
    /// Comparisons of two values: max-pooling.
    pub maxima: u64,
    /// Functions of one value that need a table: sigmoid, exponential, roots.
    pub tables: u64,
    /// Elements that are moved without being changed.
    pub moves: u64,
}

impl Operations {
    /// `outputs` sums of `macs` products in all.
    fn products(macs: u64, outputs: u64) -> Self {
        Self { macs, rescales: outputs, ..Self::default() }
    }

    fn each(&self) -> [u64; 7] {
        let Self { macs, rescales, arithmetic, comparisons, maxima, tables, moves } = *self;
        [macs, rescales, arithmetic, comparisons, maxima, tables, moves]
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let (a, b) = (self.each(), other.each());
        let [macs, rescales, arithmetic, comparisons, maxima, tables, moves] = std::array::from_fn(|index| with(a[index], b[index]));
        Self { macs, rescales, arithmetic, comparisons, maxima, tables, moves }
    }

    /// What is left of a sum without one of its parts.
    pub(crate) fn minus(self, part: Self) -> Self {
        self.zip(part, u64::saturating_sub)
    }

    /// All counts, each of them weighed alike.
    pub fn total(&self) -> u64 {
        self.each().into_iter().fold(0, u64::saturating_add)
    }
}

impl std::ops::Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
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
    let none = Operations::default();
    match node.op_type.as_str() {
        "Conv" | "ConvInteger" | "QLinearConv" => Operations::products(output.saturating_mul(weights_per_element()), output),
        "ConvTranspose" => Operations::products(input.saturating_mul(weights_per_element()), output),
        "Gemm" => {
            let inner = shape(0).get(usize::from(int_of(node, "transA") != Some(1)));
            Operations::products(output.saturating_mul(inner.copied().unwrap_or(1)), output)
        }
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
            Operations::products(output.saturating_mul(shape(0).last().copied().unwrap_or(1)), output)
        }
        "Einsum" => Operations::products(einsum_products(graph, node).unwrap_or(output), output),
        "LSTM" | "GRU" | "RNN" => recurrent(graph, node),
        "Identity" | "Flatten" | "Reshape" | "Transpose" | "Concat" | "Split" | "Slice" | "Gather" | "GatherElements" | "GatherND"
        | "Squeeze" | "Unsqueeze" | "Expand" | "Tile" | "Pad" | "DepthToSpace" | "SpaceToDepth" | "Cast" | "Shape" | "Size" => {
            Operations { moves: output, ..none }
        }
        "Relu" | "LeakyRelu" | "PRelu" | "Abs" | "Sign" | "ThresholdedRelu" | "Floor" | "Ceil" | "Round" => {
            Operations { comparisons: output, ..none }
        }
        "Clip" | "Shrink" | "HardSigmoid" | "HardSwish" => Operations { comparisons: output.saturating_mul(2), arithmetic: output, ..none },
        "Max" | "Min" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Equal" => Operations { maxima: output, ..none },
        "MaxPool" => Operations { maxima: output.saturating_mul(window(node) - 1), ..none },
        "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "ArgMax" | "ArgMin" | "TopK" | "Hardmax" => Operations { maxima: input, ..none },
        "AveragePool" => Operations { arithmetic: output.saturating_mul(window(node)), rescales: output, ..none },
        "Softmax" | "LogSoftmax" => {
            // The largest value of each row is subtracted, the exponentials are summed, and each is divided by the sum.
            Operations { maxima: input, arithmetic: input.saturating_mul(3), tables: input, rescales: input, ..none }
        }
        "LayerNormalization" | "GroupNormalization" | "InstanceNormalization" | "RMSNormalization" | "MeanVarianceNormalization"
        | "LpNormalization" | "LRN" => Operations { arithmetic: input.saturating_mul(6), rescales: input, ..none },
        "Add" | "Sub" | "Neg" | "Sum" | "And" | "Or" | "Xor" | "Not" | "Where" => Operations { arithmetic: output, ..none },
        "Mul" | "BatchNormalization" => Operations { arithmetic: output, rescales: output, ..none },
        "Div" => Operations { arithmetic: output, rescales: output.saturating_mul(2), ..none },
        "Mean" | "ReduceSum" | "ReduceMean" | "ReduceProd" | "ReduceSumSquare" | "ReduceL1" | "ReduceL2" | "GlobalAveragePool" | "CumSum" => {
            Operations { arithmetic: input, rescales: output, ..none }
        }
        // Whatever is left is a function of its elements: a table, and a value to bring back to scale.
        _ => Operations { tables: output.max(input), rescales: output, ..none },
    }
}

/// Elements under a pooling window.
fn window(node: &NodeProto) -> u64 {
    let extents = ints_of(node, "kernel_shape").unwrap_or(&[]).iter().map(|&extent| extent.max(1) as u64);
    extents.fold(1, u64::saturating_mul)
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
fn recurrent(graph: &Graph, node: &NodeProto) -> Operations {
    let elements = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).map_or(0, |shape| shape.iter().product::<u64>());
    let leading = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).map_or(0, |shape| shape.iter().take(2).product::<u64>());
    let steps = leading(0);
    let gates = steps.saturating_mul(leading(1));
    let macs = steps.saturating_mul(elements(1).saturating_add(elements(2)));
    Operations { macs, rescales: gates, arithmetic: gates, tables: gates, ..Operations::default() }
}

/// What one shard is predicted to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// What the planner balances. For ezkl the rows of the circuit, a power of two: time, key and memory follow from
    /// those, not from how many of them are filled. Operations for `float`.
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

/// Work of operations alone, which the planner spreads evenly where nothing else decides.
pub(crate) fn work(backend: BackendKind, operations: &Operations) -> u64 {
    match backend {
        BackendKind::Float => operations.total(),
        BackendKind::Ezkl => ezkl::rows(operations, (0, BoundaryMode::Public), (0, BoundaryMode::Public)),
    }
}

/// What a shard costs on `backend` when its boundaries are in these modes.
pub(crate) fn predict(backend: BackendKind, load: &Load, input: BoundaryMode, output: BoundaryMode) -> Prediction {
    match backend {
        BackendKind::Float => {
            let boundaries = load.input_elements.saturating_add(load.output_elements);
            Prediction { cost: load.operations.total().saturating_add(boundaries), ezkl: None }
        }
        BackendKind::Ezkl => {
            let rows = ezkl::rows(&load.operations, (load.input_elements, input), (load.output_elements, output));
            let predicted = ezkl::predict(rows);
            Prediction { cost: 1 << predicted.logrows, ezkl: Some(predicted) }
        }
    }
}

/// The ezkl estimate: all its constants, and nothing else.
///
/// Rows were fitted to the settings that ezkl 23.0.5 calibrates (target `resources`, two inner columns, digits of base
/// 2^14) for single operators, for chains of them and for the zoo's models. The fit is within 10 % on those; what it
/// cannot know is a look-up table that calibration makes larger than the circuit.
pub mod ezkl {
    use super::{BoundaryMode, EzklPrediction, Operations};

    /// Rows per multiplication of a sum: two columns take two products a row.
    pub const ROWS_PER_MAC: f64 = 0.5;
    /// Rows per value that is divided back to scale, whose remainder is range-checked digit by digit.
    pub const ROWS_PER_RESCALE: f64 = 23.0;
    /// Rows per addition.
    pub const ROWS_PER_ARITHMETIC: f64 = 0.5;
    /// Rows per comparison with a constant, which decomposes the value into digits.
    pub const ROWS_PER_COMPARISON: f64 = 8.0;
    /// Rows per comparison of two values.
    pub const ROWS_PER_MAXIMUM: f64 = 18.3;
    /// Rows per look-up.
    pub const ROWS_PER_TABLE: f64 = 0.5;
    /// Rows per element that only moves.
    pub const ROWS_PER_MOVE: f64 = 0.0;
    /// Rows per element of a public output, whose range is checked.
    pub const ROWS_PER_PUBLIC_OUTPUT: f64 = 15.5;
    /// Rows per element of any other output.
    pub const ROWS_PER_COMMITTED_OUTPUT: f64 = 5.0;
    /// Rows per element of a `hashed` boundary on either side, in columns of their own beside the operations.
    pub const HASH_ROWS_PER_ELEMENT: u64 = 41;
    /// Rows are taken to be this much more than estimated, for the fit's error, when the circuit's size is predicted.
    pub const MARGIN: f64 = 1.1;
    /// The smallest circuit: range checks need a table of 2^14 rows, and blinding rows beside it.
    pub const LOGROWS_LOWEST: u32 = 15;
    /// Bytes of proving key per row: 4.6 GB at 2^19 rows, measured on the zoo's `cnn`.
    pub const KEY_BYTES_PER_ROW: u64 = 8_800;
    /// Bytes of peak memory per row: 11.5 GB at 2^19 rows, measured on the zoo's `cnn`.
    pub const MEMORY_BYTES_PER_ROW: u64 = 22_000;

    /// Rows of a shard: hashing runs beside the operations, so the longer of both counts.
    pub fn rows(operations: &Operations, input: (u64, BoundaryMode), output: (u64, BoundaryMode)) -> u64 {
        let Operations { macs, rescales, arithmetic, comparisons, maxima, tables, moves } = *operations;
        let per_output = if output.1 == BoundaryMode::Public { ROWS_PER_PUBLIC_OUTPUT } else { ROWS_PER_COMMITTED_OUTPUT };
        let terms = [
            (macs, ROWS_PER_MAC),
            (rescales, ROWS_PER_RESCALE),
            (arithmetic, ROWS_PER_ARITHMETIC),
            (comparisons, ROWS_PER_COMPARISON),
            (maxima, ROWS_PER_MAXIMUM),
            (tables, ROWS_PER_TABLE),
            (moves, ROWS_PER_MOVE),
            (output.0, per_output),
        ];
        let computed = terms.iter().map(|&(count, rows)| count as f64 * rows).sum::<f64>().ceil() as u64;
        let hashed = |(elements, mode): (u64, BoundaryMode)| if mode == BoundaryMode::Hashed { elements } else { 0 };
        let hashing = hashed(input).saturating_add(hashed(output)).saturating_mul(HASH_ROWS_PER_ELEMENT);
        // Public values fill one column, one row each.
        computed.max(hashing).max(input.0.saturating_add(output.0))
    }

    /// Size of the circuit that holds `rows`, and what it needs.
    pub fn predict(rows: u64) -> EzklPrediction {
        let needed = (rows.max(1) as f64 * MARGIN) as u64;
        let logrows = needed.checked_next_power_of_two().map_or(63, u64::trailing_zeros).max(LOGROWS_LOWEST);
        let circuit = 1u64 << logrows;
        EzklPrediction {
            rows,
            logrows,
            proving_key_bytes: circuit.saturating_mul(KEY_BYTES_PER_ROW),
            peak_memory_bytes: circuit.saturating_mul(MEMORY_BYTES_PER_ROW),
        }
    }
}
