//! The gkr estimate: all its constants, and nothing else.
//!
//! Fitted to proofs of the zoo's and the benchmark models as one shard with public boundaries and target `resources`: sizes
//! of proofs are within 20 % on those, memory within 25 %. What the estimate does not know is which weights and tables the
//! quantiser shares, and how many bits it gives to a particular accumulator. Commitments double where their cells pass a
//! power of two, and so may the memory of a shard that is near one.

use shardproof_common::plan::BoundaryMode;

use super::{GkrPrediction, Operations};

/// Bits that bringing a value back to scale shifts away, typically.
pub const SHIFTED_BITS: u64 = 9;
/// Bits that are left of it.
pub const KEPT_BITS: u64 = 11;
/// Committed values per function by table: argument and result.
pub const VALUES_PER_TABLE: u64 = 2;
/// log2 of the entries of a function's table.
pub const TABLE_BITS: u32 = 10;
/// log2 of the fewest values in a commitment.
pub const LEAST_VARIABLES: u64 = 6;
/// Proof bytes for each round of a sumcheck over a computed tensor: reductions have one to three sumchecks, and each sends two
/// or three values of 16 bytes a round.
pub const PROOF_PER_ROUND: u64 = 80;
/// More of them, per square of the number of variables of the witness: sumchecks of as many rounds as variables, on as many
/// layers.
pub const PROOF_PER_SQUARE: u64 = 24;
/// Bytes of the smallest opening.
pub const OPENING_FIXED: u64 = 3_000;
/// More of them, per square of the variables beyond [`LEAST_VARIABLES`].
pub const OPENING_PER_SQUARE: u64 = 760;
/// Memory of a worker that has done nothing, bytes.
pub const MEMORY_FIXED: u64 = 35_000_000;
/// Memory per cell of the committed witness, bytes: the cell, its share of the encoding, and the lookups' fractions.
pub const MEMORY_PER_VALUE: u64 = 100;
/// Memory per cell of the commitment to the weights, bytes: the cell, its share of the encoding, and the opening.
pub const MEMORY_PER_WEIGHT: u64 = 70;
/// The same where the cells are encoded at half that rate.
pub const MEMORY_PER_DENSE_WEIGHT: u64 = 35;
/// Fewest variables of such commitments.
pub const DENSE_VARIABLES: u64 = 23;
/// Weights whose opening takes as long as committing to one value and proving it.
pub const WEIGHTS_PER_VALUE: u64 = 16;
/// Weights whose opening takes as long as committing to one element of a boundary.
pub const WEIGHTS_PER_ELEMENT: u64 = 8;

/// Elements and mode of a boundary.
pub type Boundary = (u64, BoundaryMode);

/// Values that the prover commits to for each run: digits in the width that makes them fewest, a sign for each, the use of
/// each row of the digits' tables, and what functions by table take.
pub fn witness_values(operations: &Operations) -> u64 {
    let Operations { rescales, maxima, tables, .. } = *operations;
    // The larger of two values is a ReLU of their difference.
    let digits = |width: u64| {
        let each = SHIFTED_BITS.div_ceil(width) + KEPT_BITS.div_ceil(width) + 1;
        rescales.saturating_add(maxima).saturating_mul(each).saturating_add(2 << width)
    };
    let fewest = (2..=16).map(digits).min().unwrap_or(0);
    let functions = if tables > 0 { (1 << TABLE_BITS) + tables.saturating_mul(VALUES_PER_TABLE) } else { 0 };
    fewest.saturating_add(functions)
}

/// What the prover's time grows with, boundaries apart, in weights.
pub fn work(operations: &Operations, parameters: u64) -> u64 {
    witness_values(operations).saturating_mul(WEIGHTS_PER_VALUE).saturating_add(parameters)
}

/// What committed boundaries add to that.
pub fn boundary_work(boundaries: [Boundary; 2]) -> u64 {
    committed(boundaries).fold(0, |sum, elements| sum.saturating_add(elements.saturating_mul(WEIGHTS_PER_ELEMENT)))
}

/// Size of a shard's proof with committed weights, and what proving it needs.
pub fn predict(operations: &Operations, rounds: u64, weight_cells: u64, boundaries: [Boundary; 2]) -> GkrPrediction {
    let witness_values = witness_values(operations);
    let openings = committed(boundaries).chain([witness_values, weight_cells]).filter(|&values| values > 0);
    let square = |variables: u64| variables * variables;
    let lookups = PROOF_PER_SQUARE * square(variables(witness_values));
    let sumchecks = rounds.saturating_mul(PROOF_PER_ROUND).saturating_add(lookups);
    let opening = |values| OPENING_FIXED + OPENING_PER_SQUARE * square(variables(values) - LEAST_VARIABLES);
    let dense = variables(weight_cells) >= DENSE_VARIABLES;
    let per_weight = if dense { MEMORY_PER_DENSE_WEIGHT } else { MEMORY_PER_WEIGHT };
    let memory = [(witness_values, MEMORY_PER_VALUE), (weight_cells, per_weight)];
    let padded = |values| (1u64 << variables(values)).saturating_mul(u64::from(values > 0));
    GkrPrediction {
        witness_values,
        proof_bytes: openings.map(opening).fold(sumchecks, u64::saturating_add),
        peak_memory_bytes: memory
            .iter()
            .fold(MEMORY_FIXED, |sum, &(count, bytes)| sum.saturating_add(padded(count).saturating_mul(bytes))),
    }
}

fn committed(boundaries: [Boundary; 2]) -> impl Iterator<Item = u64> {
    boundaries.into_iter().filter(|(_, mode)| *mode == BoundaryMode::Committed).map(|(elements, _)| elements)
}

/// Cells that a trained tensor takes: as a matrix of its first axis and the others, or of these and the first, each row padded
/// to a power of two.
pub(crate) fn weight_cells(shape: &[u64]) -> u64 {
    let (rows, columns) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product::<u64>());
    let padded = |rows: u64, columns: u64| rows.saturating_mul(columns.checked_next_power_of_two().unwrap_or(u64::MAX));
    padded(rows, columns).min(padded(columns, rows))
}

/// Rounds of a sumcheck over so many elements.
pub(crate) fn rounds(elements: u64) -> u64 {
    u64::from(elements.max(1).checked_next_power_of_two().map_or(63, u64::ilog2))
}

/// log2 of the length of a committed vector.
fn variables(values: u64) -> u64 {
    rounds(values).max(LEAST_VARIABLES)
}
