//! The batch of claims on the weights, in two passes over them.
//!
//! The sum `sum_i c_i <f_i, w>` over all weights would be a sumcheck over a vector as long as the model. But each
//! functional is a product of a vector over a weight's rows and one over its columns. As long as the variables of the
//! columns are bound, from the least significant, only `sum_row f_row w[row, column]` is needed of a weight, and once they
//! are bound only `sum_column eq(r, column) w[row, column]`: one pass each, and everything else is as short as rows and
//! columns are.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, WeightId, Weights};

use super::fold::{fold_columns, fold_rows};
use crate::channel::Sender;
use crate::claims::WeightClaim;
use crate::field::Ext;
use crate::mle::eq_prefix;
use crate::sumcheck::{fold_low, low_pairs, send};
use crate::weights::{Place, WeightLayout};

/// A claim while the variables of its weight's columns are bound.
struct Columns {
    place: Place,
    /// The functional over the stored rows, times the claim's power.
    rows: Vec<Ext>,
    /// The functional over the stored columns.
    functional: Vec<Ext>,
    /// The weight's columns, its rows summed up with `rows`.
    summed: Vec<Ext>,
}

/// The part of the vector whose columns are bound: cells from `start` up to the last weight.
#[derive(Default)]
struct Bound {
    start: usize,
    weights: Vec<Ext>,
    functional: Vec<Ext>,
}

/// Reduces `sum_i powers_i <claim_i, weights>` to the committed vector's value at a point, which it sends.
pub(super) fn batch(
    sender: &mut Sender<'_>,
    graph: &CheckedGraph,
    weights: &Weights,
    claims: &[WeightClaim],
) -> Vec<Ext> {
    let layout = WeightLayout::new(graph);
    let powers = sender.challenge().powers();
    let mut open: Vec<Columns> = powers
        .zip(claims)
        .map(|(power, claim)| Columns::new(graph, weights, layout.place(claim.weight), claim, power))
        .collect();
    let mut bound = Bound { start: layout.cells(), ..Bound::default() };
    let mut point = Vec::with_capacity(layout.variables);
    for variable in 0..layout.variables {
        bound.take_in(graph, weights, &layout, &mut open, variable, &point);
        let sums = open.iter().map(|columns| low_pairs(&columns.functional, &columns.summed));
        let message = sums.fold(low_pairs(&bound.functional, &bound.weights), |[a, b], [c, d]| [a + c, b + d]);
        let x = send(sender, message);
        for columns in &mut open {
            fold_low(&mut columns.functional, x);
            fold_low(&mut columns.summed, x);
        }
        bound.fold(x);
        point.push(x);
    }
    sender.send(&bound.weights[..1]);
    // Variables were bound from the last to the first.
    point.reverse();
    point
}

impl Columns {
    fn new(graph: &CheckedGraph, weights: &Weights, place: Place, claim: &WeightClaim, power: Ext) -> Self {
        let [term] = claim.functional.terms.as_slice() else { unreachable!("claims on weights have one term") };
        let factors =
            term.per_axis(&place.matrix).expect("claims on weights have a factor for rows and one for columns");
        let (rows, functional) = if place.transposed { (&factors[1], &factors[0]) } else { (&factors[0], &factors[1]) };
        let rows: Vec<Ext> = rows.iter().map(|&row| row * power).collect();
        let mut summed = sum_rows(graph, weights, claim.weight, place, &rows);
        let mut functional = functional.to_vec();
        for columns in [&mut summed, &mut functional] {
            columns.resize(1 << place.stride_bits, Ext::ZERO);
        }
        Self { place, rows, functional, summed }
    }
}

impl Bound {
    /// Adds the weights, and the claims on them, whose columns have just been bound.
    fn take_in(
        &mut self,
        graph: &CheckedGraph,
        weights: &Weights,
        layout: &WeightLayout,
        open: &mut Vec<Columns>,
        variable: usize,
        challenges: &[Ext],
    ) {
        let ready = |place: &Place| place.stride_bits == variable;
        let places = (0..weights.0.len() as u32).map(|index| (WeightId(index), layout.place(WeightId(index))));
        let places: Vec<(WeightId, Place)> = places.filter(|(_, place)| ready(place)).collect();
        let Some(start) = places.iter().map(|(_, place)| place.offset >> variable).min() else { return };
        // Rows that end at this distance end where those of the shorter ones, taken in before, begin.
        let mut taken = vec![Ext::ZERO; self.start - start];
        let point: Vec<Ext> = challenges.iter().rev().copied().collect();
        for &(weight, place) in &places {
            let eq = eq_prefix(&point, place.stored()[1]);
            let rows = sum_columns(graph, weights, weight, place, &eq);
            taken[(place.offset >> variable) - start..][..rows.len()].copy_from_slice(&rows);
        }
        let mut functional = vec![Ext::ZERO; taken.len()];
        for columns in open.extract_if(.., |columns| ready(&columns.place)) {
            let target = &mut functional[(columns.place.offset >> variable) - start..];
            target.iter_mut().zip(&columns.rows).for_each(|(cell, &row)| *cell += row * columns.functional[0]);
        }
        taken.append(&mut self.weights);
        functional.append(&mut self.functional);
        (self.start, self.weights, self.functional) = (start, taken, functional);
    }

    fn fold(&mut self, x: Ext) {
        fold_low(&mut self.weights, x);
        fold_low(&mut self.functional, x);
        // Everything before `start` has rows longer than what is bound, so `start` is even.
        self.start = self.start.div_ceil(2);
    }
}

/// The stored rows summed up with `rows`.
fn sum_rows(graph: &CheckedGraph, weights: &Weights, weight: WeightId, place: Place, rows: &[Ext]) -> Vec<Ext> {
    let index = weight.0 as usize;
    let (values, bits) = (&weights.0[index], graph.graph().weights[index].bits);
    if place.transposed { fold_columns(values, bits, rows) } else { fold_rows(values, bits, rows) }
}

/// The stored columns summed up with `columns`.
fn sum_columns(graph: &CheckedGraph, weights: &Weights, weight: WeightId, place: Place, columns: &[Ext]) -> Vec<Ext> {
    let index = weight.0 as usize;
    let (values, bits) = (&weights.0[index], graph.graph().weights[index].bits);
    if place.transposed { fold_rows(values, bits, columns) } else { fold_columns(values, bits, columns) }
}
