//! Intervals of integers, both ends included.

/// What values a tensor can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) low: i128,
    pub(super) high: i128,
}

impl Interval {
    /// `-magnitude ..= magnitude`.
    pub(super) const fn symmetric(magnitude: i128) -> Self {
        Self { low: -magnitude, high: magnitude }
    }

    /// The larger of the ends' magnitudes.
    pub(super) fn magnitude(self) -> i128 {
        self.low.abs().max(self.high.abs())
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high }
    }

    pub(super) fn times(self, factor: i128) -> Self {
        let (low, high) = (self.low * factor, self.high * factor);
        Self { low: low.min(high), high: low.max(high) }
    }

    /// Of the product of two values.
    pub(super) fn product(self, other: Self) -> Self {
        let (one, two) = (self.times(other.low), self.times(other.high));
        one.joined(two)
    }

    /// Of the square of a value, as the checker knows it.
    pub(super) fn square(self) -> Self {
        let product = self.product(self);
        Self { low: product.low.max(0), ..product }
    }

    /// Of the square root, rounded down, of what of it is not negative.
    pub(super) fn root(self) -> Self {
        Self { low: self.low.max(0).isqrt(), high: self.high.max(0).isqrt() }
    }

    pub(super) fn joined(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    pub(super) fn with(self, value: i128) -> Self {
        self.joined(Self { low: value, high: value })
    }

    /// Of the larger of two values.
    pub(super) fn larger(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.max(other.high) }
    }

    /// After a ReLU.
    pub(super) fn positive(self) -> Self {
        Self { low: self.low.max(0), high: self.high.max(0) }
    }

    /// After `floor((x + 2^(shift-1)) / 2^shift)`.
    pub(super) fn shifted(self, shift: u32) -> Self {
        let half = if shift == 0 { 0 } else { 1_i128 << (shift - 1) };
        Self { low: (self.low + half) >> shift, high: (self.high + half) >> shift }
    }

    /// What of it is in `-2^bits .. 2^bits`.
    pub(super) fn within(self, bits: u32) -> Self {
        Self { low: self.low.max(-(1 << bits)), high: self.high.min((1 << bits) - 1) }
    }

    /// The least b such that all of it is in `-2^b .. 2^b`.
    pub(super) fn bits(self) -> u32 {
        let needed = |magnitude: i128| i128::BITS - magnitude.leading_zeros();
        needed(self.high.max(0)).max(needed((-1 - self.low).max(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_least_that_hold_both_ends() {
        for (low, high, bits) in [(0, 0, 0), (-1, 0, 0), (0, 1, 1), (-8, 7, 3), (-9, 7, 4), (-8, 8, 4), (5, 1023, 10)] {
            assert_eq!(Interval { low, high }.bits(), bits, "{low}..={high}");
        }
    }

    #[test]
    fn halves_round_up() {
        assert_eq!(Interval { low: -6, high: 6 }.shifted(2), Interval { low: -1, high: 2 });
        assert_eq!(Interval { low: -6, high: 6 }.shifted(0), Interval { low: -6, high: 6 });
    }
}
