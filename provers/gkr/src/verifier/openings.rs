//! The end of a verification: every claim that is left is on a commitment, and each commitment is opened once.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::Weights;

use super::Verifier;
use crate::claims::{WeightClaim, WitnessClaim};
use crate::error::{Committed, VerifyError};
use crate::field::{Ext, to_base};
use crate::keys::{VerifyingKey, WeightsKey};
use crate::layout::Layout;
use crate::lookup::LookupClaims;
use crate::mle::{eq_pair_prefix_sum, eq_pair_range};
use crate::pcs::{self, Commitment, Opening};
use crate::proof::Proof;
use crate::sumcheck::{Reduced, verify_product};
use crate::weights::WeightLayout;

/// A batch of claims reduced to one point of one commitment.
struct Due {
    what: Committed,
    commitment: Commitment,
    point: Vec<Ext>,
    value: Ext,
}

/// In which order a sumcheck binds the variables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// From the most significant bit of an index.
    FirstFirst,
    /// From the least significant bit.
    LastFirst,
}

impl Verifier<'_> {
    /// Settles the claims on weights, witness and committed boundaries.
    pub(super) fn finish(
        mut self,
        key: &VerifyingKey,
        weights: Option<&Weights>,
        lookups: Option<LookupClaims>,
        proof: &Proof,
    ) -> Result<(), VerifyError> {
        let mut due = Vec::new();
        due.extend(self.weights(key, weights)?);
        due.extend(self.witness(lookups, proof.witness.as_ref())?);
        self.boundaries(&mut due)?;
        if due.len() != proof.openings.len() {
            return Err(VerifyError::Openings { expected: due.len(), found: proof.openings.len() });
        }
        let Verifier { mut receiver, .. } = self;
        for (due, opening) in due.iter().zip(&proof.openings) {
            open(&mut receiver, due, opening)?;
        }
        Ok(receiver.finish()?)
    }

    fn weights(&mut self, key: &VerifyingKey, weights: Option<&Weights>) -> Result<Option<Due>, VerifyError> {
        let claims = std::mem::take(&mut self.weights);
        match key.weights() {
            WeightsKey::None => Ok(None),
            WeightsKey::Public(_) => {
                for claim in &claims {
                    check_weight(self, weights, claim)?;
                }
                Ok(None)
            }
            WeightsKey::Committed(commitment) => {
                let layout = WeightLayout::new(self.graph);
                let values = claims.iter().map(|claim| claim.value);
                let coefficients =
                    |point: &[Ext]| claims.iter().map(|claim| layout.coefficient_at(claim, point)).collect();
                self.batch(Committed::Weights, Order::LastFirst, commitment, values.collect(), coefficients).map(Some)
            }
        }
    }

    /// Lookups and commitment are there or neither is: where the graph has lookups, it has a witness. Without them nothing
    /// would settle a claim on a column, so there must be none.
    fn witness(
        &mut self,
        lookups: Option<LookupClaims>,
        commitment: Option<&Commitment>,
    ) -> Result<Option<Due>, VerifyError> {
        let claims = std::mem::take(&mut self.witness);
        let (lookups, commitment) = match (lookups, commitment) {
            (Some(lookups), Some(commitment)) => (lookups, commitment),
            (None, None) if claims.is_empty() => return Ok(None),
            (lookups, _) => return Err(VerifyError::Witness { due: lookups.is_some() || !claims.is_empty() }),
        };
        let values = claims.iter().map(|claim| claim.value);
        let values = values.chain([lookups.cells, lookups.multiplicities, lookups.results]);
        let layout = self.layout;
        let coefficients = |point: &[Ext]| {
            let columns = claims.iter().map(|claim| column_coefficient(claim, point));
            columns.chain(lookup_coefficients(layout, &lookups, point)).collect()
        };
        self.batch(Committed::Witness, Order::FirstFirst, commitment, values.collect(), coefficients).map(Some)
    }

    fn boundaries(&mut self, due: &mut Vec<Due>) -> Result<(), VerifyError> {
        for tensor in std::mem::take(&mut self.boundary) {
            let values = tensor.claims.iter().map(|claim| claim.value).collect();
            let coefficients =
                |point: &[Ext]| tensor.claims.iter().map(|claim| claim.functional.placed_at(point, 0)).collect();
            due.push(self.batch(tensor.what, Order::FirstFirst, &tensor.commitment, values, coefficients)?);
        }
        Ok(())
    }

    /// Reduces `values` of functionals of one commitment to its value at one point.
    fn batch(
        &mut self,
        what: Committed,
        order: Order,
        commitment: &Commitment,
        values: Vec<Ext>,
        coefficients: impl FnOnce(&[Ext]) -> Vec<Ext>,
    ) -> Result<Due, VerifyError> {
        let powers = self.receiver.challenge().powers();
        let claim = powers.clone().zip(&values).map(|(power, &value)| power * value).sum();
        let Reduced { mut point, value: product } = verify_product(&mut self.receiver, claim, commitment.num_vars)?;
        if order == Order::LastFirst {
            point.reverse();
        }
        let coefficients =
            powers.zip(coefficients(&point)).map(|(power, coefficient)| power * coefficient).sum::<Ext>();
        let [value] = self.receiver.receive()?;
        if coefficients * value != product {
            return Err(VerifyError::Batch(what));
        }
        Ok(Due { what, commitment: commitment.clone(), point, value })
    }
}

fn open(receiver: &mut crate::channel::Receiver<'_>, due: &Due, opening: &Opening) -> Result<(), VerifyError> {
    pcs::verify(&due.commitment, &due.point, due.value, opening, receiver.transcript)
        .map_err(|source| VerifyError::Opening { what: due.what, source })
}

fn check_weight(verifier: &Verifier<'_>, weights: Option<&Weights>, claim: &WeightClaim) -> Result<(), VerifyError> {
    let index = claim.weight.0 as usize;
    let name = || verifier.graph.graph().weights[index].name.clone();
    let values = weights.and_then(|weights| weights.0.get(index));
    let values = values.ok_or_else(|| VerifyError::Weights(format!("weight `{}` is missing", name())))?;
    if claim.functional.apply(&to_base(values)) == claim.value {
        Ok(())
    } else {
        Err(VerifyError::WeightValue { weight: name() })
    }
}

/// The extension of a witness claim's coefficients at a point of the committed vector.
fn column_coefficient(claim: &WitnessClaim, point: &[Ext]) -> Ext {
    claim.columns.iter().map(|&(offset, weight)| weight * claim.functional.placed_at(point, offset)).sum()
}

/// The extension of the lookup claims' coefficients: cells, multiplicities, results.
fn lookup_coefficients(layout: &Layout, lookups: &LookupClaims, point: &[Ext]) -> [Ext; 3] {
    // The cube of leaves is the lower part of the committed vector's.
    let (high, low) = point.split_at(point.len() - lookups.point.len());
    let above = high.iter().fold(Ext::ONE, |product, &x| product * (Ext::ONE - x));
    let below = |end: usize| above * eq_pair_prefix_sum(&lookups.point, low, end);
    let cells_end = layout.lookups.last().map_or(0, |lookup| lookup.cells.end);
    let cells = below(cells_end);
    let results = layout.lookups.iter().filter_map(|lookup| {
        Some(eq_pair_range(&lookups.point, lookup.cells.start, point, lookup.results?, lookup.cells.len()))
    });
    [cells, below(layout.leaves()) - cells, results.sum()]
}
