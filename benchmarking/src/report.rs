//! What a benchmark program prints, and how it ends.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::BenchError;

/// The profile that this program, and so the programs beside it, were built with.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// Runs `measurement` until it ends or a signal stops it, and prints what came of it: a table, or with `json` one object.
/// A failure is printed as one, `{"benchmark", "failed"}` with `json`, and ends the program with 1.
pub async fn conclude<R>(name: &str, json: bool, measurement: impl Future<Output = Result<R, BenchError>>) -> ExitCode
where
    R: Serialize + Display,
{
    conclude_whole(name, json, measurement, |_| true).await
}

/// As [`conclude`]; a report that is printed and not `whole`, because a part of it failed, ends the program with 1 as well.
pub async fn conclude_whole<R>(
    name: &str,
    json: bool,
    measurement: impl Future<Output = Result<R, BenchError>>,
    whole: impl Fn(&R) -> bool,
) -> ExitCode
where
    R: Serialize + Display,
{
    let outcome = tokio::select! {
        outcome = measurement => outcome,
        stopped = stop_signal() => Err(stopped.err().map_or(BenchError::Stopped, BenchError::io("waiting for signals"))),
    };
    let (text, code) = match outcome {
        Ok(report) => {
            let code = if whole(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            (if json { object(&report) } else { report.to_string() }, code)
        }
        Err(error) => {
            eprintln!("{name}: failed: {error}");
            let failure = serde_json::json!({ "benchmark": name, "failed": error.to_string() });
            (if json { object(&failure) } else { String::new() }, ExitCode::FAILURE)
        }
    };
    let text = text.trim_end();
    if !text.is_empty() && writeln!(std::io::stdout().lock(), "{text}").is_err() {
        return ExitCode::FAILURE;
    }
    code
}

fn object(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("reports have string keys and finite numbers")
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Seconds as people read them: `1.6 ms`, `843 ms`, `6.4 s`, `3 min 12 s`.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.00995 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s => {
            let whole = s.round() as u64;
            format!("{} min {:02} s", whole / 60, whole % 60)
        }
    }
}

/// Bytes as people read them, in decimal units: `312 B`, `17.1 kB`, `138 MB`.
pub fn size(bytes: u64) -> String {
    let (unit, divisor) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let scaled = bytes as f64 / divisor;
    if scaled < 99.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// Rows of text in columns; all but the first column are aligned to the right.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let width =
        |column: usize| lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for row in lines() {
        let cell = |(column, cell): (usize, &String)| match column {
            0 => format!("{cell:<width$}", width = widths[0]),
            _ => format!("{cell:>width$}", width = widths.get(column).copied().unwrap_or(0)),
        };
        let line: Vec<String> = row.iter().enumerate().map(cell).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!([0.0016, 0.843, 6.43, 192.4].map(time), ["1.6 ms", "843 ms", "6.4 s", "3 min 12 s"]);
        assert_eq!([312, 17_060, 138_000_000].map(size), ["312 B", "17.1 kB", "138 MB"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(table(&["what", "ms"], &rows), "what    ms\na        1\nlong  1000\n");
    }
}
