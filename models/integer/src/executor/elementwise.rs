//! Operators that treat each element alone.

use rayon::prelude::*;

use super::moves::Pattern;

/// Elements of one task; fewer are not divided among threads.
const BLOCK: usize = 1 << 14;

/// The first element that has no result.
pub(super) struct Miss {
    /// Its place over all runs.
    pub(super) place: usize,
    /// Its value, rescaled for a requantisation.
    pub(super) value: i64,
}

/// Fills a tensor block by block: `fill(start, block)` with the block's first place.
fn build(length: usize, fill: impl Fn(usize, &mut [i64]) + Sync) -> Vec<i64> {
    let mut result = vec![0; length];
    if length <= BLOCK {
        fill(0, &mut result);
    } else {
        result.par_chunks_mut(BLOCK).enumerate().for_each(|(index, block)| fill(index * BLOCK, block));
    }
    result
}

/// `f(x, w)` for every element of the runs and the weight's value that is broadcast to it.
pub(super) fn broadcast(
    values: &[i64],
    weight: &[i32],
    pattern: &Pattern,
    f: impl Fn(i64, i32) -> i64 + Sync,
) -> Vec<i64> {
    let Pattern { length, stride, offsets } = pattern;
    let apply = |row: usize, source: &[i64], result: &mut [i64]| {
        let weight = &weight[offsets[row % offsets.len()]..];
        if *stride == 0 {
            result.iter_mut().zip(source).for_each(|(y, &x)| *y = f(x, weight[0]));
        } else {
            result.iter_mut().zip(source).zip(weight).for_each(|((y, &x), &w)| *y = f(x, w));
        }
    };
    let mut result = vec![0; values.len()];
    if values.len() <= BLOCK {
        let rows = result.chunks_exact_mut(*length).zip(values.chunks_exact(*length));
        rows.enumerate().for_each(|(row, (result, source))| apply(row, source, result));
    } else {
        let rows = result.par_chunks_exact_mut(*length).zip(values.par_chunks_exact(*length)).enumerate();
        rows.with_min_len(BLOCK.div_ceil(*length)).for_each(|(row, (result, source))| apply(row, source, result));
    }
    result
}

/// `constant + sum_t c_t x_t`.
pub(super) fn combine(terms: &[(&[i64], i64)], constant: i64) -> Vec<i64> {
    build(terms[0].0.len(), |start, block| {
        block.fill(constant);
        for (values, factor) in terms {
            block.iter_mut().zip(&values[start..]).for_each(|(sum, value)| *sum += factor * value);
        }
    })
}

/// `floor((x + 2^(shift-1)) / 2^shift)`, which must be in `-2^bits .. 2^bits`, or zero where that is negative and `relu`.
pub(super) fn requant(values: &[i64], shift: u32, bits: u32, relu: bool) -> Result<Vec<i64>, Miss> {
    let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
    let limit = 1_i64 << bits;
    let floor = if relu { 0 } else { i64::MIN };
    let rescale = |value: i64| (value + half) >> shift;
    let fits = |value: i64| (-limit..limit).contains(&value);
    let all_fit = |values: &[i64]| values.iter().fold(true, |all, &value| all & fits(rescale(value)));
    if !holds(values, all_fit) {
        let rescaled = values.iter().map(|&value| rescale(value)).enumerate();
        return first_miss(rescaled, fits);
    }
    Ok(build(values.len(), |start, block| {
        block.iter_mut().zip(&values[start..]).for_each(|(y, &x)| *y = rescale(x).max(floor));
    }))
}

/// `table[x]`, where the table starts at minus half its length.
pub(super) fn look_up(values: &[i64], table: &[i32]) -> Result<Vec<i64>, Miss> {
    let half = table.len() as i64 / 2;
    let fits = |value: i64| (-half..half).contains(&value);
    if !holds(values, |values| values.iter().fold(true, |all, &value| all & fits(value))) {
        return first_miss(values.iter().copied().enumerate(), fits);
    }
    Ok(build(values.len(), |start, block| {
        block.iter_mut().zip(&values[start..]).for_each(|(y, &x)| *y = table[(x + half) as usize].into());
    }))
}

/// `x y`.
pub(super) fn multiply(left: &[i64], right: &[i64]) -> Vec<i64> {
    build(left.len(), |start, block| {
        let pairs = left[start..].iter().zip(&right[start..]);
        block.iter_mut().zip(pairs).for_each(|(product, (x, y))| *product = x * y);
    })
}

/// The first element that a division has no result for.
pub(super) enum QuotientMiss {
    /// Its denominator is not positive.
    Denominator(Miss),
    /// Its quotient is out of range.
    Quotient(Miss),
}

/// `floor((2 x + d) / (2 d))`, which must be in `-2^bits .. 2^bits`, for positive `d`.
pub(super) fn divide(numerators: &[i64], denominators: &[i64], bits: u32) -> Result<Vec<i64>, QuotientMiss> {
    if !holds(denominators, |values| values.iter().all(|&value| value > 0)) {
        let place = denominators.iter().position(|&value| value <= 0).expect("some value was found not to be positive");
        return Err(QuotientMiss::Denominator(Miss { place, value: denominators[place] }));
    }
    let quotients = build(numerators.len(), |start, block| {
        let pairs = numerators[start..].iter().zip(&denominators[start..]);
        block.iter_mut().zip(pairs).for_each(|(q, (&x, &d))| *q = (2 * x + d).div_euclid(2 * d));
    });
    let limit = 1_i64 << bits;
    match quotients.iter().position(|q| !(-limit..limit).contains(q)) {
        Some(place) => Err(QuotientMiss::Quotient(Miss { place, value: quotients[place] })),
        None => Ok(quotients),
    }
}

/// `floor(sqrt(x))`, which must be below `2^bits`.
pub(super) fn sqrt(values: &[i64], bits: u32) -> Result<Vec<i64>, Miss> {
    let fits = |value: i64| value >= 0 && value >> (2 * bits) == 0;
    if !holds(values, |values| values.iter().all(|&value| fits(value))) {
        return first_miss(values.iter().copied().enumerate(), fits);
    }
    Ok(build(values.len(), |start, block| {
        block.iter_mut().zip(&values[start..]).for_each(|(y, &x)| *y = x.isqrt());
    }))
}

fn holds(values: &[i64], all: impl Fn(&[i64]) -> bool + Send + Sync) -> bool {
    if values.len() <= BLOCK { all(values) } else { values.par_chunks(BLOCK).all(all) }
}

/// The first value that does not fit; there is one.
fn first_miss(mut values: impl Iterator<Item = (usize, i64)>, fits: impl Fn(i64) -> bool) -> Result<Vec<i64>, Miss> {
    let miss = values.find(|&(_, value)| !fits(value));
    let (place, value) = miss.expect("some value was found not to fit");
    Err(Miss { place, value })
}
