//! The arithmetic of requantisation, as prover and verifier both use it.
//!
//! `q = floor((x + 2^(shift-1)) / 2^shift)` with `-2^bits <= q < 2^bits` holds exactly when
//! `x + 2^(shift-1) + 2^(shift+bits) = low + 2^shift high + 2^(shift+bits) sign` for some `low` of `shift` bits, `high` of
//! `bits` bits and a bit `sign`, and then `q = high + 2^bits (sign - 1)`. The graph's bounds keep both sides below the
//! field's modulus, so that the equation over the field is the one over the integers. `max(q, 0) = sign high`.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{Op, TensorId};

use crate::field::{Base, Ext};
use crate::layout::Digit;

/// A requantisation with its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requant<'a> {
    /// The accumulators.
    pub input: TensorId,
    /// Digits of the lowest bits; none where nothing is shifted away.
    pub low: &'a [Digit],
    /// Digits above; without a ReLU they include the topmost bit.
    pub high: &'a [Digit],
    /// The topmost bit, where there is a ReLU.
    pub sign: Option<Digit>,
    shift: u32,
    bits: u32,
}

impl<'a> Requant<'a> {
    /// The columns of `op`.
    ///
    /// # Panics
    /// When `op` is another operator; the layout gives these columns to requantisations only.
    pub(crate) fn new(op: &Op, low: &'a [Digit], high: &'a [Digit], sign: Option<Digit>) -> Self {
        let Op::Requant { input, shift, bits, .. } = *op else {
            unreachable!("the layout gives digits to requantisations only, not to {}", op.name())
        };
        Self { input, low, high, sign, shift, bits }
    }

    /// `2^bits`, which makes results non-negative.
    pub(crate) fn offset(&self) -> Base {
        Base::from_u64(1 << self.bits)
    }

    /// `2^(shift-1) + 2^(shift+bits)`, which makes accumulators non-negative.
    pub(crate) fn accumulator_offset(&self) -> i64 {
        (1 << (self.shift + self.bits)) + (1 << self.shift >> 1)
    }

    /// The value of the accumulators under a functional from that of their digits and of ones.
    pub(crate) fn accumulator(&self, low: Ext, high: Ext, sign: Ext, ones: Ext) -> Ext {
        let power = |exponent: u32| Base::from_u64(1 << exponent);
        low + high * power(self.shift) + sign * power(self.shift + self.bits)
            - ones * Base::from_i64(self.accumulator_offset())
    }

    /// Splits an accumulator in `(low, high, sign)`; without a ReLU the sign is part of `high`.
    #[cfg(feature = "prover")]
    pub(crate) fn split(&self, accumulator: i64) -> (u64, u64, u64) {
        let positive = accumulator.wrapping_add(self.accumulator_offset()) as u64;
        let (low, high) = (positive & ((1 << self.shift) - 1), positive >> self.shift);
        match self.sign {
            Some(_) => (low, high & ((1 << self.bits) - 1), high >> self.bits),
            None => (low, high, 0),
        }
    }
}
