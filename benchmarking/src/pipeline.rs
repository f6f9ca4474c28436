//! Throughput of the pipeline without proofs, against what the shards' own work allows.
//!
//! First runs go through one by one: each shard's time is the worker's own, from taking the boundary up to the signed receipt,
//! with the machine to itself. Then a steady stream keeps several runs under way at a time. No service can take less
//! time for each run than its slowest shard, nor than all shards together on all cores; the interval between answers is
//! compared with the larger of the two.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::processes::{Cluster, Programs};
use crate::progress::Progress;
use crate::report::{self, table};
use crate::stats::Summary;

/// How many times the bound an interval may be.
pub const TARGET_RATIO: f64 = 1.5;
/// What it may be longer besides, seconds.
pub const TARGET_EXTRA: f64 = 0.001;
/// The slowest shard that the target is for takes at least so long, seconds.
pub const TARGET_SLOWEST: f64 = 0.020;

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
    /// Options that the coordinator gets as they are.
    pub coordinator_options: Vec<String>,
}

/// What was measured; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineReport {
    benchmark: &'static str,
    conditions: Conditions,
    model: String,
    /// Each shard with the machine to itself.
    shards: Vec<Summary>,
    /// A whole run, from sending the input to the answer, one by one.
    alone: Summary,
    /// Median of the slowest shard.
    slowest: f64,
    /// Sum of all shards' medians by the number of cores.
    total_by_cores: f64,
    /// Time between answers in the stream, on average.
    interval: f64,
    runs: usize,
    in_flight: usize,
    /// Interval by the larger of the two bounds.
    ratio: f64,
    /// Longest interval that meets the target.
    allowed: f64,
    /// Whether it is met; nothing where the slowest shard is too fast for it.
    met: Option<bool>,
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
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let conditions = Conditions::now();
    let progress = Progress::begin();
    progress.step(&format!("{} in {} shards: setup", options.model, options.shards));
    let given: Vec<&str> = options.coordinator_options.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start(&programs, directory.path(), &options.model, options.shards, &given, &[]).await?;
    let measured = drive(&mut cluster, &options, &sample, &progress, conditions).await;
    cluster.stop().await;
    measured
}

async fn drive(
    cluster: &mut Cluster,
    options: &PipelineOptions,
    sample: &[FloatTensor],
    progress: &Progress,
    conditions: Conditions,
) -> Result<PipelineReport, BenchError> {
    let client = Client::connect(cluster).await?;
    client.wait_until_ready(cluster).await?;
    progress.step(&format!("{} runs one by one", options.alone));
    let (shards, alone) = one_by_one(&client, options, sample).await?;
    progress.step(&format!("{} runs, {} at a time", options.runs, options.in_flight));
    let interval = stream(&client, options, sample).await?;
    cluster.check_alive()?;

    let slowest = shards.iter().map(|shard| shard.median).fold(0.0, f64::max);
    let total_by_cores = shards.iter().map(|shard| shard.median).sum::<f64>() / conditions.cores as f64;
    let bound = slowest.max(total_by_cores);
    let allowed = TARGET_RATIO * bound + TARGET_EXTRA;
    Ok(PipelineReport {
        benchmark: "pipeline",
        conditions,
        model: options.model.clone(),
        shards,
        alone,
        slowest,
        total_by_cores,
        interval,
        runs: options.runs,
        in_flight: options.in_flight,
        ratio: interval / bound,
        allowed,
        met: (slowest >= TARGET_SLOWEST).then_some(interval <= allowed),
    })
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
        writeln!(f, "{} in {} shards, no proofs", self.model, self.shards.len())?;
        writeln!(f, "{}\n", self.conditions.line())?;
        let row = |name: String, times: &Summary| {
            let cells = [times.min, times.median, times.max].map(report::time);
            std::iter::once(name).chain(cells).collect::<Vec<_>>()
        };
        let shards = self.shards.iter().enumerate().map(|(index, times)| row(format!("shard {index} alone"), times));
        let rows: Vec<Vec<String>> = shards.chain([row("whole run alone".to_owned(), &self.alone)]).collect();
        writeln!(f, "{}", table(&["", "min", "median", "max"], &rows))?;
        let Self { runs, in_flight, interval, slowest, total_by_cores, ratio, allowed, .. } = self;
        let time = |seconds: &f64| report::time(*seconds);
        writeln!(f, "an answer every {} ({runs} runs, {in_flight} at a time)", time(interval))?;
        writeln!(f, "bounds: slowest shard {}, all shards by cores {}", time(slowest), time(total_by_cores))?;
        writeln!(f, "{ratio:.2} times the larger bound")?;
        match self.met {
            Some(met) => writeln!(f, "target: at most {}: {}", time(allowed), if met { "met" } else { "MISSED" }),
            None => writeln!(f, "no target: the slowest shard takes less than {}", time(&TARGET_SLOWEST)),
        }
    }
}
