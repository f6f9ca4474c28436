//! `shardproof coordinator` and `shardproof worker`: the services, in this program.

use anyhow::Result;
use shardproof_common::telemetry::{self, LogFormat};
use shardproof_coordinator::CoordinatorArgs;
use shardproof_worker::WorkerArgs;

use crate::output::Outcome;

/// Runs a coordinator until it is told to stop.
pub(crate) async fn coordinator(args: CoordinatorArgs) -> Result<Outcome> {
    let log_format = args.service.log_format;
    Ok(outcome(shardproof_coordinator::run(args).await, log_format))
}

/// Runs a worker until it is told to stop.
pub(crate) async fn worker(args: WorkerArgs) -> Result<Outcome> {
    let log_format = args.log_format;
    Ok(outcome(shardproof_worker::run(args).await, log_format))
}

/// What came of a service, whose failure is told as it logs.
fn outcome(ended: Result<()>, log_format: LogFormat) -> Outcome {
    match ended {
        Ok(()) => Outcome::Success,
        Err(error) => {
            telemetry::report(error.as_ref(), log_format);
            Outcome::Failure
        }
    }
}
