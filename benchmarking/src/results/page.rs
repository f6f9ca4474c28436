//! The page that explains the published results. All of it but these sentences comes from the tables.

use std::fs;
use std::path::Path;

use shardproof_common::files;

use super::markdown::{count, percent, scientific, size, table, text_table, time};
use super::rows::{Compared, Tables};
use super::{compared, draw, recorded, throughput, verdicts};
use crate::error::BenchError;
use crate::system::SummaryRow;

/// Draws the plots of the tables in `directory` into its folder `plots`, and writes `README.md` there.
///
/// # Errors
/// When a table is missing or cannot be read, or a file cannot be written.
pub fn write(directory: &Path) -> Result<(), BenchError> {
    let tables = Tables::read(directory)?;
    let plots = directory.join("plots");
    fs::create_dir_all(&plots).map_err(BenchError::io(plots.display().to_string()))?;
    draw::write(&tables, &plots)?;
    let page = directory.join("README.md");
    let text = render(&tables, directory)?;
    files::write_whole(&page, text.as_bytes()).map_err(BenchError::io(page.display().to_string()))
}

fn render(tables: &Tables, directory: &Path) -> Result<String, BenchError> {
    let [load, pipeline] = ["load", "pipeline"].map(|folder| directory.join(folder).join("conditions.json"));
    let sections = [
        INTRODUCTION.to_owned(),
        recorded::section(tables, directory)?,
        compared::systems(&directory.join("models"))?,
        compared::models(tables, directory)?,
        compared::growth(tables, directory)?,
        shards(tables),
        throughput::section(tables, &recorded::read_json(&load)?, &recorded::read_json(&pipeline)?),
        accuracy(tables, &recorded::note(&directory.join("accuracy"))?),
        compatibility(tables),
        pros_and_cons(tables),
        not_measured(tables),
        FILES.to_owned(),
    ];
    Ok(sections.join("\n"))
}

const INTRODUCTION: &str = "# Results

This page and its plots are made from the tables beside it by

    cargo run --release -p shardproof-benchmarking --bin benchmark_results

and the tables by the same command with `--measure full` (hours; it goes on where it was interrupted), or `--measure quick` (a
minute or two, small models). These tables do not come from one such measurement: machines, dates and numbers of passes differ, as
is said below. What each figure includes is said by `--help` of the benchmark that measures it.

`-` is what was not measured. Sizes are decimal (1 MB = 1,000,000 B), memory of machines is binary (GiB).
";

const FILES: &str = "## The tables

| file | from | rows |
|---|---|---|
| [system/summary.csv](system/summary.csv) | `system_benchmark` | one for each model, number of shards and way of proving |
| [system/shards.csv](system/shards.csv) | | one for each shard of each run |
| [system/processes.csv](system/processes.csv) | | one for each process |
| [models/backends.csv](models/backends.csv), [growth/backends.csv](growth/backends.csv) | `backend_benchmark` | one for each model and proof system |
| [models/passes.csv](models/passes.csv), [growth/passes.csv](growth/passes.csv) | | one for each proof |
| [compatibility/compatibility.csv](compatibility/compatibility.csv) | `backend_benchmark --compatibility` | one for each operator and proof system |
| [accuracy/accuracy.csv](accuracy/accuracy.csv), [accuracy/boundaries.csv](accuracy/boundaries.csv) | `accuracy_benchmark` | one for each model, target and number of shards, or boundary |
| [load/load.csv](load/load.csv) | `load_benchmark` | one for each number of clients |
| [pipeline/pipeline.csv](pipeline/pipeline.csv) | `pipeline_benchmark` | one for each model |
| [published.csv](published.csv) | others | figures that others published, or that were measured with their programs |
";

fn shards(tables: &Tables) -> String {
    let row = |row: &SummaryRow| {
        let mut cells = vec![
            row.model_id.clone(),
            row.num_shards.to_string(),
            row.backend.clone(),
            row.weights.clone(),
            row.status.clone(),
            row.repetitions.map_or_else(|| "-".to_owned(), |passes| passes.to_string()),
        ];
        cells.extend([
            time(row.total_setup_time),
            time(row.total_witness_generation_time),
            time(row.total_proof_generation_time),
            time(row.longest_proof_generation_time),
            time(row.chain_wall_time),
            time(row.total_verification_time),
            time(row.offline_verification_time),
            size(row.total_proof_size),
            size(row.total_pk_size),
            size(row.total_vk_size),
            size(row.coordinator_peak_bytes),
            size(row.largest_worker_peak_bytes),
            size(row.wire_bytes),
        ]);
        cells
    };
    let rows: Vec<Vec<String>> = tables.system.iter().map(row).collect();
    let heading = [
        "model",
        "shards",
        "backend",
        "weights",
        "",
        "passes",
        "setup",
        "witness",
        "prove, sum",
        "longest",
        "on the clock",
        "verify, sum",
        "offline",
        "proofs",
        "proving keys",
        "verifying keys",
        "memory: coordinator",
        "memory: largest worker",
        "on the wire",
    ];
    format!(
        "## The service over numbers of shards\n\nBoundaries between shards are committed (ezkl: hashed), target `resources`. \
         Medians of `passes`; setup and `offline` are measured once. `prove, sum` adds up proofs that each had this machine to \
         themselves, keys loaded by the worker before (ezkl reads its own in each call); `on the clock` is from the request for all \
         at once to the last verdict, all workers on this machine. `longest` is the longest of the former, and so a **projection** of \
         proving with one such machine for each shard: sending and verifying are not in it. `verify, sum` is the coordinator's own \
         time for reading proofs and keys and for checking receipts, statements and proofs; gkr has the keys of the last four shards \
         parsed, ezkl starts Python and checks each proof twice, once cut short by a byte. `offline` is `shardproof verify`, from its start to its end, with reading card, bundle and \
         keys, and all checks of the chain. `on the wire` is what all servers received and sent, handing out keys and all passes \
         included, so it compares only where `passes` are the same.\n\n\
         ![longest proof over shards](plots/projection.svg)\n\
         ![all proofs on one machine over shards](plots/shards-wall.svg)\n\
         ![largest worker over shards](plots/shards-memory.svg)\n\
         ![size of all proofs over shards](plots/shards-proofs.svg)\n\n\
         attention has a plot of its own, because it is slower by orders of magnitude and was measured on another machine \
         (Conditions). Hollow marks are single passes.\n\n\
         ![proving attention over shards](plots/shards-attention.svg)\n\n\
         Beside the prototype from which this project started, as it published its figures. These are not equal conditions: its \
         machine is not stated, its version of ezkl is another, and its weights are hashed in the circuit, which costs more than fixing \
         them in the verifying key, as ezkl does here:\n\n\
         ![proving cnn over shards](plots/shards-cnn.svg)\n\
         ![proving mlp over shards](plots/shards-mlp.svg)\n\n{}",
        table(&heading, &rows)
    )
}

fn accuracy(tables: &Tables, note: &str) -> String {
    let rows: Vec<Vec<String>> = tables
        .accuracy
        .iter()
        .map(|row| {
            vec![
                row.model.clone(),
                row.ezkl_optimization_goal.clone(),
                row.num_nodes.to_string(),
                count(row.inputs as u64),
                count(row.failed_runs as u64),
                scientific(row.rmse),
                percent(row.relative_rmse_percent),
                scientific(row.max_absolute_error),
                scientific(row.rmse_added_by_cuts),
                percent(row.class_agreement_percent),
                percent(row.float_task_accuracy_percent),
                percent(row.quantised_task_accuracy_percent),
            ]
        })
        .collect();
    let heading = [
        "model",
        "target",
        "shards",
        "inputs",
        "failed runs",
        "RMSE",
        "of the range",
        "largest error",
        "added by cuts",
        "same class",
        "right: float",
        "right: integers",
    ];
    format!(
        "## Accuracy\n\nThe native prover's integers against the float model. These figures do not depend on the \
         machine's speed.\n\n{}\
         ![error over shards](plots/accuracy.svg)\n\n{}",
        note,
        table(&heading, &rows)
    )
}

fn compatibility(tables: &Tables) -> String {
    let mut systems: Vec<&str> = Vec::new();
    for row in &tables.compatibility {
        if !systems.contains(&row.system.as_str()) {
            systems.push(&row.system);
        }
    }
    let mut operators: Vec<(&str, &str)> = Vec::new();
    for row in &tables.compatibility {
        if !operators.contains(&(&row.operator, &row.detail)) {
            operators.push((&row.operator, &row.detail));
        }
    }
    let row = |&(operator, detail): &(&str, &str)| {
        let found = |system: &&str| {
            let same = |row: &&super::rows::Taken| {
                (row.operator.as_str(), row.detail.as_str(), row.system.as_str()) == (operator, detail, *system)
            };
            tables.compatibility.iter().find(same).map_or("-".to_owned(), |row| row.proven.clone())
        };
        let name = if detail.is_empty() { operator.to_owned() } else { format!("{operator}: {detail}") };
        std::iter::once(name).chain(systems.iter().map(found)).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = operators.iter().map(row).collect();
    let heading: Vec<&str> = std::iter::once("operator").chain(systems.iter().copied()).collect();
    format!(
        "## Which operators each system proves\n\nTried with models of one operator: set up, proven and verified. The reasons of \
         a `no` are in [the table](compatibility/compatibility.csv).\n\n{}",
        table(&heading, &rows)
    )
}

fn pros_and_cons(tables: &Tables) -> String {
    let mut text = "## For and against, as measured\n\nTimes are of whole processes. Only models count that two systems at least have \
                    figures of. gkr-public, whose verifier gets the weights, is compared with gkr-committed alone, and the others not \
                    with it. ezkl and Groth16 hide inputs and weights that are not public (zero-knowledge), which gkr does not; that is \
                    part of what their figures pay for.\n\n"
        .to_owned();
    let list = |lines: &[String]| if lines.is_empty() { "-".to_owned() } else { lines.join("; ") };
    let verdicts = verdicts::verdicts(tables);
    let rows: Vec<Vec<String>> =
        verdicts.iter().map(|found| vec![found.system.clone(), list(&found.pros), list(&found.cons)]).collect();
    text.push_str(&text_table(&["system", "for", "against"], &rows));
    text
}

fn not_measured(tables: &Tables) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in tables.system.iter().filter(|row| !row.reason.is_empty()) {
        let shards = if row.num_shards == 1 { "1 shard".to_owned() } else { format!("{} shards", row.num_shards) };
        let what = format!("{} in {shards}, {}, weights {}", row.model_id, row.backend, row.weights);
        rows.push(vec![what, format!("{}: {}", row.status, first_line(&row.reason))]);
    }
    for row in tables.models.iter().chain(&tables.growth).filter(|row| !row.is_ok()) {
        rows.push(vec![format!("{} with {}", row.model, row.system), first_line(&row.status)]);
    }
    for table in [&tables.models, &tables.growth] {
        for (system, models) in not_given(table) {
            rows.push(vec![format!("{} with {system}", models.join(", ")), "not measured".to_owned()]);
        }
    }
    format!("## What failed or was not tried\n\n{}", text_table(&["what", "why"], &rows))
}

/// The systems of a table that have no row for some of its models, and those models.
fn not_given(rows: &[Compared]) -> Vec<(&str, Vec<&str>)> {
    let distinct = |get: fn(&Compared) -> &str| {
        let mut all: Vec<&str> = Vec::new();
        for name in rows.iter().map(get) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    };
    let models = distinct(|row| &row.model);
    let lacks = |system: &str, model: &&str| !rows.iter().any(|row| row.system == system && row.model == *model);
    let of = |system| (system, models.iter().copied().filter(|model| lacks(system, model)).collect::<Vec<_>>());
    distinct(|row| &row.system).into_iter().map(of).filter(|(_, models)| !models.is_empty()).collect()
}

fn first_line(text: &str) -> String {
    const MOST: usize = 240;
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(MOST).collect();
    if cut.len() < line.len() { cut + " ..." } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::rows::compared;

    #[test]
    fn what_a_system_was_not_given_is_named() {
        let rows =
            [("a", "gkr-public"), ("a", "ezkl"), ("b", "gkr-public")].map(|(model, system)| compared(model, system, 1));
        assert_eq!(not_given(&rows), [("ezkl", vec!["b"])]);
        assert!(not_given(&rows[..2]).is_empty());
    }

    #[test]
    fn the_published_page_is_that_of_the_published_tables() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let page = fs::read_to_string(directory.join("README.md")).unwrap();
        let made = render(&Tables::read(&directory).unwrap(), &directory).unwrap();
        assert!(page == made, "make the page again: cargo run -p shardproof-benchmarking --bin benchmark_results");
    }

    #[test]
    fn reasons_are_cut_to_a_line() {
        assert_eq!(first_line("one\ntwo"), "one");
        assert!(first_line(&"x".repeat(300)).ends_with("x ..."));
    }
}
