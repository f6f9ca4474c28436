//! Nodes that multiply tensors with each other.

use shardproof_integer::TensorId;

use super::Verifier;
use crate::claims::{Claim, combine, evaluation, extents, variables};
use crate::error::VerifyError;
use crate::products::{factor_functionals, summed_extents};
use crate::sumcheck::{verify_product, verify_triple};

impl Verifier<'_> {
    /// A product of matrices, by the sum over what they have in common; see [`crate::products`].
    pub(super) fn tensor_product(
        &mut self,
        node: usize,
        claims: Vec<Claim>,
        [left, right]: [TensorId; 2],
    ) -> Result<(), VerifyError> {
        let (term, value) = self.separate(node, claims)?;
        let summed = summed_extents(self.graph, left, self.layout.runs);
        let reduced = verify_product(&mut self.receiver, value, variables(&summed))?;
        let [of_left, of_right] = self.receiver.receive()?;
        if of_left * of_right != reduced.value {
            return Err(self.failed(node));
        }
        let [left_functional, right_functional] = factor_functionals(&summed, &term.factors, &reduced.point);
        self.claims.add(left, left_functional, of_left);
        self.claims.add(right, right_functional, of_right);
        Ok(())
    }

    /// `sum_i l_i left_i right_i`, brought to the values of both at one point.
    pub(super) fn elementwise(
        &mut self,
        node: usize,
        claims: Vec<Claim>,
        [left, right]: [TensorId; 2],
    ) -> Result<(), VerifyError> {
        let extents = extents(self.graph, left, self.layout.runs);
        let combined = combine(claims, self.receiver.challenge());
        let reduced = verify_triple(&mut self.receiver, combined.value, variables(&extents))?;
        let at = evaluation(&extents, &reduced.point);
        let [of_left, of_right] = if left == right {
            let [value] = self.receiver.receive()?;
            [value; 2]
        } else {
            self.receiver.receive()?
        };
        if combined.functional.inner(&at) * of_left * of_right != reduced.value {
            return Err(self.failed(node));
        }
        if left != right {
            self.claims.add(right, at.clone(), of_right);
        }
        self.claims.add(left, at, of_left);
        Ok(())
    }
}
