//! What transformers are made of besides linear layers: products of two tensors, softmax, normalisation of layers.

use super::linear::{joint, swapped};
use super::{Lowered, Lowers};
use crate::masks::MASKED;
use crate::quantise::real::{RealOp, RealTensor, Tensor, broadcast_strides, offsets};

/// A constant that is added to scores: which of them count, and what is added to those.
struct Mask {
    keep: RealTensor,
    /// Nothing where it is zero everywhere.
    added: Option<RealTensor>,
}

impl Mask {
    /// What adding `constant` does, if it masks anything.
    fn of(constant: &RealTensor) -> Option<Self> {
        let masked = |value: f64| value <= MASKED;
        if !constant.values.iter().any(|&value| masked(value)) {
            return None;
        }
        let keep = constant.clone().map(|value| f64::from(u8::from(!masked(value))));
        let added = constant.clone().map(|value| if masked(value) { 0.0 } else { value });
        Some(Self { keep, added: (added.magnitude() > 0.0).then_some(added) })
    }

    /// Whether every row of a tensor of shape `shape` keeps an element.
    fn keeps_some(&self, shape: &[usize]) -> bool {
        let kept = offsets(shape, &broadcast_strides(&self.keep.shape), 0);
        kept.chunks(shape[shape.len() - 1]).all(|row| row.iter().any(|&place| self.keep.values[place] != 0.0))
    }
}

impl Lowered<'_, '_> {
    /// `y[.., m, n] = factor sum_k a[.., m, k] b[.., k, n]` over the tensors' last two axes.
    pub(super) fn times_computed(&mut self, a: Tensor, b: Tensor, factor: f64) -> Lowers<Tensor> {
        let (mut from, mut to) = (self.shape_of(a), self.shape_of(b));
        if from.is_empty() || to.is_empty() {
            return Err(self.unsupported("a factor without axes"));
        }
        if from.len() == 1 {
            from.insert(0, 1);
        }
        if to.len() == 1 {
            to.push(1);
        }
        let (rows, depth, columns) = (from[from.len() - 2], from[from.len() - 1], to[to.len() - 1]);
        if depth != to[to.len() - 2] {
            return Err(self.unsupported(format!("shapes {from:?} and {to:?} do not fit together")));
        }
        let (a, b) = (self.reshaped(a, from.clone())?, self.reshaped(b, to.clone())?);
        let b = self.transposed(b, swapped(to.len()));
        if to[..to.len() - 2].iter().all(|&extent| extent == 1) {
            // One matrix for all rows: the tensor's other axes are rows as well.
            let outer: usize = from[..from.len() - 1].iter().product();
            let left = self.reshaped(a, vec![outer, depth])?;
            let right = self.reshaped(b, vec![columns, depth])?;
            let product = self.push(RealOp::MatMulTensors { left, right, factor }, vec![outer, columns]);
            return self.reshaped(product, self.output_shape());
        }
        let batch = joint(&[&from[..from.len() - 2], &to[..to.len() - 2]]);
        let left = self.repeated(a, &[&batch[..], &[rows, depth]].concat())?;
        let right = self.repeated(b, &[&batch[..], &[columns, depth]].concat())?;
        let shape = [&batch[..], &[rows, columns]].concat();
        let product = self.push(RealOp::MatMulTensors { left, right, factor }, shape);
        self.reshaped(product, self.output_shape())
    }

    /// Softmax over any axis; before operator set 13, over all axes from the given one.
    pub(super) fn softmax(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let rank = shape.len();
        let flattens = self.lowering.graph.opset < 13;
        let axis = self.axis(self.int_or("axis", if flattens { 1 } else { -1 }), rank)?;
        if flattens && axis + 1 < rank {
            let (outer, inner) = (shape[..axis].iter().product(), shape[axis..].iter().product());
            let rows = self.reshaped(input, vec![outer, inner])?;
            let shares = self.shares(rows)?;
            return self.reshaped(shares, shape);
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(axis, rank - 1);
        let turned = self.transposed(input, order.clone());
        let shares = self.shares(turned)?;
        Ok(self.transposed(shares, order))
    }

    /// Softmax over the last axis; a constant that was added to mask scores is taken as the mask that it means.
    fn shares(&mut self, input: Tensor) -> Lowers<Tensor> {
        let shape = self.shape_of(input);
        let Some((scores, mask)) = self.masked(input) else {
            return Ok(self.push(RealOp::Softmax { input, factor: 1.0, keep: None }, shape));
        };
        if !mask.keeps_some(&shape) {
            return Err(self.unsupported("its mask leaves nothing of a row"));
        }
        let input = match mask.added {
            Some(added) => self.shifted_by_weight(scores, added)?,
            None => scores,
        };
        Ok(self.push(RealOp::Softmax { input, factor: 1.0, keep: Some(mask.keep) }, shape))
    }

    /// The scores before a mask was added to them, if that is what made `tensor`.
    fn masked(&self, tensor: Tensor) -> Option<(Tensor, Mask)> {
        let real = &self.lowering.real;
        let RealOp::AddWeight { input, weight } = real.op(tensor)? else { return None };
        let mask = Mask::of(weight)?;
        // `Where` multiplies what it takes away by zero first, which changes nothing any more.
        let scores = match real.op(*input) {
            Some(RealOp::MulWeight { input, weight }) if *weight == mask.keep => *input,
            _ => *input,
        };
        Some((scores, mask))
    }

    /// `scale (x - mean) / sqrt(variance + epsilon) + bias` over the axes from the given one.
    pub(super) fn layer_normalization(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let axis = self.axis(self.int_or("axis", -1), shape.len())?;
        let epsilon = self.float_or("epsilon", 1e-5);
        let inner: usize = shape[axis..].iter().product();
        let rows = self.reshaped(input, vec![shape[..axis].iter().product(), inner])?;
        let rows_shape = self.shape_of(rows);
        let normalised = self.push(RealOp::Normalise { input: rows, epsilon, centred: true }, rows_shape);
        let normalised = self.reshaped(normalised, shape)?;
        let scale = self.constant(1)?.ok_or_else(|| self.unsupported("it has no scale"))?;
        let scaled = self.scaled_by_weight(normalised, scale)?;
        match self.constant(2)? {
            Some(bias) => self.shifted_by_weight(scaled, bias),
            None => Ok(scaled),
        }
    }
}
