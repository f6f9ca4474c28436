//! The plots of the page.

use std::path::Path;

use super::rows::{Compared, Tables};
use crate::load;
use crate::plot::{LineChart, PlotError, Scale, Series};
use crate::system::SummaryRow;

/// Models whose proving is shown over shards, small ones first.
const OVER_SHARDS: [&str; 5] = ["mlp", "cnn", "mlp2", "cnn264k", "dense4m"];

/// Draws all plots into `directory`; what was not measured has no line, and a plot without lines is not drawn.
pub(super) fn write(tables: &Tables, directory: &Path) -> Result<(), PlotError> {
    let draw = |chart: LineChart, name: &str| match chart.write(directory, name) {
        Err(PlotError::Empty(_)) => Ok(()),
        drawn => drawn,
    };
    let bytes = |size: Option<u64>| size.map(|size| size as f64);
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    let growth = &tables.growth;
    draw(over_parameters(growth, "Proving", "seconds", |row| seconds(row.prove_ms_median)), "growth-proving")?;
    draw(over_parameters(growth, "Verifying", "seconds", |row| seconds(row.verify_ms_median)), "growth-verifying")?;
    draw(over_parameters(growth, "Proof", "bytes", |row| bytes(row.proof_bytes)), "growth-proof")?;
    draw(
        over_parameters(growth, "Peak memory of the prover", "bytes", |row| bytes(row.prove_peak_bytes)),
        "growth-memory",
    )?;

    draw(published_over_shards(tables, "cnn"), "shards-cnn")?;
    draw(published_over_shards(tables, "mlp"), "shards-mlp")?;
    let projected = "Longest proof of a shard (projection: a machine for each)";
    draw(over_shards(tables, projected, "seconds", |row| row.longest_proof_generation_time), "projection")?;
    draw(over_shards(tables, "All proofs on this one machine", "seconds", |row| row.chain_wall_time), "shards-wall")?;
    let memory = |row: &SummaryRow| bytes(row.largest_worker_peak_bytes);
    draw(over_shards(tables, "Peak memory of the largest worker", "bytes", memory), "shards-memory")?;
    draw(over_shards(tables, "Size of all proofs", "bytes", |row| bytes(row.total_proof_size)), "shards-proofs")?;
    draw(accuracy(tables), "accuracy")?;
    load::write_plots(&tables.load, directory)
}

/// One line for each system.
fn over_parameters(rows: &[Compared], what: &str, y: &str, get: impl Fn(&Compared) -> Option<f64>) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.is_ok()) {
        let Some(value) = get(row) else { continue };
        add(&mut series, &row.system, (row.parameters as f64, value), false);
    }
    LineChart {
        title: format!("{what}, dense networks"),
        x: "parameters".to_owned(),
        y: y.to_owned(),
        x_scale: Scale::Logarithmic,
        y_scale: Scale::Logarithmic,
        series,
    }
}

/// One line for each model, proven with gkr and committed weights.
fn over_shards(tables: &Tables, title: &str, y: &str, get: impl Fn(&SummaryRow) -> Option<f64>) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for model in OVER_SHARDS {
        for row in tables.system.iter().filter(|row| row.model_id == model && is_usual(row, "gkr")) {
            let Some(value) = get(row) else { continue };
            add(&mut series, model, (row.num_shards as f64, value), false);
        }
    }
    shards_chart(title, y, series)
}

/// What proving one model takes in all, beside what the prototype published.
fn published_over_shards(tables: &Tables, model: &str) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for row in tables.published.iter().filter(|row| row.model_id == model && row.system == "prototype") {
        let Some(seconds) = row.total_proof_generation_time else { continue };
        add(&mut series, "prototype (ezkl 12), published", (row.num_shards as f64, seconds), true);
    }
    for (backend, name) in [("ezkl", "shardproof, ezkl"), ("gkr", "shardproof, gkr")] {
        for row in tables.system.iter().filter(|row| row.model_id == model && is_usual(row, backend)) {
            let Some(seconds) = row.total_proof_generation_time else { continue };
            add(&mut series, name, (row.num_shards as f64, seconds), false);
        }
    }
    shards_chart(&format!("Proving {model}: sum of all shards"), "seconds", series)
}

/// Whether a row is of the backend's default options.
pub(super) fn is_usual(row: &SummaryRow, backend: &str) -> bool {
    row.backend == backend
        && row.target == "resources"
        && matches!((row.weights.as_str(), row.boundary.as_str()), ("committed", "committed") | ("fixed", "hashed"))
}

fn accuracy(tables: &Tables) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for row in &tables.accuracy {
        let Some(percent) = row.relative_rmse_percent else { continue };
        let name = format!("{}, {}", row.model, row.ezkl_optimization_goal);
        add(&mut series, &name, (row.num_nodes as f64, percent), row.ezkl_optimization_goal == "resources");
    }
    shards_chart("Error of the answer (dashed: target resources)", "root mean square, percent of the range", series)
}

fn shards_chart(title: &str, y: &str, series: Vec<Series>) -> LineChart {
    LineChart {
        title: title.to_owned(),
        x: "shards".to_owned(),
        y: y.to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Logarithmic,
        series,
    }
}

/// Adds a point to the series of this name and keeps its points in order.
fn add(all: &mut Vec<Series>, name: &str, point: (f64, f64), dashed: bool) {
    let index = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
        all.push(Series { name: name.to_owned(), points: Vec::new(), dashed });
        all.len() - 1
    });
    let points = &mut all[index].points;
    let place = points.partition_point(|other| other.0 <= point.0);
    points.insert(place, point);
}
