//! What load the service holds without proofs, from one client to many.
//!
//! Clients are as users are: each has a connection of its own, submits an input, waits for the answer, and submits again
//! (a closed loop). All of them live in the benchmark's process on the same machine, so they take processor time from what
//! they measure; how much is in the table. Each number of clients has a time in which nothing counts, then a window: runs
//! that end in the window count, with their whole latency.
//!
//! Which of the inputs a client sends next is drawn from a seed and the client's number, so neither all clients send the same nor
//! one client the same again and again. What is stored by its digest is stored once for each input, and a model that ships
//! with samples has few of them. The model runs once on every input before; every later answer is compared with that one. An error or
//! another answer is counted and ends the program with 1.

mod clients;
mod plots;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{LoadOptions as ModelOptions, ModelSource, OnnxModel, input};

use clients::{Asked, Crowd, Window};

use crate::client::Client;
use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::memory::MemoryWatch;
use crate::processes::{Cluster, Programs, WorkerOptions, processor_seconds};
use crate::progress::Progress;
use crate::report::{self, table};
use crate::stats::Quantiles;
use crate::table as csv;

pub use plots::write as write_plots;

/// Most inputs that clients draw from; a model of the zoo may have fewer samples.
const INPUTS: usize = 64;

/// Numbers of clients unless told otherwise.
pub const CLIENTS: [usize; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/// What is measured.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Zoo model or path.
    pub model: String,
    /// Number of shards, and so of workers.
    pub shards: usize,
    /// Numbers of clients, one after the other on one service.
    pub clients: Vec<usize>,
    /// Time in which runs count, for each number of clients.
    pub window: Duration,
    /// Time before it.
    pub warmup: Duration,
    /// Which inputs a client sends is drawn from it, and the inputs themselves where a model has no samples.
    pub seed: u64,
    /// Where tables and plots go.
    pub directory: PathBuf,
    /// Options that the coordinator gets as they are.
    pub coordinator_options: Vec<String>,
}

/// One number of clients. Times in seconds, sizes in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadRow {
    /// Model as the user named it.
    pub model: String,
    /// Number of shards.
    pub shards: usize,
    /// Clients at a time.
    pub clients: usize,
    /// Inputs that they draw from; 1 where all of them send the same.
    #[serde(default = "one")]
    pub inputs: usize,
    /// Length of the window.
    pub window: f64,
    /// Runs that ended in it with the right answer.
    pub runs: usize,
    /// Runs by time.
    pub runs_per_second: f64,
    /// Latency from sending the input to the answer: the half of all runs is not slower.
    pub p50: f64,
    /// The same for 90 %.
    pub p90: f64,
    /// The same for 99 %.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// Runs that ended otherwise, in the window or before it.
    pub errors: usize,
    /// The first error.
    pub error: String,
    /// Cores that the coordinator had on average.
    pub coordinator_cores: f64,
    /// Cores that all workers had together.
    pub worker_cores: f64,
    /// Cores that the clients had.
    pub client_cores: f64,
    /// Most memory of the coordinator since it was started.
    pub coordinator_peak_bytes: u64,
    /// Most memory of a worker since it was started.
    pub worker_peak_bytes: u64,
}

/// Tables without the column are of clients that all sent the same.
const fn one() -> usize {
    1
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    benchmark: &'static str,
    directory: PathBuf,
    conditions: Conditions,
    /// One row for each number of clients.
    rows: Vec<LoadRow>,
}

/// Measures every number of clients and writes table and plots.
///
/// # Errors
/// When the programs are not built, the model cannot be served, or a file cannot be written. Runs that fail are counted.
pub async fn measure(options: LoadOptions) -> Result<LoadReport, BenchError> {
    let programs = Programs::find()?;
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &ModelOptions::default())?;
    let inputs = input::samples(&source, &model, INPUTS, options.seed)?.inputs;
    let most = options.clients.iter().max().ok_or(BenchError::NothingMeasured)?;
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let conditions = Conditions::now();
    let progress = Progress::begin();
    progress.step(&format!("{} in {} shards: setup", options.model, options.shards));
    let room = format!("--max-runs={}", most * 2);
    let given: Vec<&str> =
        std::iter::once(room.as_str()).chain(options.coordinator_options.iter().map(String::as_str)).collect();
    let mut cluster =
        Cluster::start(&programs, directory.path(), &options.model, options.shards, &given, WorkerOptions::default())
            .await?;
    let measured = drive(&mut cluster, &options, inputs, &progress).await;
    cluster.stop().await;
    let rows = measured?;
    std::fs::create_dir_all(&options.directory).map_err(BenchError::io(options.directory.display().to_string()))?;
    csv::write(&options.directory.join("load.csv"), &rows)?;
    conditions.write(&options.directory)?;
    plots::write(&rows, &options.directory)?;
    Ok(LoadReport { benchmark: "load", directory: options.directory, conditions, rows })
}

async fn drive(
    cluster: &mut Cluster,
    options: &LoadOptions,
    inputs: Vec<Vec<FloatTensor>>,
    progress: &Progress,
) -> Result<Vec<LoadRow>, BenchError> {
    let client = Client::connect(cluster).await?;
    client.wait_until_ready(cluster).await?;
    let mut asked = Vec::new();
    for input in inputs {
        let answer = client.infer(&input).await?.answer;
        asked.push(Asked { input, answer });
    }
    let asked: Arc<[Asked]> = asked.into();
    let memory = MemoryWatch::start(cluster.process_ids());
    let mut rows = Vec::new();
    for &clients in &options.clients {
        progress.step(&format!("{clients} clients"));
        let crowd = Crowd::gather(cluster.address(), clients, &asked, options.seed).await?;
        tokio::time::sleep(options.warmup).await;
        let (before, own_before) = (cores(cluster), processor_seconds(std::process::id()));
        let window = crowd.observe(options.window).await;
        let (after, own) = (cores(cluster), processor_seconds(std::process::id()) - own_before);
        crowd.disperse().await;
        cluster.check_alive()?;
        let spent: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        let row = row(options, (clients, asked.len()), &window, &spent, own, &memory.peaks())?;
        let latency = format!("p50 {}, p99 {}", report::time(row.p50), report::time(row.p99));
        progress
            .note(&format!("{clients} clients: {:.0} runs/s, {latency}, {} errors", row.runs_per_second, row.errors));
        rows.push(row);
    }
    Ok(rows)
}

/// Processor time of the coordinator and of each worker so far, s.
fn cores(cluster: &Cluster) -> Vec<f64> {
    cluster.process_ids().into_iter().map(processor_seconds).collect()
}

fn row(
    options: &LoadOptions,
    (clients, inputs): (usize, usize),
    window: &Window,
    spent: &[f64],
    own: f64,
    peaks: &[u64],
) -> Result<LoadRow, BenchError> {
    let seconds = window.length.as_secs_f64();
    let quantiles = Quantiles::of(window.latencies.iter().map(Duration::as_secs_f64));
    let Some(quantiles) = quantiles else {
        let error = window.error.clone().unwrap_or_else(|| "no run ended in the window".to_owned());
        return Err(BenchError::Load { clients, error });
    };
    Ok(LoadRow {
        model: options.model.clone(),
        shards: options.shards,
        clients,
        inputs,
        window: seconds,
        runs: window.latencies.len(),
        runs_per_second: window.latencies.len() as f64 / seconds,
        p50: quantiles.at(0.5),
        p90: quantiles.at(0.9),
        p99: quantiles.at(0.99),
        max: quantiles.at(1.0),
        errors: window.errors,
        error: window.error.clone().unwrap_or_default(),
        coordinator_cores: spent.first().copied().unwrap_or(0.0) / seconds,
        worker_cores: spent.iter().skip(1).sum::<f64>() / seconds,
        client_cores: own / seconds,
        coordinator_peak_bytes: peaks.first().copied().unwrap_or(0),
        worker_peak_bytes: peaks.iter().skip(1).copied().max().unwrap_or(0),
    })
}

impl LoadReport {
    /// Whether every run of every number of clients had the right answer.
    pub fn is_whole(&self) -> bool {
        self.rows.iter().all(|row| row.errors == 0)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |row: &LoadRow| {
            vec![
                row.clients.to_string(),
                format!("{:.0}", row.runs_per_second),
                report::time(row.p50),
                report::time(row.p90),
                report::time(row.p99),
                report::time(row.max),
                row.errors.to_string(),
                format!("{:.2}", row.coordinator_cores),
                format!("{:.2}", row.worker_cores),
                format!("{:.2}", row.client_cores),
                report::size(row.coordinator_peak_bytes),
                report::size(row.worker_peak_bytes),
            ]
        };
        if let Some(first) = self.rows.first() {
            writeln!(
                f,
                "{} in {} shards, {} inputs, no proofs, {} s for each row",
                first.model,
                first.shards,
                first.inputs,
                first.window.round()
            )?;
        }
        writeln!(f, "{}\n", self.conditions.line())?;
        let heading = [
            "clients",
            "runs/s",
            "p50",
            "p90",
            "p99",
            "max",
            "errors",
            "coordinator",
            "workers",
            "clients' own",
            "coordinator",
            "worker",
        ];
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        writeln!(f, "{}", table(&heading, &rows))?;
        for row in self.rows.iter().filter(|row| row.errors > 0) {
            writeln!(f, "{} clients: {} errors, the first: {}", row.clients, row.errors, row.error)?;
        }
        writeln!(
            f,
            "cores used on average, then most memory since the start; table and plots: {}",
            self.directory.display()
        )
    }
}
