//! Normalisation of rows of integers: layer norm before its scale and bias, and RMS norm.
//!
//! For a row of n values `x` at a scale `s`, and `c = x - mean(x)`, or `c = x` where nothing is centred:
//!
//! ```text
//! c   = n x - sum(x)               exactly n times the centred values; then requantised to A bits
//! V   = sum(c^2) 4^j + E           exact; E is epsilon in the units of V, at least 1; j gives V 60 bits
//! r   = floor(sqrt(V))             proven by r^2 <= V < (r + 1)^2
//! R   = floor(N / r + 1/2)         a proven division for each row; N = round(sqrt(n) 2^k)
//! y   = c R                        c / sqrt(mean(c^2) + epsilon) at scale k - j, for scale and bias to follow exactly
//! ```
//!
//! The factor n that centring leaves in `c` is in `r` as well, and cancels; so nothing is divided by n.
//!
//! **Error.** With `v = sqrt(mean(c^2) + epsilon)` the real deviation, and `w` the unit of the requantised `c`, in reals
//!
//! ```text
//! |y - y*|  <=  (w / v) (1/2 + |y*| / 2)  +  |y*| (1 / r + 1 / (2 R) + 2^-k)
//! ```
//!
//! The first term is the rounding of `c`, in the numerator and in the deviation: a root mean square moves by no more than its
//! values do. The second is the rounding of the root, of the reciprocal and of `N`. `R` has the bits of activations less one
//! where the deviation is as large as the largest centred value of calibration, or as the root of epsilon, and more where it is
//! smaller; it has room for rows without variance, whose deviation is the root of epsilon. Where epsilon is too small for that
//! room, `E` is that of an epsilon of `w^2 / 4`, which adds `|y*| (w / v)^2 / 8`.

use shardproof_integer::{MAX_REQUANT_BITS, MAX_ROOT_BITS, VALUE_BITS};

use super::interval::Interval;
use super::{Emitter, HEADROOM_BITS, LINEAR_BITS, Value, scale_for};
use crate::quantise::error::QuantiseError;
use crate::quantise::exact::{bits_of, power_of_two};
use crate::quantise::real::Tensor;

/// Most bits of what the root is taken of.
const RADICAND_BITS: u32 = VALUE_BITS - 2;

/// The values that are normalised: integers that mean `factor` times the real ones.
#[derive(Clone, Copy)]
struct Spread {
    value: Value,
    factor: f64,
}

impl Emitter<'_> {
    /// `magnitude` is the largest one of the centred values in calibration.
    pub(super) fn normalise(
        &mut self,
        input: Tensor,
        epsilon: f64,
        centred: bool,
        magnitude: f64,
    ) -> Result<Value, QuantiseError> {
        let shape = self.real.shape(input).to_vec();
        let depth = shape[shape.len() - 1];
        let spread =
            if centred { self.centred(input, &shape)? } else { Spread { value: self.value(input), factor: 1.0 } };
        let magnitude = magnitude * spread.factor;
        let spread = Spread { value: self.narrow_spread(spread.value, magnitude, depth)?, ..spread };
        // What the deviation of a row is at most, as it is held.
        let typical = magnitude.max(epsilon.sqrt() * spread.factor);
        let (root, lift) = self.deviation(spread, epsilon, typical, &shape)?;
        let (reciprocal, scale) = self.reciprocal_of_root(spread.value, root, typical, depth)?;
        let reciprocal = self.along_rows(reciprocal, &shape);
        let product = self.product_of(spread.value, reciprocal);
        debug_assert_eq!(product.scale, scale - lift, "the root's scale is that of the spread, lifted");
        // No element of a row is larger than the root of the row's sum of squares.
        let most = ((depth as f64).sqrt() * power_of_two(product.scale) * 1.01).ceil() as i128;
        let tight = Interval::symmetric(most);
        Ok(Value {
            tight: Interval { low: tight.low.max(product.tight.low), high: tight.high.min(product.tight.high) },
            ..product
        })
    }

    /// `n x - sum(x)`, at the scale of `x` and the bits of n.
    fn centred(&mut self, input: Tensor, shape: &[usize]) -> Result<Spread, QuantiseError> {
        let depth = shape[shape.len() - 1];
        let mut value = self.value(input);
        let widened = |value: Value| value.magnitude().saturating_mul(2 * depth as i128);
        if widened(value) > 1 << LINEAR_BITS {
            value = self.narrow(input, MAX_REQUANT_BITS)?;
        }
        if widened(value) > 1 << LINEAR_BITS {
            return Err(self.range(format!("sums of {depth} values exceed {LINEAR_BITS} bits")));
        }
        let sum = self.sum_over(value, vec![shape.len() - 1], depth as i128);
        let sums = self.along_rows(sum, shape);
        let bits = depth.ilog2() as i32;
        let centred = self.combined_at(&[(value, depth as i64), (sums, -1)], 0, value.scale + bits);
        Ok(Spread { value: centred, factor: depth as f64 * power_of_two(-bits) })
    }

    /// Few enough bits that squares of a whole row can be summed, and those of activations where there are more.
    fn narrow_spread(&mut self, value: Value, magnitude: f64, depth: usize) -> Result<Value, QuantiseError> {
        let room = (LINEAR_BITS - (depth as u64).next_power_of_two().trailing_zeros()) / 2;
        let bits = self.precision.activation_bits.min(room);
        if value.within_bits(bits) {
            return Ok(value);
        }
        let wanted = scale_for(magnitude, bits - HEADROOM_BITS);
        self.rescaled(value, magnitude, wanted, bits, false)
    }

    /// `sqrt(n) 2^lift` times the deviation of each row, at the scale of the spread and `lift` more.
    fn deviation(
        &mut self,
        spread: Spread,
        epsilon: f64,
        typical: f64,
        shape: &[usize],
    ) -> Result<(Value, i32), QuantiseError> {
        let depth = shape[shape.len() - 1];
        let square = self.product_of(spread.value, spread.value);
        let sum = self.sum_over(square, vec![shape.len() - 1], depth as i128);
        let constant = |lift: i32| {
            let unit = power_of_two(2 * (spread.value.scale + lift));
            let own = (epsilon * spread.factor * spread.factor * depth as f64 * unit).round().max(1.0);
            let typical = typical * power_of_two(spread.value.scale + lift);
            let [wanted, fits] = self.numerator_bits(spread.value, [own.sqrt(), typical], depth);
            if fits < wanted { own.max((depth as f64 / 4.0 * power_of_two(2 * lift)).round()) } else { own }
        };
        let most = sum.bounds.high as f64 + constant(0);
        let lift = (RADICAND_BITS as i32 - bits_of(most + 1.0)).div_euclid(2);
        if lift < 0 {
            return Err(self.range(format!("squares of {} bits with epsilon {epsilon:e}", bits_of(most))));
        }
        let radicand = self.combined_at(&[(sum, 1 << (2 * lift))], constant(lift) as i128, sum.scale + 2 * lift);
        Ok((self.root_of(radicand), lift))
    }

    /// `round(sqrt(n) 2^k) / root`, and k.
    fn reciprocal_of_root(
        &mut self,
        spread: Value,
        root: Value,
        typical: f64,
        depth: usize,
    ) -> Result<(Value, i32), QuantiseError> {
        let width = (depth as f64).sqrt();
        let least = root.bounds.low.max(1) as f64;
        let [wanted, fits] = self.numerator_bits(spread, [least, typical * power_of_two(root.scale)], depth);
        let scale = wanted.min(fits).min((RADICAND_BITS - 1) as i32 - bits_of(width));
        let numerator = (width * power_of_two(scale)).round();
        if scale < 0 {
            return Err(self.range("its deviations have too wide a range".to_owned()));
        }
        let bits = (bits_of(numerator / least).max(0) as u32 + 1).min(MAX_ROOT_BITS);
        let numerator = self.constant_like(root, numerator as i128, scale);
        Ok((self.quotient(numerator, root, bits), scale))
    }

    /// k such that the reciprocals of rows of the `typical` deviation have the bits of activations, and such that those of rows
    /// with the `least` root have room.
    fn numerator_bits(&self, spread: Value, [least, typical]: [f64; 2], depth: usize) -> [i32; 2] {
        let room = LINEAR_BITS - self.precision.weight_bits - 1 - spread.bounds.bits().max(1);
        let most_bits = room.min(MAX_ROOT_BITS - 1) as i32;
        let wanted = bits_of(typical.max(1.0)) + self.precision.activation_bits as i32 - 1;
        [wanted, bits_of(least / (depth as f64).sqrt()) + most_bits - 2]
    }
}
