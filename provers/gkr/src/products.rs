//! Products of two tensors' matrices, `y[b, m, n] = sum_k left[b, m, k] right[b, n, k]`, as functionals.
//!
//! A claim `<u (x) t (x) s, y> = v`, u over runs and batches, t over rows and s over columns, is a sum over b and k,
//!
//! ```text
//! v = sum_{b, k} f(b, k) g(b, k),    f(b, k) = u_b sum_m t_m left[b, m, k],    g(b, k) = sum_n s_n right[b, n, k]
//! ```
//!
//! which the product sumcheck brings to a point `rho`. `f(rho)` and `g(rho)` are functionals of the tensors again, products
//! over their axes: the sum is as long as the operands are without rows and columns, and the number of multiplications does
//! not enter.

use shardproof_integer::{CheckedGraph, TensorId};

use crate::claims::extents;
use crate::field::Ext;
use crate::functional::{Factor, Functional};
use crate::mle::{bits_for, eq_prefix};

/// Extents of the indices b and k that are summed over: runs, batches, and the matrices' common axis.
pub(crate) fn summed_extents(graph: &CheckedGraph, left: TensorId, runs: usize) -> Vec<usize> {
    let mut summed = extents(graph, left, runs);
    let rows = summed.len() - 2;
    summed.remove(rows);
    summed
}

/// `f(rho)` as a functional of the left and `g(rho)` as one of the right tensor, for a claim with the vectors `factors`,
/// one for each axis of the result with the runs before.
pub(crate) fn factor_functionals(summed: &[usize], factors: &[Factor], rho: &[Ext]) -> [Functional; 2] {
    let mut rest = rho;
    let mut axes = summed.iter().map(|&extent| {
        let (axis, others) = rest.split_at(bits_for(extent));
        rest = others;
        Factor::from(eq_prefix(axis, extent))
    });
    let (batch, matrix) = factors.split_at(factors.len() - 2);
    let mut left = Vec::with_capacity(factors.len());
    let mut right = Vec::with_capacity(factors.len());
    for (factor, axis) in batch.iter().zip(&mut axes) {
        left.push(factor.iter().zip(axis.iter()).map(|(&u, &eq)| u * eq).collect());
        right.push(axis);
    }
    let common: Vec<Factor> = axes.collect();
    for (tensor, own) in [(&mut left, &matrix[0]), (&mut right, &matrix[1])] {
        tensor.push(own.clone());
        tensor.extend(common.iter().cloned());
    }
    [left, right].map(Functional::product)
}
