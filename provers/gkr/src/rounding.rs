//! The arithmetic of maxima, quotients and roots, as prover and verifier both use it.
//!
//! Each of them is determined by relations between integers that its columns make relations between field elements: every
//! column is a number that is not negative and has few bits, because its digits are looked up, and the graph's bounds keep
//! both sides of every equation below 2^63 in magnitude, so that it holds over the integers when it holds in the field.
//!
//! | result | relations | so |
//! |---|---|---|
//! | `m = max_j x_j` | `m = sum_j b_j x_j`, `sum_j b_j = 1` with bits `b_j`, `m - x_j >= 0` | m is one of the values, and none is larger |
//! | `q = x / d` | `2 q d + r = 2 x + d`, `r >= 0`, `2 d - 1 - r >= 0` | d >= 1, and q is `(2 x + d) / (2 d)` rounded down |
//! | `y = sqrt(x)` | `y^2 + r = x`, `y >= 0`, `r >= 0`, `2 y - r >= 0` | `y^2 <= x < (y + 1)^2` |

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, TensorId};

use crate::claims::WitnessClaim;
use crate::field::{Base, Ext};
use crate::functional::Functional;
use crate::layout::Digit;

/// Bits of what a value of `input` can lack to the largest one.
pub(crate) fn difference_bits(graph: &CheckedGraph, input: TensorId) -> u32 {
    let bounds = graph.bounds(input);
    bit_length(bounds.high.abs_diff(bounds.low))
}

/// Bits of the remainders of twice a value by twice `denominator`, which is at least 1 in every run that succeeds.
pub(crate) fn remainder_bits(graph: &CheckedGraph, denominator: TensorId) -> u32 {
    bit_length(2 * graph.bounds(denominator).high.max(1).unsigned_abs() - 1)
}

/// Bits of a number, at least 1.
fn bit_length(number: u64) -> u32 {
    (u64::BITS - number.leading_zeros()).max(1)
}

/// What quotient columns add to quotients so that they are not negative.
pub(crate) fn quotient_offset(bits: u32) -> Base {
    Base::from_u64(1 << bits)
}

/// `sum q d` under a functional from the values of numerator, denominator and remainder under it.
pub(crate) fn quotient_products(numerator: Ext, denominator: Ext, remainder: Ext) -> Ext {
    (numerator.double() + denominator - remainder).halve()
}

/// The claim that remainders and what they lack to `largest` add up to that, `largest` being the largest remainders' value
/// under `functional`.
pub(crate) fn remainder_sum(remainder: &[Digit], rest: &[Digit], functional: Functional, largest: Ext) -> WitnessClaim {
    WitnessClaim::of_groups(&[(remainder, Ext::ONE), (rest, Ext::ONE)], functional, largest)
}

/// The claim that `r + rest = 2 y` for roots y.
pub(crate) fn root_sum(root: &[Digit], remainder: &[Digit], rest: &[Digit], functional: Functional) -> WitnessClaim {
    let groups = [(remainder, Ext::ONE), (rest, Ext::ONE), (root, -Ext::TWO)];
    WitnessClaim::of_groups(&groups, functional, Ext::ZERO)
}

/// Quotient with its offset, remainder, and what that lacks to its largest value; of a quotient that is in range.
#[cfg(feature = "prover")]
pub(crate) fn divide(numerator: i64, denominator: i64, bits: u32) -> [u64; 3] {
    let (sum, divisor) = (2 * numerator + denominator, 2 * denominator);
    let (quotient, remainder) = (sum.div_euclid(divisor), sum.rem_euclid(divisor));
    [quotient + (1 << bits), remainder, divisor - 1 - remainder].map(|number| number as u64)
}

/// Root, remainder, and what that lacks to its largest value.
#[cfg(feature = "prover")]
pub(crate) fn root(value: i64) -> [u64; 3] {
    let root = value.isqrt();
    let remainder = value - root * root;
    [root, remainder, 2 * root - remainder].map(|number| number as u64)
}
