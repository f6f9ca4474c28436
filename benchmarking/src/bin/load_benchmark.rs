//! `load_benchmark`: what load the service holds without proofs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shardproof_benchmarking::load::{self, CLIENTS, LoadOptions, LoadReport};
use shardproof_benchmarking::report;

/// Runs per second and latency without proofs, over the number of clients.
///
/// One coordinator and a worker per shard are started as processes with empty data, on this machine, and serve one number
/// of clients after the other. Each client has a connection of its own and submits its next input, drawn from the model's
/// samples (else from random ones), once it has the answer to the last; every answer is compared with the one that the input
/// got before. The latency is the client's: sending the input, submitting, and waiting for the answer. The clients' own
/// processor time is in the table, since they share the machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo model or path of an .onnx file
    #[arg(default_value = "mlp")]
    model: String,
    /// Number of shards
    #[arg(long, default_value_t = 4)]
    shards: usize,
    /// Numbers of clients
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = CLIENTS)]
    clients: Vec<usize>,
    /// Seconds in which runs count, for each number of clients
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before, in which they do not
    #[arg(long, value_name = "SECS", default_value_t = 3)]
    warmup: u64,
    /// What inputs are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where table and plots go
    #[arg(long, value_name = "DIR", default_value = "benchmark-results/load")]
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
    let options = LoadOptions {
        model: cli.model,
        shards: cli.shards,
        clients: cli.clients,
        window: Duration::from_secs(cli.seconds),
        warmup: Duration::from_secs(cli.warmup),
        seed: cli.seed,
        directory: cli.out,
        coordinator_options: cli.coordinator,
    };
    report::conclude_whole("load", cli.json, load::measure(options), LoadReport::is_whole).await
}
