//! Powers of two without rounding, the same on every machine.

/// `2^exponent`; zero or infinite beyond the range of floats.
pub(super) fn power_of_two(exponent: impl Into<i64>) -> f64 {
    let exponent = exponent.into().clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    libm::scalbn(1.0, exponent as i32)
}

/// The least b such that `magnitude` is at most 2^b, for a magnitude that is finite and greater than 0.
pub(super) fn bits_of(magnitude: f64) -> i32 {
    // The fraction is in 0.5 .. 1.
    let (fraction, exponent) = libm::frexp(magnitude);
    if fraction == 0.5 { exponent - 1 } else { exponent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_hold_the_magnitude_and_no_fewer_do() {
        for (magnitude, bits) in [(1.0, 0), (0.5, -1), (0.51, 0), (1.000_001, 1), (4.0, 2), (5.0, 3), (1e-9, -29)] {
            assert_eq!(bits_of(magnitude), bits, "{magnitude}");
            assert!(magnitude <= power_of_two(bits) && magnitude > power_of_two(bits - 1));
        }
    }
}
