//! Softmax over rows of integers.
//!
//! For a row of n scores `x` and a factor `a`, at a scale `s` and with `T` bits for shares:
//!
//! ```text
//! q   = round(x 2^s)                          requantised; u = a 2^-s is what one unit of it is worth in the exponent
//! m   = max(q)                                proven: none is larger, and one is equal
//! d   = min(m - q, D)                         D units are (T + 1) ln 2, from where an exponential is less than half a unit
//! e   = round((2^T - 1) exp(-u d))            by table; exactly 0 at D
//! S   = sum(e)                                2^T - 1 at least, since e is 2^T - 1 where q is the maximum
//! r   = floor(2^T (2^T - 1) / S + 1/2)        a proven division for each row
//! p   = e r                                   the share, at scale 2 T
//! ```
//!
//! **Error.** Against the softmax `p*` of the real scores,
//!
//! ```text
//! |p / 4^T - p*|  <=  p* (exp(u) - 1)  +  2^-T (1 + n p*)  +  2^-T  +  2^-T
//! ```
//!
//! The first term: rounding moves each score by half a unit at most, so a quotient of exponentials by a factor of at most
//! `exp(u)`. The second: every entry of the table is off by half a unit at most, the numerator once and the sum, which is at
//! least `2^T - 1`, n times; what is cut off at D is less than half a unit as well. The third: `r` is off by a half, times `e <
//! 2^T`, over 4^T. The fourth: the table's peak is `2^T - 1` instead of `2^T`, so that no share needs another bit.
//!
//! Masked scores are lowered by more than the range of all scores and D together. No maximum is one of them then, and their
//! exponential is exactly 0: they have no part in the sum, whatever they were.

use shardproof_integer::{BOUNDARY_BITS, MAX_REQUANT_BITS, MAX_TABLE_BITS, Op, Table};

use super::interval::Interval;
use super::{Emitter, HEADROOM_BITS, Value, scale_for};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::power_of_two;
use crate::quantise::real::{RealTensor, Tensor};

/// Most bits of a score: differences of masked ones then are within a requantisation's bits.
const SCORE_BITS: u32 = MAX_REQUANT_BITS - 4;

/// Distances of more bits than this are beyond every table.
const REACH_BITS: u32 = 60;

/// How many more bits than others a table may have that makes a comparison needless.
const SPARE_BITS: u32 = 2;

/// The units in which exponents are looked up.
#[derive(Clone, Copy)]
struct Exponents {
    /// Bits of the shares and of the table's values.
    bits: u32,
    /// Of the scores, as they enter.
    scale: i32,
    /// What one unit of them is worth in the exponent.
    unit: f64,
    /// Distance from the maximum, in units, from which an exponential is zero.
    reach: i128,
}

impl Exponents {
    fn at(&self, distance: i128) -> f64 {
        let peak = power_of_two(self.bits) - 1.0;
        (peak * libm::exp(-self.unit * distance as f64)).round()
    }
}

impl Emitter<'_> {
    pub(super) fn softmax(
        &mut self,
        input: Tensor,
        factor: f64,
        keep: Option<&RealTensor>,
    ) -> Result<Value, QuantiseError> {
        let shape = self.real.shape(input).to_vec();
        let (value, magnitude) = (self.value(input), self.calibration.magnitude(input));
        let exponents = self.exponents(value, magnitude, factor);
        let mut scores = value;
        if value.scale > exponents.scale || !value.within_bits(SCORE_BITS) {
            scores = self.rescaled(value, magnitude, exponents.scale, SCORE_BITS, false)?;
        }
        let spread = scores.bounds.high - scores.bounds.low;
        let (candidates, lowered) = match keep {
            Some(keep) => self.masked(scores, keep, spread + exponents.reach)?,
            None => (scores, 0),
        };
        let largest = self.largest_of_rows(candidates, scores);
        let largest = self.along_rows(largest, &shape);
        let elements = shape.iter().product();
        let powers = self.powers(candidates, largest, spread + lowered, exponents, elements)?;
        self.shares(powers, &shape, exponents)
    }

    /// The table covers `reach` units, as finely as its bits allow.
    fn exponents(&self, value: Value, magnitude: f64, factor: f64) -> Exponents {
        let bits = self.precision.activation_bits - 1;
        let reach = std::f64::consts::LN_2 * f64::from(bits + 1) / factor;
        let fitting = scale_for(magnitude, SCORE_BITS - HEADROOM_BITS);
        let scale = scale_for(reach * 1.001, self.precision.table_bits).min(fitting).min(value.scale);
        let reach = (reach * power_of_two(scale)).min(power_of_two(REACH_BITS)).ceil() as i128 + 1;
        Exponents { bits, scale, unit: factor * power_of_two(-scale), reach }
    }

    /// The scores, those that are masked lowered by a power of two above `least`; and that power.
    fn masked(&mut self, scores: Value, keep: &RealTensor, least: i128) -> Result<(Value, i128), QuantiseError> {
        let lowering = i128::BITS - least.leading_zeros();
        if lowering >= BOUNDARY_BITS + 2 {
            return Err(self.range(format!("masking takes {lowering} bits")));
        }
        let mask = keep.clone().map(|keep| if keep == 0.0 { -1.0 } else { 0.0 });
        let (weight, _, _) = self.weight(&mask, 0, 0);
        let op = Op::AddWeight { input: scores.id, weight, multiplier: 1 << lowering };
        let lowered = 1_i128 << lowering;
        let either = Interval::symmetric(lowered);
        Ok((self.push(op, scores.scale, |of| of(scores).plus(either)), lowered))
    }

    /// The maximum of each row, which is one of `scores`: a masked one never is.
    fn largest_of_rows(&mut self, candidates: Value, scores: Value) -> Value {
        let largest = self.push(Op::Max { input: candidates.id }, candidates.scale, |of| of(candidates));
        Value { tight: scores.tight, ..largest }
    }

    /// Exponentials of the distances from the maximum, which are `spread` at most.
    fn powers(
        &mut self,
        candidates: Value,
        largest: Value,
        spread: i128,
        exponents: Exponents,
        elements: usize,
    ) -> Result<Value, QuantiseError> {
        // A table of four times the entries is cheaper than a comparison for each of many more scores.
        let spare = if elements >> (self.precision.table_bits + SPARE_BITS) > 0 { SPARE_BITS } else { 0 };
        let most = 1_i128 << (self.precision.table_bits + spare).min(MAX_TABLE_BITS);
        let terms = [(candidates, 1), (largest, -1)];
        // The table's last entry is the maximum's.
        let (argument, bits) = if spread < most {
            let bits = (i128::BITS - spread.leading_zeros()).max(1);
            (self.combined_at(&terms, (1 << (bits - 1)) - 1, candidates.scale), bits)
        } else {
            let bits = i128::BITS - exponents.reach.leading_zeros();
            if bits > MAX_TABLE_BITS {
                let unit = exponents.unit;
                return Err(self.range(format!("exponentials of scores times {unit:e} take a table of {bits} bits")));
            }
            let above = self.combined_at(&terms, exponents.reach, candidates.scale);
            let above = Value { tight: Interval { low: exponents.reach - spread, high: exponents.reach }, ..above };
            let needed = above.tight.bits();
            if needed > MAX_REQUANT_BITS {
                return Err(self.range(format!("scores whose differences have {needed} bits")));
            }
            let cut = self.requantised(above, 0, needed, true);
            let shift = (1 << (bits - 1)) - 1 - exponents.reach;
            (self.combined_at(&[(cut, 1)], shift, candidates.scale), bits)
        };
        let entries = (0..1_i128 << bits).rev().map(|distance| exponents.at(distance) as i32);
        let name = format!("exponentials of -{:e} a unit", exponents.unit);
        let table = self.table_of(Table { name, bits, values: entries.collect() });
        let peak = Interval { low: 0, high: (1 << exponents.bits) - 1 };
        Ok(self.push(Op::Table { input: argument.id, table }, exponents.bits as i32, |_| peak))
    }

    fn shares(&mut self, powers: Value, shape: &[usize], exponents: Exponents) -> Result<Value, QuantiseError> {
        let (bits, depth) = (exponents.bits, shape[shape.len() - 1]);
        let peak = (1_i128 << bits) - 1;
        let sum = self.sum_over(powers, vec![shape.len() - 1], depth as i128);
        let sum = Value { tight: Interval { low: peak, high: peak * depth as i128 }, ..sum };
        let one = self.constant_like(sum, peak << bits, 2 * bits as i32);
        let reciprocal = self.quotient(one, sum, bits + 1);
        let reciprocal = self.along_rows(reciprocal, shape);
        let shares = self.product_of(powers, reciprocal);
        if shares.magnitude() > 1 << super::LINEAR_BITS {
            return Err(self.range(format!("shares of {HEADROOM_BITS} more than {bits} bits")));
        }
        Ok(Value { tight: Interval { low: 0, high: peak << bits }, ..shares })
    }
}
