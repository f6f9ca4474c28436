//! Evidence against workers: made, checked as anyone would check it, and kept with the run.
//!
//! A worker is convicted only by evidence that checks, so a flaw in what leads here convicts nobody. What evidence is made of
//! stays in the run's record until it is kept: a coordinator that stops meanwhile takes it up again.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::{Job, Limits};
use shardproof_common::evidence::{Conviction, Evidence, EvidenceError, Executable};
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::{Admission, PublicKey, Receipt};
use shardproof_common::statement::Binding;
use shardproof_gkr_service::{GRAPH, GkrReexecutor, WEIGHTS};
use shardproof_proto::transport::artifacts::store_status;
use tonic::Status;

use crate::bundling::in_turn;
use crate::record::{DisputeStage, RunRecord};
use crate::setup::{Prepared, PreparedShard};
use crate::workers::Event;
use crate::{Coordinator, STORE_PAUSE};

impl Coordinator {
    /// Brings two receipts of one worker against it. The run's dispute ends with it.
    pub(crate) async fn accuse_of_contradiction(
        self: &Arc<Self>,
        run: RunId,
        prepared: &Prepared,
        (one, other): (Receipt, Receipt),
    ) {
        let admission = Admission::sign(one.worker, prepared.plan, &self.owner);
        self.accuse(run, Evidence::contradiction(&prepared.card, admission, one, other)).await;
        self.end_accusation(run).await;
    }

    /// Runs a shard again whose receipt or proof is in doubt, and brings what comes out against its worker if it is another
    /// output. The run's dispute ends with it.
    pub(crate) async fn reexecute(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        self.runs.change(run, |record| record.dispute_at(DisputeStage::Accusing)).await;
        match self.collect(run, shard).await {
            Ok(evidence) => {
                self.accuse(run, evidence).await;
            }
            Err(reason) => tracing::info!(%run, %shard, reason, "the shard is not run again"),
        }
        self.end_accusation(run).await;
    }

    /// Ends a run's dispute, unless a stop may be why no evidence was found.
    async fn end_accusation(&self, run: RunId) {
        if !self.shutdown.is_cancelled() {
            self.runs.change(run, RunRecord::end_accusation).await;
        }
    }

    /// Looks again for the evidence that an earlier process was looking for.
    pub(crate) async fn resume_accusation(self: Arc<Self>, run: RunRecord, shard: ShardIndex) {
        let Ok(prepared) = self.serving() else { return };
        match run.contradiction {
            Some(both) => self.accuse_of_contradiction(run.id, &prepared, *both).await,
            None => {
                if let Some((worker, before)) = input_holder(&run, shard) {
                    self.await_session(worker, before).await;
                }
                self.reexecute(run.id, shard).await;
            }
        }
    }

    /// Waits until a worker is back with its shard, no longer than one that owes a proof may be away.
    async fn await_session(&self, worker: PublicKey, shard: ShardIndex) {
        let mut changes = self.cluster.changes();
        let back = async { while self.session_with(worker, shard).is_none() && changes.changed().await.is_ok() {} };
        tokio::select! {
            _in_time = tokio::time::timeout(self.settings.rejoin_grace, back) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// A receipt with the input and the shard that it takes to run it again.
    async fn collect(self: &Arc<Self>, run: RunId, shard: ShardIndex) -> Result<Evidence, String> {
        let prepared = self.serving().map_err(|status| status.message().to_owned())?;
        let record = self.find_run(run).await.map_err(|status| status.message().to_owned())?;
        let receipt = record.receipt(shard).cloned().ok_or("its worker gave no receipt")?;
        let setup = prepared.shards.get(shard.as_usize()).ok_or("there is no such shard")?;
        if setup.card.backend.kind != BackendKind::Gkr {
            return Err(format!("shards of {} convict nobody", setup.card.backend.kind));
        }
        let input = match (&receipt.statement.input.binding, shard.0.checked_sub(1)) {
            (Binding::Public(digest), _) => {
                self.artifacts.read(*digest, self.settings.max_tensor_bytes).await.map_err(|error| error.to_string())?
            }
            (Binding::Committed(_), Some(before)) => self.ask_to_show(&prepared, &record, ShardIndex(before)).await?,
            (Binding::Committed(_), None) => return Err("nobody has its input".to_owned()),
        };
        let executable = Executable {
            graph: self.file_of(setup, GRAPH).await?.into(),
            weights: self.file_of(setup, WEIGHTS).await?.into(),
        };
        let admission = Admission::sign(receipt.worker, prepared.plan, &self.owner);
        Ok(Evidence::wrong_execution(&prepared.card, admission, receipt, input, executable))
    }

    async fn file_of(&self, setup: &PreparedShard, name: &str) -> Result<Vec<u8>, String> {
        let artifact = setup.files.get(name).ok_or_else(|| format!("its file {name} is missing"))?;
        self.artifacts.read(artifact.digest, u64::MAX).await.map_err(|error| error.to_string())
    }

    /// Checks evidence and, when it convicts, keeps it with the run and notes it against the worker.
    async fn accuse(self: &Arc<Self>, run: RunId, evidence: Evidence) -> Option<Conviction> {
        let stopping = || Ok(Err("the coordinator is stopping".to_owned()));
        let scratch = || async { tempfile::tempdir_in(&self.scratch) };
        let kept = match self.until_done("cannot check evidence yet", scratch).await {
            None => stopping(),
            Some(directory) => {
                let coordinator = self.clone();
                let check = tokio::task::spawn_blocking(move || coordinator.convict(&evidence, directory.path()));
                match check.await {
                    Ok(Ok((conviction, bytes))) => {
                        let kept = self.until_done("cannot keep evidence yet", || self.artifacts.put(&bytes)).await;
                        kept.map_or_else(stopping, |artifact| Ok(Ok((conviction, artifact))))
                    }
                    Ok(Err(reason)) => Ok(Err(reason)),
                    Err(panic) => Err(panic),
                }
            }
        };
        match kept {
            Ok(Ok((conviction, artifact))) => {
                tracing::warn!(%run, %conviction, "evidence kept");
                // The worker is out even while the database, without which the run does not change, is away.
                self.note(conviction.worker, Event::Convicted).await;
                self.runs.change(run, |record| record.evidence = Some(artifact)).await;
                Some(conviction)
            }
            Ok(Err(reason)) => {
                tracing::info!(%run, reason, "nobody is convicted");
                None
            }
            Err(panic) => {
                tracing::error!(%run, %panic, "checking evidence ended early");
                None
            }
        }
    }

    /// Tries until the disk or the object store does its part, however long that takes; nothing when the coordinator stops before.
    async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        trouble: &'static str,
        attempt: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => tracing::warn!(%error, "{trouble}, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// Blocking: the check that anyone can make, and the file.
    fn convict(&self, evidence: &Evidence, directory: &Path) -> Result<(Conviction, Vec<u8>), String> {
        let prepared = self.serving().map_err(|status| status.message().to_owned())?;
        let job = Job { directory, limits: Limits::default(), cancel: &self.shutdown, progress: &|_| {} };
        let conviction = evidence
            .check(&prepared.card, None, &GkrReexecutor, &job)
            .map_err(|error: EvidenceError| error.to_string())?;
        let bytes = evidence.encode().map_err(|error| error.to_string())?;
        Ok((conviction, bytes))
    }

    /// The evidence that a run left, as an artifact; without the shard's weights unless they are asked for.
    pub(crate) async fn evidence(self: &Arc<Self>, run: RunId, with_shard: bool) -> Result<Artifact, Status> {
        let record = self.find_run(run).await?;
        let kept = record.evidence.ok_or_else(|| {
            let so_far = if record.in_dispute() { " yet: a dispute is open" } else { "" };
            Status::not_found(format!("run {run} has no evidence against a worker{so_far}"))
        })?;
        if with_shard {
            return Ok(kept);
        }
        let coordinator = self.clone();
        in_turn(async move { coordinator.without_shard(kept).await }).await
    }

    /// Stores the same evidence without the shard's weights.
    async fn without_shard(&self, kept: Artifact) -> Result<Artifact, Status> {
        let bytes = self.artifacts.read(kept.digest, kept.size).await;
        let bytes = bytes.map_err(|error| store_status(&error))?;
        let reduce = move || Evidence::decode(&bytes)?.without_executable().encode();
        let reduced = tokio::task::spawn_blocking(reduce).await.map_err(|error| Status::internal(error.to_string()))?;
        let bytes = reduced.map_err(|error| Status::data_loss(error.to_string()))?;
        self.artifacts.put(&bytes).await.map_err(|error| store_status(&error))
    }
}

/// The worker that alone can show the input of a shard that would be run again, and its shard.
fn input_holder(run: &RunRecord, shard: ShardIndex) -> Option<(PublicKey, ShardIndex)> {
    let statement = &run.receipt(shard)?.statement;
    let before = shard.0.checked_sub(1).map(ShardIndex)?;
    let shown_by_worker = matches!(statement.input.binding, Binding::Committed(_));
    let convicts = statement.backend.kind == BackendKind::Gkr;
    (shown_by_worker && convicts).then_some((run.receipt(before)?.worker, before))
}

#[cfg(test)]
mod tests;
