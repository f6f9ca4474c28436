//! The graph between ONNX and integers: the integer graph's operators with real constants and no scales yet.
//!
//! Lowering builds it, folding simplifies it, calibration evaluates it, and emission gives each tensor its scale. Shapes
//! are known for every tensor; what an operator needs of them is checked here, once, when a node is pushed.

use shardproof_integer::Window;

use super::functions::Function;

/// A tensor: the graph's inputs come first, then one for each node.
pub(super) type Tensor = usize;

/// A constant, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RealTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

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
}

/// What padding consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    Value(f64),
    /// Something that is at most every value of the tensor, so that no maximum picks it over one of them.
    Lowest,
}

impl RealTensor {
    pub(super) fn scalar(value: f64) -> Self {
        Self { shape: Vec::new(), values: vec![value] }
    }

    pub(super) fn map(mut self, function: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|value| *value = function(*value));
        self
    }

    /// The one value that all elements have, if they do.
    pub(super) fn uniform(&self) -> Option<f64> {
        let first = *self.values.first()?;
        self.values.iter().all(|&value| value == first).then_some(first)
    }

    /// The same elements with axes of extent 1 put first up to `rank`.
    pub(super) fn with_rank(mut self, rank: usize) -> Self {
        let missing = rank.saturating_sub(self.shape.len());
        self.shape.splice(0..0, std::iter::repeat_n(1, missing));
        self
    }

    /// Axis `a` of the result is axis `axes[a]` of this tensor.
    pub(super) fn transposed(self, axes: &[usize]) -> Self {
        if axes.iter().copied().eq(0..axes.len()) {
            return self;
        }
        let own = strides(&self.shape);
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let turned: Vec<usize> = axes.iter().map(|&axis| own[axis]).collect();
        let values = offsets(&shape, &turned, 0).into_iter().map(|offset| self.values[offset]).collect();
        Self { shape, values }
    }

    /// Element by element, axes of extent 1 standing for every index; both have the same rank.
    pub(super) fn zip(&self, other: &Self, function: impl Fn(f64, f64) -> f64) -> Self {
        let shape: Vec<usize> = self.shape.iter().zip(&other.shape).map(|(&a, &b)| a.max(b)).collect();
        let mine = offsets(&shape, &broadcast_strides(&self.shape), 0);
        let others = offsets(&shape, &broadcast_strides(&other.shape), 0);
        let values = mine.iter().zip(&others).map(|(&a, &b)| function(self.values[a], other.values[b])).collect();
        Self { shape, values }
    }

    /// Largest magnitude.
    pub(super) fn magnitude(&self) -> f64 {
        self.values.iter().fold(0.0, |most, value| most.max(value.abs()))
    }
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
}

impl RealOp {
    /// The tensors that it reads.
    pub(super) fn inputs(&self) -> Vec<Tensor> {
        match self {
            Self::Combine { terms, .. } => terms.iter().map(|&(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.clone(),
            Self::Larger { inputs } => inputs.to_vec(),
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
            | Self::Function { input, .. } => vec![*input],
        }
    }
}

impl RealOp {
    /// The tensors that it reads, to be replaced.
    pub(super) fn inputs_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Combine { terms, .. } => terms.iter_mut().map(|(tensor, _)| tensor).collect(),
            Self::Concat { inputs, .. } => inputs.iter_mut().collect(),
            Self::Larger { inputs } => inputs.iter_mut().collect(),
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
            | Self::Function { input, .. } => vec![input],
        }
    }
}

/// Row-major strides.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Row-major strides that stay in place along axes of extent 1.
pub(super) fn broadcast_strides(shape: &[usize]) -> Vec<usize> {
    strides(shape).into_iter().zip(shape).map(|(stride, &extent)| if extent == 1 { 0 } else { stride }).collect()
}

/// `start + sum_a index_a strides_a` for every index of `shape`, in row-major order.
pub(super) fn offsets(shape: &[usize], strides: &[usize], start: usize) -> Vec<usize> {
    shape.iter().zip(strides).fold(vec![start], |outer, (&extent, &stride)| {
        outer.iter().flat_map(|&offset| (0..extent).map(move |index| offset + index * stride)).collect()
    })
}
