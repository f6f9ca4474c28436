//! The section about load and throughput without proofs.

use super::markdown::{size, table, time};
use super::rows::Tables;
use crate::conditions::Conditions;

/// The section, with what each of its tables was measured on.
pub(super) fn section(tables: &Tables, load: &Conditions, pipeline: &Conditions) -> String {
    format!(
        "## Load and throughput without proofs\n\nClients that each submit, wait for the answer and submit again, on the same \
         machine as the service and with a part of its cores. {} {}.\n\n\
         ![runs per second over clients](plots/load-throughput.svg)\n\
         ![latency over clients](plots/load-latency.svg)\n\n{}\n\
         A steady stream of runs, against what no service can beat on one machine: its slowest shard, and all that there is to \
         compute on all cores. {}.\n\n{}",
        same_or_drawn(tables),
        load.line(),
        clients(tables),
        pipeline.line(),
        streams(tables)
    )
}

/// What the clients send.
fn same_or_drawn(tables: &Tables) -> String {
    match tables.load.iter().map(|row| row.inputs).max() {
        None => String::new(),
        Some(1) => "All clients sent the same input, so that what is stored by digest was stored once. The benchmark has since come \
                    to draw every client's inputs from the model's samples; these figures are from before."
            .to_owned(),
        Some(inputs) => format!("Each client draws what it sends from {inputs} inputs."),
    }
}

/// One row for each number of clients.
fn clients(tables: &Tables) -> String {
    let rows: Vec<Vec<String>> = tables
        .load
        .iter()
        .map(|row| {
            vec![
                row.model.clone(),
                row.shards.to_string(),
                row.clients.to_string(),
                format!("{:.0}", row.runs_per_second),
                time(Some(row.p50)),
                time(Some(row.p90)),
                time(Some(row.p99)),
                time(Some(row.max)),
                row.errors.to_string(),
                format!("{:.2}", row.coordinator_cores),
                format!("{:.2}", row.worker_cores),
                format!("{:.2}", row.client_cores),
                size(Some(row.coordinator_peak_bytes)),
                size(Some(row.worker_peak_bytes)),
            ]
        })
        .collect();
    let heading = [
        "model",
        "shards",
        "clients",
        "runs/s",
        "p50",
        "p90",
        "p99",
        "slowest",
        "errors",
        "cores: coordinator",
        "workers",
        "clients",
        "memory: coordinator",
        "worker",
    ];
    table(&heading, &rows)
}

/// One row for each model.
fn streams(tables: &Tables) -> String {
    let rows: Vec<Vec<String>> = tables
        .pipeline
        .iter()
        .map(|row| {
            let met = row.met.map_or("none", |met| if met { "met" } else { "missed" });
            vec![
                row.model.clone(),
                row.shards.to_string(),
                time(Some(row.slowest)),
                time(Some(row.total_by_cores)),
                time(Some(row.interval)),
                format!("{:.2}", row.ratio),
                time(Some(row.allowed)),
                met.to_owned(),
            ]
        })
        .collect();
    let heading =
        ["model", "shards", "slowest shard", "all on one thread / cores", "an answer every", "ratio", "target", ""];
    table(&heading, &rows)
}
