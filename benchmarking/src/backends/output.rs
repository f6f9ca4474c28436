//! What a comparison leaves behind: tables, conditions and plots in a directory, and a table for people.

use std::fmt;
use std::path::Path;

use shardproof_common::files;

use super::comparison::{Comparison, Setting};
use super::error::ComparisonError;
use super::record::SystemRow;
use crate::plot::{BarChart, LineChart, Scale, Series};
use crate::report;
use crate::table;

/// A figure that is plotted: file name, what it is, and where it comes from.
type Figure = (&'static str, &'static str, fn(&SystemRow) -> Option<f64>);

const FIGURES: [Figure; 4] = [
    ("prove_time", "prove, ms", |row| row.prove_ms_median),
    ("verify_time", "verify, ms", |row| row.verify_ms_median),
    ("proof_size", "proof, bytes", |row| row.proof_bytes.map(|bytes| bytes as f64)),
    ("peak_memory", "peak memory of proving, bytes", |row| row.prove_peak_bytes.map(|bytes| bytes as f64)),
];

/// Writes `backends.csv`, `passes.csv` and `conditions.json` into `out`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_tables(comparison: &Comparison, out: &Path) -> Result<(), ComparisonError> {
    std::fs::create_dir_all(out).map_err(ComparisonError::io(out))?;
    table::write(&out.join("backends.csv"), &comparison.rows)?;
    table::write(&out.join("passes.csv"), &comparison.passes)?;
    write_conditions(&comparison.setting, out)
}

/// Writes `conditions.json` into `out`, which is there.
///
/// # Errors
/// When the file cannot be written.
pub fn write_conditions(setting: &Setting, out: &Path) -> Result<(), ComparisonError> {
    let path = out.join("conditions.json");
    let text = serde_json::to_vec_pretty(setting).expect("texts and numbers are JSON");
    files::write_whole(&path, &text).map_err(ComparisonError::io(&path))
}

/// Draws each figure: bars by system for one model, lines over parameters for several. What nobody measured is not drawn.
///
/// # Errors
/// When a file cannot be written.
pub fn write_plots(comparison: &Comparison, out: &Path) -> Result<(), ComparisonError> {
    let systems: Vec<&str> = comparison.setting.systems.iter().map(|system| system.name.as_str()).collect();
    let mut models: Vec<&str> = comparison.rows.iter().map(|row| row.model.as_str()).collect();
    models.dedup();
    for (name, what, get) in FIGURES {
        let measured = |system: &str| -> Vec<(f64, f64)> {
            let rows = comparison.rows.iter().filter(|row| row.system == system && row.status.is_ok());
            let mut points: Vec<_> = rows.filter_map(|row| Some((row.parameters as f64, get(row)?))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        let series: Vec<(&str, Vec<(f64, f64)>)> =
            systems.iter().map(|&system| (system, measured(system))).filter(|(_, points)| !points.is_empty()).collect();
        match (models.as_slice(), series.is_empty()) {
            (_, true) | ([], _) => {}
            ([model], false) => {
                let groups = series.iter().map(|(system, points)| ((*system).to_owned(), vec![points[0].1])).collect();
                let (title, y) = (format!("{model}: {what}"), what.to_owned());
                let chart =
                    BarChart { title, y, y_scale: Scale::Logarithmic, series: vec![(*model).to_owned()], groups };
                chart.write(out, name)?;
            }
            (_, false) => {
                let line = |(system, points): (&str, Vec<(f64, f64)>)| Series {
                    name: system.to_owned(),
                    points,
                    ..Series::default()
                };
                let chart = LineChart {
                    title: what.to_owned(),
                    x: "parameters".to_owned(),
                    y: what.to_owned(),
                    x_scale: Scale::Logarithmic,
                    y_scale: Scale::Logarithmic,
                    series: series.into_iter().map(line).collect(),
                };
                chart.write(out, name)?;
            }
        }
    }
    Ok(())
}

const HEADING: [&str; 14] = [
    "model",
    "parameters",
    "system",
    "setup ms",
    "witness ms",
    "prove ms",
    "(min to max)",
    "process ms",
    "verify ms",
    "proof kB",
    "keys kB",
    "peak MiB",
    "max error",
    "control",
];

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.setting)?;
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        writeln!(f, "{}", report::table(&HEADING, &rows))?;
        for row in self.rows.iter().filter(|row| !row.status.is_ok()) {
            writeln!(f, "{}: {}: {}", row.model, row.system, row.status)?;
        }
        write!(
            f,
            "Times are medians by each system's own clock; `process` is the whole process of witness and proof. Keys are \
             proving + verifying."
        )
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} threads, calibrated for {}", self.machine.line(), self.threads, self.target)?;
        for system in &self.systems {
            let conditions = &system.conditions;
            let hides = if conditions.zero_knowledge { "zero-knowledge" } else { "NOT zero-knowledge" };
            write!(f, "\n{}: {hides}; security {}; ", system.name, conditions.security)?;
            write!(f, "setup: {}; weights: {}", conditions.setup, conditions.weights)?;
        }
        Ok(())
    }
}

fn cells(row: &SystemRow) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let time = |value: Option<f64>| text(value.map(|ms| significant(ms, 3)));
    let thousands = |bytes: u64| significant(bytes as f64 / 1e3, 3);
    let range = row.prove_ms_min.zip(row.prove_ms_max);
    let keys = row.proving_key_bytes.zip(row.verifying_key_bytes);
    vec![
        row.model.clone(),
        row.parameters.to_string(),
        row.system.clone(),
        time(row.setup_ms),
        time(row.witness_ms_median),
        time(row.prove_ms_median),
        text(range.map(|(min, max)| format!("{} to {}", significant(min, 3), significant(max, 3)))),
        time(row.prove_wall_ms_median),
        time(row.verify_ms_median),
        text(row.proof_bytes.map(thousands)),
        text(keys.map(|(proving, verifying)| format!("{} + {}", thousands(proving), thousands(verifying)))),
        text(row.prove_peak_bytes.map(|bytes| significant(bytes as f64 / f64::from(1 << 20), 3))),
        text(row.max_abs_error.map(|error| format!("{error:.2e}"))),
        text(row.control.map(str::to_owned)),
    ]
}

/// At least `digits` significant digits, and never an exponent.
fn significant(value: f64, digits: i32) -> String {
    let magnitude = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    let decimals = (digits - 1 - magnitude).clamp(0, 6) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_leading_digits() {
        let written = [0.0, 0.012_34, 1.234, 12.34, 123.4, 12_345.6].map(|value| significant(value, 3));
        assert_eq!(written, ["0.00", "0.0123", "1.23", "12.3", "123", "12346"]);
    }
}
