//! A run as one file for whoever wants to check it.
//!
//! A bundle is in memory whole while it is put together, with all proofs and keys of its run, and anyone who may see runs may ask for
//! it: so few are made at a time, and others wait.

use std::sync::Arc;

use shardproof_common::artifacts::Artifact;
use shardproof_common::bundle::{Blob, Bundle, ShardProof, ShardRecord};
use shardproof_common::ids::RunId;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::receipt::Admission;
use shardproof_common::statement::{Binding, Boundary};
use shardproof_proto::transport::artifacts::store_status;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::Coordinator;
use crate::record::{ProofState, RunRecord, RunState};
use crate::runs::no_run;
use crate::setup::Prepared;

/// Places for bundles and evidence that are put together.
pub(crate) static ASSEMBLING: Semaphore = Semaphore::const_new(2);

/// Puts together what may be large, when its turn comes. It goes on when whoever asked hangs up, and holds its place: else asking and
/// hanging up would have any number made at a time.
pub(crate) async fn in_turn(
    assemble: impl Future<Output = Result<Artifact, Status>> + Send + 'static,
) -> Result<Artifact, Status> {
    let turn = ASSEMBLING.acquire().await.map_err(|error| Status::internal(error.to_string()))?;
    let assembled = tokio::spawn(async move {
        let _turn = turn;
        assemble.await
    });
    assembled.await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

impl Coordinator {
    /// Stores the bundle of a run and says where.
    pub(crate) async fn bundle(self: &Arc<Self>, run: RunId) -> Result<Artifact, Status> {
        let prepared = self.serving()?;
        let record = self.find_run(run).await?;
        if !prepared.provable() {
            return Err(Status::failed_precondition("float mode proves nothing, so there is no bundle to check"));
        }
        if record.plan != prepared.plan {
            return Err(Status::failed_precondition(format!(
                "run {run} was made under another plan than the one now served"
            )));
        }
        if matches!(record.state, RunState::Running | RunState::Failed) {
            return Err(Status::failed_precondition(format!("run {run} has no answer, so there is nothing to check")));
        }
        let coordinator = self.clone();
        in_turn(async move {
            let bundle = coordinator.assemble(&prepared, &record).await?;
            let encoded = spawn_blocking(move || bundle.encode()).await;
            let encoded = encoded.map_err(|error| Status::internal(error.to_string()))?;
            let bytes = encoded.map_err(|error| Status::resource_exhausted(error.to_string()))?;
            coordinator.artifacts.put(&bytes).await.map_err(|error| store_status(&error))
        })
        .await
    }

    async fn assemble(&self, prepared: &Prepared, record: &RunRecord) -> Result<Bundle, Status> {
        let mut shards = Vec::with_capacity(record.shards.len());
        for index in 0..record.shards.len() {
            shards.push(self.shard_record(prepared, record, index).await?);
        }
        let statements: Vec<_> = shards.iter().map(|shard| &shard.receipt.statement).collect();
        let last = statements.last().ok_or_else(|| Status::internal("a plan has shards"))?;
        let crossing = statements.iter().map(|statement| &statement.input).chain([&last.output]);
        let planned = &prepared.card.body.plan.boundaries;
        let mut boundaries = Vec::with_capacity(planned.len());
        for (boundary, plan) in crossing.zip(planned) {
            boundaries.push(self.shown(boundary, plan.mode).await?);
        }
        Ok(Bundle { card: prepared.card.digest(), run: record.id, boundaries, shards })
    }

    async fn shard_record(&self, prepared: &Prepared, record: &RunRecord, index: usize) -> Result<ShardRecord, Status> {
        let shard = &record.shards[index];
        let missing = || Status::failed_precondition(format!("shard {index} gave no receipt"));
        let receipt = shard.receipt.clone().ok_or_else(missing)?;
        let admission = Admission::sign(receipt.worker, prepared.plan, &self.owner);
        let made = shard.artifact.filter(|_| matches!(shard.proof, ProofState::Verified | ProofState::Rejected));
        let proof = match (made, prepared.shards[index].verifying_key) {
            (Some(proof), Some(key)) => Some(ShardProof {
                verifying_key: self.blob(key, u64::MAX).await?,
                proof: self.blob(proof, self.settings.max_proof_bytes).await?,
            }),
            _ => None,
        };
        Ok(ShardRecord { receipt, admission, proof })
    }

    async fn shown(&self, boundary: &Boundary, mode: BoundaryMode) -> Result<Option<Blob>, Status> {
        match (&boundary.binding, mode) {
            (Binding::Public(digest), BoundaryMode::Public) => {
                let encoding = self.artifacts.read(*digest, self.settings.max_tensor_bytes).await;
                Ok(Some(encoding.map_err(|error| store_status(&error))?.into()))
            }
            _ => Ok(None),
        }
    }

    async fn blob(&self, artifact: Artifact, limit: u64) -> Result<Blob, Status> {
        let bytes = self.artifacts.read(artifact.digest, limit).await;
        Ok(bytes.map_err(|error| store_status(&error))?.into())
    }

    /// The run, or a status that says that there is none.
    pub(crate) async fn find_run(&self, run: RunId) -> Result<RunRecord, Status> {
        let found = self.runs.get(run).await.map_err(|error| Status::unavailable(error.to_string()))?;
        found.ok_or_else(|| no_run(run))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardproof_common::receipt::Identity;

    use super::*;
    use crate::testing::Bench;

    /// What comes of a call that is not to be answered yet.
    async fn waits<T>(call: impl Future<Output = Result<T, Status>>) -> bool {
        tokio::time::timeout(Duration::from_millis(200), call).await.is_err()
    }

    #[tokio::test]
    async fn few_bundles_and_evidence_are_put_together_at_a_time() {
        let bench = Bench::new(1, &["--backend", "gkr"]).await;
        let worker = Identity::generate();
        let (input, output) = (bench.stored(0, 1).await, bench.stored(1, 2).await);
        let receipt = bench.receipt(&worker, RunId::generate(), 0, 1, 2);
        let evidence = bench.artifacts.put(b"no evidence").await.unwrap();
        let run = bench
            .run(1, |record| {
                (record.state, record.answer, record.evidence) = (RunState::Answered, Some(output), Some(evidence));
                record.shards[0].receipt = Some(receipt);
            })
            .await;
        assert_eq!(bench.record(run).await.input, input);
        let places = ASSEMBLING.acquire_many(2).await.unwrap();
        assert!(waits(bench.bundle(run)).await && waits(bench.evidence(run, false)).await);
        assert_eq!(bench.evidence(run, true).await.unwrap(), evidence, "what is there is not put together");
        drop(places);
        bench.bundle(run).await.unwrap();
        assert_eq!(bench.evidence(run, false).await.unwrap_err().code(), tonic::Code::DataLoss);
    }
}
