//! The prover's side of the sumchecks.

use p3_field::{Algebra, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::channel::Sender;
use crate::field::{Base, Ext, PackedBase, PackedExt, WIDTH, lanes_sum};
use crate::mle::eq_table;
use crate::table::{Lanes, TASK, Table, Values};

/// Up to this many pairs, of elements or of blocks, one core is faster than handing work to others.
const PARALLEL: usize = 1 << 11;
/// Variables of a row of an [`Eq`].
const ROW_BITS: usize = 9;

/// What is summed up: a polynomial in `N` multilinear ones. A round sends `K` numbers about its variable.
pub(crate) trait Summand<const N: usize, const K: usize>: Sync {
    /// What one index over the other variables adds to these numbers, from the polynomials' values where the variable is
    /// zero and where it is one.
    fn terms<T: Lanes>(&self, zero: [T; N], one: [T; N]) -> [T; K];
}

/// `f g`, for [`super::verify_product`] and [`super::verify_eq_quadratic`].
pub(crate) struct Product;

/// `f g h`, for [`super::verify_triple`].
pub(crate) struct Triple;

impl Summand<2, 2> for Product {
    fn terms<T: Lanes>(&self, [f0, g0]: [T; 2], [f1, g1]: [T; 2]) -> [T; 2] {
        [f0 * g0, (f1 - f0) * (g1 - g0)]
    }
}

impl Summand<3, 3> for Triple {
    fn terms<T: Lanes>(&self, [f0, g0, h0]: [T; 3], [f1, g1, h1]: [T; 3]) -> [T; 3] {
        let (df, dg, dh) = (f1 - f0, g1 - g0, h1 - h0);
        [f0 * g0 * h0, (f1 + df) * (g1 + dg) * (h1 + dh), df * dg * dh]
    }
}

/// Proves the sum of a summand; gives the point with the tables' values there.
///
/// # Panics
/// When the tables differ in length.
pub(crate) fn prove<const N: usize, const K: usize>(
    sender: &mut Sender<'_>,
    summand: &impl Summand<N, K>,
    mut tables: [Table; N],
) -> (Vec<Ext>, [Ext; N]) {
    let mut point = Vec::new();
    while tables[0].len() > 1 {
        let x = send(sender, message(tables.each_ref(), summand));
        tables.iter_mut().for_each(|table| table.bind(x));
        point.push(x);
    }
    (point, tables.map(|table| table.constant()))
}

/// [`prove`] for [`Product`] where one factor is of the base field. Blocks are made where they are read: a table as long as the
/// factors would be one more.
///
/// # Panics
/// When the factors differ in length.
pub(crate) fn prove_product_of_base(sender: &mut Sender<'_>, f: &[Base], g: Vec<Ext>) -> (Vec<Ext>, [Ext; 2]) {
    assert_eq!(f.len(), g.len(), "factors of one length");
    if f.len() == 1 {
        return (Vec::new(), [f[0].into(), g[0]]);
    }
    let packed = f.len() > WIDTH;
    let block = |i: usize| PackedExt::from_ext_slice(&g[i * WIDTH..][..WIDTH]);
    let message = match packed {
        true => base_message(PackedBase::pack_slice(f), block).map(lanes_sum),
        false => base_message(f, |i| g[i]),
    };
    let x = send(sender, message);
    let tables = match packed {
        true => bind_with_base(PackedBase::pack_slice(f), block, x).map(Table::of_blocks),
        false => bind_with_base(f, |i| g[i], x).map(Table::Scalar),
    };
    drop(g);
    let (mut point, ends) = prove(sender, &Product, tables);
    point.insert(0, x);
    (point, ends)
}

/// Proves `sum_x eq(at, x) summand(x)` for [`super::verify_eq_quadratic`]; gives the point with the tables' values there.
///
/// # Panics
/// When the tables do not have the length of the cube in which `at` lies.
pub(crate) fn prove_eq<const N: usize, const K: usize>(
    sender: &mut Sender<'_>,
    summand: &impl Summand<N, K>,
    at: &[Ext],
    mut tables: [Table; N],
) -> (Vec<Ext>, [Ext; N]) {
    assert_eq!(tables[0].len(), 1 << at.len(), "tables over the cube of {} variables", at.len());
    let mut point = Vec::with_capacity(at.len());
    let Some((_, others)) = at.split_first() else { return (point, tables.map(|table| table.constant())) };
    // The table of `eq` leaves the variable of the current round out.
    let mut eq = Eq::new(others);
    let mut message = eq.message(tables.each_ref(), summand);
    for left in (0..at.len()).rev() {
        let x = send(sender, message);
        point.push(x);
        if left > 0 {
            eq.sum_out();
            message = eq.bind(&mut tables, x, summand);
        } else {
            tables.iter_mut().for_each(|table| table.bind(x));
        }
    }
    (point, tables.map(|table| table.constant()))
}

/// Sends a round's numbers; gives its challenge.
pub(crate) fn send<const K: usize>(sender: &mut Sender<'_>, message: [Ext; K]) -> Ext {
    sender.send(&message);
    sender.challenge()
}

/// A round's numbers.
pub(crate) fn message<const N: usize, const K: usize>(tables: [&Table; N], summand: &impl Summand<N, K>) -> [Ext; K] {
    match Table::values(tables) {
        Values::Packed(tables) => sum_pairs(tables, summand).map(lanes_sum),
        Values::Scalar(tables) => sum_pairs(tables, summand),
    }
}

fn sum_pairs<T: Lanes, const N: usize, const K: usize>(tables: [&[T]; N], summand: &impl Summand<N, K>) -> [T; K] {
    let (zero, one) = halves(tables);
    let pairs = zero[0].len();
    sum(pairs.div_ceil(TASK), TASK, |task| {
        let indices = task * TASK..((task + 1) * TASK).min(pairs);
        indices.map(|i| summand.terms(zero.map(|table| table[i]), one.map(|table| table[i]))).fold([T::ZERO; K], add)
    })
}

/// The values of tables where the first variable is zero, and where it is one.
fn halves<T, const N: usize>(tables: [&[T]; N]) -> ([&[T]; N], [&[T]; N]) {
    let halves = tables.map(|table| table.split_at(table.len() / 2));
    (halves.map(|(zero, _)| zero), halves.map(|(_, one)| one))
}

/// The sum of `part(i)` for i below `parts`; each part is about `size` elements or blocks.
fn sum<T: Lanes, const K: usize>(parts: usize, size: usize, part: impl Fn(usize) -> [T; K] + Send + Sync) -> [T; K] {
    if parts * size <= PARALLEL {
        return (0..parts).map(part).fold([T::ZERO; K], add);
    }
    let parts = (0..parts).into_par_iter().with_min_len(TASK.div_ceil(size));
    parts.map(part).reduce(|| [T::ZERO; K], add)
}

fn add<T: Lanes, const K: usize>(mut a: [T; K], b: [T; K]) -> [T; K] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// [`Product`]'s numbers for a factor of the base field.
fn base_message<B: PrimeCharacteristicRing + Copy + Sync, T: Algebra<B> + Lanes>(
    f: &[B],
    g: impl Fn(usize) -> T + Sync,
) -> [T; 2] {
    let half = f.len() / 2;
    let (f0, f1) = f.split_at(half);
    sum(half.div_ceil(TASK), TASK, |task| {
        let indices = task * TASK..((task + 1) * TASK).min(half);
        let terms = indices.map(|i| {
            let (g0, g1) = (g(i), g(i + half));
            [g0 * f0[i], (g1 - g0) * (f1[i] - f0[i])]
        });
        terms.fold([T::ZERO; 2], add)
    })
}

/// Both factors with their first variable bound to `x`.
fn bind_with_base<B: PrimeCharacteristicRing + Copy + Sync, T: Algebra<B> + Lanes>(
    f: &[B],
    g: impl Fn(usize) -> T + Sync,
    x: Ext,
) -> [Vec<T>; 2] {
    let half = f.len() / 2;
    let x = T::from(x);
    let bound = (0..half).into_par_iter().with_min_len(TASK).map(|i| {
        let (f0, g0) = (f[i], g(i));
        (x * (f[i + half] - f0) + f0, g0 + (g(i + half) - g0) * x)
    });
    let (f, g) = bound.unzip();
    [f, g]
}

/// A part of a table's quarters: those of the lower half, which are written, and those of the upper one.
type Quarters<'a> = ((&'a mut [PackedExt], &'a mut [PackedExt]), (&'a [PackedExt], &'a [PackedExt]));

/// Binds a variable of parts of tables to `x` and sums the terms of the next one up, weighted with `row`.
fn bind_row<const N: usize, const K: usize>(
    parts: &mut [Quarters<'_>; N],
    row: &[PackedExt],
    x: PackedExt,
    summand: &impl Summand<N, K>,
) -> [PackedExt; K] {
    let mut sums = [PackedExt::ZERO; K];
    for (i, &weight) in row.iter().enumerate() {
        let bound = parts.each_mut().map(|((zero, one), (zero_high, one_high))| {
            zero[i] += (zero_high[i] - zero[i]) * x;
            one[i] += (one_high[i] - one[i]) * x;
            (zero[i], one[i])
        });
        let terms = summand.terms(bound.map(|(zero, _)| zero), bound.map(|(_, one)| one));
        sums = add(sums, terms.map(|term| term * weight));
    }
    sums
}

/// The values `eq(point, i)`, each the product of one of `rows` and one of `row`: for the price of a product for each row
/// there is no table as long as those that are summed up.
struct Eq {
    rows: Vec<Ext>,
    row: Vec<Ext>,
}

impl Eq {
    fn new(point: &[Ext]) -> Self {
        let (high, low) = point.split_at(point.len().saturating_sub(ROW_BITS));
        Self { rows: eq_table(high), row: eq_table(low) }
    }

    /// A round's numbers, each index weighted.
    fn message<const N: usize, const K: usize>(&self, tables: [&Table; N], summand: &impl Summand<N, K>) -> [Ext; K] {
        match Table::values(tables) {
            Values::Packed(tables) => self.sum_rows(&self.row_of_blocks(), tables, summand).map(lanes_sum),
            Values::Scalar(tables) => self.sum_rows(&self.row, tables, summand),
        }
    }

    /// Binds the tables' first variable to `x` and gives the next round's numbers: in one pass over the tables where they are
    /// long, because memory is what such passes wait for.
    fn bind<const N: usize, const K: usize>(
        &self,
        tables: &mut [Table; N],
        x: Ext,
        summand: &impl Summand<N, K>,
    ) -> [Ext; K] {
        let row = self.row_of_blocks();
        let quarters: Vec<_> = tables.iter_mut().map_while(Table::quarters).collect();
        let Ok(quarters) = <[_; N]>::try_from(quarters) else {
            tables.iter_mut().for_each(|table| table.bind(x));
            return self.message(tables.each_ref(), summand);
        };
        let mut chunks = quarters.map(|[zero, one, zero_high, one_high]| {
            let low = zero.chunks_mut(row.len()).zip(one.chunks_mut(row.len()));
            low.zip(zero_high.chunks(row.len()).zip(one_high.chunks(row.len())))
        });
        let tasks = self
            .rows
            .iter()
            .map(|&weight| (weight, chunks.each_mut().map(|chunks| chunks.next().expect("tables of one length"))));
        let tasks: Vec<_> = tasks.collect();
        let x = PackedExt::from(x);
        let part = |(weight, mut parts): (Ext, [_; N])| bind_row(&mut parts, &row, x, summand).map(|sum| sum * weight);
        let sums = tasks.into_par_iter().with_min_len(TASK.div_ceil(row.len())).map(part);
        let sum = sums.reduce(|| [PackedExt::ZERO; K], add);
        tables.iter_mut().for_each(Table::halve);
        sum.map(lanes_sum)
    }

    fn row_of_blocks(&self) -> Vec<PackedExt> {
        self.row.chunks_exact(WIDTH).map(PackedExt::from_ext_slice).collect()
    }

    fn sum_rows<T: Lanes, const N: usize, const K: usize>(
        &self,
        row: &[T],
        tables: [&[T]; N],
        summand: &impl Summand<N, K>,
    ) -> [T; K] {
        let (zero, one) = halves(tables);
        sum(self.rows.len(), row.len(), |index| {
            let [zero, one] = [zero, one].map(|tables| tables.map(|table| &table[index * row.len()..][..row.len()]));
            let terms = row.iter().enumerate().map(|(i, &weight)| {
                summand.terms(zero.map(|table| table[i]), one.map(|table| table[i])).map(|term| term * weight)
            });
            terms.fold([T::ZERO; K], add).map(|sum| sum * self.rows[index])
        })
    }

    /// Sums the first variable out, if there is one.
    fn sum_out(&mut self) {
        let table = if self.rows.len() > 1 { &mut self.rows } else { &mut self.row };
        let half = table.len() / 2;
        let (zero, one) = table.split_at_mut(half);
        zero.iter_mut().zip(one).for_each(|(zero, &mut one)| *zero += one);
        table.truncate(half.max(1));
    }
}

/// The numbers of a round of [`Product`] when the least significant variable is bound. An odd last entry stands before a
/// zero.
pub(crate) fn low_pairs(f: &[Ext], g: &[Ext]) -> [Ext; 2] {
    let at = |table: &[Ext], i: usize| table.get(i).copied().unwrap_or(Ext::ZERO);
    let pairs = f.len().div_ceil(2);
    sum(pairs.div_ceil(TASK), TASK, |task| {
        let indices = task * TASK..((task + 1) * TASK).min(pairs);
        let terms = indices.map(|i| Product.terms([f[2 * i], g[2 * i]], [at(f, 2 * i + 1), at(g, 2 * i + 1)]));
        terms.fold([Ext::ZERO; 2], add)
    })
}

/// Binds the least significant variable to `x`.
pub(crate) fn fold_low(table: &mut Vec<Ext>, x: Ext) {
    let pairs = table.len().div_ceil(2);
    for i in 0..pairs {
        let (low, high) = (table[2 * i], table.get(2 * i + 1).copied().unwrap_or(Ext::ZERO));
        table[i] = low + x * (high - low);
    }
    table.truncate(pairs);
}
