//! Folding the rows of a weight matrix with challenges: the one step whose cost is the number of weights.

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};
use rayon::prelude::*;

use crate::field::{Base, Ext};

/// Coefficients of an element of the extension.
const DEGREE: usize = <Ext as BasedVectorSpace<Base>>::DIMENSION;
/// Half an element of the base field.
const HALF: u32 = 32;

/// `sum_n challenges[n] values[n, k]` for every k; every value has a magnitude of at most `2^bits`.
///
/// Values are made non-negative and multiplied by the upper and lower halves of the challenges' coefficients in 64 bits
/// without reduction, which vector units do eight at a time; one reduction follows for each k.
pub(super) fn fold_rows(values: &[i32], bits: u32, challenges: &[Ext]) -> Vec<Ext> {
    let columns = values.len() / challenges.len();
    // A shifted value has at most bits + 1 bits, and 2^bits itself is reached: so many products fit in 64 bits.
    let rows_per_sum = 1usize << (63 - HALF).saturating_sub(bits + 1).min(20);
    let rows_per_task = challenges.len().div_ceil(rayon::current_num_threads()).clamp(1, rows_per_sum);
    let tasks = values.par_chunks(rows_per_task * columns).zip(challenges.par_chunks(rows_per_task));
    let mut folded = tasks.map(|(values, challenges)| fold_task(values, bits, challenges, columns)).reduce(
        || vec![Ext::ZERO; columns],
        |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        },
    );
    // Every value was shifted by 2^bits.
    let shift = challenges.iter().copied().sum::<Ext>() * Base::from_u64(1 << bits);
    folded.iter_mut().for_each(|value| *value -= shift);
    folded
}

/// The sums over few enough rows, of values plus `2^bits`.
fn fold_task(values: &[i32], bits: u32, challenges: &[Ext], columns: usize) -> Vec<Ext> {
    let shift = 1u32 << bits;
    let mut halves: Vec<Vec<u64>> = vec![vec![0; columns]; 2 * DEGREE];
    for (row, challenge) in values.chunks_exact(columns).zip(challenges) {
        let coefficients: &[Base] = challenge.as_basis_coefficients_slice();
        for (pair, coefficient) in halves.chunks_exact_mut(2).zip(coefficients) {
            let coefficient = coefficient.as_canonical_u64();
            let (low, high) = (u64::from(coefficient as u32), coefficient >> HALF);
            let [lows, highs] = pair else { unreachable!("chunks of two") };
            for ((low_sum, high_sum), &value) in lows.iter_mut().zip(highs.iter_mut()).zip(row) {
                let value = u64::from((value as u32).wrapping_add(shift));
                *low_sum += value * low;
                *high_sum += value * high;
            }
        }
    }
    let column = |k: usize| {
        Ext::from_basis_coefficients_fn(|d| {
            Base::from_u64(halves[2 * d][k]) + Base::from_u64(halves[2 * d + 1][k]) * Base::from_u64(1 << HALF)
        })
    };
    (0..columns).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_exact_at_the_limits() {
        for bits in [1, 8, 16, 24, 31] {
            let bound = if bits == 31 { i32::MAX } else { 1 << bits };
            let values: Vec<i32> = (0..300).map(|i| [bound, -bound, i % 7 % bound, 0][i as usize % 4]).collect();
            let largest = Ext::from_basis_coefficients_fn(|_| -Base::ONE);
            let challenges: Vec<Ext> = (0..100).map(|n| largest - Ext::from_u32(n)).collect();
            let expected: Vec<Ext> = (0..3)
                .map(|k| (0..100).map(|n| challenges[n] * Base::from_i64(values[3 * n + k].into())).sum())
                .collect();
            assert_eq!(fold_rows(&values, bits, &challenges), expected, "{bits} bits");
        }
    }
}
