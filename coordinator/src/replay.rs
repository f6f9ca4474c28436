//! Proofs of earlier runs whose worker is gone for good.
//!
//! A shard is proven from its input, which the worker that ran it has spooled; when that worker does not come back, its spool
//! does not either. Every input follows from boundary 0, which is kept here: so the run is sent through its shards once more,
//! as a new attempt. Workers that have it answer from their spools, the one that took the shard over spools its input, runs the
//! shard, and signs for it. Its receipt takes the place of the lost worker's only where both say the same, because the answer was
//! delivered: a spare can vouch for what happened, never change it. The trade-off is one more inference, whichever shard it is
//! about, for needing neither a message of its own nor anyone's access to another's spool.

use std::sync::Arc;

use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::receipt::PublicKey;
use tokio::time::Instant;

use crate::Coordinator;
use crate::record::RunRecord;

impl Coordinator {
    /// Whether another worker holds the shard that `worker` gave a receipt for, and can vouch for it.
    pub(crate) fn has_successor(&self, shard: ShardIndex, worker: PublicKey) -> bool {
        self.cluster
            .with(|registry| registry.holder(shard).is_some_and(|(_, member)| member.serves() && member.key != worker))
    }

    /// Sends an answered run through its shards again, so that the worker that holds `shard` now can prove it. Whether its
    /// receipt comes is for the grace of the request to say.
    pub(crate) async fn replay(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        let Ok(prepared) = self.serving() else { return };
        let deadline = Instant::now() + self.settings.run_deadline;
        if let Err(vacant) = self.await_workers(deadline).await {
            tracing::warn!(%run, %shard, %vacant, "cannot replay the run: a shard has no worker");
            return;
        }
        let Some(Some(attempt)) = self.runs.change(run, RunRecord::begin_replay).await else { return };
        tracing::info!(%run, %shard, attempt, "replaying the run: the worker that gave the shard's receipt is gone");
        let Ok(record) = self.find_run(run).await else { return };
        let encoding = match self.read_input(&record).await {
            Ok(encoding) => encoding,
            Err(trouble) => {
                tracing::warn!(%run, %shard, reason = trouble.reason, "cannot replay the run");
                return;
            }
        };
        if let Err(status) = self.deliver_input(&prepared, run, attempt, encoding, deadline).await {
            tracing::warn!(%run, %shard, reason = status.message(), "cannot replay the run: its input was not taken");
        }
    }

    /// Asks the worker whose receipt took the place of a lost one's for the proof that is owed.
    pub(crate) async fn ask_successor(self: &Arc<Self>, run: RunId, shard: ShardIndex, worker: PublicKey) {
        let renewed = self.runs.change(run, |record| {
            let owed = record.owed_by(shard, worker);
            if owed {
                record.renew_attempt(shard);
            }
            owed
        });
        if renewed.await == Some(true) {
            self.send_jobs(shard, &[run]).await;
        }
    }
}
