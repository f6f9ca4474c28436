//! `shardproof coordinator` and `shardproof worker`: the services, in this program.

use anyhow::Result;
use shardproof_coordinator::CoordinatorArgs;
use shardproof_worker::WorkerArgs;

use crate::output::Outcome;

/// Runs a coordinator until it is told to stop.
pub(crate) async fn coordinator(args: CoordinatorArgs) -> Result<Outcome> {
    shardproof_coordinator::run(args).await?;
    Ok(Outcome::Success)
}

/// Runs a worker until it is told to stop.
pub(crate) async fn worker(args: WorkerArgs) -> Result<Outcome> {
    shardproof_worker::run(args).await?;
    Ok(Outcome::Success)
}
