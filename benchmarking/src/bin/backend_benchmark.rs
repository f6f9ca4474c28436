//! `backend_benchmark`: proof systems side by side.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;
use shardproof_benchmarking::backends::builtin::Builtin;
use shardproof_benchmarking::backends::builtin::step::{self, Task};
use shardproof_benchmarking::backends::comparison::{self, Request};
use shardproof_benchmarking::backends::compatibility::{self, CompatibilityRequest};
use shardproof_benchmarking::backends::error::{ComparisonError, Stop};
use shardproof_benchmarking::backends::interrupt;
use shardproof_benchmarking::backends::models::{Family, members};
use shardproof_benchmarking::backends::process::{self, Limits};
use shardproof_benchmarking::backends::session::Terms;
use shardproof_benchmarking::backends::subject::Subject;
use shardproof_benchmarking::backends::system::systems;
use shardproof_common::machine;
use shardproof_common::plan::CalibrationTarget;
use shardproof_ezkl::EzklConfig;
use shardproof_models::ModelSource;

const NAME: &str = "backends";

/// Proof systems side by side: the same model, input and machine, in one run, taking turns.
///
/// All systems are set up, then in each round every system proves and verifies once, another one first each time. Every step
/// is a process of its own, so nothing is warm but the system's file cache. After its first proof each system verifies once
/// more with one input value of the claim changed by one; it must reject that, or its row is a failure. The control is not
/// timed.
///
/// `setup`, `witness`, `prove` and `verify` are medians by the system's own clock, setup of a single one. For the built-in
/// systems: setup is quantisation, compilation and keys, and excludes installing ezkl and making its test SRS; witness is
/// running the model in integers, prove the first proof of the process, for gkr with keys loaded and with the run that it
/// repeats, for ezkl with reading its keys; verify starts with the proof's bytes and excludes reading gkr's key, and for ezkl includes a second check of
/// the proof cut short by a byte, which must fail. Starting Python counts in ezkl's witness and verify. What an adapter
/// counts it says itself. `process` is the benchmark's own clock around the whole step: start of the process, loading keys,
/// witness and proof; it contains the same for all systems.
///
/// Peak memory is of a step's processes together, sampled every 10 ms, or what the step says of itself if that is more. Sizes
/// are of files: a witness that never leaves memory has none, and an SRS is part of no key. Errors are differences of the
/// answers that were proven from the float model's on the same inputs, the first of the samples that calibration sees.
///
/// A system that crashes, is wrong, or hits a limit is `failed: reason`; one that says it cannot do a model is
/// `unsupported`, one that isn't installed, or is predicted to take more memory than allowed, `skipped`. Exit code: 0, or 1
/// when a system failed or the benchmark was stopped; what was measured is written all the same.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// Zoo models, generated models (mlp:DEPTH,WIDTH, cnn:SHAPE,WIDTH), or paths of .onnx files [default: mlp]
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Generated models of the model type: DEPTH,WIDTH:... for mlp, SHAPE,WIDTH:... with SHAPE mnist or cifar10 for cnn
    #[arg(long, value_name = "A,B:C,D")]
    configs: Option<String>,
    /// Family of the configurations: mlp or cnn
    #[arg(long, value_name = "TYPE", default_value = "mlp")]
    model_type: Family,
    /// Built-in systems: gkr-committed, gkr-public, ezkl, ezkl-hashed, ezkl-private; may be empty (--systems=)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "gkr-committed,gkr-public,ezkl")]
    systems: Vec<String>,
    /// Folder of an adapter, see benchmarking/adapters/README.md; may be given several times
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// How often each system proves each model
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Inputs to prove of each model, in turn; more of them than repeats make as many rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Threads that a step may use [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    num_threads: Option<u16>,
    /// What quantisation aims at: resources or accuracy
    #[arg(long, default_value = "resources")]
    target: CalibrationTarget,
    /// Wall-clock limit of each step, s
    #[arg(long, value_name = "SECS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..))]
    time_limit: u64,
    /// Memory limit of each step: 8G, 500M [default: the machine's memory]
    #[arg(long, value_name = "BYTES", value_parser = machine::parse_bytes)]
    memory_limit: Option<u64>,
    /// Where tables and plots go
    #[arg(long, value_name = "DIR", default_value = "benchmark-results/backends")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Try models of one operator each instead: which can be proven at all?
    #[arg(long, conflicts_with_all = ["models", "configs", "repeats", "samples"])]
    compatibility: bool,
}

/// What this program asks of itself.
#[derive(Subcommand)]
enum Hidden {
    /// One step of a built-in system.
    #[command(hide = true)]
    Step {
        #[arg(value_parser = |name: &str| Builtin::named(name).ok_or("no such system"))]
        system: Builtin,
        task: Task,
    },
    /// Becomes a program that ends with the benchmark.
    #[command(hide = true)]
    Guard {
        benchmark: i32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.hidden {
        Some(Hidden::Step { system, task }) => step::run(system, task),
        Some(Hidden::Guard { benchmark, command }) => process::guard(benchmark, &command),
        None => conclude(cli.json, run(&cli)),
    }
}

/// What is printed, and whether all went well.
struct Outcome {
    table: String,
    object: serde_json::Value,
    whole: bool,
}

impl Outcome {
    fn of(result: &(impl Serialize + Display), whole: bool) -> Self {
        let object = serde_json::to_value(result).expect("results have names as keys");
        Self { table: result.to_string(), object, whole }
    }
}

fn run(cli: &Cli) -> Result<Outcome, ComparisonError> {
    let named: Vec<String> = cli.systems.iter().filter(|name| !name.is_empty()).cloned().collect();
    if named.is_empty() && cli.adapters.is_empty() {
        Cli::command().error(ErrorKind::MissingRequiredArgument, "no system: name one, or give an adapter").exit();
    }
    let systems = systems(&named, &cli.adapters)?;
    let names = model_names(cli);
    let load = |name: &String| Subject::load(&ModelSource::resolve(name)?, cli.samples.into());
    let interrupted = interrupt::flag().map_err(|source| ComparisonError::Io { path: "signals".into(), source })?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let terms = Terms {
        threads: cli.num_threads.map_or_else(cores, usize::from),
        target: cli.target,
        limits: Limits {
            time: Duration::from_secs(cli.time_limit),
            memory_bytes: cli.memory_limit.or_else(machine::memory_bytes).unwrap_or(u64::MAX),
        },
        cache: EzklConfig::from_env().cache_dir().join("adapters"),
        interrupted: &interrupted,
    };
    let out = cli.out.clone();
    if cli.compatibility {
        let found = compatibility::measure(&CompatibilityRequest { systems: &systems, terms, out })?;
        return Ok(Outcome::of(&found, !found.interrupted));
    }
    let subjects = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let repeats = cli.repeats.into();
    let found = comparison::measure(&Request { subjects: &subjects, systems: &systems, repeats, terms, out })?;
    let failed = found.rows.iter().any(|row| matches!(row.status.0, Some(Stop::Failed(_))));
    Ok(Outcome::of(&found, !found.interrupted && !failed))
}

/// The models asked for; a configuration that is none ends the program as wrong usage.
fn model_names(cli: &Cli) -> Vec<String> {
    let configured = cli.configs.as_deref().map(|configs| members(cli.model_type, configs)).transpose();
    let configured =
        configured.unwrap_or_else(|reason| Cli::command().error(ErrorKind::ValueValidation, reason).exit());
    let mut names: Vec<String> = cli.models.iter().cloned().chain(configured.unwrap_or_default()).collect();
    if names.is_empty() {
        names.push("mlp".to_owned());
    }
    names
}

fn conclude(json: bool, outcome: Result<Outcome, ComparisonError>) -> ExitCode {
    let (text, whole) = match outcome {
        Ok(Outcome { object, whole, .. }) if json => (format!("{object:#}"), whole),
        Ok(Outcome { table, whole, .. }) => (table, whole),
        Err(error) => {
            eprintln!("{NAME}: failed: {error}");
            let failure = serde_json::json!({ "benchmark": NAME, "failed": error.to_string() });
            (if json { format!("{failure:#}") } else { String::new() }, false)
        }
    };
    let text = text.trim_end();
    let printed = text.is_empty() || writeln!(std::io::stdout().lock(), "{text}").is_ok();
    if whole && printed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
