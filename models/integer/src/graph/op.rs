//! The operators of integer graphs, with the windows of those that slide.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{MAX_QUOTIENT_BITS, MAX_REQUANT_BITS, MAX_ROOT_BITS, MAX_SHIFT};
use super::{TableId, TensorId, WeightId};

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
    /// `y[b.., m, n] = sum_k left[b.., m, k] right[b.., n, k]`: the product of two tensors' matrices, the second one
    /// transposed, for each index of the equal axes before them.
    MatMulTensors {
        /// `[b.., M, K]`.
        left: TensorId,
        /// `[b.., N, K]`.
        right: TensorId,
    },
    /// `y[i] = left[i] right[i]` over tensors of one shape; of a tensor and itself the square.
    MulTensors {
        /// The one factor.
        left: TensorId,
        /// The other factor.
        right: TensorId,
    },
    /// Sums over whole axes, which keep the extent 1.
    ReduceSum {
        /// `x`.
        input: TensorId,
        /// At least one axis, ascending.
        axes: Vec<usize>,
    },
    /// Repeats the input along axes on which it has the extent 1.
    Expand {
        /// `x`.
        input: TensorId,
        /// The result's extents: each is the input's, or the input's is 1.
        shape: Vec<usize>,
    },
    /// `y[.., j, ..] = x[.., indices[j], ..]` on one axis, the indices being part of the architecture.
    Gather {
        /// `x`.
        input: TensorId,
        /// The axis of `indices`.
        axis: usize,
        /// At least one, each below the axis' extent.
        indices: Vec<u32>,
    },
    /// `y[.., 0] = max_j x[.., j]`: the largest value along the last axis, which keeps the extent 1.
    Max {
        /// `x`, of one axis or more.
        input: TensorId,
    },
    /// `q = floor((2 x + d) / (2 d))`, that is `x / d` rounded to the nearest integer and halves up. A denominator that is
    /// not positive, or a quotient outside `-2^bits .. 2^bits`, ends the run with an error.
    Divide {
        /// `x`.
        numerator: TensorId,
        /// `d`, of the numerator's shape.
        denominator: TensorId,
        /// From 1 to [`MAX_QUOTIENT_BITS`].
        bits: u32,
    },
    /// `y = floor(sqrt(x))`; a negative input, or a root of 2^bits or more, ends the run with an error.
    Sqrt {
        /// `x`, at an even scale.
        input: TensorId,
        /// From 1 to [`MAX_ROOT_BITS`].
        bits: u32,
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

impl Op {
    /// The trained values that it reads, of which it has at most one tensor.
    pub fn weight(&self) -> Option<WeightId> {
        match self {
            Self::MatMul { weight, .. } | Self::MulWeight { weight, .. } | Self::AddWeight { weight, .. } => {
                Some(*weight)
            }
            Self::Conv(conv) => Some(conv.weight),
            _ => None,
        }
    }

    /// The tensors that it reads, in order.
    pub fn inputs(&self) -> Vec<TensorId> {
        match self {
            Self::Combine { terms, .. } => terms.iter().map(|&(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.clone(),
            Self::Conv(conv) => vec![conv.input],
            Self::MatMulTensors { left, right } | Self::MulTensors { left, right } => vec![*left, *right],
            Self::Divide { numerator, denominator, .. } => vec![*numerator, *denominator],
            Self::MatMul { input, .. }
            | Self::MulWeight { input, .. }
            | Self::AddWeight { input, .. }
            | Self::WindowSum { input, .. }
            | Self::Reshape { input, .. }
            | Self::Transpose { input, .. }
            | Self::Slice { input, .. }
            | Self::Pad { input, .. }
            | Self::Requant { input, .. }
            | Self::Table { input, .. }
            | Self::ReduceSum { input, .. }
            | Self::Expand { input, .. }
            | Self::Gather { input, .. }
            | Self::Max { input }
            | Self::Sqrt { input, .. } => vec![*input],
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
            Self::MatMulTensors { .. } => "MatMulTensors",
            Self::MulTensors { .. } => "MulTensors",
            Self::ReduceSum { .. } => "ReduceSum",
            Self::Expand { .. } => "Expand",
            Self::Gather { .. } => "Gather",
            Self::Max { .. } => "Max",
            Self::Divide { .. } => "Divide",
            Self::Sqrt { .. } => "Sqrt",
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
