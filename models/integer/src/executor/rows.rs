//! Operators that take whole axes together.

use rayon::prelude::*;

/// Elements below which the rows are not divided among threads.
const SERIAL: usize = 1 << 14;

/// Sums over `axes`.
pub(super) fn reduce_sum(values: &[i64], shape: &[usize], axes: &[usize]) -> Vec<i64> {
    let mut sums = values.to_vec();
    let mut extents = shape.to_vec();
    for &axis in axes {
        let inner: usize = extents[axis + 1..].iter().product();
        sums = sum_axis(&sums, extents[axis], inner);
        extents[axis] = 1;
    }
    sums
}

/// Sums the middle axis of `[outer, extent, inner]`.
fn sum_axis(values: &[i64], extent: usize, inner: usize) -> Vec<i64> {
    if inner == 1 {
        return values.chunks_exact(extent).map(|row| row.iter().sum()).collect();
    }
    let mut sums = vec![0; values.len() / extent];
    for (sum, block) in sums.chunks_exact_mut(inner).zip(values.chunks_exact(extent * inner)) {
        for row in block.chunks_exact(inner) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    }
    sums
}

/// The largest value of each row of the last axis.
pub(super) fn max(values: &[i64], shape: &[usize]) -> Vec<i64> {
    let length = shape.last().copied().unwrap_or(1);
    let largest = |row: &[i64]| row.iter().fold(i64::MIN, |largest, &value| largest.max(value));
    if values.len() <= SERIAL {
        values.chunks_exact(length).map(largest).collect()
    } else {
        values.par_chunks_exact(length).with_min_len(SERIAL.div_ceil(length)).map(largest).collect()
    }
}
