//! The graph between ONNX and integers: the integer graph's operators with real constants and no scales yet.
//!
//! Lowering builds it, folding simplifies it, calibration evaluates it, and emission gives each tensor its scale. Shapes
//! are known for every tensor; what an operator needs of them is checked here, once, when a node is pushed.

mod tensor;

use shardproof_integer::Window;

use super::functions::Function;

pub(super) use tensor::{RealTensor, broadcast_strides, offsets, strides};

/// A tensor: the graph's inputs come first, then one for each node.
pub(super) type Tensor = usize;

/// What lowering makes of an ONNX graph.
#[derive(Clone, Debug, Default)]
pub(super) struct RealGraph {
    pub(super) inputs: Vec<RealInput>,
    pub(super) nodes: Vec<RealNode>,
    pub(super) outputs: Vec<Tensor>,
}

#[derive(Clone, Debug)]
pub(super) struct RealInput {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct RealNode {
    /// Name of the ONNX node that it comes from, and that node's operator.
    pub(super) name: String,
    pub(super) operator: String,
    pub(super) op: RealOp,
    /// Of the result.
    pub(super) shape: Vec<usize>,
}

/// The operators; those that the integer graph has too mean the same.
#[derive(Clone, Debug)]
pub(super) enum RealOp {
    MatMul {
        input: Tensor,
        weight: RealTensor,
    },
    Conv {
        input: Tensor,
        weight: RealTensor,
        groups: usize,
        window: Window,
    },
    MulWeight {
        input: Tensor,
        weight: RealTensor,
    },
    AddWeight {
        input: Tensor,
        weight: RealTensor,
    },
    Combine {
        terms: Vec<(Tensor, f64)>,
        constant: f64,
    },
    WindowSum {
        input: Tensor,
        window: Window,
    },
    Reshape {
        input: Tensor,
    },
    Transpose {
        input: Tensor,
        axes: Vec<usize>,
    },
    Slice {
        input: Tensor,
        start: Vec<usize>,
        step: Vec<usize>,
    },
    Pad {
        input: Tensor,
        before: Vec<usize>,
        after: Vec<usize>,
        fill: Fill,
    },
    Concat {
        inputs: Vec<Tensor>,
        axis: usize,
    },
    Relu {
        input: Tensor,
    },
    /// The larger of two tensors, element by element.
    Larger {
        inputs: [Tensor; 2],
    },
    /// The same values, few enough bits in the integer graph that differences of them can be requantised exactly.
    Narrow {
        input: Tensor,
    },
    Function {
        input: Tensor,
        function: Function,
    },
    /// `factor sum_k left[.., m, k] right[.., n, k]`, of equal axes but the last two.
    MatMulTensors {
        left: Tensor,
        right: Tensor,
        factor: f64,
    },
    /// Element by element, of equal shapes.
    MulTensors {
        inputs: [Tensor; 2],
    },
    /// Sums over axes, which keep an extent of 1.
    ReduceSum {
        input: Tensor,
        axes: Vec<usize>,
    },
    /// Axes of extent 1 repeated up to those of the result.
    Expand {
        input: Tensor,
    },
    /// Elements `indices` of one axis.
    Gather {
        input: Tensor,
        axis: usize,
        indices: Vec<usize>,
    },
    /// Softmax of `factor x` over the last axis; where `keep` is zero, the result is exactly zero and the element has no
    /// part in the sum. Each row keeps one element at least.
    Softmax {
        input: Tensor,
        factor: f64,
        keep: Option<RealTensor>,
    },
    /// `c / sqrt(mean(c^2) + epsilon)` over the last axis, where `c` is `x - mean(x)` if `centred`, else `x`.
    Normalise {
        input: Tensor,
        epsilon: f64,
        centred: bool,
    },
    Sqrt {
        input: Tensor,
    },
    Reciprocal {
        input: Tensor,
    },
    /// Element by element, of equal shapes.
    Divide {
        numerator: Tensor,
        denominator: Tensor,
    },
}

/// What padding consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    Value(f64),
    /// Something that is at most every value of the tensor, so that no maximum picks it over one of them.
    Lowest,
}

impl RealGraph {
    pub(super) fn shape(&self, tensor: Tensor) -> &[usize] {
        match tensor.checked_sub(self.inputs.len()) {
            None => &self.inputs[tensor].shape,
            Some(node) => &self.nodes[node].shape,
        }
    }

    /// The node that makes `tensor`; nothing for an input.
    pub(super) fn producer(&self, tensor: Tensor) -> Option<usize> {
        tensor.checked_sub(self.inputs.len())
    }

    /// How many outputs, and nodes that an output depends on, read each tensor.
    pub(super) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.inputs.len() + self.nodes.len()];
        self.outputs.iter().for_each(|&tensor| uses[tensor] += 1);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if uses[self.inputs.len() + index] > 0 {
                node.op.inputs().iter().for_each(|&tensor| uses[tensor] += 1);
            }
        }
        uses
    }

    /// What makes `tensor`; nothing for an input.
    pub(super) fn op(&self, tensor: Tensor) -> Option<&RealOp> {
        self.producer(tensor).map(|node| &self.nodes[node].op)
    }
}

impl RealOp {
    /// The tensors that it reads.
    pub(super) fn inputs(&self) -> Vec<Tensor> {
        match self {
            Self::Combine { terms, .. } => terms.iter().map(|&(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.clone(),
            Self::Larger { inputs } | Self::MulTensors { inputs } => inputs.to_vec(),
            Self::MatMulTensors { left, right, .. } => vec![*left, *right],
            Self::Divide { numerator, denominator } => vec![*numerator, *denominator],
            Self::MatMul { input, .. }
            | Self::Conv { input, .. }
            | Self::MulWeight { input, .. }
            | Self::AddWeight { input, .. }
            | Self::WindowSum { input, .. }
            | Self::Reshape { input }
            | Self::Transpose { input, .. }
            | Self::Slice { input, .. }
            | Self::Pad { input, .. }
            | Self::Relu { input }
            | Self::Narrow { input }
            | Self::Function { input, .. }
            | Self::ReduceSum { input, .. }
            | Self::Expand { input }
            | Self::Gather { input, .. }
            | Self::Softmax { input, .. }
            | Self::Normalise { input, .. }
            | Self::Sqrt { input }
            | Self::Reciprocal { input } => vec![*input],
        }
    }

    /// The tensors that it reads, to be replaced.
    pub(super) fn inputs_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Combine { terms, .. } => terms.iter_mut().map(|(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.iter_mut().collect(),
            Self::Larger { inputs } | Self::MulTensors { inputs } => inputs.iter_mut().collect(),
            Self::MatMulTensors { left, right, .. } => vec![left, right],
            Self::Divide { numerator, denominator } => vec![numerator, denominator],
            Self::MatMul { input, .. }
            | Self::Conv { input, .. }
            | Self::MulWeight { input, .. }
            | Self::AddWeight { input, .. }
            | Self::WindowSum { input, .. }
            | Self::Reshape { input }
            | Self::Transpose { input, .. }
            | Self::Slice { input, .. }
            | Self::Pad { input, .. }
            | Self::Relu { input }
            | Self::Narrow { input }
            | Self::Function { input, .. }
            | Self::ReduceSum { input, .. }
            | Self::Expand { input }
            | Self::Gather { input, .. }
            | Self::Softmax { input, .. }
            | Self::Normalise { input, .. }
            | Self::Sqrt { input }
            | Self::Reciprocal { input } => vec![input],
        }
    }
}
