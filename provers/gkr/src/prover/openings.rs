//! The end of a proof: all claims on one commitment become one, which is opened.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, WeightId, Weights};

use super::{Prover, weights};
use crate::claims::WitnessClaim;
use crate::field::{Base, Ext};
use crate::layout::Layout;
use crate::lookup::LookupClaims;
use crate::mle::eq_range;
use crate::pcs::{self, Opening, PcsError};
use crate::sumcheck::prove_product_of_base;
use crate::timings::Timings;
use crate::weights::WeightLayout;

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
            let values = claims.iter().map(|claim| claim.value);
            let values = values.chain([lookups.cells, lookups.multiplicities, lookups.results]).collect();
            let layout = self.layout;
            let add = |powers: Vec<Ext>, target: &mut [Ext]| {
                claims.iter().zip(&powers).for_each(|(claim, &power)| add_columns(claim, power, target));
                add_lookups(layout, &lookups, &powers[claims.len()..], target);
            };
            let point = timings.time("batch", "witness", || self.batch(witness, values, add));
            due.push(("witness", witness, point));
        }
        for tensor in std::mem::take(&mut self.boundary) {
            let values = tensor.claims.iter().map(|claim| claim.value).collect();
            let add = |powers: Vec<Ext>, target: &mut [Ext]| {
                for (claim, power) in tensor.claims.iter().zip(powers) {
                    target.iter_mut().zip(claim.functional.dense()).for_each(|(cell, value)| *cell += power * value);
                }
            };
            let point = timings.time("batch", "boundary", || self.batch(tensor.committed, values, add));
            due.push(("boundary", tensor.committed, point));
        }
        let mut openings = Vec::with_capacity(due.len());
        for (what, committed, point) in due {
            openings.push(timings.time("open", what, || pcs::open(committed, &point, self.sender.transcript))?);
        }
        Ok((self.sender.finish(), openings))
    }

    /// Reduces `values` of functionals of one commitment, which `add` adds up with powers of a challenge, to one point.
    fn batch(
        &mut self,
        committed: &pcs::Committed,
        values: Vec<Ext>,
        add: impl FnOnce(Vec<Ext>, &mut [Ext]),
    ) -> Vec<Ext> {
        let powers: Vec<Ext> = self.sender.challenge().powers().take(values.len()).collect();
        let claim = powers.iter().zip(&values).map(|(&power, &value)| power * value).sum();
        let mut coefficients = vec![Ext::ZERO; committed.values().len()];
        add(powers, &mut coefficients);
        let (reduced, [value, _]) = prove_product_of_base(&mut self.sender, claim, committed.values(), coefficients);
        self.sender.send(&[value]);
        reduced.point
    }
}

fn add_columns(claim: &WitnessClaim, power: Ext, target: &mut [Ext]) {
    let dense = claim.functional.dense();
    for &(offset, weight) in &claim.columns {
        let scale = power * weight;
        target[offset..offset + dense.len()].iter_mut().zip(&dense).for_each(|(cell, &value)| *cell += scale * value);
    }
}

/// Adds the coefficients of looked-up cells, multiplicities and results of tables.
fn add_lookups(layout: &Layout, lookups: &LookupClaims, powers: &[Ext], target: &mut [Ext]) {
    let weights = eq_range(&lookups.point, 0, layout.leaves());
    let cells_end = layout.lookups.last().map_or(0, |lookup| lookup.cells.end);
    let (cells, multiplicities) = weights.split_at(cells_end);
    target[..cells_end].iter_mut().zip(cells).for_each(|(cell, &weight)| *cell += powers[0] * weight);
    target[cells_end..].iter_mut().zip(multiplicities).for_each(|(cell, &weight)| *cell += powers[1] * weight);
    for lookup in &layout.lookups {
        let Some(first) = lookup.results else { continue };
        let weights = &weights[lookup.cells.clone()];
        target[first..].iter_mut().zip(weights).for_each(|(cell, &weight)| *cell += powers[2] * weight);
    }
}
