//! The owner's side: who may work, and what the workers' records say. Whoever calls it is an admin: the gate has seen to that.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use shardproof_proto::convert;
use shardproof_proto::v1::admin_server::Admin;
use shardproof_proto::v1::{
    self, AdmitWorkerRequest, ArtifactRef, CancelRequest, CollectRequest, CollectResponse, EvidenceRequest,
    ListWorkersRequest, ListWorkersResponse, RevokeWorkerRequest, Run, WorkerStanding,
};
use tonic::{Request, Response, Status};

use super::client::{describe, show_member};
use crate::Coordinator;
use crate::gc::Retention;
use crate::store::StoreError;
use crate::workers::{AdmitError, Standing, WorkerRecord};

/// The owner's service.
pub(crate) struct AdminService {
    coordinator: Arc<Coordinator>,
}

impl AdminService {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }

    fn show(&self, record: &WorkerRecord) -> v1::WorkerRecord {
        let connected = self.coordinator.cluster.with(|registry| {
            let member = registry.by_key(&record.key);
            member.map(|(_, member)| show_member(member))
        });
        let standing = match record.standing {
            _ if record.convicted > 0 => WorkerStanding::Convicted,
            Standing::Unlisted => WorkerStanding::Unlisted,
            Standing::Admitted => WorkerStanding::Admitted,
            Standing::Revoked => WorkerStanding::Revoked,
        };
        v1::WorkerRecord {
            key: Bytes::copy_from_slice(record.key.as_bytes()),
            name: record.name.clone(),
            standing: standing.into(),
            proved: record.proved,
            failed: record.failed,
            refused: record.refused,
            convicted: record.convicted,
            last_seen_unix_ms: record.last_seen_ms,
            connected,
        }
    }
}

fn not_stored(error: &StoreError) -> Status {
    Status::internal(format!("in force, but not stored yet, it will be tried again: {error}"))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_workers(
        &self,
        _request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let (mut records, admission_required) = self.coordinator.workers.list();
        let strangers = self.coordinator.cluster.with(|registry| {
            let known = |key| records.iter().any(|record| record.key == key);
            let strangers = registry.members().map(|member| member.key).filter(|&key| !known(key));
            strangers.map(WorkerRecord::new).collect::<Vec<_>>()
        });
        records.extend(strangers);
        let workers = records.iter().map(|record| self.show(record)).collect();
        Ok(Response::new(ListWorkersResponse { workers, admission_required }))
    }

    async fn admit_worker(&self, request: Request<AdmitWorkerRequest>) -> Result<Response<v1::WorkerRecord>, Status> {
        let request = request.into_inner();
        let key = convert::public_key(&request.key)?;
        let admitted = self.coordinator.workers.admit(key, &request.name).await.map_err(|error| match error {
            AdmitError::Name => Status::invalid_argument(error.to_string()),
            AdmitError::Convicted { .. } => Status::failed_precondition(error.to_string()),
            AdmitError::Store(error) => not_stored(&error),
        })?;
        tracing::info!(worker = key.short(), name = admitted.name, "worker admitted");
        Ok(Response::new(self.show(&admitted)))
    }

    async fn revoke_worker(&self, request: Request<RevokeWorkerRequest>) -> Result<Response<v1::WorkerRecord>, Status> {
        let key = convert::public_key(&request.into_inner().key)?;
        let revoked = self.coordinator.workers.revoke(key).await;
        // Its shard goes to another whether or not that could be stored.
        self.coordinator.expel(key, "was revoked").await;
        let record = revoked.map_err(|error| not_stored(&error))?;
        Ok(Response::new(self.show(&record)))
    }

    async fn collect_garbage(&self, request: Request<CollectRequest>) -> Result<Response<CollectResponse>, Status> {
        let request = request.into_inner();
        let own = self.coordinator.settings.retention;
        let retention = Retention {
            keep_runs: request.keep_runs_ms.map(Duration::from_millis).or(own.keep_runs),
            keep_artifacts: request.keep_artifacts_ms.map_or(own.keep_artifacts, Duration::from_millis),
        };
        // A task of its own: it goes on when whoever asked hangs up.
        let coordinator = self.coordinator.clone();
        let collecting =
            tokio::spawn(async move { coordinator.collect_garbage(Some(retention), request.dry_run).await });
        let removed = collecting.await.map_err(|error| Status::internal(error.to_string()))?;
        let removed = removed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(CollectResponse {
            runs: removed.runs,
            artifacts: removed.artifacts,
            artifact_bytes: removed.artifact_bytes,
            transfers: removed.transfers,
            transfer_bytes: removed.transfer_bytes,
        }))
    }

    async fn cancel_run(&self, request: Request<CancelRequest>) -> Result<Response<Run>, Status> {
        let run = convert::run_id(&request.into_inner().run)?;
        // A task of its own: what is begun is finished when whoever asked hangs up.
        let coordinator = self.coordinator.clone();
        let cancelling = tokio::spawn(async move { coordinator.cancel(run).await });
        let record = cancelling.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(describe(&record)))
    }

    async fn evidence_with_shard(&self, request: Request<EvidenceRequest>) -> Result<Response<ArtifactRef>, Status> {
        let run = convert::run_id(&request.into_inner().run)?;
        Ok(Response::new(convert::artifact_ref(self.coordinator.evidence(run, true).await?)))
    }
}
