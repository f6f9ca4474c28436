//! Square roots, reciprocals and quotients: integers that inequalities fix, with no table and no limit of precision but bits.
//!
//! A division takes a positive denominator. Calibration shows whether a tensor is of one sign; one of both signs divides as
//! `x y / y^2`. Where a run finds a zero, another sign, or a result beyond four times the calibrated ones, it ends with an
//! error.

use shardproof_integer::{BOUNDARY_BITS, MAX_ROOT_BITS, Op, VALUE_BITS};

use super::interval::Interval;
use super::{Emitter, HEADROOM_BITS, Value, scale_for};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::{bits_of, power_of_two};
use crate::quantise::real::Tensor;

/// Most bits of what a root is taken of, and of a numerator.
const WIDEST: u32 = VALUE_BITS - 2;

/// Most bits of a denominator of both signs, whose square is divided by.
const SQUARED_BITS: u32 = 15;

/// What is divided by what.
struct Fraction {
    numerator: Value,
    denominator: Value,
}

impl Emitter<'_> {
    /// `floor(sqrt(x 4^j))`, with as many bits as a root may have.
    pub(super) fn sqrt(&mut self, input: Tensor, result: Tensor) -> Result<Value, QuantiseError> {
        if self.calibration.ranges[input].low < 0.0 {
            return Err(self.range("calibration takes the square root of a negative value".to_owned()));
        }
        let value = self.value(input);
        let finest = scale_for(self.calibration.magnitude(result), MAX_ROOT_BITS - HEADROOM_BITS);
        let room = (WIDEST as i32 - value.bounds.bits() as i32).max(0);
        let scale =
            ((value.scale + room).div_euclid(2)).min(finest).max(value.scale.div_euclid(2) + value.scale.rem_euclid(2));
        let radicand = self.lifted(value, 2 * scale)?;
        Ok(self.root_of(radicand))
    }

    /// The root, rounded down, of a value at an even scale.
    pub(super) fn root_of(&mut self, radicand: Value) -> Value {
        let root = |of: fn(Value) -> Interval| of(radicand).root();
        let bits = root(|value| value.bounds).bits().clamp(1, MAX_ROOT_BITS);
        self.push(Op::Sqrt { input: radicand.id, bits }, radicand.scale / 2, root)
    }

    /// `1 / x`, with more bits than other values have: it is made for what it is multiplied by.
    pub(super) fn reciprocal(&mut self, input: Tensor, result: Tensor) -> Result<Value, QuantiseError> {
        let wanted = scale_for(self.calibration.magnitude(result), BOUNDARY_BITS - HEADROOM_BITS);
        let fraction = self.fraction(None, input)?;
        self.divided(fraction, wanted, result)
    }

    /// `x / y`, element by element.
    pub(super) fn divide(&mut self, x: Tensor, y: Tensor, result: Tensor) -> Result<Value, QuantiseError> {
        let fraction = self.fraction(Some(x), y)?;
        self.divided(fraction, self.target_scale(result), result)
    }

    /// The fraction, rounded to half a unit at a scale near `wanted`.
    fn divided(&mut self, fraction: Fraction, wanted: i32, result: Tensor) -> Result<Value, QuantiseError> {
        let Fraction { numerator, denominator } = fraction;
        let room = (WIDEST as i32 - 1 - numerator.bounds.bits() as i32).max(0);
        let lifted = (wanted + denominator.scale).min(numerator.scale + room);
        let numerator = self.lifted(numerator, lifted)?;
        let scale = numerator.scale - denominator.scale;
        let expected = (self.calibration.magnitude(result) * power_of_two(scale)).max(1.0);
        let bits = bits_of(expected) as u32 + HEADROOM_BITS;
        if bits > BOUNDARY_BITS {
            return Err(self.range(format!("quotients of {bits} bits; {BOUNDARY_BITS} are possible")));
        }
        Ok(self.quotient(numerator, denominator, bits))
    }

    /// `x / y`, or `1 / y`, as a fraction whose denominator is positive: of one sign, or else `x y / y^2`.
    fn fraction(&mut self, x: Option<Tensor>, y: Tensor) -> Result<Fraction, QuantiseError> {
        let range = self.calibration.ranges[y];
        let of_one_sign = range.low > 0.0 || range.high < 0.0;
        let bits = if of_one_sign { BOUNDARY_BITS } else { SQUARED_BITS };
        let mut denominator = self.value(y);
        if !denominator.within_bits(if of_one_sign { MAX_ROOT_BITS } else { bits }) {
            denominator = self.narrow(y, bits)?;
        }
        let numerator = match x {
            None => None,
            Some(x) if self.value(x).within_bits(BOUNDARY_BITS) => Some(self.value(x)),
            Some(x) => Some(self.narrow(x, BOUNDARY_BITS)?),
        };
        if !of_one_sign {
            let numerator = numerator.map_or(denominator, |numerator| self.product_of(numerator, denominator));
            return Ok(Fraction { numerator, denominator: self.product_of(denominator, denominator) });
        }
        let (least, unit) = (range.low.abs().min(range.high.abs()), power_of_two(-denominator.scale));
        if least < unit / 2.0 {
            let largest = range.magnitude();
            return Err(self.range(format!(
                "it divides by values from {least:e} to {largest:e}, the least of which are zero in units of {unit:e}; \
                 add a larger constant to its denominator"
            )));
        }
        let sign = if range.high < 0.0 { -1 } else { 1 };
        if sign < 0 {
            denominator = self.combined_at(&[(denominator, -1)], 0, denominator.scale);
        }
        let numerator = match numerator {
            None => self.constant_like(denominator, sign, 0),
            Some(numerator) if sign < 0 => self.combined_at(&[(numerator, -1)], 0, numerator.scale),
            Some(numerator) => numerator,
        };
        Ok(Fraction { numerator, denominator })
    }

    /// `floor(x / y + 1/2)`, which must have a magnitude below 2^`bits`; `y` must be positive.
    pub(super) fn quotient(&mut self, numerator: Value, denominator: Value, bits: u32) -> Value {
        let op = Op::Divide { numerator: numerator.id, denominator: denominator.id, bits };
        self.push(op, numerator.scale - denominator.scale, |of| {
            let (x, y) = (of(numerator), of(denominator));
            let (least, most) = (y.low.max(1), y.high.max(1));
            let rounded = |x: i128, y: i128| (2 * x + y).div_euclid(2 * y);
            let low = rounded(x.low, least).min(rounded(x.low, most));
            let high = rounded(x.high, least).max(rounded(x.high, most));
            Interval { low, high }.within(bits)
        })
    }

    /// The same values at a finer scale, within the bits that a root or a division may read.
    pub(super) fn lifted(&mut self, value: Value, scale: i32) -> Result<Value, QuantiseError> {
        let Some(shift) = u32::try_from(scale - value.scale).ok().filter(|&shift| shift > 0) else { return Ok(value) };
        if shift > WIDEST || value.magnitude() << shift > 1 << WIDEST {
            return Err(self.range(format!("values at scale {} cannot be held at scale {scale}", value.scale)));
        }
        Ok(self.combined_at(&[(value, 1 << shift)], 0, scale))
    }
}
