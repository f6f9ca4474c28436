//! Folding the rows of a weight matrix with challenges: the one step whose cost is the number of weights.

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};
use rayon::prelude::*;

use crate::field::{Base, Ext};

/// Coefficients of an element of the extension.
const DEGREE: usize = <Ext as BasedVectorSpace<Base>>::DIMENSION;
/// Half an element of the base field.
const HALF: u32 = 32;

/// `sum_n challenges[n] values[n, k]` for every k; every value has a magnitude of at most `2^bits`.
pub(super) fn fold_rows(values: &[i32], bits: u32, challenges: &[Ext]) -> Vec<Ext> {
    let columns = values.len() / challenges.len();
    let rows_per_task = challenges.len().div_ceil(rayon::current_num_threads()).clamp(1, terms_per_sum(bits));
    let tasks = values.par_chunks(rows_per_task * columns).zip(challenges.par_chunks(rows_per_task));
    let add = |mut a: Vec<Ext>, b: Vec<Ext>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let tasks = tasks.map(|(values, challenges)| fold_row_chunk(values, bits, challenges, columns));
    let mut folded = tasks.reduce(|| vec![Ext::ZERO; columns], add);
    let shift = total_shift(bits, challenges);
    folded.iter_mut().for_each(|value| *value -= shift);
    folded
}

/// `sum_k challenges[k] values[n, k]` for every n; every value has a magnitude of at most `2^bits`.
pub(super) fn fold_columns(values: &[i32], bits: u32, challenges: &[Ext]) -> Vec<Ext> {
    let halves = halves_of(challenges);
    let shift = total_shift(bits, challenges);
    let rows_per_task = (PARALLEL / challenges.len()).max(1);
    let row = |row: &[i32]| fold_row(row, bits, &halves) - shift;
    values.par_chunks_exact(challenges.len()).with_min_len(rows_per_task).map(row).collect()
}

/// Values per task below which handing out work costs more than it saves.
const PARALLEL: usize = 1 << 14;

/// So many products of a shifted value and half a coefficient fit in 64 bits: a shifted value is at most `2^(bits+1)`.
fn terms_per_sum(bits: u32) -> usize {
    1 << (63 - HALF).saturating_sub(bits + 1).min(20)
}

/// What the shift of all values by `2^bits` adds to a fold.
fn total_shift(bits: u32, challenges: &[Ext]) -> Ext {
    challenges.iter().copied().sum::<Ext>() * Base::from_u64(1 << bits)
}

/// A value plus `2^bits`, which is not negative and has 32 bits.
fn shifted(value: i32, shift: u32) -> u64 {
    u64::from((value as u32).wrapping_add(shift))
}

/// Lower and upper halves of each coefficient of the challenges, `[2 DEGREE][challenges]`.
fn halves_of(challenges: &[Ext]) -> [Vec<u32>; 2 * DEGREE] {
    std::array::from_fn(|half| {
        let coefficients = challenges.iter().map(|challenge| {
            let coefficients: &[Base] = challenge.as_basis_coefficients_slice();
            coefficients[half / 2].as_canonical_u64()
        });
        coefficients
            .map(|coefficient| if half % 2 == 0 { coefficient as u32 } else { (coefficient >> HALF) as u32 })
            .collect()
    })
}

/// The element whose coefficients have the given sums of lower and upper halves.
fn assemble(halves: [u64; 2 * DEGREE]) -> Ext {
    Ext::from_basis_coefficients_fn(|d| {
        Base::from_u64(halves[2 * d]) + Base::from_u64(halves[2 * d + 1]) * Base::from_u64(1 << HALF)
    })
}

/// The fold of rows few enough for one sum, of values plus `2^bits`.
fn fold_row_chunk(values: &[i32], bits: u32, challenges: &[Ext], columns: usize) -> Vec<Ext> {
    let halves = halves_of(challenges);
    let mut sums: [Vec<u64>; 2 * DEGREE] = std::array::from_fn(|_| vec![0; columns]);
    for (n, row) in values.chunks_exact(columns).enumerate() {
        for (sums, halves) in sums.iter_mut().zip(&halves) {
            let half = u64::from(halves[n]);
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += shifted(value, 1 << bits) * half);
        }
    }
    (0..columns).map(|k| assemble(std::array::from_fn(|half| sums[half][k]))).collect()
}

/// The fold of one row of values plus `2^bits`.
fn fold_row(row: &[i32], bits: u32, halves: &[Vec<u32>; 2 * DEGREE]) -> Ext {
    let mut folded = Ext::ZERO;
    let length = terms_per_sum(bits);
    for (chunk, values) in row.chunks(length).enumerate() {
        folded += assemble(std::array::from_fn(|half| {
            let halves = &halves[half][chunk * length..];
            values.iter().zip(halves).map(|(&value, &half)| shifted(value, 1 << bits) * u64::from(half)).sum()
        }));
    }
    folded
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
            let expected: Vec<Ext> = (0..3)
                .map(|n| (0..100).map(|k| challenges[k] * Base::from_i64(values[100 * n + k].into())).sum())
                .collect();
            assert_eq!(fold_columns(&values, bits, &challenges), expected, "{bits} bits");
        }
    }
}
