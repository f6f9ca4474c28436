//! Multilinear polynomials by their values on the cube, in the layout that vector instructions want: coefficient by
//! coefficient in blocks of as many elements as a vector register holds.

use p3_field::{Algebra, PackedFieldExtension, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{Ext, PackedExt, WIDTH, lanes, lanes_sum};
use crate::mle::{eq_table, scaled_eq_table};

/// Blocks, or single elements, that one task works on; enough to outweigh the cost of a task.
pub(crate) const TASK: usize = 512;

/// One element of the extension, or a block of them.
pub(crate) trait Lanes: Algebra<Ext> + Copy + Send + Sync {}

impl<T: Algebra<Ext> + Copy + Send + Sync> Lanes for T {}

/// Values on the cube, the first coordinate being the most significant.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    /// More than one block.
    Packed(Vec<PackedExt>),
    /// Too few values for blocks.
    Scalar(Vec<Ext>),
}

/// The values of some tables of one length.
pub(crate) enum Values<'a, const N: usize> {
    Packed([&'a [PackedExt]; N]),
    Scalar([&'a [Ext]; N]),
}

impl Table {
    /// A table of `values`, whose number is a power of two.
    pub(crate) fn new(values: Vec<Ext>) -> Self {
        if values.len() <= WIDTH {
            return Self::Scalar(values);
        }
        let blocks = values.par_chunks_exact(WIDTH).with_min_len(TASK);
        Self::Packed(blocks.map(PackedExt::from_ext_slice).collect())
    }

    /// A table of blocks.
    pub(crate) fn of_blocks(blocks: Vec<PackedExt>) -> Self {
        let mut table = Self::Packed(blocks);
        table.unpack_last_block();
        table
    }

    /// Two tables of `length` values, a power of two: `fill` writes those from an index on.
    pub(crate) fn pair(length: usize, fill: impl Fn(usize, &mut [Ext], &mut [Ext]) + Sync) -> [Self; 2] {
        if length <= WIDTH {
            let [mut a, mut b] = [(); 2].map(|()| vec![Ext::ZERO; length]);
            fill(0, &mut a, &mut b);
            return [a, b].map(Self::Scalar);
        }
        let [mut a, mut b] = [(); 2].map(|()| zeros(PackedExt::ZERO, length / WIDTH));
        let tasks = a.par_chunks_mut(TASK).zip(b.par_chunks_mut(TASK)).enumerate();
        tasks.for_each(|(task, targets)| {
            let [mut a, mut b] = [[Ext::ZERO; TASK * WIDTH]; 2];
            let filled = targets.0.len() * WIDTH;
            fill(task * TASK * WIDTH, &mut a[..filled], &mut b[..filled]);
            pack(&a, targets.0);
            pack(&b, targets.1);
        });
        [a, b].map(Self::of_blocks)
    }

    /// A table of `length` zeros, a power of two.
    pub(crate) fn zeros(length: usize) -> Self {
        if length > WIDTH {
            Self::Packed(vec![PackedExt::ZERO; length / WIDTH])
        } else {
            Self::Scalar(vec![Ext::ZERO; length])
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Packed(blocks) => blocks.len() * WIDTH,
            Self::Scalar(values) => values.len(),
        }
    }

    /// The values of `tables`.
    ///
    /// # Panics
    /// When they differ in length.
    pub(crate) fn values<const N: usize>(tables: [&Self; N]) -> Values<'_, N> {
        let length = tables[0].len();
        assert!(tables.iter().all(|table| table.len() == length), "tables of one length");
        match tables[0] {
            Self::Packed(_) => Values::Packed(tables.map(|table| match table {
                Self::Packed(blocks) => blocks.as_slice(),
                Self::Scalar(_) => unreachable!("the length says whether there are blocks"),
            })),
            Self::Scalar(_) => Values::Scalar(tables.map(|table| match table {
                Self::Scalar(values) => values.as_slice(),
                Self::Packed(_) => unreachable!("the length says whether there are blocks"),
            })),
        }
    }

    /// The value of a polynomial without variables.
    pub(crate) fn constant(&self) -> Ext {
        match self {
            Self::Scalar(values) if values.len() == 1 => values[0],
            _ => unreachable!("all variables are bound"),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<Ext> {
        match self {
            Self::Packed(blocks) => blocks.iter().flat_map(|&block| lanes(block)).collect(),
            Self::Scalar(values) => values.clone(),
        }
    }

    fn unpack_last_block(&mut self) {
        if matches!(self, Self::Packed(blocks) if blocks.len() == 1) {
            *self = Self::Scalar(self.to_vec());
        }
    }

    /// Binds the first variable at `challenge`.
    pub(crate) fn bind(&mut self, challenge: Ext) {
        match self {
            Self::Packed(blocks) => bind(blocks, challenge),
            Self::Scalar(values) => bind(values, challenge),
        }
        self.halve();
    }

    /// Adds `scale` times the values of `other`.
    ///
    /// # Panics
    /// When they differ in length.
    pub(crate) fn add_scaled(&mut self, other: &Self, scale: Ext) {
        match (self, other) {
            (Self::Packed(values), Self::Packed(other)) => add_scaled(values, other, scale),
            (Self::Scalar(values), Self::Scalar(other)) => add_scaled(values, other, scale),
            _ => panic!("tables of two lengths"),
        }
    }

    /// The blocks in four parts of one length, by the first two variables, where there are so many.
    pub(crate) fn quarters(&mut self) -> Option<[&mut [PackedExt]; 4]> {
        let Self::Packed(blocks) = self else { return None };
        let quarter = blocks.len() / 4;
        let mut parts = blocks.chunks_exact_mut(quarter.max(1));
        (quarter > 0).then(|| std::array::from_fn(|_| parts.next().expect("four quarters are a whole")))
    }

    /// What is left once the first variable is bound: the first half.
    pub(crate) fn halve(&mut self) {
        match self {
            Self::Packed(blocks) => {
                blocks.truncate(blocks.len() / 2);
                self.unpack_last_block();
            }
            Self::Scalar(values) => values.truncate(values.len() / 2),
        }
    }

    /// The value at `point`.
    pub(crate) fn evaluate(&self, point: &[Ext]) -> Ext {
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
            Self::Scalar(values) => values.iter().zip(eq_table(point)).map(|(&value, weight)| value * weight).sum(),
        }
    }

    /// Adds `coefficient eq(point, i)` to every value.
    pub(crate) fn add_point(&mut self, point: &[Ext], coefficient: Ext) {
        match self {
            Self::Packed(blocks) => {
                let weights = eq_blocks(point, coefficient);
                blocks.iter_mut().zip(weights).for_each(|(block, weight)| *block += weight);
            }
            Self::Scalar(values) => {
                values.iter_mut().zip(scaled_eq_table(point, coefficient)).for_each(|(value, weight)| *value += weight);
            }
        }
    }
}

/// `length` zeros, written by all cores: the first write to a page is the dearest.
pub(crate) fn zeros<T: Copy + Send + Sync>(zero: T, length: usize) -> Vec<T> {
    rayon::iter::repeat_n(zero, length).with_min_len(TASK).collect()
}

/// Writes `values` into blocks, as many as there are.
fn pack(values: &[Ext], blocks: &mut [PackedExt]) {
    let values = values.chunks_exact(WIDTH);
    blocks.iter_mut().zip(values).for_each(|(block, values)| *block = PackedExt::from_ext_slice(values));
}

/// Writes what the first variable's binding leaves into the first half.
fn bind<T: Lanes>(values: &mut [T], challenge: Ext) {
    let half = values.len() / 2;
    let (low, high) = values.split_at_mut(half);
    let challenge = T::from(challenge);
    let bind = |(low, high): (&mut [T], &[T])| {
        low.iter_mut().zip(high).for_each(|(low, &high)| *low += (high - *low) * challenge);
    };
    if half <= TASK {
        bind((low, high));
    } else {
        low.par_chunks_mut(TASK).zip(high.par_chunks(TASK)).for_each(bind);
    }
}

fn add_scaled<T: Lanes>(values: &mut [T], other: &[T], scale: Ext) {
    assert_eq!(values.len(), other.len(), "tables of one length");
    let scale = T::from(scale);
    let values = values.par_iter_mut().with_min_len(TASK).zip(other);
    values.for_each(|(value, &other)| *value += other * scale);
}

/// `scale eq(point, i)` for every i, in order, in blocks; the point has at least as many coordinates as an index within a
/// block has bits.
pub(crate) fn eq_blocks(point: &[Ext], scale: Ext) -> Vec<PackedExt> {
    let (high, low) = point.split_at(point.len() - WIDTH.trailing_zeros() as usize);
    let mut blocks = Vec::with_capacity(1 << high.len());
    blocks.push(PackedExt::from_ext_slice(&scaled_eq_table(low, scale)));
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
