//! The sumcheck protocol for products of two and of three multilinear polynomials.
//!
//! Variables are bound from the most significant bit of the index. In each round the prover sends the univariate
//! restriction `h` of the remaining sum; `h(0) + h(1)` is the claim, so `h(1)` is not sent: a product of two sends `h(0)`
//! and the leading coefficient, a product of three `h(0)`, `h(2)` and the leading coefficient.
//! Source: Lund, Fortnow, Karloff, Nisan, "Algebraic methods for interactive proof systems" (1992); Thaler, "Proofs,
//! Arguments, and Zero-Knowledge", section 4.1.

#[cfg(feature = "prover")]
mod prover;

#[cfg(feature = "prover")]
pub(crate) use prover::{
    Product, Summand, Triple, fold_low, low_pairs, message, prove, prove_eq, prove_product_of_base, send,
};

use p3_field::{Field, PrimeCharacteristicRing};

use crate::channel::{ChannelError, Receiver};
use crate::field::Ext;

/// What remains of a sum: the value that the summand must have at a point.
#[derive(Clone, Debug)]
pub(crate) struct Reduced {
    /// One coordinate for each variable.
    pub point: Vec<Ext>,
    /// The claimed value of the summand there.
    pub value: Ext,
}

/// `h(x)` of degree 2 from `h(0)`, `h(1)` and the leading coefficient.
fn quadratic(at_zero: Ext, at_one: Ext, leading: Ext, x: Ext) -> Ext {
    at_zero + x * (at_one - at_zero - leading + x * leading)
}

/// `h(x)` of degree 3 from `h(0)`, `h(1)`, `h(2)` and the leading coefficient.
fn cubic(at_zero: Ext, at_one: Ext, at_two: Ext, leading: Ext, x: Ext) -> Ext {
    // With h = c + b x + a x^2 + l x^3: a + b = h(1) - c - l and 4 a + 2 b = h(2) - c - 8 l.
    let sum = at_one - at_zero - leading;
    let a = (at_two - at_zero - leading * Ext::from_u8(8)).halve() - sum;
    let b = sum - a;
    at_zero + x * (b + x * (a + x * leading))
}

/// Reduces `sum_x f(x) g(x) = claim` over `variables` variables.
///
/// # Errors
/// When the proof ends.
pub(crate) fn verify_product(
    receiver: &mut Receiver<'_>,
    claim: Ext,
    variables: usize,
) -> Result<Reduced, ChannelError> {
    let mut reduced = Reduced { point: Vec::with_capacity(variables), value: claim };
    for _ in 0..variables {
        let [at_zero, leading] = receiver.receive()?;
        let x = receiver.challenge();
        reduced.value = quadratic(at_zero, reduced.value - at_zero, leading, x);
        reduced.point.push(x);
    }
    Ok(reduced)
}

/// Reduces `sum_x f(x) g(x) h(x) = claim` over `variables` variables.
///
/// # Errors
/// When the proof ends.
pub(crate) fn verify_triple(
    receiver: &mut Receiver<'_>,
    claim: Ext,
    variables: usize,
) -> Result<Reduced, ChannelError> {
    let mut reduced = Reduced { point: Vec::with_capacity(variables), value: claim };
    for _ in 0..variables {
        let [at_zero, at_two, leading] = receiver.receive()?;
        let x = receiver.challenge();
        reduced.value = cubic(at_zero, reduced.value - at_zero, at_two, leading, x);
        reduced.point.push(x);
    }
    Ok(reduced)
}

/// Reduces `sum_x eq(at, x) f(x) = claim` with `f` of degree 2 in each variable. The factor `eq` is divided out of each
/// round's polynomial, so that only that of `f` is sent: Gruen, "Some improvements for the PIOP for ZeroCheck", eprint
/// 2024/108.
///
/// # Errors
/// When the proof ends.
pub(crate) fn verify_eq_quadratic(
    receiver: &mut Receiver<'_>,
    claim: Ext,
    at: &[Ext],
) -> Result<Reduced, ChannelError> {
    let mut reduced = Reduced { point: Vec::with_capacity(at.len()), value: claim };
    for &coordinate in at {
        let [at_zero, leading] = receiver.receive()?;
        let x = receiver.challenge();
        // (1 - r) g(0) + r g(1) is the claim; r = 0 has probability 1 / |Ext|, and no g(1) would follow from it.
        let inverse = coordinate.try_inverse().unwrap_or(Ext::ZERO);
        let at_one = (reduced.value - (Ext::ONE - coordinate) * at_zero) * inverse;
        reduced.value = quadratic(at_zero, at_one, leading, x);
        reduced.point.push(x);
    }
    Ok(reduced)
}
