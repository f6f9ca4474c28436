//! One lookup argument for all range checks and function tables of a proof: logup over the grand sum of fractions.
//!
//! A cell with tuple `t = (argument, result, tag)` compresses to `argument + b result + b^2 tag`. All cells are rows of their
//! tables exactly when, for a random `a`,
//!
//! ```text
//! sum over cells 1 / (a - compress(cell)) - sum over rows multiplicity / (a - compress(row)) = 0
//! ```
//!
//! which is proven with a binary tree of fraction additions, layer by layer from its root by sumcheck (GKR). Sources:
//! Haböck, "Multivariate lookups based on logarithmic derivatives", eprint 2022/1530; Papini, Haböck, "Improving logarithmic
//! derivative lookups using GKR", eprint 2023/1284.

#[cfg(feature = "prover")]
mod prover;

#[cfg(feature = "prover")]
pub(crate) use prover::prove;

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::CheckedGraph;
use thiserror::Error;

use crate::channel::{ChannelError, Receiver};
use crate::field::{Base, Ext};
use crate::layout::{Layout, LookupTable, TableKind};
use crate::mle::{eq_prefix_sum, eq_range};
use crate::sumcheck::verify_eq_quadratic;

/// Challenges that compress tuples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compression {
    /// `a`: where the rational functions are evaluated.
    pub at: Ext,
    /// `b`: separates the components of a tuple.
    pub base: Ext,
}

/// What a lookup argument leaves to be checked against the committed witness; `eq` is at `point`.
#[derive(Clone, Debug)]
pub(crate) struct LookupClaims {
    /// Point in the cube of leaves.
    pub point: Vec<Ext>,
    /// `sum eq(i) cell_i` over the looked-up cells.
    pub cells: Ext,
    /// `sum eq(i) multiplicity_i` over the rows of tables.
    pub multiplicities: Ext,
    /// `sum eq(i) result(i)` over the looked-up cells of function tables; zero where there is none.
    pub results: Ext,
}

/// Why a lookup argument is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LookupError {
    /// The sums over cells and over tables differ: a value is in no table, or a multiplicity is wrong.
    #[error("a looked-up value is not in its table, or a multiplicity is wrong")]
    Unbalanced,
    /// A denominator vanishes.
    #[error("a denominator of the lookup argument vanishes")]
    ZeroDenominator,
    /// A layer's values do not add up to the layer above.
    #[error("layer {layer} of the lookup argument does not follow from the layer above")]
    Layer {
        /// From the root, which is layer 0.
        layer: usize,
    },
    /// The proof is too short.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Checks a lookup argument over `layout`, which has at least one leaf.
///
/// # Errors
/// Names the check that fails.
pub(crate) fn verify(
    receiver: &mut Receiver<'_>,
    graph: &CheckedGraph,
    layout: &Layout,
    compression: Compression,
) -> Result<LookupClaims, LookupError> {
    let [n0, n1, d0, d1] = receiver.receive()?;
    if n0 * d1 + n1 * d0 != Ext::ZERO {
        return Err(LookupError::Unbalanced);
    }
    if d0 * d1 == Ext::ZERO {
        return Err(LookupError::ZeroDenominator);
    }
    let mut ends = [n0, n1, d0, d1];
    let mut point = vec![receiver.challenge()];
    for layer in 1..layout.lookup_variables {
        let (numerator, denominator) = at_child(ends, point[0]);
        let mix = receiver.challenge();
        let reduced = verify_eq_quadratic(receiver, numerator + mix * denominator, &point)?;
        ends = receiver.receive()?;
        if sum_of_fractions(ends, mix) != reduced.value {
            return Err(LookupError::Layer { layer });
        }
        point = reduced.point;
        point.insert(0, receiver.challenge());
    }
    let (numerator, denominator) = at_child(ends, point[0]);
    let results = if layout.lookups.iter().any(|lookup| lookup.results.is_some()) {
        let [results] = receiver.receive()?;
        results
    } else {
        Ext::ZERO
    };
    Ok(leaf_claims(graph, layout, compression, point, [numerator, denominator, results]))
}

/// Interpolates numerator and denominator between the two children.
fn at_child([n0, n1, d0, d1]: [Ext; 4], x: Ext) -> (Ext, Ext) {
    (n0 + x * (n1 - n0), d0 + x * (d1 - d0))
}

/// Numerator plus `mix` times denominator of the sum of two fractions.
fn sum_of_fractions([n0, n1, d0, d1]: [Ext; 4], mix: Ext) -> Ext {
    n0 * d1 + n1 * d0 + mix * d0 * d1
}

/// Takes from the claimed numerator and denominator at a point of the leaves what the layout determines.
fn leaf_claims(
    graph: &CheckedGraph,
    layout: &Layout,
    compression: Compression,
    point: Vec<Ext>,
    [numerator, denominator, results]: [Ext; 3],
) -> LookupClaims {
    let Compression { at, base } = compression;
    let square = base.square();
    let below = |end: usize| eq_prefix_sum(&point, end);
    let leaves = layout.leaves();
    let mut cells_weight = Ext::ZERO;
    let mut known = at * below(leaves);
    for lookup in &layout.lookups {
        let weight = below(lookup.cells.end) - below(lookup.cells.start);
        cells_weight += weight;
        known -= square * Base::from_u64(layout.tables[lookup.table].kind.tag()) * weight;
    }
    for table in &layout.tables {
        let weights = eq_range(&point, table.cells.start, table.cells.len());
        let rows = compressed_rows(graph, table, base);
        known -= weights.iter().zip(rows).map(|(&weight, row)| weight * row).sum::<Ext>();
    }
    // Leaves behind the last row are the fraction 0 / 1.
    known += Ext::ONE - below(leaves);
    LookupClaims {
        cells: known - base * results - denominator,
        multiplicities: cells_weight - numerator,
        results,
        point,
    }
}

/// The compressed tuples of a table's rows.
fn compressed_rows(graph: &CheckedGraph, table: &LookupTable, base: Ext) -> Vec<Ext> {
    let tag = base.square() * Base::from_u64(table.kind.tag());
    match table.kind {
        TableKind::Range { width } => (0..1u64 << width).map(|row| tag + Base::from_u64(row)).collect(),
        TableKind::Function(id) => {
            let function = &graph.graph().tables[id.0 as usize];
            let lowest = -(1i64 << (function.bits - 1));
            let rows = function.values.iter().zip(lowest..);
            rows.map(|(&result, argument)| tag + base * Base::from_i64(result.into()) + Base::from_i64(argument))
                .collect()
        }
    }
}
