//! Claims at power points, added to the table of weights.

use p3_field::{PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{Base, Ext, PackedBase, PackedExt, WIDTH};
use crate::table::{TASK, Table};

impl Table {
    /// Adds `sum_q c_q z_q^i` to every value, for the given `(z_q, c_q)`.
    pub(super) fn add_powers(&mut self, powers: &[(Base, Ext)]) {
        match self {
            Self::Packed(blocks) => add_powers_packed(blocks, powers),
            Self::Scalar(values) => {
                for &(z, coefficient) in powers {
                    let terms = z.powers().map(|power| coefficient * power);
                    values.iter_mut().zip(terms).for_each(|(value, term)| *value += term);
                }
            }
        }
    }
}

/// `z^i = z^(high 2^l) z^low`: both factors from tables, so that an element costs one product for each power, by a base
/// field element.
fn add_powers_packed(blocks: &mut [PackedExt], powers: &[(Base, Ext)]) {
    const LOW_BLOCKS: usize = 32;
    let low_blocks = blocks.len().min(LOW_BLOCKS);
    let low_length = low_blocks * WIDTH;
    // [low block, power]
    let mut lows = vec![PackedBase::ZERO; low_blocks * powers.len()];
    for (q, &(z, _)) in powers.iter().enumerate() {
        let first = PackedBase::from_fn(|lane| z.exp_u64(lane as u64));
        let step = PackedBase::from(z.exp_u64(WIDTH as u64));
        let mut low = first;
        for block in 0..low_blocks {
            lows[block * powers.len() + q] = low;
            low *= step;
        }
    }
    // [high, power]
    let mut current: Vec<Ext> = powers.iter().map(|&(_, coefficient)| coefficient).collect();
    let steps: Vec<Base> = powers.iter().map(|&(z, _)| z.exp_u64(low_length as u64)).collect();
    let mut highs = Vec::with_capacity(blocks.len() / low_blocks * powers.len());
    for _ in 0..blocks.len() / low_blocks {
        highs.extend_from_slice(&current);
        current.iter_mut().zip(&steps).for_each(|(high, &step)| *high *= step);
    }
    let add = |(blocks, highs): (&mut [PackedExt], &[Ext])| {
        for (block, lows) in blocks.iter_mut().zip(lows.chunks_exact(powers.len())) {
            let terms = highs.iter().zip(lows).map(|(&high, &low)| PackedExt::from(high) * low);
            *block += terms.sum::<PackedExt>();
        }
    };
    if blocks.len() * powers.len() <= 8 * TASK {
        blocks.chunks_mut(low_blocks).zip(highs.chunks_exact(powers.len())).for_each(add);
    } else {
        blocks.par_chunks_mut(low_blocks).zip(highs.par_chunks_exact(powers.len())).for_each(add);
    }
}
