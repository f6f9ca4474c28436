//! Throughput and latency over the number of clients.

use std::path::Path;

use super::LoadRow;
use crate::plot::{LineChart, PlotError, Scale, Series};

/// Draws `load-throughput` and `load-latency` into `directory`.
///
/// # Errors
/// When there are no rows, or a file cannot be written.
pub fn write(rows: &[LoadRow], directory: &Path) -> Result<(), PlotError> {
    let line = |name: &str, get: fn(&LoadRow) -> f64| Series {
        name: name.to_owned(),
        points: rows.iter().map(|row| (row.clients as f64, get(row))).collect(),
        ..Series::default()
    };
    let chart = |title: &str, y: &str, series: Vec<Series>| LineChart {
        title: title.to_owned(),
        x: "clients".to_owned(),
        y: y.to_owned(),
        x_scale: Scale::Logarithmic,
        y_scale: Scale::Logarithmic,
        series,
    };
    let throughput = vec![line("runs per second", |row| row.runs_per_second)];
    chart("Runs per second without proofs", "runs per second", throughput).write(directory, "load-throughput")?;
    let latency =
        vec![line("p50", |row| row.p50 * 1e3), line("p90", |row| row.p90 * 1e3), line("p99", |row| row.p99 * 1e3)];
    chart("Latency of a run without proofs", "ms", latency).write(directory, "load-latency")
}
