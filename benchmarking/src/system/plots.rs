//! What a system benchmark shows: how times and sizes go with the number of shards.

use std::path::Path;

use super::record::SummaryRow;
use crate::plot::{LineChart, PlotError, Scale, Series};

/// One line for each kind of configuration in `rows`, drawn by what `get` takes of a row, over the number of shards.
fn series(
    rows: &[SummaryRow],
    get: impl Fn(&SummaryRow) -> Option<f64>,
    name: impl Fn(&SummaryRow) -> String,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for row in rows {
        let Some(value) = get(row) else { continue };
        let name = name(row);
        let point = (row.num_shards as f64, value);
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name, points: vec![point], ..Series::default() }),
        }
    }
    for series in &mut all {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all
}

/// How the configurations of a plot are told apart: by what differs among them.
fn label(rows: &[SummaryRow], row: &SummaryRow) -> String {
    let columns: [fn(&SummaryRow) -> &str; 5] =
        [|r| &r.model_id, |r| &r.backend, |r| &r.weights, |r| &r.boundary, |r| &r.target];
    let differs = |get: &&fn(&SummaryRow) -> &str| rows.iter().any(|other| get(other) != get(row));
    let parts: Vec<&str> = columns.iter().filter(differs).map(|get| get(row)).collect();
    if parts.is_empty() { row.backend.clone() } else { parts.join(", ") }
}

/// Draws all plots of `rows` into `directory`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(rows: &[SummaryRow], directory: &Path) -> Result<(), PlotError> {
    let verified: Vec<SummaryRow> = rows.iter().filter(|row| row.status == "verified").cloned().collect();
    if verified.is_empty() {
        return Ok(());
    }
    let models: Vec<&str> = {
        let mut models: Vec<&str> = verified.iter().map(|row| row.model_id.as_str()).collect();
        models.dedup();
        models
    };
    let of = if models.len() == 1 { format!(" of {}", models[0]) } else { String::new() };
    let bytes = |size: Option<u64>| size.map(|size| size as f64);
    let chart = |title: &str, y: &str, parts: Vec<(&str, Vec<Series>)>| LineChart {
        title: format!("{title}{of}"),
        x: "shards".to_owned(),
        y: y.to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Logarithmic,
        series: parts.into_iter().flat_map(|(part, series)| named(part, series)).collect(),
    };
    let of_rows = |get: fn(&SummaryRow) -> Option<f64>| series(&verified, get, |row| label(&verified, row));
    let proving = vec![
        ("sum of shards", of_rows(|row| row.total_proof_generation_time)),
        ("on the clock", of_rows(|row| row.chain_wall_time)),
        ("longest shard", of_rows(|row| row.longest_proof_generation_time)),
    ];
    chart("Proving time", "seconds", proving).write(directory, "proving-time")?;
    let setup = vec![("", of_rows(|row| row.total_setup_time))];
    chart("Setup time", "seconds, sum of shards", setup).write(directory, "setup-time")?;
    let keys = vec![
        ("proving keys", series(&verified, |row| bytes(row.total_pk_size), |row| label(&verified, row))),
        ("verifying keys", series(&verified, |row| bytes(row.total_vk_size), |row| label(&verified, row))),
    ];
    chart("Size of all keys", "bytes", keys).write(directory, "key-size")?;
    let sizes = vec![
        ("proofs", series(&verified, |row| bytes(row.total_proof_size), |row| label(&verified, row))),
        ("witnesses", series(&verified, |row| bytes(row.total_witness_size), |row| label(&verified, row))),
    ];
    chart("Size of all proofs and witnesses", "bytes", sizes).write(directory, "proof-witness-size")?;
    let memory = vec![
        ("largest worker", series(&verified, |row| bytes(row.largest_worker_peak_bytes), |row| label(&verified, row))),
        ("coordinator", series(&verified, |row| bytes(row.coordinator_peak_bytes), |row| label(&verified, row))),
    ];
    chart("Peak memory of a process", "bytes", memory).write(directory, "peak-memory")
}

/// Names the lines by the part that they show as well.
fn named(part: &str, series: Vec<Series>) -> Vec<Series> {
    let several = series.len() > 1;
    let name = |own: String| match (part, several) {
        ("", _) => own,
        (part, false) => part.to_owned(),
        (part, true) => format!("{own}: {part}"),
    };
    series.into_iter().map(|one| Series { name: name(one.name), ..one }).collect()
}
