//! The owner's side: who may work, and what the workers' records say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use shardproof_proto::convert;
use shardproof_proto::v1::admin_server::Admin;
use shardproof_proto::v1::{
    self, AdmitWorkerRequest, CollectRequest, CollectResponse, ListWorkersRequest, ListWorkersResponse,
    RevokeWorkerRequest, WorkerStanding,
};
use tonic::{Request, Response, Status};

use super::client::show_member;
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

/// Only the owner decides who works. Without authenticated roles that is whoever is on the coordinator's own machine: a peer at a
/// loopback address, or at the address that it connected to.
fn check_owner<T>(request: &Request<T>) -> Result<(), Status> {
    let own = request.local_addr().map(|address| address.ip().to_canonical());
    let here = |peer: IpAddr| peer.is_loopback() || Some(peer) == own;
    match request.remote_addr() {
        Some(peer) if here(peer.ip().to_canonical()) => Ok(()),
        _ => Err(Status::permission_denied("the owner's calls are taken from the coordinator's own machine only")),
    }
}

fn not_stored(error: &StoreError) -> Status {
    Status::internal(format!("in force, but not stored yet, it will be tried again: {error}"))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        check_owner(&request)?;
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
        check_owner(&request)?;
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
        check_owner(&request)?;
        let key = convert::public_key(&request.into_inner().key)?;
        let revoked = self.coordinator.workers.revoke(key).await;
        // Its shard goes to another whether or not that could be stored.
        self.coordinator.expel(key, "was revoked").await;
        let record = revoked.map_err(|error| not_stored(&error))?;
        Ok(Response::new(self.show(&record)))
    }

    async fn collect_garbage(&self, request: Request<CollectRequest>) -> Result<Response<CollectResponse>, Status> {
        check_owner(&request)?;
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
}

#[cfg(test)]
mod tests {
    use tonic::transport::server::TcpConnectInfo;

    use super::*;

    #[test]
    fn only_this_machine_is_the_owners() {
        let from = |peer: &str| {
            let mut request = Request::new(());
            let (local, remote) = ("10.0.0.7:8000".parse().unwrap(), peer.parse().unwrap());
            let connection = TcpConnectInfo { local_addr: Some(local), remote_addr: Some(remote) };
            request.extensions_mut().insert(connection);
            check_owner(&request).map_err(|status| status.code())
        };
        for peer in ["127.0.0.1:5", "127.9.9.9:5", "[::1]:5", "[::ffff:127.0.0.1]:5", "10.0.0.7:5"] {
            assert_eq!(from(peer), Ok(()), "{peer}");
        }
        for peer in ["10.0.0.1:5", "192.168.1.1:5", "[fe80::1]:5", "[::ffff:10.0.0.1]:5", "0.0.0.0:5"] {
            assert_eq!(from(peer), Err(tonic::Code::PermissionDenied), "{peer}");
        }
        assert!(check_owner(&Request::new(())).is_err(), "a peer that is not known");
    }
}
