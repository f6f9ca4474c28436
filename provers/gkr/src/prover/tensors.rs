//! Nodes that multiply tensors with each other; the mirror of the verifier's module of this name.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::TensorId;

use super::Prover;
use super::tables::pad;
use crate::claims::{Claim, combine, evaluation, extents};
use crate::field::{Base, Ext};
use crate::functional::{Factor, Term};
use crate::products::{factor_functionals, summed_extents};
use crate::sumcheck::{Product, Triple, prove};
use crate::table::Table;

/// Multiplications of one task.
const TASK: usize = 1 << 14;

impl Prover<'_> {
    pub(super) fn tensor_product(&mut self, node: usize, claims: Vec<Claim>, [left, right]: [TensorId; 2]) {
        let (term, _) = self.separate(node, claims);
        let summed = summed_extents(self.graph, left, self.layout.runs);
        let [batch @ .., rows, columns] = term.factors.as_slice() else {
            unreachable!("a product of tensors has rows and columns")
        };
        let mut f = contract(self.trace.tensor(left), rows, *summed.last().expect("matrices have a common axis"));
        let g = contract(self.trace.tensor(right), columns, summed[summed.len() - 1]);
        let batch = Term { scalar: term.scalar, factors: batch.to_vec() }.dense();
        let depth = f.len() / batch.len();
        f.chunks_exact_mut(depth).zip(&batch).for_each(|(f, &u)| f.iter_mut().for_each(|value| *value *= u));
        let factors = [f, g].map(|values| Table::new(pad(&values, &summed, |value| value)));
        let (point, [of_left, of_right]) = prove(&mut self.sender, &Product, factors);
        self.sender.send(&[of_left, of_right]);
        let [left_functional, right_functional] = factor_functionals(&summed, &term.factors, &point);
        self.add_claim(left, left_functional, of_left);
        self.add_claim(right, right_functional, of_right);
    }

    pub(super) fn elementwise(&mut self, claims: Vec<Claim>, [left, right]: [TensorId; 2]) {
        let extents = extents(self.graph, left, self.layout.runs);
        let combined = combine(claims, self.sender.challenge());
        let values = |tensor: TensorId| pad(self.trace.tensor(tensor), &extents, |value| Base::from_i64(value).into());
        let tables = [pad(&combined.functional.dense(), &extents, |value| value), values(left), values(right)];
        let (point, [_, of_left, of_right]) = prove(&mut self.sender, &Triple, tables.map(Table::new));
        let at = evaluation(&extents, &point);
        if left == right {
            self.sender.send(&[of_left]);
        } else {
            self.sender.send(&[of_left, of_right]);
            self.add_claim(right, at.clone(), of_right);
        }
        self.add_claim(left, at, of_left);
    }
}

/// `sum_m t_m x[b, m, k]` for every b and k.
fn contract(values: &[i64], rows: &Factor, depth: usize) -> Vec<Ext> {
    let matrix = rows.len() * depth;
    let mut sums = vec![Ext::ZERO; values.len() / rows.len()];
    let blocks = sums.par_chunks_exact_mut(depth).zip(values.par_chunks_exact(matrix));
    blocks.with_min_len(TASK.div_ceil(matrix)).for_each(|(sums, values)| {
        for (&weight, row) in rows.iter().zip(values.chunks_exact(depth)) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * Base::from_i64(value));
        }
    });
    sums
}
