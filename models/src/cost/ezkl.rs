//! The ezkl estimate: all its constants, and nothing else.
//!
//! Fitted to what ezkl 23.0.5 does with two inner columns: rows to the settings of the zoo's models, whole and in shards,
//! on which they are within 2 %; key sizes to keys of 2^10 to 2^19 rows, whose bytes per row depend on the kinds of
//! operations and not on how many there are; memory to proofs of 2^10 to 2^19 rows, of which it is at most a third too
//! much. Range checks split values into the digits that the ezkl backend chooses: small ones for small circuits. What the
//! estimate cannot know is how large a look-up table calibration makes.

use shardproof_common::plan::BoundaryMode;

use super::{EzklPrediction, Operations};

/// Rows per multiplication of a sum: two columns take two products a row.
pub const ROWS_PER_MAC: f64 = 0.5;
/// Rows per addition.
pub const ROWS_PER_ARITHMETIC: f64 = 0.5;
/// Rows per look-up.
pub const ROWS_PER_TABLE: f64 = 0.5;
/// Rows per element that only moves.
pub const ROWS_PER_MOVE: f64 = 0.0;
/// Rows per element of a `hashed` boundary on either side, in columns of their own beside the operations.
pub const HASH_ROWS_PER_ELEMENT: u64 = 41;
/// Rows per hash besides.
pub const HASH_ROWS: u64 = 2;
/// Rows are taken to be this much more than estimated, for the fit's error, when the circuit's size is predicted.
pub const MARGIN: f64 = 1.01;
/// Rows for blinding, which no value takes.
pub const RESERVED_ROWS: u64 = 64;
/// Circuits whose rows with small digits are more than this get large digits.
pub const ROWS_FOR_SMALL_DIGITS: u64 = (1 << 14) - (1 << 10);
/// The smallest circuit with a look-up table: calibrated on values near 1, at ezkl's own scales.
pub const LOGROWS_FOR_TABLES: u32 = 14;
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
/// Memory beside that, bytes: Python with ezkl loaded.
pub const MEMORY_FIXED: u64 = 40_000_000;

/// What range checks cost with digits of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Digits {
    /// Rows per value that is divided back to scale, whose remainder is range-checked digit by digit.
    pub rows_per_rescale: f64,
    /// Rows per comparison with a constant, which decomposes the value into digits.
    pub rows_per_comparison: f64,
    /// Rows per comparison of two values.
    pub rows_per_maximum: f64,
    /// Rows per element of the input.
    pub rows_per_input: f64,
    /// Rows per element of a public output; any other output's elements cost nothing more.
    pub rows_per_public_output: f64,
    /// log2 of the rows of the smallest circuit, which holds the table of the digits.
    pub lowest_logrows: u32,
}

/// Four digits of 7 bits.
pub const SMALL_DIGITS: Digits = Digits {
    rows_per_rescale: 32.5,
    rows_per_comparison: 11.0,
    rows_per_maximum: 16.3,
    rows_per_input: 8.0,
    rows_per_public_output: 16.5,
    lowest_logrows: 8,
};

/// Two digits of 14 bits.
pub const LARGE_DIGITS: Digits = Digits {
    rows_per_rescale: 23.5,
    rows_per_comparison: 8.0,
    rows_per_maximum: 13.3,
    rows_per_input: 5.0,
    rows_per_public_output: 11.0,
    lowest_logrows: 15,
};

/// Elements and mode of a boundary.
pub type Boundary = (u64, BoundaryMode);

/// Rows that operations and boundaries take with these digits, less what hashing takes beside them.
pub fn computed_rows(digits: Digits, operations: &Operations, input: Boundary, output: Boundary) -> u64 {
    let Operations { macs, rescales, arithmetic, comparisons, maxima, tables, moves } = *operations;
    let public_outputs = if output.1 == BoundaryMode::Public { output.0 } else { 0 };
    let terms = [
        (macs, ROWS_PER_MAC),
        (rescales, digits.rows_per_rescale),
        (arithmetic, ROWS_PER_ARITHMETIC),
        (comparisons, digits.rows_per_comparison),
        (maxima, digits.rows_per_maximum),
        (tables, ROWS_PER_TABLE),
        (moves, ROWS_PER_MOVE),
        (input.0, digits.rows_per_input),
        (public_outputs, digits.rows_per_public_output),
    ];
    let computed = terms.iter().map(|&(count, rows)| count as f64 * rows).sum::<f64>().ceil() as u64;
    // Public values fill one column, one row each.
    computed.max(input.0.saturating_add(output.0))
}

/// Rows of hashing a shard's boundaries.
pub fn hashing_rows(input: Boundary, output: Boundary) -> u64 {
    let hashed = |(elements, mode): Boundary| {
        let hashes = mode == BoundaryMode::Hashed && elements > 0;
        if hashes { elements.saturating_mul(HASH_ROWS_PER_ELEMENT).saturating_add(HASH_ROWS) } else { 0 }
    };
    hashed(input).saturating_add(hashed(output))
}

/// Rows of a shard, and the digits that it gets: hashing runs beside the operations, so the longer of both counts.
pub fn rows(operations: &Operations, input: Boundary, output: Boundary) -> (u64, Digits) {
    let with = |digits| computed_rows(digits, operations, input, output).max(hashing_rows(input, output));
    match with(SMALL_DIGITS) {
        rows if rows <= ROWS_FOR_SMALL_DIGITS => (rows, SMALL_DIGITS),
        _ => (with(LARGE_DIGITS), LARGE_DIGITS),
    }
}

/// Work of operations alone: rows with small digits, so that it grows with every operation.
pub fn work(operations: &Operations) -> u64 {
    let none = (0, BoundaryMode::Public);
    computed_rows(SMALL_DIGITS, operations, none, none)
}

/// Size of a shard's circuit, and what it needs.
pub fn predict(operations: &Operations, input: Boundary, output: Boundary) -> EzklPrediction {
    let (rows, digits) = rows(operations, input, output);
    let needed = ((rows as f64 * MARGIN) as u64).saturating_add(RESERVED_ROWS);
    let lowest =
        if operations.tables > 0 { LOGROWS_FOR_TABLES.max(digits.lowest_logrows) } else { digits.lowest_logrows };
    let logrows = needed.checked_next_power_of_two().map_or(63, u64::trailing_zeros).max(lowest);
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
