//! The integer graph: what a quantised network computes, operator by operator.
//!
//! Values are integers `q` at a scale `s`, meaning the real `q / 2^s`. There are four kinds of operator. *Linear* ones
//! ([`Op::MatMul`], [`Op::Conv`], [`Op::MulWeight`], [`Op::AddWeight`], [`Op::Combine`], [`Op::WindowSum`],
//! [`Op::ReduceSum`]) and *products* of tensors ([`Op::MatMulTensors`], [`Op::MulTensors`]) accumulate exactly. *Shape* ones
//! move values. *Non-linear* ones ([`Op::Requant`], [`Op::Table`], [`Op::Max`], [`Op::Divide`], [`Op::Sqrt`]) round, compare
//! and bring accumulators back to a bounded range; a value outside that range ends the run with an error and has no proof.
//! Everything else is composed of these: the larger of two tensors is `y + relu(x - y)`, a clip is two ReLUs, a softmax is a
//! maximum, a table, a sum and a division for each row.
//!
//! All tensors are row-major. Shapes leave the run axis out: a batch of R runs holds R tensors of each shape.

mod op;

use serde::{Deserialize, Serialize};

pub use op::{Conv, Op, Window};

/// A tensor: the graph's inputs come first, then one for each node, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TensorId(pub u32);

/// A weight, by its place in [`Graph::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WeightId(pub u32);

/// A lookup table, by its place in [`Graph::tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub u32);

/// Every integer that crosses a boundary, and every weight, has a magnitude of at most 2^24: shards can be checked
/// without knowing their neighbours.
pub const BOUNDARY_BITS: u32 = 24;
/// Most bits of a requantised value, so that it may cross a boundary.
pub const MAX_REQUANT_BITS: u32 = BOUNDARY_BITS;
/// Most bits that one requantisation shifts away.
pub const MAX_SHIFT: u32 = 36;
/// Most bits of a quotient.
pub const MAX_QUOTIENT_BITS: u32 = 31;
/// Most bits of a root: its square is a value of the graph.
pub const MAX_ROOT_BITS: u32 = 30;
/// Largest domain of a lookup table, log2 of its entries.
pub const MAX_TABLE_BITS: u32 = 18;

/// The architecture of a quantised shard: everything but the trained values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// What enters, in the order of the shard's inputs.
    #[serde(deserialize_with = "crate::encoding::capped_list")]
    pub inputs: Vec<Input>,
    /// Shapes and bounds of the trained values.
    #[serde(deserialize_with = "crate::encoding::capped_list")]
    pub weights: Vec<Weight>,
    /// Functions by table.
    #[serde(deserialize_with = "crate::encoding::capped_list")]
    pub tables: Vec<Table>,
    /// Operators in topological order; node i makes tensor `inputs.len() + i`.
    #[serde(deserialize_with = "crate::encoding::capped_list")]
    pub nodes: Vec<Node>,
    /// What leaves, in the order of the shard's outputs: each of magnitude at most 2^[`BOUNDARY_BITS`] by interval analysis.
    #[serde(deserialize_with = "crate::encoding::capped_list")]
    pub outputs: Vec<TensorId>,
}

/// An input: integers of magnitude at most 2^[`BOUNDARY_BITS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Name in the ONNX graph.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// `s` in `real = q / 2^s`.
    pub scale: i32,
}

/// Shape and bound of a trained tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Name in the ONNX graph, or of the node that it was folded for.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Every value `w` has `|w| <= 2^bits`; at most 31.
    pub bits: u32,
}

/// A function over the integers `-2^(bits-1) .. 2^(bits-1)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What it computes, for people.
    pub name: String,
    /// log2 of the number of entries, from 1 to [`MAX_TABLE_BITS`].
    pub bits: u32,
    /// Value at `-2^(bits-1)`, then upwards; of magnitude at most 2^[`BOUNDARY_BITS`].
    pub values: Vec<i32>,
}

/// One operator application, which makes one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the ONNX node that it comes from.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Scale of the result, `s` in `real = q / 2^s`.
    pub scale: i32,
}

/// The trained values of a graph, in the order of [`Graph::weights`]; row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights(pub Vec<Vec<i32>>);

impl Graph {
    /// The tensor that node `node` makes.
    pub fn result(&self, node: usize) -> TensorId {
        TensorId((self.inputs.len() + node) as u32)
    }

    /// The node that makes `tensor`; nothing for an input.
    pub fn producer(&self, tensor: TensorId) -> Option<usize> {
        (tensor.0 as usize).checked_sub(self.inputs.len())
    }

    /// Scale of `tensor`.
    pub fn scale(&self, tensor: TensorId) -> i32 {
        match self.producer(tensor) {
            None => self.inputs[tensor.0 as usize].scale,
            Some(node) => self.nodes[node].scale,
        }
    }
}
