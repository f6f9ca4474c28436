//! Vectors of extension field elements over the cube, in the layout that vector instructions want: coefficient by
//! coefficient in blocks of as many elements as a vector register holds.

use p3_field::{ExtensionField, Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{Base, Ext};

/// A vector register of base field elements.
pub(super) type PackedBase = <Base as Field>::Packing;
/// A block of extension field elements.
pub(super) type PackedExt = <Ext as ExtensionField<Base>>::ExtensionPacking;

/// Elements of a block.
pub(super) const WIDTH: usize = PackedBase::WIDTH;
/// Blocks that one task works on; enough to outweigh the cost of a task.
const TASK: usize = 512;

/// Values on the cube, the first coordinate being the most significant.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// More than one block.
    Packed(Vec<PackedExt>),
    /// Too few values for blocks.
    Scalar(Vec<Ext>),
}

impl Table {
    /// A table of blocks.
    pub(super) fn new(blocks: Vec<PackedExt>) -> Self {
        let mut table = Self::Packed(blocks);
        table.unpack_last_block();
        table
    }

    /// A table of `length` zeros, a power of two.
    pub(super) fn zeros(length: usize) -> Self {
        if length > WIDTH {
            Self::Packed(vec![PackedExt::ZERO; length / WIDTH])
        } else {
            Self::Scalar(vec![Ext::ZERO; length])
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Ext> {
        match self {
            Self::Packed(blocks) => {
                blocks.iter().flat_map(|block| (0..WIDTH).map(|lane| extract(block, lane))).collect()
            }
            Self::Scalar(values) => values.clone(),
        }
    }

    fn unpack_last_block(&mut self) {
        if matches!(self, Self::Packed(blocks) if blocks.len() == 1) {
            *self = Self::Scalar(self.to_vec());
        }
    }

    /// Binds the first variable at `challenge`.
    pub(super) fn bind(&mut self, challenge: Ext) {
        match self {
            Self::Packed(blocks) => {
                let half = blocks.len() / 2;
                let (low, high) = blocks.split_at_mut(half);
                let challenge = PackedExt::from(challenge);
                let bind = |(low, high): (&mut [PackedExt], &mut [PackedExt])| {
                    low.iter_mut().zip(high).for_each(|(low, high)| *low += (*high - *low) * challenge);
                };
                if half <= TASK {
                    bind((low, high));
                } else {
                    low.par_chunks_mut(TASK).zip(high.par_chunks_mut(TASK)).for_each(bind);
                }
                blocks.truncate(half);
                self.unpack_last_block();
            }
            Self::Scalar(values) => bind_scalar(values, challenge),
        }
    }

    /// The sumcheck message of `sum f(i) w(i)`: with `h(x)` the sum over all but the first variable at x, `h(0)` and the
    /// coefficient of `x^2`.
    pub(super) fn message(f: &Self, w: &Self) -> [Ext; 2] {
        match (f, w) {
            (Self::Packed(f), Self::Packed(w)) => message_packed(f, w),
            (f, w) => message_scalar(&f.to_vec(), &w.to_vec()),
        }
    }

    /// The value at `point`.
    pub(super) fn evaluate(&self, point: &[Ext]) -> Ext {
        match self {
            Self::Packed(blocks) => {
                let weights = eq_blocks(point, Ext::ONE);
                let sum =
                    |(a, b): (&[PackedExt], &[PackedExt])| a.iter().zip(b).map(|(&a, &b)| a * b).sum::<PackedExt>();
                let total = if blocks.len() <= TASK {
                    sum((blocks, &weights))
                } else {
                    blocks.par_chunks(TASK).zip(weights.par_chunks(TASK)).map(sum).sum()
                };
                lanes_sum(total)
            }
            Self::Scalar(values) => super::weight::evaluate(values.clone(), point),
        }
    }

    /// Adds `coefficient eq(point, i)` to every value.
    pub(super) fn add_point(&mut self, point: &[Ext], coefficient: Ext) {
        match self {
            Self::Packed(blocks) => {
                let weights = eq_blocks(point, coefficient);
                blocks.iter_mut().zip(weights).for_each(|(block, weight)| *block += weight);
            }
            Self::Scalar(values) => {
                values.iter_mut().zip(eq_scalar(point, coefficient)).for_each(|(value, weight)| *value += weight);
            }
        }
    }

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

fn extract(block: &PackedExt, lane: usize) -> Ext {
    PackedFieldExtension::<Base, Ext>::extract(block, lane)
}

/// The sum of a block's elements.
pub(super) fn lanes_sum(block: PackedExt) -> Ext {
    (0..WIDTH).map(|lane| extract(&block, lane)).sum()
}

/// Binds the first variable of `values` at `challenge`.
pub(super) fn bind_scalar(values: &mut Vec<Ext>, challenge: Ext) {
    let half = values.len() / 2;
    let (low, high) = values.split_at_mut(half);
    low.iter_mut().zip(high).for_each(|(low, high)| *low += (*high - *low) * challenge);
    values.truncate(half);
}

/// [`Table::message`] for few values.
pub(super) fn message_scalar(f: &[Ext], w: &[Ext]) -> [Ext; 2] {
    let half = f.len() / 2;
    let mut message = [Ext::ZERO; 2];
    for i in 0..half {
        message[0] += f[i] * w[i];
        message[1] += (f[half + i] - f[i]) * (w[half + i] - w[i]);
    }
    message
}

fn message_packed(f: &[PackedExt], w: &[PackedExt]) -> [Ext; 2] {
    let half = f.len() / 2;
    let range = |start: usize| {
        let end = (start + TASK).min(half);
        let (mut constant, mut leading) = (PackedExt::ZERO, PackedExt::ZERO);
        let lows = f[start..end].iter().zip(&w[start..end]);
        let highs = f[half + start..half + end].iter().zip(&w[half + start..half + end]);
        for ((&f_low, &w_low), (&f_high, &w_high)) in lows.zip(highs) {
            constant += f_low * w_low;
            leading += (f_high - f_low) * (w_high - w_low);
        }
        [constant, leading]
    };
    let sums = if half <= TASK {
        range(0)
    } else {
        let add = |a: [PackedExt; 2], b: [PackedExt; 2]| [a[0] + b[0], a[1] + b[1]];
        (0..half.div_ceil(TASK)).into_par_iter().map(|task| range(task * TASK)).reduce(|| [PackedExt::ZERO; 2], add)
    };
    sums.map(lanes_sum)
}

/// `scale eq(point, i)` for every i, in order.
pub(super) fn eq_scalar(point: &[Ext], scale: Ext) -> Vec<Ext> {
    let mut table = vec![scale];
    for &coordinate in point.iter().rev() {
        for i in 0..table.len() {
            let one = table[i] * coordinate;
            table.push(one);
            table[i] -= one;
        }
    }
    table
}

/// [`eq_scalar`] in blocks; the point has at least as many coordinates as an index within a block has bits.
pub(super) fn eq_blocks(point: &[Ext], scale: Ext) -> Vec<PackedExt> {
    let (high, low) = point.split_at(point.len() - WIDTH.trailing_zeros() as usize);
    let mut blocks = Vec::with_capacity(1 << high.len());
    blocks.push(PackedExt::from_ext_slice(&eq_scalar(low, scale)));
    for &coordinate in high.iter().rev() {
        let coordinate = PackedExt::from(coordinate);
        for i in 0..blocks.len() {
            let one = blocks[i] * coordinate;
            blocks.push(one);
            blocks[i] -= one;
        }
    }
    blocks
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
