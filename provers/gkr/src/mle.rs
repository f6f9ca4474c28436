//! Multilinear extensions over the boolean cube.
//!
//! A point's coordinate 0 belongs to the most significant bit of an index. `eq(r, i)` is the multilinear extension of
//! equality, `prod_j (r_j i_j + (1 - r_j) (1 - i_j))`.

use p3_field::PrimeCharacteristicRing;

use crate::field::Ext;

/// Bits that number `extent` values: `ceil(log2(extent))`.
pub(crate) fn bits_for(extent: usize) -> usize {
    extent.next_power_of_two().trailing_zeros() as usize
}

/// `eq(point, i)` for every i below `2^point.len()`.
#[cfg(any(test, feature = "prover"))]
pub(crate) fn eq_table(point: &[Ext]) -> Vec<Ext> {
    scaled_eq_table(point, Ext::ONE)
}

/// `scale eq(point, i)` for every i below `2^point.len()`.
pub(crate) fn scaled_eq_table(point: &[Ext], scale: Ext) -> Vec<Ext> {
    let mut table = Vec::with_capacity(1 << point.len());
    table.push(scale);
    // Coordinates from the last to the first: each doubles the table upwards, so that it stays in index order.
    for &coordinate in point.iter().rev() {
        let filled = table.len();
        for i in 0..filled {
            let one = table[i] * coordinate;
            table.push(one);
            table[i] -= one;
        }
    }
    table
}

/// `eq(point, i)` for the first `length` indices.
pub(crate) fn eq_prefix(point: &[Ext], length: usize) -> Vec<Ext> {
    eq_range(point, 0, length)
}

/// `eq(point, i)` for i from `start`, `length` of them, in time linear in `length`.
///
/// # Panics
/// When the range leaves the cube.
pub(crate) fn eq_range(point: &[Ext], start: usize, length: usize) -> Vec<Ext> {
    assert!(start + length <= 1 << point.len(), "the range {start}+{length} leaves a cube of 2^{}", point.len());
    let mut values = Vec::with_capacity(length);
    let mut at = start;
    while at < start + length {
        // The largest block of a power of two that is aligned here and ends within the range.
        let left = start + length - at;
        let aligned = if at == 0 { usize::BITS } else { at.trailing_zeros() };
        let bits = (aligned.min(left.ilog2()) as usize).min(point.len());
        let (high, low) = point.split_at(point.len() - bits);
        values.extend(scaled_eq_table(low, eq_index(high, at >> bits)));
        at += 1 << bits;
    }
    values
}

/// `eq(point, index)` for one index.
pub(crate) fn eq_index(point: &[Ext], index: usize) -> Ext {
    point.iter().rev().enumerate().fold(Ext::ONE, |product, (bit, &coordinate)| {
        product * if index >> bit & 1 == 1 { coordinate } else { Ext::ONE - coordinate }
    })
}

/// `sum eq(point, i)` over i below `end`, which may be the whole cube.
pub(crate) fn eq_prefix_sum(point: &[Ext], end: usize) -> Ext {
    prefix_sum(point.iter().map(|&x| (Ext::ONE - x, x)), point.len(), end)
}

/// `sum eq(a, i) eq(b, i)` over i below `end`, which may be the whole cube.
pub(crate) fn eq_pair_prefix_sum(a: &[Ext], b: &[Ext], end: usize) -> Ext {
    prefix_sum(a.iter().zip(b).map(|(&x, &y)| ((Ext::ONE - x) * (Ext::ONE - y), x * y)), a.len(), end)
}

/// `sum_i eq(a, a_start + i) eq(b, b_start + i)` over i below `length`: block by block of the largest power of two that divides
/// both starts and the length.
pub(crate) fn eq_pair_range(a: &[Ext], a_start: usize, b: &[Ext], b_start: usize, length: usize) -> Ext {
    let aligned = [a_start, b_start, length].map(trailing_zeros).into_iter().min().unwrap_or(0) as usize;
    let bits = aligned.min(a.len()).min(b.len());
    let (a_high, a_low) = a.split_at(a.len() - bits);
    let (b_high, b_low) = b.split_at(b.len() - bits);
    let blocks = |high: &[Ext], start: usize| eq_range(high, start >> bits, length >> bits);
    dot(&blocks(a_high, a_start), &blocks(b_high, b_start)) * eq_pair_prefix_sum(a_low, b_low, 1 << bits)
}

/// The exponent of the largest power of two that divides `number`; beyond every size for zero.
pub(crate) fn trailing_zeros(number: usize) -> u32 {
    if number == 0 { usize::BITS } else { number.trailing_zeros() }
}

/// `sum_i prod_j w_j(i_j)` over i below `end`, for bits with the weights `(w_j(0), w_j(1))`.
fn prefix_sum(weights: impl DoubleEndedIterator<Item = (Ext, Ext)>, bits: usize, end: usize) -> Ext {
    // From the last bit upwards: the sum over everything that the lower bits may be, and over what is below `end`'s.
    let mut whole = Ext::ONE;
    let mut below = Ext::ZERO;
    for (bit, (zero, one)) in weights.rev().enumerate() {
        below = if end >> bit & 1 == 1 { zero * whole + one * below } else { zero * below };
        whole *= zero + one;
    }
    if end >> bits & 1 == 1 { whole } else { below }
}

/// `sum_i a_i b_i`.
pub(crate) fn dot(a: &[Ext], b: &[Ext]) -> Ext {
    a.iter().zip(b).map(|(&x, &y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use p3_field::PrimeCharacteristicRing;

    use super::*;

    fn point(n: usize) -> Vec<Ext> {
        (0..n as u64).map(|i| Ext::from_u64(0x9e37_79b9 * (i + 1))).collect()
    }

    #[test]
    fn ranges_agree_with_the_table() {
        let point = point(6);
        let table = eq_table(&point);
        for start in 0..64 {
            for length in 0..=64 - start {
                assert_eq!(eq_range(&point, start, length), table[start..start + length], "{start}+{length}");
            }
        }
        assert_eq!(eq_index(&point, 37), table[37]);
        assert_eq!(table.iter().copied().sum::<Ext>(), Ext::ONE);
    }

    #[test]
    fn sums_over_pairs_of_ranges_agree_with_the_tables() {
        let (a, b) = (point(5), point(14).split_off(8));
        let (a_table, b_table) = (eq_table(&a), eq_table(&b));
        for (a_start, b_start, length) in
            [(0, 0, 32), (8, 16, 12), (4, 40, 8), (3, 5, 7), (0, 63, 1), (16, 0, 16), (2, 32, 0)]
        {
            let expected = dot(&a_table[a_start..][..length], &b_table[b_start..][..length]);
            assert_eq!(eq_pair_range(&a, a_start, &b, b_start, length), expected, "{a_start}, {b_start}, {length}");
        }
    }

    #[test]
    fn prefix_sums_agree_with_the_tables() {
        let (a, b) = (point(4), point(8).split_off(4));
        let (a_table, b_table) = (eq_table(&a), eq_table(&b));
        for end in 0..=16 {
            assert_eq!(eq_prefix_sum(&a, end), a_table[..end].iter().copied().sum::<Ext>());
            assert_eq!(eq_pair_prefix_sum(&a, &b, end), dot(&a_table[..end], &b_table[..end]));
        }
    }
}
