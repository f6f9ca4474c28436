//! `worker <host> <port> <coordinator_host> <coordinator_port> <ROLE>`: runs and proves one shard.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use shardproof_common::{options, process, telemetry};
use shardproof_worker::WorkerArgs;

/// The system's allocator gives large tensors back after each run and takes as long as the run to fetch them again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
#[command(name = "worker", version, about = "Runs one shard of a model and proves its runs on request")]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ExitCode {
    let args = options::parse::<Cli>().args;
    let log_format = args.log_format;
    match process::run(shardproof_worker::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::report(error.as_ref(), log_format);
            ExitCode::FAILURE
        }
    }
}
