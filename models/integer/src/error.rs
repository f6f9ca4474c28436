//! Why a graph, its weights, its bytes or a run of it are refused: one variant for each cause, naming the place.

use std::fmt;

use crate::check::Bounds;
use crate::graph::{
    BOUNDARY_BITS, Graph, MAX_QUOTIENT_BITS, MAX_REQUANT_BITS, MAX_ROOT_BITS, MAX_SHIFT, MAX_TABLE_BITS, TableId,
    TensorId, WeightId,
};
use crate::{MAX_ELEMENTS, MAX_ITEMS, MAX_RANK, VALUE_BITS};

/// The part of a graph that an error speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// A graph input.
    Input {
        /// Place among the inputs.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A trained tensor.
    Weight {
        /// Place among the weights.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A lookup table.
    Table {
        /// Place among the tables.
        index: usize,
        /// Its name.
        name: String,
    },
    /// An operator application.
    Node {
        /// Place among the nodes.
        index: usize,
        /// Its name.
        name: String,
        /// Its operator.
        op: &'static str,
    },
    /// A graph output.
    Output {
        /// Place among the outputs.
        index: usize,
    },
}

impl Site {
    /// Node `index` of `graph`.
    pub(crate) fn node(graph: &Graph, index: usize) -> Box<Self> {
        let node = &graph.nodes[index];
        Box::new(Self::Node { index, name: node.name.clone(), op: node.op.name() })
    }

    /// Input `index` of `graph`.
    pub(crate) fn input(graph: &Graph, index: usize) -> Box<Self> {
        Box::new(Self::Input { index, name: graph.inputs[index].name.clone() })
    }

    /// Weight `index` of `graph`.
    pub(crate) fn weight(graph: &Graph, index: usize) -> Box<Self> {
        Box::new(Self::Weight { index, name: graph.weights[index].name.clone() })
    }

    /// Table `index` of `graph`.
    pub(crate) fn table(graph: &Graph, index: usize) -> Box<Self> {
        Box::new(Self::Table { index, name: graph.tables[index].name.clone() })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { index, name } => write!(formatter, "input {index} ({name:?})"),
            Self::Weight { index, name } => write!(formatter, "weight {index} ({name:?})"),
            Self::Table { index, name } => write!(formatter, "table {index} ({name:?})"),
            Self::Node { index, name, op } => write!(formatter, "node {index} ({name:?}, {op})"),
            Self::Output { index } => write!(formatter, "output {index}"),
        }
    }
}

/// Why a graph is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum GraphError {
    #[error("the graph has {count} {items}; at most {MAX_ITEMS} are allowed")]
    TooMany { items: &'static str, count: usize },
    #[error("{site} reads {count} tensors; at most {MAX_ITEMS} are allowed")]
    TooManyOperands { site: Box<Site>, count: usize },
    #[error("the graph has no outputs")]
    NoOutputs,
    #[error("{site} has {rank} axes; at most {MAX_RANK} are allowed")]
    Rank { site: Box<Site>, rank: usize },
    #[error("{site}: axis {axis} has no elements")]
    EmptyAxis { site: Box<Site>, axis: usize },
    #[error("{site} has more than {MAX_ELEMENTS} elements, padding included")]
    Elements { site: Box<Site> },
    #[error("{site} declares values of {bits} bits; at most 31 are allowed")]
    WeightBits { site: Box<Site>, bits: u32 },
    #[error("{site} has a domain of {bits} bits; from 1 to {MAX_TABLE_BITS} are allowed")]
    TableBits { site: Box<Site>, bits: u32 },
    #[error("{site} has {found} entries, its domain {expected}")]
    TableLength { site: Box<Site>, expected: usize, found: usize },
    #[error("{site}: entry {entry} is {value}, beyond 2^{BOUNDARY_BITS} in magnitude")]
    TableValue { site: Box<Site>, entry: usize, value: i32 },
    #[error("{site} reads tensor {}, but only the {known} tensors before it exist", tensor.0)]
    UnknownTensor { site: Box<Site>, tensor: TensorId, known: usize },
    #[error("{site} uses weight {}, but the graph has {known}", weight.0)]
    UnknownWeight { site: Box<Site>, weight: WeightId, known: usize },
    #[error("{site} uses table {}, but the graph has {known}", table.0)]
    UnknownTable { site: Box<Site>, table: TableId, known: usize },
    #[error("{site} reads no tensors")]
    NoOperands { site: Box<Site> },
    #[error("{site}: a matrix product needs input [.., K] and weight [N, K], not {input:?} and {weight:?}")]
    MatMulShapes { site: Box<Site>, input: Vec<usize>, weight: Vec<usize> },
    #[error(
        "{site}: a convolution needs input [N, C, H, W] and weight [M, C / groups, h, w], not {input:?} and {weight:?}"
    )]
    ConvRank { site: Box<Site>, input: Vec<usize>, weight: Vec<usize> },
    #[error("{site}: {groups} groups do not divide {input} input and {output} output channels")]
    ConvGroups { site: Box<Site>, groups: usize, input: usize, output: usize },
    #[error("{site}: the weight's extents [_, C / groups, h, w] must be {expected:?}, not {found:?}")]
    ConvWeight { site: Box<Site>, expected: [usize; 3], found: [usize; 3] },
    #[error("{site}: sliding windows need two axes, not {input:?}")]
    WindowRank { site: Box<Site>, input: Vec<usize> },
    #[error("{site}: kernel, stride and dilation of the window must be positive")]
    WindowZero { site: Box<Site> },
    #[error("{site}: no window fits into [{height}, {width}] and its padding")]
    WindowFit { site: Box<Site>, height: usize, width: usize },
    #[error("{site}: {extent} windows of {kernel} along one axis cover more elements together than a tensor may have")]
    WindowOverlap { site: Box<Site>, extent: usize, kernel: usize },
    #[error("{site}: weight {weight:?} does not broadcast to input {input:?}")]
    Broadcast { site: Box<Site>, input: Vec<usize>, weight: Vec<usize> },
    #[error("{site}: the multiplier is zero")]
    ZeroMultiplier { site: Box<Site> },
    #[error("{site}: term {term} has shape {found:?}, the first {expected:?}")]
    CombineShapes { site: Box<Site>, term: usize, expected: Vec<usize>, found: Vec<usize> },
    #[error("{site}: {input:?} and {shape:?} have different numbers of elements")]
    ReshapeElements { site: Box<Site>, input: Vec<usize>, shape: Vec<usize> },
    #[error("{site}: {axes:?} is no permutation of {rank} axes")]
    TransposeAxes { site: Box<Site>, axes: Vec<usize>, rank: usize },
    #[error("{site}: start, step and count must have {rank} entries each")]
    SliceRank { site: Box<Site>, rank: usize },
    #[error("{site}: the step of axis {axis} is zero")]
    SliceStep { site: Box<Site>, axis: usize },
    #[error("{site}: the slice leaves axis {axis} of {extent} elements")]
    SliceRange { site: Box<Site>, axis: usize, extent: usize },
    #[error("{site}: before and after must have {rank} entries each")]
    PadRank { site: Box<Site>, rank: usize },
    #[error("{site}: axis {axis} of a tensor of {rank} axes")]
    ConcatAxis { site: Box<Site>, axis: usize, rank: usize },
    #[error("{site}: input {index} of shape {found:?} does not continue {expected:?}")]
    ConcatShapes { site: Box<Site>, index: usize, expected: Vec<usize>, found: Vec<usize> },
    #[error(
        "{site}: a product of tensors needs [.., M, K] and [.., N, K] with equal axes before, not {left:?} and {right:?}"
    )]
    TensorProduct { site: Box<Site>, left: Vec<usize>, right: Vec<usize> },
    #[error("{site}: operands of shapes {left:?} and {right:?}; they must be equal, so expand one first")]
    ElementShapes { site: Box<Site>, left: Vec<usize>, right: Vec<usize> },
    #[error("{site}: {axes:?} are not ascending axes of a tensor of {rank}")]
    ReduceAxes { site: Box<Site>, axes: Vec<usize>, rank: usize },
    #[error("{site}: {input:?} cannot be repeated to {shape:?}")]
    ExpandShape { site: Box<Site>, input: Vec<usize>, shape: Vec<usize> },
    #[error("{site}: axis {axis} of a tensor of {rank} axes")]
    GatherAxis { site: Box<Site>, axis: usize, rank: usize },
    #[error("{site}: index {index} on an axis of {extent} elements")]
    GatherIndex { site: Box<Site>, index: u32, extent: usize },
    #[error("{site}: a maximum needs an axis to be taken along")]
    MaxRank { site: Box<Site> },
    #[error("{site}: a quotient of {bits} bits; from 1 to {MAX_QUOTIENT_BITS} are allowed")]
    QuotientBits { site: Box<Site>, bits: u32 },
    #[error(
        "{site}: numerators from {} to {} and denominators from {} to {} leave no room in 62 bits for quotients of {bits} \
         bits; requantise them to fewer bits first", numerator.low, numerator.high, denominator.low, denominator.high
    )]
    QuotientRoom { site: Box<Site>, numerator: Bounds, denominator: Bounds, bits: u32 },
    #[error("{site}: a root of {bits} bits; from 1 to {MAX_ROOT_BITS} are allowed")]
    RootBits { site: Box<Site>, bits: u32 },
    #[error("{site}: the root of values at scale {scale}; an odd scale has no root")]
    RootScale { site: Box<Site>, scale: i32 },
    #[error("{site}: a shift of {shift}; at most {MAX_SHIFT} is allowed")]
    RequantShift { site: Box<Site>, shift: u32 },
    #[error("{site}: a result of {bits} bits; from 1 to {MAX_REQUANT_BITS} are allowed")]
    RequantBits { site: Box<Site>, bits: u32 },
    #[error("{site}: values from {} to {} leave no room in 62 bits for a shift of {shift} to {bits} bits", input.low, input.high)]
    RequantRoom { site: Box<Site>, input: Bounds, shift: u32, bits: u32 },
    #[error("{site}: no input from {} to {} has a result", input.low, input.high)]
    NeverInRange { site: Box<Site>, input: Bounds },
    #[error("{site} can reach a magnitude of {magnitude}, which is not below 2^{VALUE_BITS}")]
    Magnitude { site: Box<Site>, magnitude: i128 },
    #[error("{site} can have values from {} to {}, beyond 2^{BOUNDARY_BITS} in magnitude", bounds.low, bounds.high)]
    OutputRange { site: Box<Site>, bounds: Bounds },
    #[error("{site} declares scale {found}, but its operator makes {expected}")]
    Scale { site: Box<Site>, expected: i64, found: i32 },
    #[error("{site}: input {index} has scale {found}, the first {expected}")]
    ConcatScale { site: Box<Site>, index: usize, expected: i32, found: i32 },
}

/// Why weights do not belong to a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum WeightsError {
    #[error("{found} weights were given; the graph has {expected}")]
    Count { expected: usize, found: usize },
    #[error("{site} has {found} values, its shape {expected}")]
    Length { site: Box<Site>, expected: usize, found: usize },
    #[error("{site}: value {index} is {value}, beyond its declared 2^{bits}")]
    Bound { site: Box<Site>, index: usize, value: i32, bits: u32 },
}

/// Why bytes are not the canonical encoding of a graph or of its weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum EncodingError {
    #[error("an encoding of {found} bytes; at most {limit} are allowed")]
    TooLong { limit: usize, found: usize },
    #[error("the encoding is empty")]
    Empty,
    #[error("format version {found}; this program knows {expected}")]
    Version { expected: u8, found: u8 },
    #[error("not a graph: {0}")]
    Malformed(postcard::Error),
    #[error("{count} bytes follow the graph")]
    Trailing { count: usize },
    #[error("the graph is not encoded in the one canonical way")]
    NotCanonical,
    #[error("the weights take {expected} bytes; {found} were given")]
    WeightsLength { expected: usize, found: usize },
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Why a run has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RunError {
    #[error("no runs were asked for")]
    NoRuns,
    #[error("{runs} runs of this graph make tensors of more than {limit} elements")]
    TooManyRuns { runs: usize, limit: usize },
    #[error("{found} inputs were given; the graph has {expected}")]
    InputCount { expected: usize, found: usize },
    #[error("{site}: {found} values were given; {runs} runs take {expected}")]
    InputLength { site: Box<Site>, runs: usize, expected: usize, found: usize },
    #[error("{site}, run {run}, element {index}: {value} is not in {} ..= {}", allowed.low, allowed.high)]
    InputRange { site: Box<Site>, run: usize, index: usize, value: i64, allowed: Bounds },
    #[error("{site}, run {run}, element {index}: the rescaled value {value} is not in {} ..= {}", allowed.low, allowed.high)]
    RequantRange { site: Box<Site>, run: usize, index: usize, value: i64, allowed: Bounds },
    #[error("{site}, run {run}, element {index}: {value} is not in the table's domain {} ..= {}", allowed.low, allowed.high)]
    TableDomain { site: Box<Site>, run: usize, index: usize, value: i64, allowed: Bounds },
    #[error("{site}, run {run}, element {index}: the denominator {value} is not positive")]
    Denominator { site: Box<Site>, run: usize, index: usize, value: i64 },
    #[error("{site}, run {run}, element {index}: the quotient {value} is not in {} ..= {}", allowed.low, allowed.high)]
    QuotientRange { site: Box<Site>, run: usize, index: usize, value: i64, allowed: Bounds },
    #[error("{site}, run {run}, element {index}: {value} has no root in 0 ..= {}", allowed.high)]
    RootRange { site: Box<Site>, run: usize, index: usize, value: i64, allowed: Bounds },
}

impl RunError {
    /// Whether a value left the range that the graph was made for: the input is another than those that it was calibrated on.
    pub fn is_out_of_range(&self) -> bool {
        match self {
            Self::NoRuns | Self::TooManyRuns { .. } | Self::InputCount { .. } | Self::InputLength { .. } => false,
            Self::InputRange { .. }
            | Self::RequantRange { .. }
            | Self::TableDomain { .. }
            | Self::Denominator { .. }
            | Self::QuotientRange { .. }
            | Self::RootRange { .. } => true,
        }
    }
}
