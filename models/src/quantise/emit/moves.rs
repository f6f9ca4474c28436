//! Padding and concatenation: values keep their integers, or come to one scale first.

use shardproof_integer::{BOUNDARY_BITS, MAX_REQUANT_BITS, Op};

use super::interval::Interval;
use super::{Emitter, LINEAR_BITS, Value};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::power_of_two;
use crate::quantise::real::{Fill, Tensor};

impl Emitter<'_> {
    pub(super) fn pad(
        &mut self,
        input: Tensor,
        before: &[usize],
        after: &[usize],
        fill: Fill,
    ) -> Result<Value, QuantiseError> {
        let source = self.value(input);
        let value = match fill {
            Fill::Lowest => source.tight.low,
            Fill::Value(value) => self.integer(value, source.scale)?,
        };
        let op = Op::Pad { input: source.id, before: before.to_vec(), after: after.to_vec(), value: value as i64 };
        Ok(self.push(op, source.scale, |of| of(source).with(value)))
    }

    /// A constant of the architecture as an integer at `scale`.
    fn integer(&self, value: f64, scale: i32) -> Result<i128, QuantiseError> {
        let scaled = (value * power_of_two(scale)).round();
        if scaled.abs() > power_of_two(LINEAR_BITS) {
            return Err(self.range(format!("constant {value} at scale {scale} has more than {LINEAR_BITS} bits")));
        }
        Ok(scaled as i128)
    }

    /// Parts of different scales are first brought to few bits, so that none is blown up to another's precision.
    pub(super) fn concat(&mut self, inputs: &[Tensor], axis: usize, result: Tensor) -> Result<Value, QuantiseError> {
        let mut parts: Vec<Value> = inputs.iter().map(|&input| self.value(input)).collect();
        if parts.iter().any(|part| part.scale != parts[0].scale) {
            let wanted = self.target_scale(result);
            for (part, &input) in parts.iter_mut().zip(inputs) {
                if !part.within_bits(BOUNDARY_BITS) {
                    *part = self.rescaled(*part, self.calibration.magnitude(input), wanted, MAX_REQUANT_BITS, false)?;
                }
            }
            let finest = parts.iter().map(|part| part.scale).max().unwrap_or(0);
            for part in &mut parts {
                *part = self.refined(*part, finest)?;
            }
        }
        let op = Op::Concat { inputs: parts.iter().map(|part| part.id).collect(), axis };
        let joined = |of: fn(Value) -> Interval| parts.iter().map(|&part| of(part)).reduce(Interval::joined);
        Ok(self.push(op, parts[0].scale, |of| joined(of).expect("a concatenation has parts")))
    }
}
