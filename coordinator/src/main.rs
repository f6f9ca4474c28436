//! `coordinator <host> <port> <shards> <model>`: splits a model, sets it up, and runs and verifies it over workers.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use shardproof_common::{options, process, telemetry};
use shardproof_coordinator::CoordinatorArgs;

/// As in a worker, whose shards the coordinator runs too: for setup, and for evidence.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
#[command(
    name = "coordinator",
    version,
    about = "Splits a model over workers, runs it, verifies and chains their proofs"
)]
struct Cli {
    #[command(flatten)]
    args: CoordinatorArgs,
}

fn main() -> ExitCode {
    let args = options::parse::<Cli>().args;
    let log_format = args.service.log_format;
    match process::run(shardproof_coordinator::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::report(error.as_ref(), log_format);
            ExitCode::FAILURE
        }
    }
}
