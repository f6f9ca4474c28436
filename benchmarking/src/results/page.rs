//! The page that explains the published results. All of it but these sentences comes from the tables.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use shardproof_common::files;

use super::collect::Machine;
use super::markdown::{count, ms, percent, scientific, size, table, text_table, time};
use super::rows::{Compared, Published, Tables};
use super::{draw, throughput, verdicts};
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
    let [machines, systems, load, pipeline] =
        ["system", "models", "load", "pipeline"].map(|folder| directory.join(folder).join("conditions.json"));
    let sections = [
        INTRODUCTION.to_owned(),
        conditions(&read_json::<Vec<Machine>>(&machines)?),
        compared_systems(&read_json::<Setting>(&systems)?),
        models(tables),
        growth(tables),
        shards(tables),
        throughput::section(tables, &read_json(&load)?, &read_json(&pipeline)?),
        accuracy(tables),
        compatibility(tables),
        pros_and_cons(tables),
        not_measured(tables),
        FILES.to_owned(),
    ];
    Ok(sections.join("\n"))
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, BenchError> {
    let bytes = fs::read(path).map_err(BenchError::io(path.display().to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })
}

const INTRODUCTION: &str = "# Results

This page and its plots are made from the tables beside it by

    cargo run --release -p shardproof-benchmarking --bin benchmark_results

and the tables by the same command with `--measure full` (hours; it goes on where it was interrupted), or `--measure quick` (a
minute or two, small models). What each figure includes is said by `--help` of the benchmark that measures it.
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

fn conditions(machines: &[Machine]) -> String {
    let mut text = "## Conditions\n\n".to_owned();
    for Machine { conditions, configurations, load } in machines {
        let days = conditions.unix_seconds / 86_400;
        let (year, month, day) = date(days);
        let line = conditions.line();
        let line = line.split(", load").next().unwrap_or(&line);
        let (low, high) = load;
        writeln!(
            text,
            "- {line}. {configurations} configurations, from {year}-{month:02}-{day:02} on; before each, between {low:.1} and \
             {high:.1} processes wanted to run, the last of the benchmark's own among them."
        )
        .expect("a string takes all text");
    }
    text + "\nOne machine plays all parts: coordinator, workers, client. Comparisons are made within one run, alternating.\n"
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar (H. Hinnant, chrono-compatible
/// low-level date algorithms).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// What `backend_benchmark` says of the systems.
#[derive(Deserialize)]
struct Setting {
    systems: Vec<NamedSystem>,
}

#[derive(Deserialize)]
struct NamedSystem {
    name: String,
    about: String,
    #[serde(flatten)]
    conditions: SystemConditions,
}

#[derive(Deserialize)]
struct SystemConditions {
    field: String,
    commitment: String,
    security: String,
    setup: String,
    zero_knowledge: bool,
    weights: String,
}

fn compared_systems(setting: &Setting) -> String {
    let row = |system: &NamedSystem| {
        let NamedSystem { name, about, conditions } = system;
        let SystemConditions { field, commitment, security, setup, zero_knowledge, weights } = conditions;
        let hides = if *zero_knowledge { "yes" } else { "no" };
        [name, about, field, commitment, security, setup, hides, weights].map(|cell| cell.to_string()).to_vec()
    };
    let rows: Vec<Vec<String>> = setting.systems.iter().map(row).collect();
    let heading = ["system", "what", "field", "commitment", "security", "setup", "zero-knowledge", "weights"];
    format!("## The systems\n\n{}", text_table(&heading, &rows))
}

/// Small models first; systems in the order in which they were given.
fn by_size(rows: &[Compared]) -> Vec<&Compared> {
    let mut rows: Vec<&Compared> = rows.iter().collect();
    rows.sort_by_key(|row| row.parameters);
    rows
}

fn compared_table(rows: &[&Compared]) -> String {
    let row = |row: &&Compared| {
        let first = vec![row.model.clone(), count(row.parameters), row.system.clone()];
        let figures = if row.is_ok() {
            vec![
                ms(row.setup_ms),
                ms(row.witness_ms_median),
                ms(row.prove_ms_median),
                ms(row.prove_wall_ms_median),
                ms(row.verify_ms_median),
                size(row.proof_bytes),
                size(row.proving_key_bytes),
                size(row.verifying_key_bytes),
                size(row.setup_peak_bytes),
                size(row.prove_peak_bytes),
                scientific(row.relative_rmse),
                row.control.clone().unwrap_or_default(),
            ]
        } else {
            let mut cells = vec![String::from("-"); 11];
            cells.push(row.status.split(':').next().unwrap_or_default().to_owned());
            cells
        };
        [first, figures].concat()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    let heading = [
        "model",
        "parameters",
        "system",
        "setup",
        "witness",
        "prove",
        "whole process",
        "verify",
        "proof",
        "proving key",
        "verifying key",
        "memory: setup",
        "prove",
        "error",
        "changed input",
    ];
    table(&heading, &rows)
}

fn models(tables: &Tables) -> String {
    let rows = by_size(&tables.models);
    let published: Vec<Vec<String>> = tables
        .published
        .iter()
        .filter(|row| row.num_shards == 1)
        .map(|row: &Published| {
            vec![
                row.model_id.clone(),
                count(row.parameters),
                row.system.clone(),
                time(row.total_setup_time),
                time(row.total_proof_generation_time),
                time(row.total_verification_time),
                size(row.total_proof_size),
                size(row.total_pk_size),
                size(row.peak_bytes),
                row.conditions.clone(),
                row.source.clone(),
            ]
        })
        .collect();
    let heading = [
        "model",
        "parameters",
        "system",
        "setup",
        "prove",
        "verify",
        "proof",
        "proving key",
        "memory",
        "conditions",
        "source",
    ];
    format!(
        "## Proof systems on whole models\n\nOne shard, boundaries public. Medians of passes in which every system proves once, \
         in turn. `prove` is the system's own call; `whole process` contains witness, start and reading keys. `error` is the \
         root mean square error over the range of the answers. `changed input`: what became of a claim with one input value \
         changed by one.\n\n{}\nWhat others published, or their programs gave:\n\n{}",
        compared_table(&rows),
        table(&heading, &published)
    )
}

fn growth(tables: &Tables) -> String {
    let rows = by_size(&tables.growth);
    format!(
        "## Growth with the model\n\nDense networks with ReLU (`mlp:DEPTH,WIDTH`), from 2^12 to 2^24 parameters.\n\n\
         ![proving time over parameters](plots/growth-proving.svg)\n\
         ![verifying time over parameters](plots/growth-verifying.svg)\n\
         ![proof size over parameters](plots/growth-proof.svg)\n\
         ![peak memory over parameters](plots/growth-memory.svg)\n\n{}",
        compared_table(&rows)
    )
}

fn shards(tables: &Tables) -> String {
    let row = |row: &SummaryRow| {
        let mut cells = vec![
            row.model_id.clone(),
            row.num_shards.to_string(),
            row.backend.clone(),
            row.weights.clone(),
            row.status.clone(),
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
        "coordinator",
        "worker",
        "on the wire",
    ];
    format!(
        "## The service over numbers of shards\n\nBoundaries between shards are committed (ezkl: hashed), target `resources`. \
         `prove, sum` adds up proofs that each had this machine to themselves; `on the clock` is from the request for all at \
         once to the last verdict, all workers on this machine. `longest` is the longest of the former, and so a **projection** \
         of proving with one such machine for each shard: sending and verifying are not in it. `offline` is \
         `shardproof verify`, from its start to its end.\n\n\
         ![longest proof over shards](plots/projection.svg)\n\
         ![all proofs on one machine over shards](plots/shards-wall.svg)\n\
         ![largest worker over shards](plots/shards-memory.svg)\n\
         ![size of all proofs over shards](plots/shards-proofs.svg)\n\n\
         Beside the prototype from which this project started, as it published its figures (ezkl 12; machine not stated):\n\n\
         ![proving cnn over shards](plots/shards-cnn.svg)\n\
         ![proving mlp over shards](plots/shards-mlp.svg)\n\n{}",
        table(&heading, &rows)
    )
}

fn accuracy(tables: &Tables) -> String {
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
        "## Accuracy\n\nThe native prover's integers against the float model.\n\n\
         ![error over shards](plots/accuracy.svg)\n\n{}",
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
    let mut text = "## For and against, as measured\n\n".to_owned();
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
    format!("## What failed or was not tried\n\n{}", text_table(&["what", "why"], &rows))
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

    #[test]
    fn days_become_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_453), (2025, 12, 31));
    }

    #[test]
    fn reasons_are_cut_to_a_line() {
        assert_eq!(first_line("one\ntwo"), "one");
        assert!(first_line(&"x".repeat(300)).ends_with("x ..."));
    }
}
