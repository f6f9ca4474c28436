//! The gkr estimate: all its constants, and nothing else.
//!
//! Fitted to proofs of the zoo's and the benchmark models as one shard with public boundaries and target `resources`: sizes
//! of proofs are within 20 % on those, memory within 25 %. What the estimate does not know is which weights and tables the
//! quantiser shares, and how many bits it gives to a particular accumulator.

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
/// Proof bytes of the smallest shard, openings apart.
pub const PROOF_FIXED: u64 = 3_000;
/// More of them, per square of the number of variables of the witness: sumchecks of as many rounds as variables, on as many
/// layers.
pub const PROOF_PER_SQUARE: u64 = 24;
/// Bytes of the smallest opening.
pub const OPENING_FIXED: u64 = 3_000;
/// More of them, per square of the variables beyond [`LEAST_VARIABLES`].
pub const OPENING_PER_SQUARE: u64 = 760;
/// Memory of a worker that has done nothing, bytes.
pub const MEMORY_FIXED: u64 = 35_000_000;
/// Memory per witness value, padded to a power of two, bytes.
pub const MEMORY_PER_VALUE: u64 = 60;
/// Memory per weight, padded to a power of two, bytes.
pub const MEMORY_PER_WEIGHT: u64 = 75;
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
pub fn predict(operations: &Operations, parameters: u64, boundaries: [Boundary; 2]) -> GkrPrediction {
    let witness_values = witness_values(operations);
    let openings = committed(boundaries).chain([witness_values, parameters]).filter(|&values| values > 0);
    let square = |variables: u64| variables * variables;
    let fixed = PROOF_FIXED + PROOF_PER_SQUARE * square(variables(witness_values));
    let opening = |values| OPENING_FIXED + OPENING_PER_SQUARE * square(variables(values) - LEAST_VARIABLES);
    let memory = [(witness_values, MEMORY_PER_VALUE), (parameters, MEMORY_PER_WEIGHT)];
    let padded = |values| (1u64 << variables(values)).saturating_mul(u64::from(values > 0));
    GkrPrediction {
        witness_values,
        proof_bytes: openings.map(opening).fold(fixed, u64::saturating_add),
        peak_memory_bytes: memory
            .iter()
            .fold(MEMORY_FIXED, |sum, &(count, bytes)| sum.saturating_add(padded(count).saturating_mul(bytes))),
    }
}

fn committed(boundaries: [Boundary; 2]) -> impl Iterator<Item = u64> {
    boundaries.into_iter().filter(|(_, mode)| *mode == BoundaryMode::Committed).map(|(elements, _)| elements)
}

/// log2 of the length of a committed vector.
fn variables(values: u64) -> u64 {
    let bits = values.max(1).checked_next_power_of_two().map_or(63, u64::ilog2);
    u64::from(bits).max(LEAST_VARIABLES)
}
