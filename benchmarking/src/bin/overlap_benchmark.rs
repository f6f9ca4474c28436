//! `overlap_benchmark`: whether proofs of different shards are made at the same time.

use std::process::ExitCode;

use clap::Parser;
use shardproof_benchmarking::overlap::{self, OverlapOptions};
use shardproof_benchmarking::report;
use shardproof_benchmarking::system::ProvenBy;

/// Whether proofs of different shards are made at the same time.
///
/// Starts a coordinator and one worker per shard, every prover slowed by a delay that takes no processor time, runs
/// the model once and requests all proofs. The wall clock includes requesting, proving, sending and verifying; it excludes
/// setup and inference. Each proof's time is its worker's own and includes the delay and the time it shares this machine's
/// processors with the other provers.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo model or path of an .onnx file
    #[arg(default_value = "mlp")]
    model: String,
    /// Shards, and so workers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..))]
    shards: u16,
    /// What every prover waits before each proof, ms
    #[arg(long, default_value_t = 5000)]
    delay_ms: u64,
    /// What proves all shards; ezkl is installed if it is not there
    #[arg(long, value_enum, default_value_t = ProvenBy::Gkr)]
    backend: ProvenBy,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { model, shards, delay_ms, backend, json } = Cli::parse();
    let options = OverlapOptions { model, shards: shards.into(), delay_ms, backend };
    report::conclude("overlap", json, overlap::measure(options)).await
}
