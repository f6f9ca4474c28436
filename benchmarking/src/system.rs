//! The whole service over numbers of shards: times, sizes, memory and bytes on the wire of every configuration.
//!
//! Each configuration is measured on processes of its own, started for it and ended after it, with empty data. What was
//! measured is kept at once, so that a benchmark that is interrupted goes on where it was. A configuration that cannot be
//! verified is a row that says so; one that is predicted not to fit the machine's memory is not tried, and is a row as well.

mod configuration;
mod plots;
mod record;
mod run;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use shardproof_common::files;
use shardproof_common::plan::{BoundaryMode, CalibrationTarget, WeightVisibility};
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};

pub use configuration::{Configuration, ProvenBy, ShardCounts};
pub use plots::write as write_plots;
pub use record::{
    Figures, Outcome, Pass, ProcessFigures, ProcessRow, Record, ShardFigures, ShardPass, ShardRow, SummaryRow,
};
use run::Measurement;

use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::processes::Programs;
use crate::progress::Progress;
use crate::report::table;
use crate::table as csv;

/// The numbers of shards that models are cut into unless told otherwise.
pub const SHARD_COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 12];
const RECORD: &str = "record.json";

/// What is measured.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// Zoo model or path.
    pub model: String,
    /// Numbers of shards; those that the model cannot be cut into are rows that say so.
    pub shards: Vec<usize>,
    /// The proof system.
    pub backend: ProvenBy,
    /// Mode of the boundaries between shards; the backend's own where nothing is given.
    pub boundary: Option<BoundaryMode>,
    /// gkr: whether verifiers have the weights.
    pub weights: WeightVisibility,
    /// What calibration optimises.
    pub target: CalibrationTarget,
    /// Runs that are proven, each in both ways.
    pub repeats: usize,
    /// Whether shards are proven one after the other only.
    pub apart_only: bool,
    /// What one configuration may take.
    pub time_limit: Duration,
    /// What one setup or proof may be predicted to need, bytes.
    pub memory_limit: u64,
    /// Where records, tables and plots go, in a folder for each model.
    pub directory: PathBuf,
    /// Measure also what was measured before.
    pub again: bool,
    /// Options that the coordinator gets as they are.
    pub coordinator_options: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct SystemReport {
    benchmark: &'static str,
    directory: PathBuf,
    conditions: Conditions,
    /// One row for each configuration, in the order of shards.
    summary: Vec<SummaryRow>,
}

/// Measures every number of shards and writes tables and plots.
///
/// # Errors
/// When the programs are not built, the model cannot be read, or a file cannot be written. A configuration that fails is no
/// error but a row.
pub async fn measure(options: SystemOptions) -> Result<SystemReport, BenchError> {
    let programs = Programs::find()?;
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &LoadOptions::default())?;
    let sample = input::samples(&source, &model, 1, 0)?.inputs.remove(0);
    let directory = options.directory.join(options.configuration(1).model_folder());
    fs::create_dir_all(&directory).map_err(BenchError::io(directory.display().to_string()))?;
    let progress = Progress::begin();
    let mut records = Vec::new();
    for &shards in &options.shards {
        let configuration = options.configuration(shards);
        let folder = directory.join(configuration.folder());
        let record = match kept(&folder, &options, &configuration) {
            Some(record) => {
                progress.note(&format!("{}: measured before", configuration.folder()));
                record
            }
            None => {
                let record = one(&options, configuration, &programs, &model, &sample, &progress).await?;
                keep(&folder, &record)?;
                progress.note(&format!("{}: {}", record.configuration.folder(), verdict(&record)));
                record
            }
        };
        records.push(record);
    }
    plots::write(&write_tables(&directory, &records_in(&directory)?)?, &directory)?;
    let summary = records.iter().map(Record::summary_row).collect();
    Ok(SystemReport { benchmark: "system", directory, conditions: Conditions::now(), summary })
}

impl SystemOptions {
    fn configuration(&self, shards: usize) -> Configuration {
        Configuration {
            model: self.model.clone(),
            shards,
            backend: self.backend,
            boundary: self.boundary.unwrap_or(self.backend.kind().inner_mode()),
            weights: self.weights,
            target: self.target,
        }
    }
}

fn verdict(record: &Record) -> String {
    match &record.outcome {
        Outcome::Verified(figures) => format!("verified, proofs {:.3} s in all", figures.sum_of_proofs()),
        Outcome::Failed(reason) => format!("failed: {reason}"),
        Outcome::Skipped(reason) => format!("skipped: {reason}"),
    }
}

/// Measures one configuration; whatever goes wrong in it is its outcome.
async fn one(
    options: &SystemOptions,
    configuration: Configuration,
    programs: &Programs,
    model: &OnnxModel,
    sample: &[shardproof_common::tensor::FloatTensor],
    progress: &Progress,
) -> Result<Record, BenchError> {
    let conditions = Conditions::now();
    let done = |configuration, outcome| Ok(Record { configuration, conditions, outcome });
    if configuration.shards > model.max_shards() {
        let reason = format!("the model can be cut into at most {} shards", model.max_shards());
        return done(configuration, Outcome::Skipped(reason));
    }
    let predicted = match configuration.predicted_bytes(model) {
        Ok(predicted) => predicted,
        Err(error) => return done(configuration, Outcome::Failed(error.to_string())),
    };
    if let Some(reason) = too_large(&predicted, options.memory_limit) {
        return done(configuration, Outcome::Skipped(reason));
    }
    let measurement = Measurement {
        configuration: &configuration,
        programs,
        input: sample,
        parameters: model.parameters(),
        predicted: &predicted,
        memory_limit: options.memory_limit,
        repeats: options.repeats,
        apart_only: options.apart_only,
        coordinator_options: &options.coordinator_options,
    };
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let outcome = tokio::select! {
        measured = measurement.run(directory.path(), progress) => match measured {
            Ok(figures) => Outcome::Verified(Box::new(figures)),
            Err(error) => Outcome::Failed(error.to_string()),
        },
        () = tokio::time::sleep(options.time_limit) => {
            Outcome::Failed(format!("took longer than {} s", options.time_limit.as_secs()))
        }
    };
    done(configuration, outcome)
}

fn too_large(predicted: &[u64], limit: u64) -> Option<String> {
    let (shard, &most) = predicted.iter().enumerate().max_by_key(|(_, bytes)| **bytes)?;
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    (most > limit).then(|| {
        format!(
            "shard {shard} is predicted to need {:.1} GiB, {:.1} GiB are allowed",
            gibibytes(most),
            gibibytes(limit)
        )
    })
}

/// What was measured before of the same configuration by programs of the same version with as many repetitions, unless it
/// failed then.
fn kept(folder: &Path, options: &SystemOptions, configuration: &Configuration) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?;
    let now = Conditions::now();
    let same = record.configuration == *configuration
        && (&record.conditions.version, &record.conditions.profile) == (&now.version, &now.profile);
    let done = match &record.outcome {
        Outcome::Verified(figures) => figures.apart.len() >= options.repeats,
        Outcome::Failed(_) | Outcome::Skipped(_) => false,
    };
    (same && done && !options.again).then_some(record)
}

/// Keeps a record with its tables.
fn keep(folder: &Path, record: &Record) -> Result<(), BenchError> {
    fs::create_dir_all(folder).map_err(BenchError::io(folder.display().to_string()))?;
    csv::write(&folder.join("shards.csv"), &record.shard_rows())?;
    csv::write(&folder.join("processes.csv"), &record.process_rows())?;
    let path = folder.join(RECORD);
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })?;
    files::write_whole(&path, &text).map_err(BenchError::io(path.display().to_string()))
}

/// Everything that was measured with its results in `directory`, in the order of configurations.
///
/// # Errors
/// When the directory or a record cannot be read.
pub fn records_in(directory: &Path) -> Result<Vec<Record>, BenchError> {
    let unreadable = || BenchError::io(directory.display().to_string());
    let mut records = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path().join(RECORD);
        let Ok(bytes) = fs::read(&path) else { continue };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })?;
        records.push(record);
    }
    records.sort_by_key(|record| {
        let Configuration { shards, backend, boundary, weights, target, .. } = record.configuration.clone();
        (backend.kind().as_str(), boundary.as_str(), weights.as_str(), target.as_str(), shards)
    });
    Ok(records)
}

/// Writes the tables of several configurations and returns the summary.
///
/// # Errors
/// When a file cannot be written.
pub fn write_tables(directory: &Path, records: &[Record]) -> Result<Vec<SummaryRow>, BenchError> {
    let shards: Vec<ShardRow> = records.iter().flat_map(Record::shard_rows).collect();
    let processes: Vec<ProcessRow> = records.iter().flat_map(Record::process_rows).collect();
    let summary: Vec<SummaryRow> = records.iter().map(Record::summary_row).collect();
    csv::write(&directory.join("shards.csv"), &shards)?;
    csv::write(&directory.join("processes.csv"), &processes)?;
    csv::write(&directory.join("summary.csv"), &summary)?;
    Ok(summary)
}

impl SystemReport {
    /// Whether every configuration that was tried was verified.
    pub fn is_whole(&self) -> bool {
        self.summary.iter().all(|row| row.status != "failed")
    }
}

impl fmt::Display for SystemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), crate::report::time);
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), crate::report::size);
        let row = |row: &SummaryRow| {
            vec![
                row.num_shards.to_string(),
                row.status.clone(),
                time(row.total_setup_time),
                time(row.total_witness_generation_time),
                time(row.total_proof_generation_time),
                time(row.longest_proof_generation_time),
                time(row.chain_wall_time),
                time(row.total_verification_time),
                size(row.total_proof_size),
                size(row.total_pk_size),
                size(row.total_vk_size),
                size(row.largest_worker_peak_bytes),
                size(row.wire_bytes),
            ]
        };
        let rows: Vec<Vec<String>> = self.summary.iter().map(row).collect();
        if let Some(first) = self.summary.first() {
            let SummaryRow { model_id, backend, boundary, weights, target, .. } = first;
            writeln!(f, "{model_id}, {backend}, boundaries {boundary}, weights {weights}, target {target}")?;
        }
        writeln!(f, "{}\n", self.conditions.line())?;
        let heading = [
            "shards",
            "",
            "setup",
            "witness",
            "prove",
            "longest",
            "on the clock",
            "verify",
            "proofs",
            "proving keys",
            "verifying keys",
            "worker",
            "on the wire",
        ];
        writeln!(f, "{}", table(&heading, &rows))?;
        for row in self.summary.iter().filter(|row| !row.reason.is_empty()) {
            writeln!(f, "{} shards: {}: {}", row.num_shards, row.status, row.reason)?;
        }
        writeln!(f, "tables and plots: {}", self.directory.display())
    }
}

#[cfg(test)]
mod tests;
