//! The gkr estimate: all its constants, and nothing else.

use shardproof_common::plan::BoundaryMode;

use super::{GkrPrediction, Operations};

/// Committed values per value that is brought back to scale: its digits, a ReLU's sign among them.
pub const VALUES_PER_RESCALE: u64 = 3;
/// Committed values per comparison of two values, which is a ReLU of a difference.
pub const VALUES_PER_MAXIMUM: u64 = 3;
/// Committed values per function by table: argument and result.
pub const VALUES_PER_TABLE: u64 = 5;
/// Multiplicities of the smallest range tables.
pub const VALUES_FIXED: u64 = 1 << 8;
/// Proof bytes beside openings.
pub const PROOF_FIXED: u64 = 20_000;
/// Bytes of an opening: per variable squared of the committed polynomial.
pub const OPENING_PER_SQUARE: u64 = 300;
/// Memory of a worker that has done nothing, bytes.
pub const MEMORY_FIXED: u64 = 30_000_000;
/// Memory per committed witness value, bytes.
pub const MEMORY_PER_VALUE: u64 = 200;
/// Memory per weight, bytes.
pub const MEMORY_PER_WEIGHT: u64 = 60;

/// Elements and mode of a boundary.
pub type Boundary = (u64, BoundaryMode);

/// Values that the prover commits to for each run.
pub fn witness_values(operations: &Operations) -> u64 {
    let Operations { rescales, maxima, tables, .. } = *operations;
    let terms = [(rescales, VALUES_PER_RESCALE), (maxima, VALUES_PER_MAXIMUM), (tables, VALUES_PER_TABLE)];
    terms.iter().fold(VALUES_FIXED, |sum, &(count, values)| sum.saturating_add(count.saturating_mul(values)))
}

/// What the prover's work grows with, boundaries apart: values committed to and weights opened.
pub fn work(operations: &Operations, parameters: u64) -> u64 {
    witness_values(operations).saturating_add(parameters)
}

/// What the boundaries add to the prover's work.
pub fn boundary_work(boundaries: [Boundary; 2]) -> u64 {
    boundaries.iter().fold(0, |sum, (elements, _)| sum.saturating_add(*elements))
}

/// Size of a shard's proof, and what it needs.
pub fn predict(operations: &Operations, parameters: u64, boundaries: [Boundary; 2]) -> GkrPrediction {
    let witness_values = witness_values(operations);
    let committed =
        boundaries.iter().filter(|(_, mode)| *mode == BoundaryMode::Committed).map(|(elements, _)| *elements);
    let openings = committed.chain([witness_values, parameters]).filter(|&values| values > 0);
    let proof_bytes = openings.fold(PROOF_FIXED, |sum, values| sum.saturating_add(opening_bytes(values)));
    let memory = [(witness_values, MEMORY_PER_VALUE), (parameters, MEMORY_PER_WEIGHT)];
    let peak_memory_bytes =
        memory.iter().fold(MEMORY_FIXED, |sum, &(count, bytes)| sum.saturating_add(count.saturating_mul(bytes)));
    GkrPrediction { witness_values, proof_bytes, peak_memory_bytes }
}

fn opening_bytes(values: u64) -> u64 {
    let variables = u64::from(values.max(1).checked_next_power_of_two().map_or(63, u64::ilog2).max(6));
    OPENING_PER_SQUARE * variables * variables
}
