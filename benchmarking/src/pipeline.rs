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
    /// Zoo model or path.
    pub model: String,
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

/// What was measured; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineReport {
    benchmark: &'static str,
    directory: PathBuf,
    conditions: Conditions,
    /// Each shard with the machine to itself.
    by_shard: Vec<Summary>,
    /// The same on one thread.
    by_shard_on_one_thread: Vec<Summary>,
    /// A whole run, from sending the input to the answer, one by one.
    alone: Summary,
    #[serde(flatten)]
    row: PipelineRow,
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

/// Measures.
///
/// # Errors
/// When the programs fail, or a run does.
pub async fn measure(options: PipelineOptions) -> Result<PipelineReport, BenchError> {
    let programs = Programs::find()?;
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &LoadOptions::default())?;
    let sample = input::samples(&source, &model, 1, 0)?.inputs.remove(0);
    let conditions = Conditions::now();
    let progress = Progress::begin();
    let given: Vec<&str> = options.coordinator_options.iter().map(String::as_str).collect();
    let mut measured = Vec::new();
    for environment in [ONE_THREAD, &[]] {
        let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
        progress.step(&format!("{} in {} shards: setup", options.model, options.shards));
        let worker = WorkerOptions { environment, ..Default::default() };
        let mut cluster =
            Cluster::start(&programs, directory.path(), &options.model, options.shards, &given, worker).await?;
        let stream = environment.is_empty();
        let outcome = drive(&mut cluster, &options, &sample, stream, &progress).await;
        cluster.stop().await;
        measured.push(outcome?);
    }
    let mut measured = measured.into_iter();
    let (Some(on_one_thread), Some(Measured { shards, alone, interval: Some(interval) })) =
        (measured.next(), measured.next())
    else {
        return Err(BenchError::NothingMeasured);
    };
    let medians = |shards: &[Summary]| shards.iter().map(|shard| shard.median).collect::<Vec<_>>();
    let slowest = medians(&shards).into_iter().fold(0.0, f64::max);
    let total_by_cores = medians(&on_one_thread.shards).iter().sum::<f64>() / conditions.cores as f64;
    let bound = slowest.max(total_by_cores);
    let allowed = TARGET_RATIO * bound + TARGET_EXTRA;
    let row = PipelineRow {
        model: options.model,
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
    let directory = options.directory;
    std::fs::create_dir_all(&directory).map_err(BenchError::io(directory.display().to_string()))?;
    csv::write(&directory.join("pipeline.csv"), std::slice::from_ref(&row))?;
    conditions.write(&directory)?;
    Ok(PipelineReport {
        benchmark: "pipeline",
        directory,
        conditions,
        by_shard: shards,
        by_shard_on_one_thread: on_one_thread.shards,
        alone,
        row,
    })
}

/// What one cluster was measured to do; times in seconds.
struct Measured {
    shards: Vec<Summary>,
    alone: Summary,
    /// Between answers of the stream, where there was one.
    interval: Option<f64>,
}

async fn drive(
    cluster: &mut Cluster,
    options: &PipelineOptions,
    sample: &[FloatTensor],
    streams: bool,
    progress: &Progress,
) -> Result<Measured, BenchError> {
    let client = Client::connect(cluster).await?;
    client.wait_until_ready(cluster).await?;
    progress.step(&format!("{} runs one by one", options.alone));
    let (shards, alone) = one_by_one(&client, options, sample).await?;
    let interval = if streams {
        progress.step(&format!("{} runs, {} at a time", options.runs, options.in_flight));
        Some(stream(&client, options, sample).await?)
    } else {
        None
    };
    cluster.check_alive()?;
    Ok(Measured { shards, alone, interval })
}

/// Each shard's time, and that of the whole run.
async fn one_by_one(
    client: &Client,
    options: &PipelineOptions,
    sample: &[FloatTensor],
) -> Result<(Vec<Summary>, Summary), BenchError> {
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
    let shards = shards.into_iter().map(Summary::of).collect::<Option<Vec<_>>>();
    shards.zip(Summary::of(whole)).ok_or(BenchError::NothingMeasured)
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
        let PipelineRow { model, shards, runs, in_flight, interval, slowest, total_by_cores, ratio, allowed, met } =
            &self.row;
        writeln!(f, "{model} in {shards} shards, no proofs")?;
        writeln!(f, "{}\n", self.conditions.line())?;
        let row = |name: String, times: &Summary| {
            let cells = [times.min, times.median, times.max].map(report::time);
            std::iter::once(name).chain(cells).collect::<Vec<_>>()
        };
        let shards = self.by_shard.iter().enumerate().map(|(index, times)| row(format!("shard {index} alone"), times));
        let single = self.by_shard_on_one_thread.iter().enumerate();
        let single = single.map(|(index, times)| row(format!("shard {index} on one thread"), times));
        let whole = row("whole run alone".to_owned(), &self.alone);
        let rows: Vec<Vec<String>> = shards.chain(single).chain([whole]).collect();
        writeln!(f, "{}", table(&["", "min", "median", "max"], &rows))?;
        let time = |seconds: &f64| report::time(*seconds);
        writeln!(f, "an answer every {} ({runs} runs, {in_flight} at a time)", time(interval))?;
        writeln!(
            f,
            "bounds: slowest shard {}, all shards on one thread by cores {}",
            time(slowest),
            time(total_by_cores)
        )?;
        writeln!(f, "{ratio:.2} times the larger bound")?;
        match met {
            Some(met) => writeln!(f, "target: at most {}: {}", time(allowed), if *met { "met" } else { "MISSED" })?,
            None => writeln!(f, "no target: the slowest shard takes less than {}", time(&TARGET_SLOWEST))?,
        }
        writeln!(f, "table: {}", self.directory.display())
    }
}
