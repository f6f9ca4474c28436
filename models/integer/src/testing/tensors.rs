//! Blocks of operators that join tensors with each other, or whole axes of one.

use super::{Generator, TensorId};
use crate::graph::{MAX_QUOTIENT_BITS, MAX_ROOT_BITS, Op};

impl Generator {
    /// Rows of a tensor with those of another, or with its own.
    pub(super) fn tensor_product(&mut self) -> Option<TensorId> {
        let left = self.pick(|shape| shape.len() >= 2)?;
        let shape = self.shape(left).to_vec();
        let rows = shape.len() - 2;
        let fits = |other: &[usize]| {
            other.len() == shape.len() && (0..shape.len()).all(|axis| axis == rows || other[axis] == shape[axis])
        };
        let right = self.pick(fits)?;
        let scale = self.graph.scale(left) + self.graph.scale(right);
        let product = self.push(Op::MatMulTensors { left, right }, scale)?;
        self.requant(product)
    }

    /// Element by element, of two tensors or of one with itself.
    pub(super) fn multiply(&mut self) -> Option<TensorId> {
        let left = self.pick(|_| true)?;
        let shape = self.shape(left).to_vec();
        let right = if self.random.one_in(3) { left } else { self.pick(|other| other == shape)? };
        let scale = self.graph.scale(left) + self.graph.scale(right);
        let product = self.push(Op::MulTensors { left, right }, scale)?;
        self.requant(product)
    }

    pub(super) fn reduce_sum(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| !shape.is_empty())?;
        let rank = self.shape(input).len();
        let mut axes: Vec<usize> = (0..rank).filter(|_| self.random.one_in(2)).collect();
        if axes.is_empty() {
            axes.push(rank - 1);
        }
        let sums = self.push_like(input, Op::ReduceSum { input, axes })?;
        self.requant(sums)
    }

    pub(super) fn expand(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| shape.contains(&1))?;
        let extents = self.shape(input).to_vec();
        let shape = extents.iter().map(|&extent| if extent == 1 { self.random.size(1, 4) } else { extent }).collect();
        self.push_like(input, Op::Expand { input, shape })
    }

    pub(super) fn gather(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| !shape.is_empty())?;
        let axis = self.random.size(0, self.shape(input).len() - 1);
        let last = self.shape(input)[axis] as i64 - 1;
        let indices = (0..self.random.size(1, 6)).map(|_| self.random.within(0, last) as u32).collect();
        self.push_like(input, Op::Gather { input, axis, indices })
    }

    pub(super) fn max(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| !shape.is_empty())?;
        self.push_like(input, Op::Max { input })
    }

    /// By another tensor that is made positive.
    pub(super) fn divide(&mut self) -> Option<TensorId> {
        let numerator = self.pick(|_| true)?;
        let shape = self.shape(numerator).to_vec();
        let other = self.pick(|other| other == shape)?;
        let (low, _) = self.extremes(other);
        let constant = self.random.within(1, 3) - low as i64;
        let denominator = self.push_like(other, Op::Combine { terms: vec![(other, 1)], constant })?;
        let factor = self.random.pick(&[1, 1 << 8, -1])?;
        let scale = self.graph.scale(numerator);
        let numerator = self.push(Op::Combine { terms: vec![(numerator, factor)], constant: 0 }, scale)?;
        let scale = scale - self.graph.scale(denominator);
        let bits = self.random.size(20, MAX_QUOTIENT_BITS as usize) as u32;
        let quotient = self.push(Op::Divide { numerator, denominator, bits }, scale)?;
        self.requant(quotient)
    }

    /// The root of a square that was moved away from it.
    pub(super) fn square_root(&mut self) -> Option<TensorId> {
        let root = self.pick(|_| true)?;
        let scale = 2 * self.graph.scale(root);
        let square = self.push(Op::MulTensors { left: root, right: root }, scale)?;
        let (factor, constant) = (self.random.within(1, 5), self.random.within(0, 3));
        let input = self.push(Op::Combine { terms: vec![(square, factor)], constant }, scale)?;
        let largest = self.extremes(input).1.isqrt();
        let bits = (1..=MAX_ROOT_BITS).find(|bits| largest < 1 << bits)?;
        self.push(Op::Sqrt { input, bits }, scale / 2)
    }
}
