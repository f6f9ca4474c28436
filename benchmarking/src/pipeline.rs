//! Throughput of the pipeline without proofs, against what the shards' own work allows.
//!
//! First runs go through one by one: each shard's time is the worker's own, from taking the boundary up to the signed receipt,
//! with the machine to itself. This is done twice: with workers of one thread, for how much there is to compute, and with workers
//! as they are, for how long each shard takes. Then a steady stream keeps several runs under way at a time. No service can take
//! less time for each run than its slowest shard, nor than all that there is to compute on all cores; the interval between
//! answers is compared with the larger of the two.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::processes::{Cluster, Programs, WorkerOptions};
use crate::progress::Progress;
use crate::report::{self, table};
use crate::stats::Summary;
use crate::table as csv;

/// How many times the bound an interval may be.
pub const TARGET_RATIO: f64 = 1.5;
/// What it may be longer besides, seconds.
pub const TARGET_EXTRA: f64 = 0.001;
/// The slowest shard that the target is for takes at least so long, seconds.
pub const TARGET_SLOWEST: f64 = 0.020;

/// The environment of a worker that computes on one thread.
const ONE_THREAD: &[(&str, &str)] = &[("RAYON_NUM_THREADS", "1")];

/// What is measured.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Zoo models or paths.
    pub models: Vec<String>,
    /// Number of shards, and so of workers.
    pub shards: usize,
    /// Runs that go through one by one.
    pub alone: usize,
    /// Runs of the stream that count.
    pub runs: usize,
    /// Runs under way at a time.
    pub in_flight: usize,
    /// Where the table goes.
    pub directory: PathBuf,
    /// Options that the coordinator gets as they are.
    pub coordinator_options: Vec<String>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineReport {
    benchmark: &'static str,
    directory: PathBuf,
    conditions: Conditions,
    models: Vec<ModelReport>,
}

/// One model; times in seconds.
#[derive(Clone, Debug, Serialize)]
struct ModelReport {
    #[serde(flatten)]
    row: PipelineRow,
    /// Runs one by one.
    alone: Alone,
    /// The same with workers of one thread.
    on_one_thread: Alone,
}

/// Runs that had the machine to themselves.
#[derive(Clone, Debug, Serialize)]
struct Alone {
    by_shard: Vec<Summary>,
    /// From sending the input to the answer.
    whole: Summary,
}

/// What came of it, as the table has it; times in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PipelineRow {
    /// Model as the user named it.
    pub model: String,
    /// Number of shards.
    pub shards: usize,
    /// Median of the slowest shard.
    pub slowest: f64,
    /// Sum of all shards' medians on one thread, by the number of cores.
    pub total_by_cores: f64,
    /// Time between answers in the stream, on average.
    pub interval: f64,
    /// Runs of the stream.
    pub runs: usize,
    /// Runs under way at a time.
    pub in_flight: usize,
    /// Interval by the larger of the two bounds.
    pub ratio: f64,
    /// Longest interval that meets the target.
    pub allowed: f64,
    /// Whether it is met; nothing where the slowest shard is too fast for it.
    pub met: Option<bool>,
}

/// Measures each model and writes the table.
///
/// # Errors
/// When the programs fail, or a run does.
pub async fn measure(options: PipelineOptions) -> Result<PipelineReport, BenchError> {
    let programs = Programs::find()?;
    let conditions = Conditions::now();
    let progress = Progress::begin();
    let mut models = Vec::new();
    for model in &options.models {
        models.push(measure_model(&programs, model, &options, conditions.cores, &progress).await?);
    }
    let directory = options.directory;
    std::fs::create_dir_all(&directory).map_err(BenchError::io(directory.display().to_string()))?;
    let rows: Vec<PipelineRow> = models.iter().map(|model| model.row.clone()).collect();
    csv::write(&directory.join("pipeline.csv"), &rows)?;
    conditions.write(&directory)?;
    Ok(PipelineReport { benchmark: "pipeline", directory, conditions, models })
}

async fn measure_model(
    programs: &Programs,
    model: &str,
    options: &PipelineOptions,
    cores: usize,
    progress: &Progress,
) -> Result<ModelReport, BenchError> {
    let source = ModelSource::resolve(model)?;
    let loaded = OnnxModel::load(&source, &LoadOptions::default())?;
    let sample = input::samples(&source, &loaded, 1, 0)?.inputs.remove(0);
    let bench = Bench { programs, model, sample: &sample, options, progress };
    let (on_one_thread, _) = bench.drive(ONE_THREAD, false).await?;
    let (alone, interval) = bench.drive(&[], true).await?;
    let interval = interval.ok_or(BenchError::NothingMeasured)?;

    let slowest = alone.by_shard.iter().map(|shard| shard.median).fold(0.0, f64::max);
    let total = on_one_thread.by_shard.iter().map(|shard| shard.median).sum::<f64>();
    let total_by_cores = total / cores as f64;
    let bound = slowest.max(total_by_cores);
    let allowed = TARGET_RATIO * bound + TARGET_EXTRA;
    let row = PipelineRow {
        model: model.to_owned(),
        shards: options.shards,
        slowest,
        total_by_cores,
        interval,
        runs: options.runs,
        in_flight: options.in_flight,
        ratio: interval / bound,
        allowed,
        met: (slowest >= TARGET_SLOWEST).then_some(interval <= allowed),
    };
    Ok(ModelReport { row, alone, on_one_thread })
}

/// One model under measurement.
struct Bench<'a> {
    programs: &'a Programs,
    model: &'a str,
    sample: &'a [FloatTensor],
    options: &'a PipelineOptions,
    progress: &'a Progress,
}

impl Bench<'_> {
    /// Starts a cluster with `environment` for its workers and has runs go through one by one, then, where it is wanted, a
    /// stream, for the time between answers.
    async fn drive(&self, environment: &[(&str, &str)], streams: bool) -> Result<(Alone, Option<f64>), BenchError> {
        let Self { programs, model, options, progress, .. } = self;
        let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
        progress.step(&format!("{model} in {} shards: setup", options.shards));
        let given: Vec<&str> = options.coordinator_options.iter().map(String::as_str).collect();
        let worker = WorkerOptions { environment, ..Default::default() };
        let mut cluster = Cluster::start(programs, directory.path(), model, options.shards, &given, worker).await?;
        let measured = self.drive_cluster(&mut cluster, streams).await;
        cluster.stop().await;
        measured
    }

    async fn drive_cluster(&self, cluster: &mut Cluster, streams: bool) -> Result<(Alone, Option<f64>), BenchError> {
        let Self { sample, options, progress, .. } = self;
        let client = Client::connect(cluster).await?;
        client.wait_until_ready(cluster).await?;
        progress.step(&format!("{} runs one by one", options.alone));
        let alone = one_by_one(&client, options, sample).await?;
        let mut interval = None;
        if streams {
            progress.step(&format!("{} runs, {} at a time", options.runs, options.in_flight));
            interval = Some(stream(&client, options, sample).await?);
        }
        cluster.check_alive()?;
        Ok((alone, interval))
    }
}

/// Each shard's time, and that of the whole run.
async fn one_by_one(client: &Client, options: &PipelineOptions, sample: &[FloatTensor]) -> Result<Alone, BenchError> {
    let mut shards = vec![Vec::new(); options.shards];
    let mut whole = Vec::new();
    for repetition in 0..=options.alone {
        let started = Instant::now();
        let run = client.infer(sample).await?;
        let took = started.elapsed().as_secs_f64();
        if run.shards.len() != options.shards {
            return Err(BenchError::Shards { expected: options.shards, found: run.shards.len() });
        }
        if repetition == 0 {
            // It opens connections and fills caches.
            continue;
        }
        whole.push(took);
        for (times, shard) in shards.iter_mut().zip(&run.shards) {
            times.push(Duration::from_micros(shard.witness_us).as_secs_f64());
        }
    }
    let by_shard = shards.into_iter().map(Summary::of).collect::<Option<Vec<_>>>();
    let measured = by_shard.zip(Summary::of(whole)).map(|(by_shard, whole)| Alone { by_shard, whole });
    measured.ok_or(BenchError::NothingMeasured)
}

/// Average time between answers while `in_flight` runs are under way; as many again come before, and do not count.
async fn stream(client: &Client, options: &PipelineOptions, sample: &[FloatTensor]) -> Result<f64, BenchError> {
    let total = options.in_flight + options.runs;
    let mut under_way = JoinSet::new();
    let (mut begun, mut ended) = (0, 0);
    let mut first_counted = Instant::now();
    while ended < total {
        while begun < total + options.in_flight && under_way.len() < options.in_flight {
            let (client, sample) = (client.clone(), sample.to_vec());
            under_way.spawn(async move { client.infer(&sample).await.map(|_| Instant::now()) });
            begun += 1;
        }
        match under_way.join_next().await {
            Some(Ok(answered)) => {
                let at = answered?;
                ended += 1;
                if ended == options.in_flight {
                    first_counted = at;
                }
            }
            Some(Err(_)) | None => return Err(BenchError::NothingMeasured),
        }
    }
    let interval = first_counted.elapsed().as_secs_f64() / options.runs as f64;
    while under_way.join_next().await.is_some() {}
    Ok(interval)
}

impl fmt::Display for PipelineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions.line())?;
        for model in &self.models {
            write!(f, "\n{model}")?;
        }
        writeln!(f, "\ntable: {}", self.directory.display())
    }
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PipelineRow { model, shards, runs, in_flight, interval, slowest, total_by_cores, ratio, allowed, met } =
            &self.row;
        writeln!(f, "{model} in {shards} shards, no proofs\n")?;
        let row = |name: String, times: &Summary| {
            let cells = [times.min, times.median, times.max].map(report::time);
            std::iter::once(name).chain(cells).collect::<Vec<_>>()
        };
        let rows = |alone: &Alone, how: &str| {
            let shards = alone.by_shard.iter().enumerate();
            let mut rows: Vec<_> = shards.map(|(index, times)| row(format!("shard {index} {how}"), times)).collect();
            rows.push(row(format!("whole run {how}"), &alone.whole));
            rows
        };
        let rows = [rows(&self.alone, "alone"), rows(&self.on_one_thread, "on one thread")].concat();
        writeln!(f, "{}", table(&["", "min", "median", "max"], &rows))?;
        let time = |seconds: &f64| report::time(*seconds);
        writeln!(f, "an answer every {} ({runs} runs, {in_flight} at a time)", time(interval))?;
        writeln!(f, "bounds: slowest shard {}, all on one thread by cores {}", time(slowest), time(total_by_cores))?;
        writeln!(f, "{ratio:.2} times the larger bound")?;
        match met {
            Some(met) => writeln!(f, "target: at most {}: {}", time(allowed), if *met { "met" } else { "MISSED" }),
            None => writeln!(f, "no target: the slowest shard takes less than {}", time(&TARGET_SLOWEST)),
        }
    }
}
