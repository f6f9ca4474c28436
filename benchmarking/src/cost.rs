//! What the service adds to the ezkl calls that it makes.
//!
//! A model as one shard goes through a coordinator and a SOLO worker on one side, and through a plain Python script that makes
//! the same ezkl calls, on the same ONNX bytes, with the same run arguments, package and SRS, on the other. The two alternate.
//! That both did the same is not assumed: their verifying keys must be equal, bit for bit.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use shardproof_common::card::{EzklKeys, ModelCard, ShardKeys};
use shardproof_common::ids::Digest;
use shardproof_common::plan::{BackendOptions, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_ezkl::{EzklConfig, Installation};
use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy, input};

use crate::client::Client;
use crate::error::BenchError;
use crate::processes::{Cluster, Programs, WorkerOptions};
use crate::report::{profile, table};
use crate::script::{self, Job, Step};
use crate::stats::Summary;

/// What the service may take of the script's time, for setup and for proving.
pub const TARGET_RATIO: f64 = 1.15;
/// The coordinator's: samples that calibration uses, the seed of made-up ones, and how much wider tables are made.
const SAMPLES: usize = 8;
const SEED: u64 = 0;
const LOOKUP_SAFETY_MARGIN: f64 = 2.0;

/// What is measured.
#[derive(Clone, Debug)]
pub struct CostOptions {
    /// Zoo model or path.
    pub model: String,
    /// How often each side is measured.
    pub repeats: usize,
    /// A ceremony's SRS for both sides; the cached test SRS otherwise.
    pub srs: Option<PathBuf>,
}

/// One side of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Which.
    step: &'static str,
    /// Through the service, s.
    service_s: Summary,
    /// By the script, s.
    script_s: Summary,
    /// Median over median.
    ratio: f64,
    /// Whether the ratio has a target, and meets it.
    met: Option<bool>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct CostReport {
    benchmark: &'static str,
    profile: &'static str,
    model: String,
    logrows: u32,
    target_ratio: f64,
    steps: Vec<StepReport>,
}

/// The times of one side, one time.
#[derive(Clone, Debug)]
struct Times {
    setup: Duration,
    setup_calls: Duration,
    witness: Duration,
    prove: Duration,
    verify: Duration,
    prove_and_verify: Duration,
}

/// What both sides are given.
struct Subject {
    onnx: Vec<u8>,
    samples: Vec<Vec<FloatTensor>>,
    config: EzklConfig,
}

/// Measures.
///
/// # Errors
/// When either side fails, or the two did not do the same.
pub async fn measure(options: CostOptions) -> Result<CostReport, BenchError> {
    let programs = Programs::find()?;
    let subject = subject(&options)?;
    // Installs ezkl, makes the SRS and fills the system's caches, none of which is part of the comparison.
    eprintln!("warming up");
    let (_, card) = service(&programs, &options, &subject.samples[0]).await?;
    let (mut services, mut scripts) = (Vec::new(), Vec::new());
    for repeat in 0..options.repeats {
        eprintln!("measuring, {} of {}", repeat + 1, options.repeats);
        // Which side goes first alternates as well: what the machine does in between hits both.
        if repeat % 2 == 0 {
            services.push(service(&programs, &options, &subject.samples[0]).await?.0);
        }
        scripts.push(plain(&subject, &options, &card).await?);
        if repeat % 2 == 1 {
            services.push(service(&programs, &options, &subject.samples[0]).await?.0);
        }
    }
    Ok(CostReport {
        benchmark: "service_cost",
        profile: profile(),
        model: options.model,
        logrows: keys(&card)?.srs.logrows,
        target_ratio: TARGET_RATIO,
        steps: steps(&services, &scripts),
    })
}

fn subject(options: &CostOptions) -> Result<Subject, BenchError> {
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &LoadOptions::default())?;
    let mut split = model.split(&SplitRequest {
        shards: 1,
        strategy: Strategy::Balanced,
        backend: &|_| BackendOptions::Ezkl(EzklOptions::default()),
        modes: BoundaryModes::default(),
    })?;
    let samples = input::samples(&source, &model, SAMPLES, SEED)?.inputs;
    let config = EzklConfig { srs: options.srs.clone(), ..EzklConfig::from_env() };
    Ok(Subject { onnx: split.shards.swap_remove(0).onnx, samples, config })
}

/// One pass through the service, from nothing: data directories are new, so no key is found done.
async fn service(
    programs: &Programs,
    options: &CostOptions,
    input: &[FloatTensor],
) -> Result<(Times, ModelCard), BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let srs = options.srs.as_ref().map(|path| path.display().to_string());
    let mut arguments = vec!["--backend", "ezkl"];
    if let Some(srs) = &srs {
        arguments.extend(["--srs", srs.as_str()]);
    }
    let started = Instant::now();
    let mut cluster =
        Cluster::start(programs, directory.path(), &options.model, 1, &arguments, WorkerOptions::default()).await?;
    let outcome = pass(&mut cluster, input, started).await;
    cluster.stop().await;
    outcome
}

async fn pass(
    cluster: &mut Cluster,
    input: &[FloatTensor],
    started: Instant,
) -> Result<(Times, ModelCard), BenchError> {
    let client = Client::connect(cluster).await?;
    let serving = client.wait_until_ready(cluster).await?;
    let run = client.infer(input).await?;
    let asked = Instant::now();
    let run = client.prove(&run).await?;
    let prove_and_verify = asked.elapsed();
    let time_of =
        |get: fn(&shardproof_proto::v1::ShardProgress) -> u64| Duration::from_micros(run.shards.first().map_or(0, get));
    let times = Times {
        setup: serving.served - started,
        setup_calls: Duration::from_micros(serving.status.shards.first().map_or(0, |shard| shard.setup_us)),
        witness: time_of(|shard| shard.witness_us),
        prove: time_of(|shard| shard.prove_us),
        verify: time_of(|shard| shard.verify_us),
        prove_and_verify,
    };
    Ok((times, serving.card))
}

/// One pass of the script, with the run arguments of the service's card.
async fn plain(subject: &Subject, options: &CostOptions, card: &ModelCard) -> Result<Times, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let path = |name: &str| directory.path().join(name);
    let cache = subject.config.cache_dir();
    let test_srs = || cache.join("srs").join("insecure-test-{logrows}.srs");
    let job = Job {
        site: Installation::new(&subject.config).site(),
        directory: directory.path().to_owned(),
        model: path("model.onnx"),
        samples: path("samples.json"),
        input: path("input.json"),
        run_args: run_args(keys(card)?)?,
        target: "resources".to_owned(),
        scales: None,
        lookup_safety_margin: LOOKUP_SAFETY_MARGIN,
        logrows: None,
        srs: options.srs.clone().unwrap_or_else(test_srs).display().to_string(),
    };
    fs::write(&job.model, &subject.onnx).map_err(BenchError::io("writing the model"))?;
    write_data(&job.samples, &subject.samples)?;
    write_data(&job.input, &subject.samples[..1])?;
    let python = subject.config.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let steps = script::run(&python, &job).await?;
    same_keys(card, &path("vk.key"))?;

    let step = |name: &'static str| {
        let missing = || BenchError::ScriptOutput { line: String::new(), expected: name };
        steps.get(name).cloned().ok_or_else(missing)
    };
    let [settings, calibrate, compile, keys] = [step("settings")?, step("calibrate")?, step("compile")?, step("keys")?];
    let (witness, prove, verify): (Step, Step, Step) = (step("witness")?, step("prove")?, step("verify")?);
    Ok(Times {
        setup: keys.done,
        setup_calls: settings.call + calibrate.call + compile.call + keys.call,
        witness: witness.call,
        prove: prove.call,
        verify: verify.call,
        prove_and_verify: prove.call + verify.call,
    })
}

/// The run arguments that the service chose before calibration.
fn run_args(keys: &EzklKeys) -> Result<BTreeMap<String, Value>, BenchError> {
    let unreadable =
        |error: serde_json::Error| BenchError::Io { what: "the card's settings".to_owned(), source: error.into() };
    let settings: Value = serde_json::from_str(&keys.settings).map_err(unreadable)?;
    let copied = ["decomp_base", "decomp_legs"].map(|name| (name.to_owned(), settings["run_args"][name].clone()));
    let fixed = [
        ("input_visibility", json!("public")),
        ("output_visibility", json!("public")),
        ("param_visibility", json!("fixed")),
        ("check_mode", json!("safe")),
    ];
    Ok(fixed.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(copied).collect())
}

fn keys(card: &ModelCard) -> Result<&EzklKeys, BenchError> {
    match card.body.shards.first().map(|shard| &shard.keys) {
        Some(ShardKeys::Ezkl(keys)) => Ok(keys),
        _ => Err(BenchError::Setup("the card has no ezkl keys".to_owned())),
    }
}

/// The script's verifying key must be the service's: then circuit, weights, scales, tables, rows and SRS are the same.
fn same_keys(card: &ModelCard, script: &Path) -> Result<(), BenchError> {
    let service = keys(card)?.verifying_key;
    let script = Digest::of(&fs::read(script).map_err(BenchError::io("the script's verifying key"))?);
    if service == script {
        return Ok(());
    }
    let (service, script) = (service.to_string(), script.to_string());
    Err(BenchError::NotComparable { what: "the verifying key", service, script })
}

/// Samples in ezkl's form: one list for each of the model's inputs, the samples one after another.
fn write_data(path: &Path, samples: &[Vec<FloatTensor>]) -> Result<(), BenchError> {
    let inputs = samples.first().map_or(0, Vec::len);
    let list =
        |input: usize| samples.iter().flat_map(|sample| sample[input].values.iter().copied()).collect::<Vec<f32>>();
    let data = json!({ "input_data": (0..inputs).map(list).collect::<Vec<_>>() });
    fs::write(path, data.to_string()).map_err(BenchError::io(path.display().to_string()))
}

fn steps(services: &[Times], scripts: &[Times]) -> Vec<StepReport> {
    type Get = fn(&Times) -> Duration;
    let steps: [(&'static str, Get, bool); 6] = [
        ("setup, from the programs' start", |times| times.setup, true),
        ("setup, the shard alone", |times| times.setup_calls, false),
        ("witness", |times| times.witness, false),
        ("prove", |times| times.prove, true),
        ("verify", |times| times.verify, false),
        ("prove and verify, as the client sees it", |times| times.prove_and_verify, false),
    ];
    let report = |(step, get, targeted): (&'static str, Get, bool)| {
        let summary = |side: &[Times]| Summary::of(side.iter().map(|times| get(times).as_secs_f64()));
        let (service_s, script_s) = (summary(services)?, summary(scripts)?);
        let ratio = service_s.median / script_s.median;
        Some(StepReport { step, service_s, script_s, ratio, met: targeted.then_some(ratio <= TARGET_RATIO) })
    };
    steps.into_iter().filter_map(report).collect()
}

impl fmt::Display for CostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |times: &Summary| format!("{:.2} s ({:.2} to {:.2})", times.median, times.min, times.max);
        let row = |step: &StepReport| {
            let verdict = match step.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let ratio = format!("{:.3}", step.ratio);
            vec![step.step.to_owned(), cell(&step.service_s), cell(&step.script_s), ratio, verdict.to_owned()]
        };
        let rows: Vec<Vec<String>> = self.steps.iter().map(row).collect();
        let repeats = self.steps.first().map_or(0, |step| step.service_s.count);
        let (model, logrows, profile) = (&self.model, self.logrows, self.profile);
        writeln!(f, "{model} as one shard, logrows {logrows}, {repeats} times each, {profile} build\n")?;
        let target = format!("at most {}", self.target_ratio);
        writeln!(f, "{}", table(&["", "service", "plain script", "ratio", &target], &rows))?;
        write!(f, "Times are medians (least to greatest); verifying keys were equal each time.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(setup: u64, prove: u64) -> Times {
        let [setup, prove] = [setup, prove].map(Duration::from_secs);
        let one = Duration::from_secs(1);
        Times { setup, setup_calls: setup, witness: one, prove, verify: one, prove_and_verify: prove + one }
    }

    #[test]
    fn ratios_are_of_medians_and_judged_where_there_is_a_target() {
        let steps =
            steps(&[times(11, 12), times(12, 15), times(100, 13)], &[times(10, 10), times(10, 10), times(10, 10)]);
        assert_eq!((steps[0].ratio, steps[0].met), (1.2, Some(false)));
        assert_eq!((steps[3].ratio, steps[3].met), (1.3, Some(false)));
        assert_eq!(steps[4].met, None);
        let steps = super::steps(&[times(11, 10)], &[times(10, 10)]);
        assert_eq!((steps[0].ratio, steps[0].met), (1.1, Some(true)));
    }

    #[test]
    fn samples_follow_one_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.json");
        let sample = |value: f32| vec![FloatTensor { shape: vec![1, 2], values: vec![value, 0.5] }];
        write_data(&path, &[sample(1.0), sample(2.0)]).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), r#"{"input_data":[[1.0,0.5,2.0,0.5]]}"#);
    }
}
