//! Matrix products, convolutions, sums, and products with constants.

use shardproof_integer::{MAX_ELEMENTS, Window};

use super::{Lowered, Lowers, Operand};
use crate::quantise::real::{RealOp, RealTensor, Tensor};

/// Most constant matrices of one product.
const MAX_MATRICES: usize = 256;

impl Lowered<'_, '_> {
    /// `alpha A' B' + beta C`, where one of A and B is constant.
    pub(super) fn gemm(&mut self) -> Lowers<Tensor> {
        let alpha = self.float_or("alpha", 1.0);
        let turned = |flag: bool| if flag { vec![1, 0] } else { vec![0, 1] };
        let (turn_a, turn_b) = (self.int_or("transA", 0) != 0, self.int_or("transB", 0) != 0);
        let factors = (self.needed(0)?, self.needed(1)?);
        let rank = |factor: &Operand| match factor {
            Operand::Tensor(tensor) => self.lowering.real.shape(*tensor).len(),
            Operand::Constant(constant) => constant.shape.len(),
        };
        if (rank(&factors.0), rank(&factors.1)) != (2, 2) {
            return Err(self.unsupported("its factors are no matrices"));
        }
        let product = match factors {
            (Operand::Tensor(a), Operand::Constant(b)) => {
                let a = self.transposed(a, turned(turn_a));
                self.times(a, b.transposed(&turned(!turn_b)).map(|value| alpha * value))?
            }
            (Operand::Constant(a), Operand::Tensor(b)) => {
                // The transpose of the product is B'^T times A'^T.
                let b = self.transposed(b, turned(!turn_b));
                let product = self.times(b, a.transposed(&turned(turn_a)).map(|value| alpha * value))?;
                self.transposed(product, vec![1, 0])
            }
            (Operand::Tensor(a), Operand::Tensor(b)) => {
                let (a, b) = (self.transposed(a, turned(turn_a)), self.transposed(b, turned(turn_b)));
                self.times_computed(a, b, alpha)?
            }
            (Operand::Constant(_), Operand::Constant(_)) => return Err(self.unsupported("both factors are constants")),
        };
        let beta = self.float_or("beta", 1.0);
        match self.operand(2)? {
            None => Ok(product),
            Some(_) if beta == 0.0 => Ok(product),
            Some(Operand::Constant(bias)) => self.shifted_by_weight(product, bias.map(|value| beta * value)),
            Some(Operand::Tensor(added)) => self.sum_of(vec![(product, 1.0), (added, beta)]),
        }
    }

    /// `y[.., n] = sum_k w[n, k] x[.., k]`.
    fn times(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        let mut shape = self.shape_of(input);
        match (shape.last_mut(), &weight.shape[..]) {
            (Some(last), &[columns, depth]) if *last == depth => *last = columns,
            _ => {
                let (found, weight) = (self.shape_of(input), &weight.shape);
                return Err(self.unsupported(format!("shapes {found:?} and {weight:?} do not fit together")));
            }
        }
        Ok(self.push(RealOp::MatMul { input, weight }, shape))
    }

    pub(super) fn matmul(&mut self) -> Lowers<Tensor> {
        match (self.needed(0)?, self.needed(1)?) {
            (Operand::Tensor(a), Operand::Constant(b)) => {
                let b = match b.shape.len() {
                    0 => return Err(self.unsupported("a factor without axes")),
                    1 => RealTensor { shape: vec![b.values.len(), 1], values: b.values },
                    _ => b,
                };
                self.times_matrices(a, last_two_swapped(b))
            }
            (Operand::Constant(a), Operand::Tensor(b)) => {
                let b = match self.shape_of(b)[..] {
                    [] => return Err(self.unsupported("a factor without axes")),
                    [depth] => self.reshaped(b, vec![depth, 1])?,
                    _ => b,
                };
                let turned = self.transposed(b, swapped(self.shape_of(b).len()));
                let product = self.times_matrices(turned, a.with_rank(2))?;
                Ok(self.transposed(product, swapped(self.shape_of(product).len())))
            }
            (Operand::Tensor(a), Operand::Tensor(b)) => self.times_computed(a, b, 1.0),
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.unsupported("both factors are constants")),
        }
    }

    /// Products with a matrix `[.., N, K]`, or with one for each matrix of the tensor.
    fn times_matrices(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        let rank = weight.shape.len();
        let (batch, matrix) = (weight.shape[..rank - 2].to_vec(), weight.shape[rank - 2..].to_vec());
        let count: usize = batch.iter().product();
        if count == 1 {
            return self.times(input, RealTensor { shape: matrix, values: weight.values });
        }
        let shape = self.shape_of(input);
        let outer = &shape[..shape.len().saturating_sub(2)];
        if outer != batch || count > MAX_MATRICES {
            let reason = format!("{count} constant matrices {batch:?} for a tensor of shape {shape:?}");
            return Err(self.unsupported(reason));
        }
        let stacked = self.reshaped(input, [&[count], &shape[shape.len() - 2..]].concat())?;
        let size = matrix.iter().product();
        let mut products = Vec::with_capacity(count);
        for (index, values) in weight.values.chunks_exact(size).enumerate() {
            let part = self.sliced_axis(stacked, 0, [index, 1, 1]);
            products.push(self.times(part, RealTensor { shape: matrix.clone(), values: values.to_vec() })?);
        }
        let joined = self.joined(products, 0);
        let [.., rows, columns] = self.shape_of(joined)[..] else {
            return Err(self.unsupported("its result is no matrix"));
        };
        self.reshaped(joined, [&batch[..], &[rows, columns]].concat())
    }

    /// Convolutions of one axis are convolutions of two with a height of 1.
    pub(super) fn conv(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let weight = self.constant(1)?.ok_or_else(|| self.unsupported("it has no weights"))?;
        let mut from = self.shape_of(input);
        let spatial = from.len().saturating_sub(2);
        if !(1..=2).contains(&spatial) || weight.shape.len() != from.len() {
            return Err(self.unsupported(format!("a convolution over {spatial} axes; 1 or 2 are possible")));
        }
        self.check_auto_pad()?;
        let kernel = weight.shape[2..].to_vec();
        let stride = self.counts_or("strides", vec![1; spatial])?;
        let dilation = self.counts_or("dilations", vec![1; spatial])?;
        let pads = self.counts_or("pads", vec![0; 2 * spatial])?;
        let groups = usize::try_from(self.int_or("group", 1)).unwrap_or(0).min(MAX_ELEMENTS);
        let window = window(&kernel, &stride, &dilation, &pads[..spatial], &pads[spatial..]);
        let RealTensor { shape: mut kernel_shape, values } = weight;
        if spatial == 1 {
            from.insert(2, 1);
            kernel_shape.insert(2, 1);
        }
        let weight = RealTensor { shape: kernel_shape, values };
        let channels = (from[1], weight.shape[0]);
        if groups == 0 || channels.0 != weight.shape[1] * groups || !channels.1.is_multiple_of(groups) {
            let shape = &weight.shape;
            return Err(self.unsupported(format!("weights {shape:?} in {groups} groups for an input {from:?}")));
        }
        let extents = window.output(from[2], from[3]);
        let [height, width] = extents.ok_or_else(|| self.unsupported("its window does not fit into its input"))?;
        let input = self.reshaped(input, from.clone())?;
        let shape = vec![from[0], weight.shape[0], height, width];
        let result = self.push(RealOp::Conv { input, weight, groups, window }, shape);
        let result = match self.constant(2)? {
            Some(bias) => self.shifted_by_weight(result, per_channel(bias, 4))?,
            None => result,
        };
        self.reshaped(result, self.output_shape())
    }

    /// Automatic padding is turned into numbers on import, wherever that is possible.
    pub(super) fn check_auto_pad(&self) -> Lowers<()> {
        match crate::proto::text_of(self.node, "auto_pad") {
            None | Some("NOTSET") => Ok(()),
            Some(mode) => Err(self.unsupported(format!("automatic padding {mode} of this shape"))),
        }
    }

    /// Add, Sub, Sum, Mean.
    pub(super) fn sum(&mut self) -> Lowers<Tensor> {
        let count = self.node.input.len();
        let factor = |index: usize| match self.node.op_type.as_str() {
            "Sub" if index == 1 => -1.0,
            "Mean" => 1.0 / count as f64,
            _ => 1.0,
        };
        let (mut terms, mut constants) = (Vec::new(), Vec::new());
        for index in 0..count {
            match self.needed(index)? {
                Operand::Tensor(tensor) => terms.push((tensor, factor(index))),
                Operand::Constant(constant) => constants.push(constant.map(|value| factor(index) * value)),
            }
        }
        if terms.is_empty() {
            return Err(self.unsupported("all that it adds up is constant"));
        }
        let mut sum = self.sum_of(terms)?;
        for constant in constants {
            sum = self.shifted(sum, constant)?;
        }
        Ok(sum)
    }

    /// A weighted sum of tensors, each broadcast to the shape of the result.
    pub(super) fn sum_of(&mut self, terms: Vec<(Tensor, f64)>) -> Lowers<Tensor> {
        let tensors: Vec<Tensor> = terms.iter().map(|&(tensor, _)| tensor).collect();
        let joint = self.joint_shape(&tensors);
        let mut aligned = Vec::with_capacity(terms.len());
        for (tensor, factor) in terms {
            aligned.push((self.repeated(tensor, &joint)?, factor));
        }
        match aligned[..] {
            [(tensor, 1.0)] => Ok(tensor),
            _ => Ok(self.combine(aligned, 0.0)),
        }
    }

    /// The shape to which all `tensors` are broadcast together.
    pub(super) fn joint_shape(&self, tensors: &[Tensor]) -> Vec<usize> {
        let shapes: Vec<&[usize]> = tensors.iter().map(|&tensor| self.lowering.real.shape(tensor)).collect();
        joint(&shapes)
    }

    /// The tensor with axes of extent 1 repeated up to `shape`.
    pub(super) fn repeated(&mut self, tensor: Tensor, shape: &[usize]) -> Lowers<Tensor> {
        let own = self.shape_of(tensor);
        let fits = own.len() <= shape.len()
            && own.iter().rev().zip(shape.iter().rev()).all(|(&from, &to)| from == to || from == 1);
        if !fits {
            let reason = format!("a computed tensor of shape {own:?} cannot be broadcast to {shape:?}");
            return Err(self.unsupported(reason));
        }
        if shape.iter().try_fold(1_usize, |all, &extent| all.checked_mul(extent)).is_none_or(|all| all > MAX_ELEMENTS) {
            return Err(self.unsupported(format!("broadcasting to {shape:?} takes more than {MAX_ELEMENTS} elements")));
        }
        let raised = [vec![1; shape.len() - own.len()], own].concat();
        let input = self.reshaped(tensor, raised.clone())?;
        Ok(if raised == shape { input } else { self.push(RealOp::Expand { input }, shape.to_vec()) })
    }

    /// Max and Min: `max(x, y) = y + relu(x - y)`, `min(x, y) = y - relu(y - x)`.
    pub(super) fn extremum(&mut self) -> Lowers<Tensor> {
        let sign = if self.node.op_type == "Max" { 1.0 } else { -1.0 };
        let mut result: Option<Tensor> = None;
        let mut constants = Vec::new();
        for index in 0..self.node.input.len() {
            let tensor = match self.needed(index)? {
                Operand::Tensor(tensor) => tensor,
                Operand::Constant(constant) => {
                    constants.push(constant);
                    continue;
                }
            };
            result = Some(match result {
                None => tensor,
                Some(other) => {
                    let difference = self.sum_of(vec![(tensor, sign), (other, -sign)])?;
                    let positive = self.relu(difference);
                    self.sum_of(vec![(other, 1.0), (positive, sign)])?
                }
            });
        }
        let mut result = result.ok_or_else(|| self.unsupported("it has no computed input"))?;
        for constant in constants {
            // max(x, c) = c + relu(x - c)
            let difference = self.shifted(result, constant.clone().map(|value| -value))?;
            let difference = if sign > 0.0 { difference } else { self.combine(vec![(difference, -1.0)], 0.0) };
            let positive = self.relu(difference);
            let positive = if sign > 0.0 { positive } else { self.combine(vec![(positive, -1.0)], 0.0) };
            result = self.shifted(positive, constant)?;
        }
        Ok(result)
    }

    /// `scale (x - mean) / sqrt(variance + epsilon) + bias` for each channel; folding merges it into a preceding product.
    pub(super) fn batch_normalization(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let mut read = [const { Vec::new() }; 4];
        for (index, values) in read.iter_mut().enumerate() {
            let constant = self.constant(index + 1)?;
            *values = constant.ok_or_else(|| self.unsupported(format!("input {} is missing", index + 1)))?.values;
        }
        let [scale, bias, mean, variance] = read;
        let shape = self.shape_of(input);
        let channels = shape.get(1).copied().unwrap_or(1);
        if [&scale, &bias, &mean, &variance].iter().any(|values| values.len() != channels) {
            return Err(self.unsupported(format!("its parameters are not of {channels} channels")));
        }
        let epsilon = self.float_or("epsilon", 1e-5);
        let deviation = variance.iter().map(|variance| (variance + epsilon).sqrt());
        let factor: Vec<f64> = scale.iter().zip(deviation).map(|(scale, deviation)| scale / deviation).collect();
        let added = bias.iter().zip(&mean).zip(&factor).map(|((bias, mean), factor)| bias - mean * factor).collect();
        let of_channels = |values: Vec<f64>| per_channel(RealTensor { shape: vec![channels], values }, shape.len());
        let scaled = self.scaled_by_weight(input, of_channels(factor))?;
        self.shifted_by_weight(scaled, of_channels(added))
    }
}

/// The extents to which all `shapes` are broadcast together.
pub(super) fn joint(shapes: &[&[usize]]) -> Vec<usize> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut joint = vec![1; rank];
    for shape in shapes {
        let extents = shape.iter().rev().zip(joint.iter_mut().rev());
        extents.for_each(|(&own, joint)| *joint = own.max(*joint));
    }
    joint
}

/// The axes of a tensor with the last two swapped.
pub(super) fn swapped(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    axes
}

fn last_two_swapped(matrices: RealTensor) -> RealTensor {
    let axes = swapped(matrices.shape.len());
    matrices.transposed(&axes)
}

/// `[C]` as `[1, C, 1, ..]`.
pub(super) fn per_channel(constant: RealTensor, rank: usize) -> RealTensor {
    let mut shape = vec![1; rank];
    if let Some(channels) = shape.get_mut(1) {
        *channels = constant.values.len();
    }
    RealTensor { shape, values: constant.values }
}

/// A window over two axes, of heights 1 where only one axis is given.
pub(super) fn window(
    kernel: &[usize],
    stride: &[usize],
    dilation: &[usize],
    before: &[usize],
    after: &[usize],
) -> Window {
    let pair = |values: &[usize], missing: usize| match *values {
        [height, width] => [height, width],
        _ => [missing, values[0]],
    };
    let (before, after) = (pair(before, 0), pair(after, 0));
    Window {
        kernel: pair(kernel, 1),
        stride: pair(stride, 1),
        dilation: pair(dilation, 1),
        pad_height: [before[0], after[0]],
        pad_width: [before[1], after[1]],
    }
}
