//! Shows the coordinator what this worker put out, when the worker after it and this one are at odds about it.
//!
//! The output is computed again from the spooled input, which costs one inference and keeps the spool half as large. A worker
//! that cannot show what it signed for says why, and loses the dispute.

use std::sync::Arc;

use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::{BackendError, Job};
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::tensor;
use shardproof_proto::convert;
use shardproof_proto::transport::artifacts::{self, TransferError};
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{ShowOutput, Shown};
use thiserror::Error;
use tonic::Status;

use crate::Worker;
use crate::spool::SpoolError;

/// Answers one request.
pub(crate) async fn answer(worker: Arc<Worker>, request: ShowOutput) {
    let shard = ShardIndex(request.shard);
    let outcome = match convert::run_id(&request.run) {
        Ok(run) => show(&worker, run, shard).await,
        Err(status) => Err(ShowError::Malformed(status)),
    };
    let (output, refusal) = match outcome {
        Ok(artifact) => (Some(convert::artifact_ref(artifact)), String::new()),
        Err(error) => {
            tracing::warn!(%shard, %error, "cannot show an output");
            (None, error.to_string())
        }
    };
    worker.tell(Message::Shown(Shown { run: request.run, shard: request.shard, output, refusal })).await;
}

/// Runs the shard again on what it was given, and stores the output with the coordinator.
async fn show(worker: &Arc<Worker>, run: RunId, shard: ShardIndex) -> Result<Artifact, ShowError> {
    let held = worker.shard.borrow().clone().filter(|held| held.index() == shard);
    let held = held.ok_or(ShowError::NotHeld { shard })?;
    let entry = worker.spool.entry(run, shard);
    let (receipt, input) = (entry.read_receipt()?, entry.read_input()?);
    if receipt.statement.plan != held.plan {
        return Err(ShowError::OtherPlan);
    }
    let permit = worker.compute.clone().acquire_owned().await.map_err(|_| ShowError::Stopping)?;
    let cancel = worker.shutdown.child_token();
    let task = tokio::task::spawn_blocking(move || {
        let _computing = permit;
        let job = Job { directory: entry.directory(), limits: held.limits, cancel: &cancel, progress: &|_| {} };
        held.backend.infer(&held.files, &input, &job)
    });
    let encoding = tensor::encode_boundary(&task.await??.output);
    Ok(artifacts::store(worker.coordinator.clone(), encoding.into()).await?)
}

/// Why an output is not shown.
#[derive(Debug, Error)]
enum ShowError {
    #[error("malformed request: {}", .0.message())]
    Malformed(Status),
    #[error("this worker does not hold shard {shard}")]
    NotHeld { shard: ShardIndex },
    #[error("the run was made under another plan than the one now served")]
    OtherPlan,
    #[error("the worker is stopping")]
    Stopping,
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the coordinator did not take the output: {0}")]
    Upload(#[from] TransferError),
    #[error("the inference task died: {0}")]
    Task(#[from] tokio::task::JoinError),
}
