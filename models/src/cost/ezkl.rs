//! The ezkl estimate: all its constants, and nothing else.
//!
//! Fitted to what ezkl 23.0.5 does with two inner columns and digits of base 2^14: rows to the settings that it calibrates
//! (target `resources`) for single operators, for chains of them and for the zoo's models, and are within 10 % on those;
//! key sizes to keys of 2^15, 2^17 and 2^19 rows, whose bytes per row depend on the kinds of operations and not on how
//! many there are. What the estimate cannot know is a look-up table that calibration makes larger than the circuit.

use shardproof_common::plan::BoundaryMode;

use super::{EzklPrediction, Operations};

/// Rows per multiplication of a sum: two columns take two products a row.
pub const ROWS_PER_MAC: f64 = 0.5;
/// Rows per value that is divided back to scale, whose remainder is range-checked digit by digit.
pub const ROWS_PER_RESCALE: f64 = 23.0;
/// Rows per addition.
pub const ROWS_PER_ARITHMETIC: f64 = 0.5;
/// Rows per comparison with a constant, which decomposes the value into digits.
pub const ROWS_PER_COMPARISON: f64 = 8.0;
/// Rows per comparison of two values.
pub const ROWS_PER_MAXIMUM: f64 = 18.3;
/// Rows per look-up.
pub const ROWS_PER_TABLE: f64 = 0.5;
/// Rows per element that only moves.
pub const ROWS_PER_MOVE: f64 = 0.0;
/// Rows per element of a public output, whose range is checked.
pub const ROWS_PER_PUBLIC_OUTPUT: f64 = 15.5;
/// Rows per element of any other output.
pub const ROWS_PER_COMMITTED_OUTPUT: f64 = 5.0;
/// Rows per element of a `hashed` boundary on either side, in columns of their own beside the operations.
pub const HASH_ROWS_PER_ELEMENT: u64 = 41;
/// Rows are taken to be this much more than estimated, for the fit's error, when the circuit's size is predicted.
pub const MARGIN: f64 = 1.1;
/// The smallest circuit: range checks need a table of 2^14 rows, and blinding rows beside it.
pub const LOGROWS_LOWEST: u32 = 15;
/// Bytes of proving key per row of a circuit of sums, products and comparisons with constants.
pub const KEY_BYTES_PER_ROW: u64 = 4_226;
/// More of them where two values are compared.
pub const KEY_BYTES_FOR_MAXIMA: u64 = 4_548;
/// More of them where there is a look-up table, for the first one.
pub const KEY_BYTES_FOR_TABLES: u64 = 768;
/// More of them where a boundary is hashed.
pub const KEY_BYTES_FOR_HASHING: u64 = 5_824;
/// Peak memory of proving as a multiple of the proving key: 11.5 GB for 4.6 GB on the zoo's `cnn`.
pub const MEMORY_PER_KEY: f64 = 2.5;
/// Memory beside that, bytes.
pub const MEMORY_FIXED: u64 = 30_000_000;

/// Elements and mode of a boundary.
pub type Boundary = (u64, BoundaryMode);

/// Rows of a shard: hashing runs beside the operations, so the longer of both counts.
pub fn rows(operations: &Operations, input: Boundary, output: Boundary) -> u64 {
    let Operations { macs, rescales, arithmetic, comparisons, maxima, tables, moves } = *operations;
    let per_output = if output.1 == BoundaryMode::Public { ROWS_PER_PUBLIC_OUTPUT } else { ROWS_PER_COMMITTED_OUTPUT };
    let terms = [
        (macs, ROWS_PER_MAC),
        (rescales, ROWS_PER_RESCALE),
        (arithmetic, ROWS_PER_ARITHMETIC),
        (comparisons, ROWS_PER_COMPARISON),
        (maxima, ROWS_PER_MAXIMUM),
        (tables, ROWS_PER_TABLE),
        (moves, ROWS_PER_MOVE),
        (output.0, per_output),
    ];
    let computed = terms.iter().map(|&(count, rows)| count as f64 * rows).sum::<f64>().ceil() as u64;
    let hashed = |(elements, mode): Boundary| if mode == BoundaryMode::Hashed { elements } else { 0 };
    let hashing = hashed(input).saturating_add(hashed(output)).saturating_mul(HASH_ROWS_PER_ELEMENT);
    // Public values fill one column, one row each.
    computed.max(hashing).max(input.0.saturating_add(output.0))
}

/// Size of a shard's circuit, and what it needs.
pub fn predict(operations: &Operations, input: Boundary, output: Boundary) -> EzklPrediction {
    let rows = rows(operations, input, output);
    let needed = (rows.max(1) as f64 * MARGIN) as u64;
    let logrows = needed.checked_next_power_of_two().map_or(63, u64::trailing_zeros).max(LOGROWS_LOWEST);
    let hashed = [input, output].iter().any(|(elements, mode)| *elements > 0 && *mode == BoundaryMode::Hashed);
    let kinds = [
        (operations.maxima > 0, KEY_BYTES_FOR_MAXIMA),
        (operations.tables > 0, KEY_BYTES_FOR_TABLES),
        (hashed, KEY_BYTES_FOR_HASHING),
    ];
    let extra: u64 = kinds.iter().filter(|(present, _)| *present).map(|(_, bytes)| bytes).sum();
    let proving_key_bytes = (1u64 << logrows).saturating_mul(KEY_BYTES_PER_ROW + extra);
    let peak_memory_bytes = ((proving_key_bytes as f64 * MEMORY_PER_KEY) as u64).saturating_add(MEMORY_FIXED);
    EzklPrediction { rows, logrows, proving_key_bytes, peak_memory_bytes }
}
