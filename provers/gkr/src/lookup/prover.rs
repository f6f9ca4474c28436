//! The prover's side of the lookup argument.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::CheckedGraph;

use super::{Compression, LookupClaims, at_child, compressed_rows, leaf_claims};
use crate::channel::Sender;
use crate::field::{Base, Ext};
use crate::layout::Layout;
use crate::mle::eq_table;
use crate::sumcheck::{fold, fold_eq, prove_eq_quadratic_round};

/// One layer of the tree of fractions.
struct Layer {
    numerators: Vec<Ext>,
    denominators: Vec<Ext>,
}

/// Proves that all cells of `witness` which `layout` looks up are in their tables.
pub(crate) fn prove(
    sender: &mut Sender<'_>,
    graph: &CheckedGraph,
    layout: &Layout,
    witness: &[Base],
    compression: Compression,
) -> LookupClaims {
    let mut layers = vec![leaves(graph, layout, witness, compression)];
    while layers[layers.len() - 1].numerators.len() > 2 {
        let above = add_halves(&layers[layers.len() - 1]);
        layers.push(above);
    }
    let mut ends = layers.pop().expect("a lookup argument has at least two leaves").ends();
    sender.send(&ends);
    let mut point = vec![sender.challenge()];
    while let Some(layer) = layers.pop() {
        let mix = sender.challenge();
        (ends, point) = prove_layer(sender, layer, &point, mix);
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

impl Layer {
    /// `[n0, n1, d0, d1]` of a layer of two fractions.
    fn ends(&self) -> [Ext; 4] {
        [self.numerators[0], self.numerators[1], self.denominators[0], self.denominators[1]]
    }
}

fn leaves(graph: &CheckedGraph, layout: &Layout, witness: &[Base], compression: Compression) -> Layer {
    let Compression { at, base } = compression;
    let length = 1 << layout.lookup_variables;
    let mut numerators = vec![Ext::ZERO; length];
    let mut denominators = vec![Ext::ONE; length];
    for lookup in &layout.lookups {
        let cells = lookup.cells.clone();
        numerators[cells.clone()].fill(Ext::ONE);
        let offset = at - base.square() * Base::from_u64(layout.tables[lookup.table].kind.tag());
        let values = &witness[cells.clone()];
        let targets = &mut denominators[cells.clone()];
        match lookup.results {
            None => targets.iter_mut().zip(values).for_each(|(target, &value)| *target = offset - value),
            Some(first) => {
                let results = &witness[first..first + cells.len()];
                for ((target, &value), &result) in targets.iter_mut().zip(values).zip(results) {
                    *target = offset - value - base * result;
                }
            }
        }
    }
    for table in &layout.tables {
        let rows = compressed_rows(graph, table, base);
        for ((cell, row), &multiplicity) in table.cells.clone().zip(rows).zip(&witness[table.cells.clone()]) {
            numerators[cell] = -Ext::from(multiplicity);
            denominators[cell] = at - row;
        }
    }
    Layer { numerators, denominators }
}

/// The layer above: fraction i plus fraction i + half.
fn add_halves(layer: &Layer) -> Layer {
    let half = layer.numerators.len() / 2;
    let (n0, n1) = layer.numerators.split_at(half);
    let (d0, d1) = layer.denominators.split_at(half);
    let pairs = (0..half).into_par_iter().with_min_len(1 << 11);
    let (numerators, denominators) = pairs.map(|i| (n0[i] * d1[i] + n1[i] * d0[i], d0[i] * d1[i])).unzip();
    Layer { numerators, denominators }
}

/// Reduces the claim on a layer at `point` to the layer below, split in its halves.
fn prove_layer(sender: &mut Sender<'_>, layer: Layer, point: &[Ext], mix: Ext) -> ([Ext; 4], Vec<Ext>) {
    let half = layer.numerators.len() / 2;
    let (mut n0, mut d0) = (layer.numerators, layer.denominators);
    let (mut n1, mut d1) = (n0.split_off(half), d0.split_off(half));
    let mut reduced = Vec::with_capacity(point.len());
    // The table of `eq` leaves the variable of the current round out.
    let mut eq = eq_table(&point[1..]);
    for round in 0..point.len() {
        let pairs = n0.len() / 2;
        let x = prove_eq_quadratic_round(sender, &eq, |i| {
            let (a, b, c, d) = (n0[i], n1[i], d0[i], d1[i]);
            let (da, db) = (n0[i + pairs] - a, n1[i + pairs] - b);
            let (dc, dd) = (d0[i + pairs] - c, d1[i + pairs] - d);
            [a * d + (b + mix * d) * c, da * dd + (db + mix * dd) * dc]
        });
        [&mut n0, &mut n1, &mut d0, &mut d1].into_par_iter().for_each(|table| fold(table, x));
        if round + 1 < point.len() {
            fold_eq(&mut eq);
        }
        reduced.push(x);
    }
    ([n0[0], n1[0], d0[0], d1[0]], reduced)
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
