//! Ending without losing a run.
//!
//! Whoever was told that a run is accepted gets its answer, even when the coordinator is told to stop right afterwards: it then
//! takes no more runs and no more requests for proofs, and waits for what is under way. Not for ever: after the drain deadline
//! it ends all the same, and what is left goes on from the store when it starts again. A worker that is to stop says so; it
//! gets no further runs and is let go once no run needs it.

use std::sync::Arc;

use shardproof_common::receipt::PublicKey;
use tonic::Status;

use crate::Coordinator;
use crate::record::RunRecord;
use crate::registry::SessionId;

impl Coordinator {
    /// Refuses new work once the coordinator is told to stop.
    pub(crate) fn check_accepting(&self) -> Result<(), Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable(
                "the coordinator is stopping and takes nothing more: try again when it is back",
            ));
        }
        Ok(())
    }

    /// Shuts down once the coordinator is told to stop and nothing is under way, or the drain deadline has passed.
    pub(crate) async fn drain(self: Arc<Self>) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = self.shutdown.cancelled() => return,
        }
        let under_way = self.runs.under_way().len();
        tracing::info!(under_way, "taking no more runs");
        let rested = self.until_no_run(|_| true);
        if tokio::time::timeout(self.settings.drain_deadline, rested).await.is_err() {
            let under_way = self.runs.under_way().len();
            tracing::warn!(under_way, "the drain deadline has passed: what is under way goes on at the next start");
        }
        self.shutdown.cancel();
    }

    /// Ends the session of a worker that is to stop as soon as no run needs it.
    pub(crate) async fn let_go(self: Arc<Self>, session: SessionId, worker: PublicKey) {
        let Some(shard) = self.cluster.leaving(session) else {
            self.cluster.dismiss(session);
            return;
        };
        tracing::info!(worker = worker.short(), %shard, "the worker is to stop: it gets no further runs");
        tokio::select! {
            () = self.until_no_run(|run| run.awaits_passage(shard) || run.owed_by(shard, worker)) => {}
            () = self.shutdown.cancelled() => {}
        }
        self.cluster.dismiss(session);
    }

    /// Waits until no run is under way that is as described. Runs that are accepted meanwhile are waited for as well.
    async fn until_no_run(&self, described: impl Fn(&RunRecord) -> bool) {
        let waits = |run: &RunRecord| run.under_way() && described(run);
        while let Some(run) = self.runs.under_way().into_iter().find(&waits) {
            match self.runs.watch(run.id).await {
                Ok(Some(mut watch)) => {
                    // The sender lives in the run table for as long as the run is under way.
                    let _rested = watch.wait_for(|run| !waits(run)).await;
                }
                Ok(None) | Err(_) => {
                    tracing::error!(run = %run.id, "cannot read a run that is under way");
                    return;
                }
            }
        }
    }
}
