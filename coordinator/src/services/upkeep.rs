//! The owner's service for what has to be done from time to time.

use std::sync::Arc;
use std::time::Duration;

use shardproof_proto::v1::upkeep_server::Upkeep;
use shardproof_proto::v1::{CollectRequest, CollectResponse};
use tonic::{Request, Response, Status};

use crate::Coordinator;
use crate::gc::Retention;

/// The service.
pub(crate) struct UpkeepService {
    coordinator: Arc<Coordinator>,
}

impl UpkeepService {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }
}

/// Only the owner removes anything: whoever is on the coordinator's own machine.
fn check_owner<T>(request: &Request<T>) -> Result<(), Status> {
    match request.remote_addr() {
        Some(peer) if peer.ip().to_canonical().is_loopback() => Ok(()),
        _ => Err(Status::permission_denied("this call is taken from the coordinator's own machine only")),
    }
}

#[tonic::async_trait]
impl Upkeep for UpkeepService {
    async fn collect(&self, request: Request<CollectRequest>) -> Result<Response<CollectResponse>, Status> {
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
