//! The prover's side of the lookup argument.

use std::ops::Range;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::CheckedGraph;

use super::{Compression, LookupClaims, at_child, compressed_rows, leaf_claims};
use crate::channel::Sender;
use crate::field::{Base, Ext};
use crate::layout::{Layout, Lookup};
use crate::sumcheck::{Summand, prove_eq};
use crate::table::{Lanes, TASK, Table, Values};

/// One layer of the tree of fractions in two halves: numerators of both, denominators of both.
type Layer = [Table; 4];

/// Proves that all cells of `witness` which `layout` looks up are in their tables.
pub(crate) fn prove(
    sender: &mut Sender<'_>,
    graph: &CheckedGraph,
    layout: &Layout,
    witness: &[Base],
    compression: Compression,
) -> LookupClaims {
    let mut layers = vec![Leaves::new(graph, layout, witness, compression).layer()];
    while layers[layers.len() - 1][0].len() > 1 {
        let above = add_fractions(&layers[layers.len() - 1]);
        layers.push(above);
    }
    let root = layers.pop().expect("a lookup argument has at least two leaves");
    let mut ends = root.map(|table| table.constant());
    sender.send(&ends);
    let mut point = vec![sender.challenge()];
    while let Some(layer) = layers.pop() {
        let mix = sender.challenge();
        (point, ends) = prove_layer(sender, layer, &point, mix);
        sender.send(&ends);
        point.insert(0, sender.challenge());
    }
    let (numerator, denominator) = at_child(ends, point[0]);
    let results = function_results(layout, witness, &point);
    if let Some(results) = results {
        sender.send(&[results]);
    }
    leaf_claims(graph, layout, compression, point, [numerator, denominator, results.unwrap_or(Ext::ZERO)])
}

/// The fractions of the cells, then of the tables' rows, and `0 / 1` behind them.
struct Leaves<'a> {
    layout: &'a Layout,
    witness: &'a [Base],
    compression: Compression,
    /// The compressed rows of each table.
    rows: Vec<Vec<Ext>>,
}

impl<'a> Leaves<'a> {
    fn new(graph: &CheckedGraph, layout: &'a Layout, witness: &'a [Base], compression: Compression) -> Self {
        let rows = layout.tables.iter().map(|table| compressed_rows(graph, table, compression.base)).collect();
        Self { layout, witness, compression, rows }
    }

    fn layer(&self) -> Layer {
        let half = 1 << (self.layout.lookup_variables - 1);
        let [n0, d0] = Table::pair(half, |first, numerators, denominators| self.fill(first, numerators, denominators));
        let [n1, d1] = Table::pair(half, |first, numerators, denominators| {
            self.fill(half + first, numerators, denominators);
        });
        [n0, n1, d0, d1]
    }

    /// Writes the leaves from `first` on. Cells and tables lie one behind the other.
    fn fill(&self, first: usize, numerators: &mut [Ext], denominators: &mut [Ext]) {
        numerators.fill(Ext::ZERO);
        denominators.fill(Ext::ONE);
        let end = first + numerators.len();
        let shared = |cells: &Range<usize>| cells.start.max(first)..cells.end.min(end);
        let lookups = &self.layout.lookups;
        let lookups = &lookups[lookups.partition_point(|lookup| lookup.cells.end <= first)..];
        for lookup in lookups.iter().take_while(|lookup| lookup.cells.start < end) {
            let cells = shared(&lookup.cells);
            let place = cells.start - first..cells.end - first;
            numerators[place.clone()].fill(Ext::ONE);
            self.fill_cells(lookup, cells, &mut denominators[place]);
        }
        let tables = self.layout.tables.iter().zip(&self.rows);
        for (table, rows) in tables.filter(|(table, _)| table.cells.start < end && first < table.cells.end) {
            for cell in shared(&table.cells) {
                numerators[cell - first] = -Ext::from(self.witness[cell]);
                denominators[cell - first] = self.compression.at - rows[cell - table.cells.start];
            }
        }
    }

    /// The denominators of some cells of a lookup.
    fn fill_cells(&self, lookup: &Lookup, cells: Range<usize>, denominators: &mut [Ext]) {
        let Compression { at, base } = self.compression;
        let offset = at - base.square() * Base::from_u64(self.layout.tables[lookup.table].kind.tag());
        let values = &self.witness[cells.clone()];
        match lookup.results {
            None => denominators.iter_mut().zip(values).for_each(|(target, &value)| *target = offset - value),
            Some(first) => {
                let results = &self.witness[first + cells.start - lookup.cells.start..];
                for ((target, &value), &result) in denominators.iter_mut().zip(values).zip(results) {
                    *target = offset - value - base * result;
                }
            }
        }
    }
}

/// The layer above: fraction i plus fraction i + half.
fn add_fractions(layer: &Layer) -> Layer {
    match Table::values(layer.each_ref()) {
        Values::Packed(tables) => add_halves(tables).map(Table::of_blocks),
        Values::Scalar(tables) => add_halves(tables).map(Table::Scalar),
    }
}

fn add_halves<T: Lanes>([n0, n1, d0, d1]: [&[T]; 4]) -> [Vec<T>; 4] {
    let half = n0.len() / 2;
    let add = |start: usize| {
        let fractions = (start..start + half).into_par_iter().with_min_len(TASK);
        fractions.map(|i| (n0[i] * d1[i] + n1[i] * d0[i], d0[i] * d1[i])).unzip()
    };
    let ((n0, d0), (n1, d1)) = (add(0), add(half));
    [n0, n1, d0, d1]
}

/// `n0 d1 + m d0`, the numerator of a sum of two fractions plus a multiple of its denominator: `m` is `n1` plus the same
/// multiple of `d1`.
struct Sum;

impl Summand<4, 2> for Sum {
    fn terms<T: Lanes>(&self, [n0, m, d0, d1]: [T; 4], one: [T; 4]) -> [T; 2] {
        let [dn0, dm, dd0, dd1] = [one[0] - n0, one[1] - m, one[2] - d0, one[3] - d1];
        [n0 * d1 + m * d0, dn0 * dd1 + dm * dd0]
    }
}

/// Reduces the claim on a layer at `point` to the layer below; gives the point there and the ends of its halves.
fn prove_layer(sender: &mut Sender<'_>, layer: Layer, point: &[Ext], mix: Ext) -> (Vec<Ext>, [Ext; 4]) {
    let [n0, mut n1, d0, d1] = layer;
    n1.add_scaled(&d1, mix);
    let (point, [n0, m, d0, d1]) = prove_eq(sender, &Sum, point, [n0, n1, d0, d1]);
    (point, [n0, m - mix * d1, d0, d1])
}

/// `sum eq(point, cell) result(cell)` over the cells of function tables; nothing where there is none.
fn function_results(layout: &Layout, witness: &[Base], point: &[Ext]) -> Option<Ext> {
    let sums = layout.lookups.iter().filter_map(|lookup| {
        let results = &witness[lookup.results?..][..lookup.cells.len()];
        let weights = crate::mle::eq_range(point, lookup.cells.start, lookup.cells.len());
        Some(weights.into_iter().zip(results).map(|(weight, &result)| weight * result).sum::<Ext>())
    });
    sums.reduce(|a, b| a + b)
}
