//! A run as one file for whoever wants to check it.

use shardproof_common::artifacts::Artifact;
use shardproof_common::bundle::{Blob, Bundle, ShardProof, ShardRecord};
use shardproof_common::ids::RunId;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::receipt::Admission;
use shardproof_common::statement::{Binding, Boundary};
use tonic::Status;

use crate::Coordinator;
use crate::record::{ProofState, RunRecord, RunState};
use crate::setup::Prepared;

impl Coordinator {
    /// Stores the bundle of a run and says where.
    pub(crate) async fn bundle(&self, run: RunId) -> Result<Artifact, Status> {
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
        let bundle = self.assemble(&prepared, &record)?;
        let bytes = bundle.encode().map_err(|error| Status::resource_exhausted(error.to_string()))?;
        self.artifacts.put(&bytes).map_err(|error| Status::resource_exhausted(error.to_string()))
    }

    fn assemble(&self, prepared: &Prepared, record: &RunRecord) -> Result<Bundle, Status> {
        let shards = (0..record.shards.len()).map(|index| self.shard_record(prepared, record, index));
        let shards: Vec<ShardRecord> = shards.collect::<Result<_, _>>()?;
        let statements: Vec<_> = shards.iter().map(|shard| &shard.receipt.statement).collect();
        let last = statements.last().ok_or_else(|| Status::internal("a plan has shards"))?;
        let crossing = statements.iter().map(|statement| &statement.input).chain([&last.output]);
        let planned = &prepared.card.body.plan.boundaries;
        let boundaries = crossing.zip(planned).map(|(boundary, plan)| self.shown(boundary, plan.mode));
        Ok(Bundle {
            card: prepared.card.digest(),
            run: record.id,
            boundaries: boundaries.collect::<Result<_, _>>()?,
            shards,
        })
    }

    fn shard_record(&self, prepared: &Prepared, record: &RunRecord, index: usize) -> Result<ShardRecord, Status> {
        let shard = &record.shards[index];
        let missing = || Status::failed_precondition(format!("shard {index} gave no receipt"));
        let receipt = shard.receipt.clone().ok_or_else(missing)?;
        let admission = Admission::sign(receipt.worker, prepared.plan, &self.owner);
        let made = shard.artifact.filter(|_| matches!(shard.proof, ProofState::Verified | ProofState::Rejected));
        let proof = match (made, prepared.shards[index].verifying_key) {
            (Some(proof), Some(key)) => Some(ShardProof {
                verifying_key: self.blob(key, u64::MAX)?,
                proof: self.blob(proof, self.settings.max_proof_bytes)?,
            }),
            _ => None,
        };
        Ok(ShardRecord { receipt, admission, proof })
    }

    fn shown(&self, boundary: &Boundary, mode: BoundaryMode) -> Result<Option<Blob>, Status> {
        match (&boundary.binding, mode) {
            (Binding::Public(digest), BoundaryMode::Public) => {
                let encoding = self.artifacts.read(*digest, self.settings.max_tensor_bytes);
                Ok(Some(encoding.map_err(|error| Status::not_found(format!("a public boundary: {error}")))?.into()))
            }
            _ => Ok(None),
        }
    }

    fn blob(&self, artifact: Artifact, limit: u64) -> Result<Blob, Status> {
        let bytes =
            self.artifacts.read(artifact.digest, limit).map_err(|error| Status::data_loss(error.to_string()))?;
        Ok(bytes.into())
    }

    /// The run, or a status that says that there is none.
    pub(crate) async fn find_run(&self, run: RunId) -> Result<RunRecord, Status> {
        let found = self.runs.get(run).await.map_err(|error| Status::unavailable(error.to_string()))?;
        found.ok_or_else(|| Status::not_found(format!("there is no run {run}")))
    }
}
