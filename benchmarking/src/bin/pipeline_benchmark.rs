//! `pipeline_benchmark`: throughput of the pipeline without proofs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shardproof_benchmarking::pipeline::{self, PipelineOptions};
use shardproof_benchmarking::report;

/// Throughput of the pipeline without proofs, against its slowest shard and against all cores.
///
/// A coordinator and a worker per shard are started as processes, on this machine. Runs go through one by one first, for each
/// shard's time with the machine to itself as its worker tells it, with workers of one thread and with workers as they are;
/// then several are under way at a time, for the interval between answers. The target, for models whose slowest shard takes at
/// least 20 ms: at most 1.5 times the larger of the slowest shard and all shards on one thread by the number of cores, plus 1
/// ms.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo models or paths of .onnx files
    #[arg(value_name = "MODEL", default_values = ["attention", "gpt2block"])]
    models: Vec<String>,
    /// Number of shards
    #[arg(long, default_value_t = 4)]
    shards: usize,
    /// Runs that go through one by one
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    alone: u16,
    /// Runs of the stream that count
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Runs under way at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Where the table goes
    #[arg(long, value_name = "DIR", default_value = "benchmark-results/pipeline")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Options for the coordinator, after `--`
    #[arg(last = true)]
    coordinator: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = PipelineOptions {
        models: cli.models,
        shards: cli.shards,
        alone: cli.alone.into(),
        runs: cli.runs.into(),
        in_flight: cli.in_flight.into(),
        directory: cli.out,
        coordinator_options: cli.coordinator,
    };
    report::conclude("pipeline", cli.json, pipeline::measure(options)).await
}
