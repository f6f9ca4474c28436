//! `worker <host> <port> <coordinator_host> <coordinator_port> <ROLE>`: runs and proves one shard.

use clap::Parser;
use shardproof_worker::WorkerArgs;

#[derive(Parser)]
#[command(name = "worker", version, about = "Runs one shard of a model and proves its runs on request")]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    shardproof_worker::run(Cli::parse().args).await
}
