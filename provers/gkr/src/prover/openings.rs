//! The end of a proof: all claims on one commitment become one, which is opened.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::{CheckedGraph, WeightId, Weights};

use super::{Prover, weights};
use crate::claims::WitnessClaim;
use crate::field::{Base, Ext};
use crate::functional::Functional;
use crate::layout::Layout;
use crate::lookup::LookupClaims;
use crate::mle::{eq_index, eq_range, eq_table};
use crate::pcs::{self, Opening, PcsError};
use crate::sumcheck::prove_product_of_base;
use crate::table::zeros;
use crate::timings::Timings;
use crate::weights::WeightLayout;

/// log2 of the leaves whose coefficients are made together.
const BLOCK_BITS: usize = 12;

/// The vector of all weights that is committed to.
pub(super) fn stack_weights(graph: &CheckedGraph, weights: &Weights) -> Vec<Base> {
    let layout = WeightLayout::new(graph);
    let mut stack = vec![Base::ZERO; 1 << layout.variables];
    for (index, values) in weights.0.iter().enumerate() {
        let place = layout.place(WeightId(index as u32));
        let [rows, columns] = place.matrix;
        let target = &mut stack[place.offset..];
        for (i, &value) in values.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            debug_assert!(row < rows);
            let (stored_row, stored_column) = if place.transposed { (column, row) } else { (row, column) };
            target[(stored_row << place.stride_bits) + stored_column] = Base::from_i64(value.into());
        }
    }
    stack
}

impl Prover<'_> {
    /// Sends what remains and opens every commitment.
    ///
    /// # Errors
    /// When a commitment has no parameters, which making it would have shown.
    pub(super) fn finish(
        mut self,
        committed_weights: Option<&pcs::Committed>,
        lookups: Option<LookupClaims>,
        witness: &pcs::Committed,
        timings: &mut Timings,
    ) -> Result<(Vec<Ext>, Vec<Opening>), PcsError> {
        let mut due = Vec::new();
        if let Some(committed) = committed_weights {
            let claims = std::mem::take(&mut self.weight_claims);
            let point = timings
                .time("batch", "weights", || weights::batch(&mut self.sender, self.graph, self.weights, &claims));
            due.push(("weights", committed, point));
        }
        if let Some(lookups) = lookups {
            let claims = std::mem::take(&mut self.witness_claims);
            let layout = self.layout;
            let add = |powers: Vec<Ext>, target: &mut [Ext]| {
                add_columns(&claims, &powers, target);
                add_lookups(layout, &lookups, &powers[claims.len()..], target);
            };
            let point = timings.time("batch", "witness", || self.batch(witness, claims.len() + 3, add));
            due.push(("witness", witness, point));
        }
        for tensor in std::mem::take(&mut self.boundary) {
            let add = |powers: Vec<Ext>, target: &mut [Ext]| {
                for (claim, power) in tensor.claims.iter().zip(powers) {
                    claim.functional.add_to(power, &mut target[..claim.functional.elements()]);
                }
            };
            let point = timings.time("batch", "boundary", || self.batch(tensor.committed, tensor.claims.len(), add));
            due.push(("boundary", tensor.committed, point));
        }
        let mut openings = Vec::with_capacity(due.len());
        for (what, committed, point) in due {
            openings.push(timings.time("open", what, || pcs::open(committed, &point, self.sender.transcript))?);
        }
        Ok((self.sender.finish(), openings))
    }

    /// Reduces the values of `claims` functionals of one commitment, which `add` adds up with powers of a challenge, to one
    /// point.
    fn batch(&mut self, committed: &pcs::Committed, claims: usize, add: impl FnOnce(Vec<Ext>, &mut [Ext])) -> Vec<Ext> {
        let powers: Vec<Ext> = self.sender.challenge().powers().take(claims).collect();
        let mut coefficients = zeros(Ext::ZERO, committed.values().len());
        add(powers, &mut coefficients);
        let (point, [value, _]) = prove_product_of_base(&mut self.sender, committed.values(), coefficients);
        self.sender.send(&[value]);
        point
    }
}

/// Adds the coefficients of claims on columns, column by column.
fn add_columns(claims: &[WitnessClaim], powers: &[Ext], target: &mut [Ext]) {
    let mut columns: BTreeMap<usize, Vec<(&Functional, Ext)>> = BTreeMap::new();
    for (claim, &power) in claims.iter().zip(powers) {
        for &(offset, weight) in &claim.columns {
            columns.entry(offset).or_default().push((&claim.functional, power * weight));
        }
    }
    let mut parts = Vec::with_capacity(columns.len());
    let (mut rest, mut start) = (target, 0);
    for (offset, claims) in columns {
        let elements = claims[0].0.elements();
        let (_, from) = std::mem::take(&mut rest).split_at_mut(offset - start);
        let (column, behind) = from.split_at_mut(elements);
        parts.push((column, claims));
        (rest, start) = (behind, offset + elements);
    }
    parts.into_par_iter().for_each(|(column, claims)| {
        claims.into_iter().for_each(|(functional, scale)| functional.add_to(scale, column));
    });
}

/// Adds the coefficients of looked-up cells, multiplicities and results of tables.
fn add_lookups(layout: &Layout, lookups: &LookupClaims, powers: &[Ext], target: &mut [Ext]) {
    let cells_end = layout.lookups.last().map_or(0, |lookup| lookup.cells.end);
    let (leaves, results) = target.split_at_mut(layout.leaves());
    let (high, low) = lookups.point.split_at(lookups.point.len() - BLOCK_BITS.min(lookups.point.len()));
    let block = eq_table(low);
    leaves.par_chunks_mut(block.len()).enumerate().for_each(|(index, leaves)| {
        let scale = eq_index(high, index);
        let cells = cells_end.saturating_sub(index * block.len()).min(leaves.len());
        let (cells, multiplicities) = leaves.split_at_mut(cells);
        let (of_cells, of_multiplicities) = block.split_at(cells.len());
        for (part, weights, power) in [(cells, of_cells, powers[0]), (multiplicities, of_multiplicities, powers[1])] {
            let scale = scale * power;
            part.iter_mut().zip(weights).for_each(|(cell, &weight)| *cell += scale * weight);
        }
    });
    for lookup in &layout.lookups {
        let Some(first) = lookup.results else { continue };
        let weights = eq_range(&lookups.point, lookup.cells.start, lookup.cells.len());
        let column = results[first - layout.leaves()..].iter_mut();
        column.zip(weights).for_each(|(cell, weight)| *cell += powers[2] * weight);
    }
}
