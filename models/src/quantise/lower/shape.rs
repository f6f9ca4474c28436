//! Operators that move values.

use super::{Lowered, Lowers, Operand};
use crate::quantise::real::{Fill, RealOp, RealTensor, Tensor};

impl Lowered<'_, '_> {
    /// Identity, Dropout, Reshape, Flatten, Squeeze, Unsqueeze: the result's shape is known.
    pub(super) fn reshape(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        self.reshaped(input, self.output_shape())
    }

    pub(super) fn transpose(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let rank = self.shape_of(input).len();
        let axes = self.counts_or("perm", (0..rank).rev().collect())?;
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err(self.unsupported(format!("{axes:?} is no permutation of {rank} axes")));
        }
        Ok(self.transposed(input, axes))
    }

    /// Constants among the parts become an addition to a tensor that holds zeros in their places.
    pub(super) fn concat(&mut self) -> Lowers<Tensor> {
        let shape = self.output_shape();
        let axis = self.axis(self.int_or("axis", 0), shape.len())?;
        let parts = (0..self.node.input.len()).map(|index| self.needed(index)).collect::<Lowers<Vec<_>>>()?;
        let constant = parts.iter().any(|part| matches!(part, Operand::Constant(_)));
        let mut tensors = Vec::new();
        let mut constants = vec![0.0; shape.iter().product()];
        let (inner, row) = (shape[axis + 1..].iter().product::<usize>(), shape[axis..].iter().product::<usize>());
        let (mut start, mut gap) = (0, 0);
        for part in parts {
            match part {
                Operand::Tensor(input) => {
                    let extent = self.shape_of(input)[axis];
                    tensors.push(self.padded_axis(input, axis, gap, 0));
                    (start, gap) = (start + extent, 0);
                }
                Operand::Constant(RealTensor { shape: own, values }) => {
                    let others = |shape: &[usize]| {
                        shape.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, &d)| d).collect()
                    };
                    let (mine, expected): (Vec<usize>, Vec<usize>) = (others(&own), others(&shape));
                    if own.len() != shape.len() || mine != expected {
                        return Err(
                            self.unsupported(format!("a constant of shape {own:?} in a result of shape {shape:?}"))
                        );
                    }
                    let length = own[axis] * inner;
                    for (outer, chunk) in values.chunks_exact(length.max(1)).enumerate() {
                        let at = outer * row + start * inner;
                        constants[at..at + length].copy_from_slice(chunk);
                    }
                    (start, gap) = (start + own[axis], gap + own[axis]);
                }
            }
        }
        let last = tensors.pop().ok_or_else(|| self.unsupported("it has no computed input"))?;
        tensors.push(self.padded_axis(last, axis, 0, gap));
        let joined = self.joined(tensors, axis);
        if constant { self.shifted(joined, RealTensor { shape, values: constants }) } else { Ok(joined) }
    }

    /// Zeros before and after along one axis.
    fn padded_axis(&mut self, input: Tensor, axis: usize, front: usize, back: usize) -> Tensor {
        let rank = self.shape_of(input).len();
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        (before[axis], after[axis]) = (front, back);
        self.padded(input, before, after, 0.0)
    }

    fn padded(&mut self, input: Tensor, before: Vec<usize>, after: Vec<usize>, value: f64) -> Tensor {
        if before.iter().chain(&after).all(|&count| count == 0) {
            return input;
        }
        let own = self.shape_of(input);
        let shape =
            own.iter().zip(&before).zip(&after).map(|((extent, before), after)| extent + before + after).collect();
        self.push(RealOp::Pad { input, before, after, fill: Fill::Value(value) }, shape)
    }

    /// An attribute list of old operator sets, or the input that took its place.
    fn listed(&self, attribute: &str, input: usize) -> Lowers<Option<Vec<i64>>> {
        match crate::proto::ints_of(self.node, attribute) {
            Some(values) => Ok(Some(values.to_vec())),
            None => self.integers(input),
        }
    }

    pub(super) fn slice(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let missing = || self.unsupported("it has no starts or no ends");
        let starts = self.listed("starts", 1)?.ok_or_else(missing)?;
        let ends = self.listed("ends", 2)?.ok_or_else(missing)?;
        let axes = self.listed("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()].iter().any(|&length| length != starts.len()) {
            return Err(self.unsupported("starts, ends, axes and steps have different lengths"));
        }
        let (mut start, mut step, mut count) = (vec![0; shape.len()], vec![1; shape.len()], shape.clone());
        for (index, &axis) in axes.iter().enumerate() {
            let axis = self.axis(axis, shape.len())?;
            let extent = shape[axis] as i64;
            if steps[index] < 1 {
                return Err(self.unsupported(format!("a step of {}; it must be positive", steps[index])));
            }
            let within = |place: i64| if place < 0 { place.saturating_add(extent) } else { place }.clamp(0, extent);
            let (first, end) = (within(starts[index]), within(ends[index]));
            let selected = (end - first).max(0) as u64;
            start[axis] = first as usize;
            step[axis] = steps[index].min(extent.max(1)) as usize;
            count[axis] = selected.div_ceil(step[axis] as u64) as usize;
        }
        if count.contains(&0) {
            return Err(self.unsupported("its result is empty"));
        }
        Ok(self.sliced(input, start, step, count))
    }

    pub(super) fn split(&mut self) -> Lowers<()> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let axis = self.axis(self.int_or("axis", 0), shape.len())?;
        let mut start = 0;
        for index in 0..self.node.output.len() {
            let name = &self.node.output[index];
            if name.is_empty() {
                return Err(self.unsupported("an output of its is left out"));
            }
            let count = self.lowering.graph.fact(name).shape[axis] as usize;
            if start + count > shape[axis] {
                return Err(self.unsupported("its outputs exceed its input"));
            }
            let part = self.sliced_axis(input, axis, [start, 1, count]);
            self.define(index, part)?;
            start += count;
        }
        Ok(())
    }

    pub(super) fn pad(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let rank = self.shape_of(input).len();
        match crate::proto::text_of(self.node, "mode") {
            None | Some("constant") => {}
            Some(mode) => return Err(self.unsupported(format!("padding by mode {mode}; constant is possible"))),
        }
        let pads = self.listed("pads", 1)?.ok_or_else(|| self.unsupported("it has no pads"))?;
        let value = match self.constant(2)? {
            Some(value) => value.values.first().copied().unwrap_or(0.0),
            None => self.float_or("value", 0.0),
        };
        let axes = match self.integers(3)? {
            Some(axes) => axes.into_iter().map(|axis| self.axis(axis, rank)).collect::<Lowers<Vec<_>>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(self.unsupported(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        for (index, &axis) in axes.iter().enumerate() {
            let count = |pad: i64| usize::try_from(pad).map_err(|_| self.unsupported("negative padding"));
            (before[axis], after[axis]) = (count(pads[index])?, count(pads[index + axes.len()])?);
        }
        Ok(self.padded(input, before, after, value))
    }
}
