//! `worker <host> <port> <coordinator_host> <coordinator_port> <ROLE>`: runs and proves one shard.

use clap::Parser;
use mimalloc::MiMalloc;
use shardproof_common::{options, process};
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

fn main() -> anyhow::Result<()> {
    process::run(shardproof_worker::run(options::parse::<Cli>().args))
}
