//! `hop_benchmark`: what it takes to pass a boundary from one worker to the next.

use std::process::ExitCode;

use clap::Parser;
use shardproof_benchmarking::hop::{self, HopOptions};
use shardproof_benchmarking::report;

/// Time to pass a boundary from one worker to the next, on this machine's loopback.
///
/// Starts a coordinator and two workers in float mode on a model whose inner boundary has the given size, and submits one run
/// after another.
///
/// The time is the sending worker's: it includes sending the encoded boundary with its header and receipt, receiving it,
/// checking digest, shape and plan, writing it to the receiver's spool, and the acknowledgement. It excludes computing the
/// shard, encoding the boundary, signing the receipt and the coordinator.
///
/// Compared with a plain TCP connection on loopback, already open, that carries as many bytes and an acknowledgement of one
/// byte, once after each run. It checks and keeps nothing, so it is a limit rather than a competitor.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// MiB of floats in the boundary
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    mebibytes: u32,
    /// Runs that count
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Runs before, which do not count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    warmup: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = HopOptions { mebibytes: cli.mebibytes, runs: cli.runs.into(), warmup: cli.warmup.into() };
    report::conclude("hop", cli.json, hop::measure(options)).await
}
