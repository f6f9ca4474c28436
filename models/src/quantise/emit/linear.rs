//! Linear operators: exact, at the scale that operands and weights give.

use shardproof_integer::{BOUNDARY_BITS, Conv, Op, TensorId, WeightId, Window};

use super::interval::Interval;
use super::{Emitter, FINEST_INNER, HEADROOM_BITS, LINEAR_BITS, Value};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::{bits_of, power_of_two};
use crate::quantise::real::{RealTensor, Tensor};

/// Constants are kept this many bits finer than the values that they are added to.
const GUARD_BITS: i32 = 5;
/// Bits that the coefficients of a sum have beyond those of weights.
const COEFFICIENT_BITS: u32 = 3;
/// Finest scale of a sum: no value of a float comes near a unit of it.
const FINEST: i32 = 600;
/// Factors below 2 to the power of minus this make everything zero; those above leave narrowed values below [`FINEST`].
const FINEST_FACTOR: i32 = 400;

impl Emitter<'_> {
    pub(super) fn matmul(&mut self, input: Tensor, weight: &RealTensor) -> Result<Value, QuantiseError> {
        let depth = weight.shape[1];
        let value = self.narrow(input, BOUNDARY_BITS)?;
        self.product(value, weight, depth, |input, weight| Op::MatMul { input, weight })
    }

    pub(super) fn conv(
        &mut self,
        input: Tensor,
        weight: &RealTensor,
        groups: usize,
        window: &Window,
    ) -> Result<Value, QuantiseError> {
        let depth = weight.shape[1..].iter().product();
        let op = |input, weight| Op::Conv(Conv { input, weight, groups, window: window.clone() });
        let value = self.narrow(input, BOUNDARY_BITS)?;
        self.product(value, weight, depth, op)
    }

    pub(super) fn mul_weight(&mut self, input: Tensor, weight: &RealTensor) -> Result<Value, QuantiseError> {
        let value = self.value(input);
        let wide = (value.magnitude() << self.precision.weight_bits) <= 1 << LINEAR_BITS && value.scale <= FINEST_INNER;
        let value = if wide { value } else { self.narrow(input, BOUNDARY_BITS)? };
        self.product(value, weight, 1, |input, weight| Op::MulWeight { input, weight })
    }

    /// Sums of `depth` products of a value and a weight.
    fn product(
        &mut self,
        value: Value,
        weight: &RealTensor,
        depth: usize,
        op: impl FnOnce(TensorId, WeightId) -> Op,
    ) -> Result<Value, QuantiseError> {
        let (id, scale, bits) = self.weight(weight, self.precision.weight_bits, i32::MAX);
        let largest = (value.magnitude() << bits) * depth as i128;
        if largest > 1 << LINEAR_BITS {
            return Err(self.range(format!("sums of {depth} products of {bits} bits exceed {LINEAR_BITS} bits")));
        }
        let sums = move |interval: Interval| Interval::symmetric((interval.magnitude() << bits) * depth as i128);
        Ok(self.push(op(value.id, id), value.scale + scale, |of| sums(of(value))))
    }

    pub(super) fn add_weight(
        &mut self,
        input: Tensor,
        weight: &RealTensor,
        result: Tensor,
    ) -> Result<Value, QuantiseError> {
        let mut value = self.value(input);
        let fine = self.target_scale(result);
        let coarse = |value: Value| value.scale < fine && !exact_at(weight, value.scale);
        let fits = |value: Value, scale: i32| {
            let magnitude = weight.magnitude().max(value.magnitude() as f64 * power_of_two(-value.scale));
            magnitude * power_of_two(scale) <= power_of_two(LINEAR_BITS - 1)
        };
        if coarse(value) {
            // The sum must be finer than the tensor, or the constant would be rounded to the tensor's integers.
            value = self.narrow(input, BOUNDARY_BITS)?;
            value = self.refined(value, fine)?;
        }
        if !fits(value, value.scale) {
            value = self.narrow(input, BOUNDARY_BITS)?;
            if coarse(value) && fits(value, fine) {
                value = self.refined(value, fine)?;
            } else if !fits(value, value.scale) {
                let finest = fine.saturating_add(GUARD_BITS);
                value = self.rescaled(value, self.calibration.magnitude(input), finest, BOUNDARY_BITS, false)?;
            }
        }
        let finest = value.scale.min(fine.saturating_add(GUARD_BITS));
        let (id, scale, bits) = self.weight(weight, BOUNDARY_BITS, finest);
        let apart = value.scale - scale;
        let added = u32::try_from(apart).ok().filter(|apart| apart + bits < LINEAR_BITS);
        let Some(apart) = added else {
            return Err(self.range(format!("a constant of {bits} bits at scale {scale} for values at {}", value.scale)));
        };
        let largest = 1_i128 << (bits + apart);
        let op = Op::AddWeight { input: value.id, weight: id, multiplier: 1 << apart };
        Ok(self.push(op, value.scale, |of| of(value).plus(Interval::symmetric(largest))))
    }

    pub(super) fn window_sum(&mut self, input: Tensor, window: &Window) -> Result<Value, QuantiseError> {
        let count = (window.kernel[0] * window.kernel[1]) as i128;
        let mut value = self.value(input);
        if value.magnitude() * count > 1 << LINEAR_BITS {
            value = self.narrow(input, BOUNDARY_BITS)?;
        }
        if value.magnitude() * count > 1 << LINEAR_BITS {
            return Err(self.range(format!("sums of {count} values exceed {LINEAR_BITS} bits")));
        }
        let op = Op::WindowSum { input: value.id, window: window.clone() };
        Ok(self.push(op, value.scale, |of| of(value).with(0).times(count)))
    }

    /// `constant + sum_t c_t x_t`, first on the tensors as they are, then on narrowed ones if sums grow too wide.
    pub(super) fn combine(
        &mut self,
        terms: &[(Tensor, f64)],
        constant: f64,
        result: Tensor,
    ) -> Result<Value, QuantiseError> {
        let wide: Vec<(Value, f64)> = terms.iter().map(|&(tensor, factor)| (self.value(tensor), factor)).collect();
        if let Some(sum) = self.combined(&wide, constant, result) {
            return Ok(sum);
        }
        let mut narrow = Vec::with_capacity(terms.len());
        for &(tensor, factor) in terms {
            narrow.push((self.narrow(tensor, BOUNDARY_BITS)?, factor));
        }
        if let Some(sum) = self.combined(&narrow, constant, result) {
            return Ok(sum);
        }
        // Terms that are far smaller than others lose what the sum is too coarse for.
        let finest = self.target_scale(result).saturating_add(GUARD_BITS);
        for ((value, factor), (tensor, _)) in narrow.iter_mut().zip(terms) {
            let excess = self.coefficient(*factor).1.map_or(0, |fraction| value.scale + fraction - finest);
            if excess > 0 {
                let (magnitude, wanted) = (self.calibration.magnitude(*tensor), value.scale - excess);
                *value = self.rescaled(*value, magnitude, wanted, BOUNDARY_BITS, false)?;
            }
        }
        let sum = self.combined(&narrow, constant, result);
        sum.ok_or_else(|| {
            let reason = "terms and a constant closer together are needed";
            self.range(format!("a weighted sum with the constant {constant:e} exceeds {LINEAR_BITS} bits; {reason}"))
        })
    }

    /// `factor x` for a value that is not a tensor of the real graph; `result` is the tensor that it makes.
    pub(super) fn multiplied(&mut self, value: Value, factor: f64, result: Tensor) -> Result<Value, QuantiseError> {
        if let Some(scaled) = self.combined(&[(value, factor)], 0.0, result) {
            return Ok(scaled);
        }
        let magnitude = self.calibration.magnitude(result) / factor.abs();
        let wanted = super::scale_for(magnitude, self.precision.activation_bits - HEADROOM_BITS);
        let narrow = self.rescaled(value, magnitude, wanted, BOUNDARY_BITS, false)?;
        let scaled = self.combined(&[(narrow, factor)], 0.0, result);
        scaled.ok_or_else(|| self.range(format!("a product with {factor} exceeds {LINEAR_BITS} bits")))
    }

    pub(super) fn combined(&mut self, terms: &[(Value, f64)], constant: f64, result: Tensor) -> Option<Value> {
        let coefficients = terms.iter().map(|&(value, factor)| (value, self.coefficient(factor)));
        let coefficients: Vec<(Value, (f64, Option<i32>))> = coefficients.collect();
        let scales = coefficients.iter().filter_map(|(value, (_, fraction))| Some(value.scale + (*fraction)?));
        let mut scale = scales.max().unwrap_or_else(|| self.target_scale(result));
        if scale > FINEST {
            return None;
        }
        let exact = |scale: i32| (constant * power_of_two(scale)).fract() == 0.0;
        if constant != 0.0 && !exact(scale) {
            scale = scale.max(self.target_scale(result));
        }
        let limit = power_of_two(LINEAR_BITS);
        let constant = (constant * power_of_two(scale)).round();
        let mut integers = Vec::with_capacity(terms.len());
        let mut total = constant.abs();
        for (value, (factor, _)) in coefficients {
            let coefficient = if factor == 0.0 { 0.0 } else { (factor * power_of_two(scale - value.scale)).round() };
            total += coefficient.abs() * (value.magnitude() as f64).max(1.0);
            integers.push((value, coefficient as i64));
        }
        if total > limit {
            return None;
        }
        let constant = constant as i64;
        if let ([(value, 1)], 0) = (&integers[..], constant)
            && value.scale == scale
        {
            return Some(*value);
        }
        let start = Interval { low: constant.into(), high: constant.into() };
        let terms = integers.iter().map(|&(value, coefficient)| (value.id, coefficient)).collect();
        Some(self.push(Op::Combine { terms, constant }, scale, |of| {
            integers.iter().fold(start, |sum, &(value, factor)| sum.plus(of(value).times(factor.into())))
        }))
    }

    /// A factor as it is used, and the least f such that it is an integer over 2^f; none for one that makes everything zero.
    fn coefficient(&self, factor: f64) -> (f64, Option<i32>) {
        if factor.abs() < power_of_two(-FINEST_FACTOR) {
            return (0.0, None);
        }
        let bits = (self.precision.weight_bits + COEFFICIENT_BITS) as i32;
        let mut fraction = bits - bits_of(factor.abs());
        let mut integer = (factor * power_of_two(fraction)).round();
        while integer % 2.0 == 0.0 {
            (integer, fraction) = (integer / 2.0, fraction - 1);
        }
        (integer * power_of_two(-fraction), Some(fraction))
    }
}

fn exact_at(weight: &RealTensor, scale: i32) -> bool {
    let factor = power_of_two(scale);
    weight.values.iter().all(|value| (value * factor).fract() == 0.0)
}
