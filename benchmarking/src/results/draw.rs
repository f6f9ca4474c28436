//! The plots of the page.

use std::path::Path;

use super::rows::{Compared, Tables};
use crate::load;
use crate::plot::{LineChart, PlotError, Scale, Series};
use crate::system::SummaryRow;

/// The published line in plots.
const PROTOTYPE: &str = "prototype (ezkl 12, weights hashed)";
/// Models whose proving is shown over shards, small ones first.
const OVER_SHARDS: [&str; 5] = ["mlp", "cnn", "mlp2", "cnn264k", "dense4m"];

/// A time over parameters: what it is, the plot's file name, and where it comes from.
type Time = (&'static str, &'static str, fn(&Compared) -> Option<f64>);

const TIMES: [Time; 4] = [
    ("Proving, from a process's start to its end", "growth-proving-process", |row| row.prove_wall_ms_median),
    ("Proving, each system's own call", "growth-proving", |row| row.prove_ms_median),
    ("Verifying, from a process's start to its end", "growth-verifying-process", |row| row.verify_wall_ms_median),
    ("Verifying, each system's own call", "growth-verifying", |row| row.verify_ms_median),
];

/// How a system binds the weights, as legends say it.
fn legend(system: &str) -> String {
    match system {
        "gkr-committed" => "gkr, weights committed".to_owned(),
        "gkr-public" => "gkr, weights public".to_owned(),
        "ezkl" => "ezkl, weights fixed in vk".to_owned(),
        "ezkl-hashed" => "ezkl, weights hashed".to_owned(),
        "ezkl-private" => "ezkl, weights unbound".to_owned(),
        "groth16" => "Groth16, weights fixed in vk".to_owned(),
        other => other.to_owned(),
    }
}

/// Draws all plots into `directory`; what was not measured has no line, and a plot without lines is not drawn.
pub(super) fn write(tables: &Tables, directory: &Path) -> Result<(), PlotError> {
    let draw = |chart: LineChart, name: &str| match chart.write(directory, name) {
        Err(PlotError::Empty(_)) => Ok(()),
        drawn => drawn,
    };
    let bytes = |size: Option<u64>| size.map(|size| size as f64);
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    let growth = &tables.growth;
    for (what, name, get) in TIMES {
        draw(over_parameters(growth, what, "seconds", |row| seconds(get(row))), name)?;
    }
    draw(over_parameters(growth, "Size of the proof", "bytes", |row| bytes(row.proof_bytes)), "growth-proof")?;
    draw(
        over_parameters(growth, "Peak memory of the prover", "bytes", |row| bytes(row.prove_peak_bytes)),
        "growth-memory",
    )?;

    draw(published_over_shards(tables, "cnn"), "shards-cnn")?;
    draw(published_over_shards(tables, "mlp"), "shards-mlp")?;
    draw(proving_over_shards(tables, "attention"), "shards-attention")?;
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
        add(&mut series, &legend(&row.system), (row.parameters as f64, value), row.passes == 1);
    }
    LineChart {
        title: what.to_owned(),
        x: "parameters of a dense network (hollow: a single pass)".to_owned(),
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
            add(&mut series, model, (row.num_shards as f64, value), is_once(row));
        }
    }
    LineChart { x: "shards (gkr, weights committed)".to_owned(), ..shards_chart(title, y, series) }
}

/// What proving one model takes in all, beside what the prototype published.
fn published_over_shards(tables: &Tables, model: &str) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for row in tables.published.iter().filter(|row| row.model_id == model && row.system == "prototype") {
        let Some(seconds) = row.total_proof_generation_time else { continue };
        add(&mut series, PROTOTYPE, (row.num_shards as f64, seconds), false);
    }
    for (backend, system) in [("ezkl", "ezkl"), ("gkr", "gkr-committed")] {
        for row in tables.system.iter().filter(|row| row.model_id == model && is_usual(row, backend)) {
            let Some(seconds) = row.total_proof_generation_time else { continue };
            add(&mut series, &legend(system), (row.num_shards as f64, seconds), is_once(row));
        }
    }
    dash(&mut series, |name| name == PROTOTYPE);
    shards_chart(&format!("Proving {model}: sum of all shards"), "seconds", series)
}

/// What proving one model takes with gkr, added up, on the clock and at best.
fn proving_over_shards(tables: &Tables, model: &str) -> LineChart {
    const LONGEST: &str = "longest shard (projection)";
    let mut series: Vec<Series> = Vec::new();
    for row in tables.system.iter().filter(|row| row.model_id == model && is_usual(row, "gkr")) {
        let times = [
            ("sum of all shards", row.total_proof_generation_time),
            ("all at once, on the clock", row.chain_wall_time),
            (LONGEST, row.longest_proof_generation_time),
        ];
        for (name, seconds) in times {
            let Some(seconds) = seconds else { continue };
            add(&mut series, name, (row.num_shards as f64, seconds), is_once(row));
        }
    }
    dash(&mut series, |name| name == LONGEST);
    shards_chart(&format!("Proving {model}: gkr, weights committed"), "seconds", series)
}

/// Whether the row is of a single pass.
fn is_once(row: &SummaryRow) -> bool {
    row.repetitions == Some(1)
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
        add(&mut series, &name, (row.num_nodes as f64, percent), false);
    }
    dash(&mut series, |name| name.ends_with("resources"));
    // The targets of one model have one colour.
    let model = |series: &Series| series.name.split(", ").next().unwrap_or_default().to_owned();
    let mut models: Vec<String> = series.iter().map(model).collect();
    models.dedup();
    for line in &mut series {
        line.colour = models.iter().position(|known| *known == model(line));
    }
    shards_chart("Error of the answer (dashed: target resources)", "RMSE, percent of the range", series)
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

/// Adds a point, measured `once` or more often, to the series of this name and keeps its points in order.
fn add(all: &mut Vec<Series>, name: &str, point: (f64, f64), once: bool) {
    let index = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
        all.push(Series { name: name.to_owned(), ..Series::default() });
        all.len() - 1
    });
    if once {
        all[index].once.push(point);
    }
    let points = &mut all[index].points;
    let place = points.partition_point(|other| other.0 <= point.0);
    points.insert(place, point);
}

/// Dashes the lines with such names.
fn dash(all: &mut [Series], is_dashed: impl Fn(&str) -> bool) {
    for series in all {
        series.dashed = is_dashed(&series.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::builtin::Builtin;
    use crate::results::rows::compared;

    #[test]
    fn legends_say_how_every_system_binds_the_weights() {
        for system in Builtin::ALL {
            assert!(legend(system.as_str()).contains("weights "), "{}", system.as_str());
        }
    }

    #[test]
    fn single_passes_are_marked_in_the_plot() {
        let large = Compared { parameters: 200, ..compared("b", "ezkl", 1) };
        let chart = over_parameters(&[compared("a", "ezkl", 3), large], "Proving", "ms", |row| row.prove_ms_median);
        let [line] = chart.series.as_slice() else { panic!("{chart:?}") };
        assert_eq!(
            (line.points.as_slice(), line.once.as_slice()),
            (&[(100.0, 3.0), (200.0, 3.0)][..], &[(200.0, 3.0)][..])
        );
        assert_eq!(line.name, "ezkl, weights fixed in vk");
    }
}
