//! `service_cost`: what the service adds to the ezkl calls that it makes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shardproof_benchmarking::cost::{self, CostOptions};
use shardproof_benchmarking::report;

/// What the service adds to the ezkl calls that it makes.
///
/// A model as one shard, through a coordinator and one worker, against a plain Python script (`scripts/plain_ezkl.py`) that
/// makes the same ezkl calls with the same ONNX bytes, run arguments, package and SRS; the two alternate, after one pass to warm
/// up. Every pass begins with empty data directories. Both sides must end with the same verifying key.
///
/// Setup from the programs' start: for the service until the card is published (start, planning, settings, calibration,
/// compilation, keys, digests), for the script until keys are written (start of Python, import of ezkl, the same calls).
/// Making the SRS and installing ezkl are excluded on both sides. Setup of the shard alone: the coordinator's own time for
/// the shard against the sum of the calls.
///
/// Witness, prove, verify: the worker's or coordinator's own time, all checks included, against the call alone. Witness and
/// verify, the first of their kind, start a Python process each; the proof finds the one that served the witness. The service
/// verifies every proof twice, once cut short by a byte, which must fail. Prove and verify as the client sees it: from the
/// request until the run is verified, against the two calls.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo model or path of an .onnx file
    #[arg(default_value = "mlp")]
    model: String,
    /// How often each side is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// SRS file for both sides [default: the cached test SRS, which is insecure]
    #[arg(long, value_name = "FILE")]
    srs: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = CostOptions { model: cli.model, repeats: cli.repeats.into(), srs: cli.srs };
    report::conclude("service_cost", cli.json, cost::measure(options)).await
}
