//! The prover's side of the sumchecks.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::Reduced;
use crate::channel::Sender;
use crate::field::{Base, Ext};
use crate::mle::eq_table;

/// Below this many pairs one core is faster than handing work to others.
const PARALLEL: usize = 1 << 11;

/// Proves `sum_x f(x) g(x) = claim`; gives the point with `f` and `g` there.
///
/// # Panics
/// When the tables differ in length or it is no power of two.
pub(crate) fn prove_product(
    sender: &mut Sender<'_>,
    claim: Ext,
    mut f: Vec<Ext>,
    mut g: Vec<Ext>,
) -> (Reduced, [Ext; 2]) {
    assert!(f.len() == g.len() && f.len().is_power_of_two(), "tables of {} and {}", f.len(), g.len());
    let mut reduced = Reduced { point: Vec::new(), value: claim };
    while f.len() > 1 {
        let half = f.len() / 2;
        let ((f0, f1), (g0, g1)) = (f.split_at(half), g.split_at(half));
        let [at_zero, leading] = sum_pairs(half, |i| [f0[i] * g0[i], (f1[i] - f0[i]) * (g1[i] - g0[i])]);
        let x = round(sender, &mut reduced, at_zero, leading);
        fold(&mut f, x);
        fold(&mut g, x);
    }
    let ends = [f[0], g[0]];
    (reduced, ends)
}

/// [`prove_product`] where one factor is of the base field.
///
/// # Panics
/// When the tables differ in length or it is no power of two.
pub(crate) fn prove_product_of_base(
    sender: &mut Sender<'_>,
    claim: Ext,
    f: &[Base],
    mut g: Vec<Ext>,
) -> (Reduced, [Ext; 2]) {
    assert!(f.len() == g.len() && f.len().is_power_of_two(), "tables of {} and {}", f.len(), g.len());
    if f.len() == 1 {
        return (Reduced { point: Vec::new(), value: claim }, [f[0].into(), g[0]]);
    }
    let mut first = Reduced { point: Vec::new(), value: claim };
    let half = f.len() / 2;
    let ((f0, f1), (g0, g1)) = (f.split_at(half), g.split_at(half));
    let [at_zero, leading] = sum_pairs(half, |i| [g0[i] * f0[i], (g1[i] - g0[i]) * (f1[i] - f0[i])]);
    let x = round(sender, &mut first, at_zero, leading);
    let folded = (0..half).into_par_iter().with_min_len(PARALLEL).map(|i| x * (f1[i] - f0[i]) + f0[i]).collect();
    fold(&mut g, x);
    let (mut rest, ends) = prove_product(sender, first.value, folded, g);
    rest.point.insert(0, x);
    (rest, ends)
}

/// Proves `sum_x f(x) g(x) h(x) = claim`; gives the point with the three factors there.
///
/// # Panics
/// When the tables differ in length or it is no power of two.
pub(crate) fn prove_triple(sender: &mut Sender<'_>, claim: Ext, mut tables: [Vec<Ext>; 3]) -> (Reduced, [Ext; 3]) {
    let length = tables[0].len();
    assert!(tables.iter().all(|table| table.len() == length) && length.is_power_of_two(), "tables of one length");
    let mut reduced = Reduced { point: Vec::new(), value: claim };
    while tables[0].len() > 1 {
        let half = tables[0].len() / 2;
        let [(f0, f1), (g0, g1), (h0, h1)] = [&tables[0], &tables[1], &tables[2]].map(|table| table.split_at(half));
        let [at_zero, at_two, leading] = sum_pairs(half, |i| {
            let (df, dg, dh) = (f1[i] - f0[i], g1[i] - g0[i], h1[i] - h0[i]);
            [f0[i] * g0[i] * h0[i], (f1[i] + df) * (g1[i] + dg) * (h1[i] + dh), df * dg * dh]
        });
        sender.send(&[at_zero, at_two, leading]);
        let x = sender.challenge();
        reduced.value = super::cubic(at_zero, reduced.value - at_zero, at_two, leading, x);
        reduced.point.push(x);
        tables.iter_mut().for_each(|table| fold(table, x));
    }
    let ends = [tables[0][0], tables[1][0], tables[2][0]];
    (reduced, ends)
}

/// Sends a round of a product of two and binds the variable.
pub(crate) fn round(sender: &mut Sender<'_>, reduced: &mut Reduced, at_zero: Ext, leading: Ext) -> Ext {
    sender.send(&[at_zero, leading]);
    let x = sender.challenge();
    reduced.value = super::quadratic(at_zero, reduced.value - at_zero, leading, x);
    reduced.point.push(x);
    x
}

/// Binds the most significant variable to `x`.
pub(crate) fn fold(table: &mut Vec<Ext>, x: Ext) {
    let half = table.len() / 2;
    let (low, high) = table.split_at_mut(half);
    if half < PARALLEL {
        low.iter_mut().zip(&*high).for_each(|(low, &high)| *low += x * (high - *low));
    } else {
        low.par_iter_mut().with_min_len(PARALLEL).zip(&*high).for_each(|(low, &high)| *low += x * (high - *low));
    }
    table.truncate(half);
}

/// The sums of `term(i)` for i below `n`.
pub(crate) fn sum_pairs<const K: usize>(n: usize, term: impl Fn(usize) -> [Ext; K] + Sync) -> [Ext; K] {
    let add = |mut a: [Ext; K], b: [Ext; K]| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    if n < PARALLEL {
        return (0..n).fold([Ext::ZERO; K], |sum, i| add(sum, term(i)));
    }
    (0..n)
        .into_par_iter()
        .with_min_len(PARALLEL)
        .fold(|| [Ext::ZERO; K], |sum, i| add(sum, term(i)))
        .reduce(|| [Ext::ZERO; K], add)
}

/// One round of [`super::verify_eq_quadratic`]: `eq` is the table over the variables that remain after this one, and
/// `term(i)` the constant and the leading coefficient of the quadratic at index i of them.
pub(crate) fn prove_eq_quadratic_round(
    sender: &mut Sender<'_>,
    eq: &[Ext],
    term: impl Fn(usize) -> [Ext; 2] + Sync,
) -> Ext {
    let sums = sum_pairs(eq.len(), |i| term(i).map(|value| eq[i] * value));
    sender.send(&sums);
    sender.challenge()
}

/// Proves `sum_x eq(at, x) f(x) g(x) = claim` for [`super::verify_eq_quadratic`]; gives the point with `f` and `g` there.
///
/// # Panics
/// When the tables do not have the length of the cube in which `at` lies.
pub(crate) fn prove_eq_quadratic(
    sender: &mut Sender<'_>,
    claim: Ext,
    at: &[Ext],
    [mut f, mut g]: [Vec<Ext>; 2],
) -> (Reduced, [Ext; 2]) {
    assert!(f.len() == 1 << at.len() && g.len() == f.len(), "tables of {} and {}", f.len(), g.len());
    let mut reduced = Reduced { point: Vec::with_capacity(at.len()), value: claim };
    // The table of `eq` leaves the variable of the current round out.
    let mut eq = at.split_first().map_or_else(Vec::new, |(_, rest)| eq_table(rest));
    for round in 0..at.len() {
        let pairs = f.len() / 2;
        let x = prove_eq_quadratic_round(sender, &eq, |i| [f[i] * g[i], (f[i + pairs] - f[i]) * (g[i + pairs] - g[i])]);
        fold(&mut f, x);
        fold(&mut g, x);
        if round + 1 < at.len() {
            fold_eq(&mut eq);
        }
        reduced.point.push(x);
    }
    let ends = [f[0], g[0]];
    reduced.value = ends[0] * ends[1];
    (reduced, ends)
}

/// Sums the most significant variable of an `eq` table out.
pub(crate) fn fold_eq(table: &mut Vec<Ext>) {
    let half = table.len() / 2;
    let (low, high) = table.split_at_mut(half);
    low.iter_mut().zip(&*high).for_each(|(low, &high)| *low += high);
    table.truncate(half);
}

/// The round polynomial of a product when the least significant variable is bound: `h(0)` and the leading coefficient. An
/// odd last entry stands before a zero.
pub(crate) fn low_pairs(f: &[Ext], g: &[Ext]) -> [Ext; 2] {
    let at = |table: &[Ext], i: usize| table.get(i).copied().unwrap_or(Ext::ZERO);
    sum_pairs(f.len().div_ceil(2), |i| {
        let (f0, g0) = (f[2 * i], g[2 * i]);
        [f0 * g0, (at(f, 2 * i + 1) - f0) * (at(g, 2 * i + 1) - g0)]
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
