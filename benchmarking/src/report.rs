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
    let outcome = tokio::select! {
        outcome = measurement => outcome,
        stopped = stop_signal() => Err(stopped.err().map_or(BenchError::Stopped, BenchError::io("waiting for signals"))),
    };
    let (text, code) = match outcome {
        Ok(report) if json => (object(&report), ExitCode::SUCCESS),
        Ok(report) => (report.to_string(), ExitCode::SUCCESS),
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
    fn columns_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(table(&["what", "ms"], &rows), "what    ms\na        1\nlong  1000\n");
    }
}
