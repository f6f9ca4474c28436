//! The integer graph: what a quantised network computes, operator by operator.
//!
//! Values are integers `q` at a scale `s`, meaning the real `q / 2^s`. There are three kinds of operator. *Linear* ones
//! ([`Op::MatMul`], [`Op::Conv`], [`Op::MulWeight`], [`Op::AddWeight`], [`Op::Combine`], [`Op::WindowSum`]) accumulate
//! exactly. *Shape* ones move values. *Non-linear* ones ([`Op::Requant`], [`Op::Table`]) bring accumulators back to a
//! bounded range; a value outside that range ends the run with an error and has no proof. Everything else is composed of
//! these: a maximum is `y + relu(x - y)`, a clip is two ReLUs.
//!
//! All tensors are row-major. Shapes leave the run axis out: a batch of R runs holds R tensors of each shape.

use serde::{Deserialize, Serialize};

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

/// The operators. `x` is the input, `y` the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `y[.., n] = sum_k w[n, k] x[.., k]`; the weight is `[N, K]`, the input of any rank >= 1 with last extent K.
    MatMul {
        /// `x`.
        input: TensorId,
        /// `w`.
        weight: WeightId,
    },
    /// 2-d convolution as ONNX defines it, without bias.
    Conv(Conv),
    /// `y[i] = w[i'] x[i]`, where the weight has the input's rank and each extent is the input's or 1 (broadcast).
    MulWeight {
        /// `x`.
        input: TensorId,
        /// `w`.
        weight: WeightId,
    },
    /// `y[i] = x[i] + multiplier w[i']`, broadcast as in [`Op::MulWeight`]: biases.
    AddWeight {
        /// `x`.
        input: TensorId,
        /// `w`.
        weight: WeightId,
        /// Brings the weight to the input's scale; not zero.
        multiplier: i64,
    },
    /// `y = constant + sum_t c_t x_t` over tensors of one shape: residual sums, differences, scalar factors.
    Combine {
        /// At least one `(x_t, c_t)`.
        terms: Vec<(TensorId, i64)>,
        /// Added to every element.
        constant: i64,
    },
    /// Sums over sliding windows of the last two axes, padding counting as zero: average pooling before its division.
    WindowSum {
        /// `x`, `[.., H, W]`.
        input: TensorId,
        /// The windows.
        window: Window,
    },
    /// The same values in another shape.
    Reshape {
        /// `x`.
        input: TensorId,
        /// Of as many elements as the input.
        shape: Vec<usize>,
    },
    /// `y`'s axis a is `x`'s axis `axes[a]`.
    Transpose {
        /// `x`.
        input: TensorId,
        /// A permutation of the axes.
        axes: Vec<usize>,
    },
    /// `y[i_0, ..] = x[start_0 + i_0 step_0, ..]` with `i_a < count_a`.
    Slice {
        /// `x`.
        input: TensorId,
        /// First index, for each axis.
        start: Vec<usize>,
        /// Distance of indices, at least 1, for each axis.
        step: Vec<usize>,
        /// Number of indices, at least 1, for each axis.
        count: Vec<usize>,
    },
    /// Surrounds the input by a constant.
    Pad {
        /// `x`.
        input: TensorId,
        /// Elements before, for each axis.
        before: Vec<usize>,
        /// Elements after, for each axis.
        after: Vec<usize>,
        /// What they are.
        value: i64,
    },
    /// The inputs one after another along an axis.
    Concat {
        /// At least one, of equal extents but on `axis`.
        inputs: Vec<TensorId>,
        /// Which axis.
        axis: usize,
    },
    /// `q = floor((x + 2^(shift-1)) / 2^shift)` (`q = x` where shift is 0), which must be in `-2^bits .. 2^bits`, else the
    /// run ends with an error; the result is `q`, or `max(q, 0)` with `relu`.
    Requant {
        /// `x`.
        input: TensorId,
        /// At most [`MAX_SHIFT`].
        shift: u32,
        /// From 1 to [`MAX_REQUANT_BITS`].
        bits: u32,
        /// Whether negative results become zero.
        relu: bool,
    },
    /// `y = table[x]`; an input outside the table's domain ends the run with an error.
    Table {
        /// `x`.
        input: TensorId,
        /// The function.
        table: TableId,
    },
}

/// A 2-d convolution: `y[n, m, h, w] = sum_{c, i, j} weight[m, c, i, j] x[n, g C/groups + c, h s_0 + i d_0 - p_0, ..]` with
/// `g = m / (M / groups)`; padding counts as zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// `x`, `[N, C, H, W]`.
    pub input: TensorId,
    /// `[M, C / groups, window.kernel[0], window.kernel[1]]`.
    pub weight: WeightId,
    /// Divides C and M.
    pub groups: usize,
    /// The windows.
    pub window: Window,
}

/// Sliding windows over two axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Extents of the window, height and width.
    pub kernel: [usize; 2],
    /// Distance of windows.
    pub stride: [usize; 2],
    /// Distance of elements in a window.
    pub dilation: [usize; 2],
    /// Zeros before and after the height.
    pub pad_height: [usize; 2],
    /// Zeros before and after the width.
    pub pad_width: [usize; 2],
}

/// The trained values of a graph, in the order of [`Graph::weights`]; row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights(pub Vec<Vec<i32>>);

impl Op {
    /// The tensors that it reads, in order.
    pub fn inputs(&self) -> Vec<TensorId> {
        match self {
            Self::Combine { terms, .. } => terms.iter().map(|&(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.clone(),
            Self::Conv(conv) => vec![conv.input],
            Self::MatMul { input, .. }
            | Self::MulWeight { input, .. }
            | Self::AddWeight { input, .. }
            | Self::WindowSum { input, .. }
            | Self::Reshape { input, .. }
            | Self::Transpose { input, .. }
            | Self::Slice { input, .. }
            | Self::Pad { input, .. }
            | Self::Requant { input, .. }
            | Self::Table { input, .. } => vec![*input],
        }
    }

    /// The name for messages and reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MatMul { .. } => "MatMul",
            Self::Conv(_) => "Conv",
            Self::MulWeight { .. } => "MulWeight",
            Self::AddWeight { .. } => "AddWeight",
            Self::Combine { .. } => "Combine",
            Self::WindowSum { .. } => "WindowSum",
            Self::Reshape { .. } => "Reshape",
            Self::Transpose { .. } => "Transpose",
            Self::Slice { .. } => "Slice",
            Self::Pad { .. } => "Pad",
            Self::Concat { .. } => "Concat",
            Self::Requant { .. } => "Requant",
            Self::Table { .. } => "Table",
        }
    }
}

impl Window {
    /// The extents of the result over an input of `height` and `width`; nothing when no window fits.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let extent = |input: usize, axis: usize, [before, after]: [usize; 2]| {
            let span = self.dilation[axis].checked_mul(self.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
            let padded = input.checked_add(before)?.checked_add(after)?;
            padded.checked_sub(span)?.checked_div(self.stride[axis])?.checked_add(1)
        };
        Some([extent(height, 0, self.pad_height)?, extent(width, 1, self.pad_width)?])
    }
}

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
