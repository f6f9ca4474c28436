//! Operators that pick values by constants: Gather, Expand, Where.

use super::{Lowered, Lowers, Operand};
use crate::quantise::real::{RealOp, RealTensor, Tensor};

impl Lowered<'_, '_> {
    /// Gather by constant indices, of any shape: an embedding's rows, or one of stacked projections.
    pub(super) fn gather(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let axis = self.axis(self.int_or("axis", 0), shape.len())?;
        let given = self.integers(1)?.ok_or_else(|| self.unsupported("it has no indices"))?;
        let extent = shape[axis] as i64;
        let counted = |&index: &i64| {
            let counted = if index < 0 { index.saturating_add(extent) } else { index };
            usize::try_from(counted).ok().filter(|&counted| (counted as i64) < extent)
        };
        let indices: Option<Vec<usize>> = given.iter().map(counted).collect();
        let indices =
            indices.ok_or_else(|| self.unsupported(format!("an index beyond the {extent} of axis {axis}")))?;
        let picked = match consecutive(&indices) {
            Some(slice) => self.sliced_axis(input, axis, slice),
            None => {
                let mut picked = shape;
                picked[axis] = indices.len();
                self.push(RealOp::Gather { input, axis, indices }, picked)
            }
        };
        self.reshaped(picked, self.output_shape())
    }

    /// Expand to a constant shape.
    pub(super) fn expand(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        self.repeated(input, &self.output_shape())
    }

    /// Where with a constant condition: the parts are multiplied by ones and zeros and added. What is masked by a constant
    /// for a softmax is recognised there.
    pub(super) fn selection(&mut self) -> Lowers<Tensor> {
        let condition = match self.needed(0)? {
            Operand::Constant(condition) => condition,
            Operand::Tensor(_) => return Err(self.unsupported("its condition is computed")),
        };
        let shape = self.output_shape();
        let first = condition.with_rank(shape.len()).map(|value| f64::from(u8::from(value != 0.0)));
        let second = first.clone().map(|value| 1.0 - value);
        let mut selected: Option<Tensor> = None;
        let mut constants = RealTensor::scalar(0.0).with_rank(shape.len());
        for (index, chosen) in [(1, first), (2, second)] {
            match self.needed(index)? {
                Operand::Tensor(tensor) => {
                    let whole = self.repeated(tensor, &shape)?;
                    let part = self.scaled_by_weight(whole, chosen)?;
                    selected = Some(match selected {
                        Some(other) => self.combine(vec![(other, 1.0), (part, 1.0)], 0.0),
                        None => part,
                    });
                }
                Operand::Constant(constant) => {
                    // Not a product: an infinite constant leaves zero where it is not chosen, and the least number where it is.
                    let pick = |chosen: f64, value: f64| if chosen == 0.0 { 0.0 } else { value.max(f64::MIN) };
                    let part = chosen.zip(&constant.with_rank(shape.len()), pick);
                    constants = constants.zip(&part, |a, b| a + b);
                }
            }
        }
        let selected = selected.ok_or_else(|| self.unsupported("neither of its choices is computed"))?;
        if constants.values.iter().all(|&value| value == 0.0) {
            return Ok(selected);
        }
        self.shifted_by_weight(selected, constants)
    }
}

/// `[first, step, count]` of indices at equal positive distances.
fn consecutive(indices: &[usize]) -> Option<[usize; 3]> {
    match *indices {
        [] => None,
        [only] => Some([only, 1, 1]),
        [first, second, ..] => {
            let step = second.checked_sub(first).filter(|&step| step > 0)?;
            let expected = (first..).step_by(step).take(indices.len());
            indices.iter().copied().eq(expected).then_some([first, step, indices.len()])
        }
    }
}
