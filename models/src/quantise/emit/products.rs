//! Products of tensors and sums over axes: exact, at the scales that their operands give.
//!
//! A product of two wide accumulators may be exact where a narrow one would be rounded, and a requantisation that is not
//! needed costs nothing to prove; so operands are narrowed only where their product would leave the range, the wider first.

use shardproof_integer::{BOUNDARY_BITS, Op};

use super::interval::Interval;
use super::{Emitter, FINEST_INNER, LINEAR_BITS, Value};
use crate::quantise::error::QuantiseError;
use crate::quantise::real::Tensor;

impl Emitter<'_> {
    pub(super) fn matmul_tensors(
        &mut self,
        left: Tensor,
        right: Tensor,
        factor: f64,
        result: Tensor,
    ) -> Result<Value, QuantiseError> {
        let depth = self.real.shape(left).last().copied().unwrap_or(1) as i128;
        let [x, y] = self.factors([left, right], depth)?;
        let op = Op::MatMulTensors { left: x.id, right: y.id };
        let product = self.push(op, x.scale + y.scale, |of| of(x).product(of(y)).times(depth));
        if factor == 1.0 {
            return Ok(product);
        }
        self.multiplied(product, factor, result)
    }

    pub(super) fn mul_tensors(&mut self, inputs: [Tensor; 2]) -> Result<Value, QuantiseError> {
        let [x, y] = self.factors(inputs, 1)?;
        Ok(self.product_of(x, y))
    }

    /// The product of two tensors of one shape.
    pub(super) fn product_of(&mut self, x: Value, y: Value) -> Value {
        let op = Op::MulTensors { left: x.id, right: y.id };
        self.push(op, x.scale + y.scale, |of| if x.id == y.id { of(x).square() } else { of(x).product(of(y)) })
    }

    /// Two tensors such that sums of `depth` products of their elements stay within the bits of linear results.
    fn factors(&mut self, tensors: [Tensor; 2], depth: i128) -> Result<[Value; 2], QuantiseError> {
        let fits = |[x, y]: [Value; 2]| {
            let product =
                x.magnitude().max(1).checked_mul(y.magnitude().max(1)).and_then(|most| most.checked_mul(depth));
            product.is_some_and(|most| most <= 1 << LINEAR_BITS) && x.scale.max(y.scale) <= FINEST_INNER
        };
        let mut values = tensors.map(|tensor| self.value(tensor));
        if fits(values) {
            return Ok(values);
        }
        let wider = usize::from(values[1].magnitude() > values[0].magnitude());
        for index in [wider, 1 - wider] {
            values[index] = self.narrow(tensors[index], self.precision.activation_bits)?;
            if tensors[0] == tensors[1] {
                values = [values[index]; 2];
            }
            if fits(values) {
                return Ok(values);
            }
        }
        Err(self.range(format!("sums of {depth} products of two tensors exceed {LINEAR_BITS} bits")))
    }

    pub(super) fn reduce_sum(&mut self, input: Tensor, axes: &[usize]) -> Result<Value, QuantiseError> {
        let count = axes.iter().map(|&axis| self.real.shape(input)[axis] as i128).product::<i128>();
        let mut value = self.value(input);
        if value.magnitude() * count > 1 << LINEAR_BITS {
            value = self.narrow(input, BOUNDARY_BITS)?;
        }
        if value.magnitude() * count > 1 << LINEAR_BITS {
            return Err(self.range(format!("sums of {count} values exceed {LINEAR_BITS} bits")));
        }
        Ok(self.sum_over(value, axes.to_vec(), count))
    }

    /// The sum of `count` elements along `axes`.
    pub(super) fn sum_over(&mut self, value: Value, axes: Vec<usize>, count: i128) -> Value {
        let op = Op::ReduceSum { input: value.id, axes };
        self.push(op, value.scale, |of| of(value).times(count))
    }

    /// A tensor of one element for each row, repeated along the rows of `shape`.
    pub(super) fn along_rows(&mut self, value: Value, shape: &[usize]) -> Value {
        let op = Op::Expand { input: value.id, shape: shape.to_vec() };
        self.push(op, value.scale, |of| of(value))
    }

    /// A tensor of the same shape whose elements are all `constant`.
    pub(super) fn constant_like(&mut self, value: Value, constant: i128, scale: i32) -> Value {
        let op = Op::Combine { terms: vec![(value.id, 0)], constant: constant as i64 };
        self.push(op, scale, |_| Interval { low: constant, high: constant })
    }
}
