//! The workers' side: one stream each, from join to loss.

use std::sync::Arc;
use std::time::Duration;

use shardproof_common::ids::{Digest, PROTOCOL_VERSION, Role, ShardIndex};
use shardproof_common::receipt::{PublicKey, SignatureBytes};
use shardproof_proto::convert;
use shardproof_proto::v1::control_server::Control;
use shardproof_proto::v1::coordinator_message::Message as ToWorker;
use shardproof_proto::v1::worker_message::Message as FromWorker;
use shardproof_proto::v1::{self, CoordinatorMessage, FailureStage, HeartbeatRequest, HeartbeatResponse, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;
use crate::cluster::Stream;
use crate::inference::WitnessFigures;
use crate::record::RunState;
use crate::registry::SessionId;

/// Messages that may wait for a worker that reads slowly, beyond which it is taken for stuck.
const BACKLOG: usize = 1024;
/// A connection that does not join within this time is closed.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// The control service.
pub(crate) struct ControlService {
    coordinator: Arc<Coordinator>,
}

impl ControlService {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WorkStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn work(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::WorkStream>, Status> {
        let (stream, receiver) = mpsc::channel(BACKLOG);
        let coordinator = self.coordinator.clone();
        let inbound = request.into_inner();
        self.coordinator.tasks.spawn(async move {
            let stop = coordinator.shutdown.clone();
            tokio::select! {
                () = attend(coordinator, inbound, stream) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let known = self.coordinator.cluster.seen(SessionId(request.into_inner().session));
        Ok(Response::new(HeartbeatResponse { known }))
    }
}

/// A worker's stream from the challenge to its end.
async fn attend(coordinator: Arc<Coordinator>, mut inbound: Streaming<WorkerMessage>, stream: Stream) {
    let closed = CancellationToken::new();
    let (session, key) = match admit(&coordinator, &mut inbound, &stream, &closed).await {
        Ok(joined) => joined,
        Err(status) => {
            tracing::warn!(reason = status.message(), "worker refused");
            // One that has hung up already does not want to know.
            let _unread = stream.send(Err(status)).await;
            return;
        }
    };
    // The cluster holds the other sender: when it drops it, the worker sees the end of the stream.
    drop(stream);
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            () = closed.cancelled() => break,
        };
        match message {
            Ok(Some(WorkerMessage { message: Some(message) })) => handle(&coordinator, session, key, message).await,
            Ok(Some(WorkerMessage { message: None })) => {}
            Ok(None) | Err(_) => break,
        }
    }
    leave(&coordinator, session, key).await;
}

/// Challenges a worker, checks its join and gives it its place.
async fn admit(
    coordinator: &Arc<Coordinator>,
    inbound: &mut Streaming<WorkerMessage>,
    stream: &Stream,
    closed: &CancellationToken,
) -> Result<(SessionId, PublicKey), Status> {
    let nonce = Digest::from_bytes(rand::random());
    let challenge = ToWorker::Challenge(v1::Challenge { nonce: convert::digest_bytes(nonce) });
    let gone = |_| Status::cancelled("the worker hung up");
    stream.send(Ok(CoordinatorMessage { message: Some(challenge) })).await.map_err(gone)?;
    let first = tokio::time::timeout(JOIN_DEADLINE, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no join within 10 s"))??;
    let Some(WorkerMessage { message: Some(FromWorker::Join(join)) }) = first else {
        return Err(Status::invalid_argument("expected a join first"));
    };
    let key = check_join(coordinator, &join, nonce)?;
    let role: Role = join.role.parse().map_err(|error: shardproof_common::ids::ParseIdError| Status::invalid_argument(error.to_string()))?;
    let joined = coordinator.cluster.join(key, role, join.address.clone(), stream.clone(), closed.clone());
    let (session, given) = joined.map_err(|error| Status::invalid_argument(error.to_string()))?;
    tracing::info!(worker = key.short(), %role, address = join.address, "worker joined");
    if coordinator.cluster.member(session).is_some_and(|member| member.shard.is_none()) {
        tracing::info!(worker = key.short(), %role, "every place of its role is taken: the worker is a spare");
    }
    coordinator.give_out(given).await;
    Ok((session, key))
}

fn check_join(coordinator: &Coordinator, join: &v1::Join, nonce: Digest) -> Result<PublicKey, Status> {
    if join.protocol != PROTOCOL_VERSION {
        let message = format!("the worker speaks protocol version {}, the coordinator {PROTOCOL_VERSION}", join.protocol);
        return Err(Status::invalid_argument(message));
    }
    let key = convert::public_key(&join.key)?;
    let signature: SignatureBytes = convert::unpack("signature", &join.signature)?;
    key.verify(Digest::derive("shardproof 1 join", &(nonce, key)), &signature)
        .map_err(|error| Status::unauthenticated(error.to_string()))?;
    if coordinator.settings.admitted.as_ref().is_some_and(|admitted| !admitted.contains(&key)) {
        return Err(Status::permission_denied(format!("key {key} is not admitted: add it to the coordinator's --admit file")));
    }
    let address = join.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    if !address.is_some_and(|(host, port)| !host.is_empty() && port > 0) {
        return Err(Status::invalid_argument(format!("`{}` is no address host:port", join.address)));
    }
    Ok(key)
}

async fn handle(coordinator: &Arc<Coordinator>, session: SessionId, key: PublicKey, message: FromWorker) {
    let outcome = match message {
        FromWorker::Ready(ready) => {
            let shard = ShardIndex(ready.shard);
            tracing::info!(worker = key.short(), %shard, "worker ready");
            coordinator.cluster.ready(session, shard);
            coordinator.ask_again(shard, key).await;
            Ok(())
        }
        FromWorker::InferenceDone(done) => take_receipt(coordinator, key, done).await,
        FromWorker::ProofDone(done) => coordinator.take_proof(key, done).await,
        FromWorker::Failure(failure) => take_failure(coordinator, session, key, failure).await,
        FromWorker::Progress(progress) => note_progress(coordinator, progress).await,
        FromWorker::Join(_) => Err(Status::invalid_argument("a second join")),
    };
    if let Err(status) = outcome {
        tracing::warn!(worker = key.short(), reason = status.message(), "ignoring a malformed message");
    }
}

async fn take_receipt(coordinator: &Coordinator, key: PublicKey, done: v1::InferenceDone) -> Result<(), Status> {
    let run = convert::run_id(&done.run)?;
    let receipt: shardproof_common::receipt::Receipt = convert::unpack("receipt", &done.receipt)?;
    if receipt.worker != key {
        return Err(Status::invalid_argument("the receipt is another worker's"));
    }
    let figures = WitnessFigures {
        witness_ms: done.witness_ms,
        witness_bytes: done.witness_bytes,
        peak_rss_bytes: done.peak_rss_bytes,
    };
    coordinator.take_receipt(run, ShardIndex(done.shard), receipt, figures).await;
    Ok(())
}

/// A failure before the answer ends the run; one of an awaited proof rejects it.
async fn take_failure(
    coordinator: &Arc<Coordinator>,
    session: SessionId,
    key: PublicKey,
    failure: v1::Failure,
) -> Result<(), Status> {
    let shard = ShardIndex(failure.shard);
    let held = coordinator.cluster.member(session).and_then(|member| member.shard);
    if held != Some(shard) {
        return Err(Status::invalid_argument("a failure of a shard that the worker does not hold"));
    }
    match failure.stage() {
        FailureStage::Setup => {
            tracing::error!(worker = key.short(), %shard, reason = failure.reason, "worker cannot take its shard");
        }
        FailureStage::Inference | FailureStage::Delivery => {
            let run = convert::run_id(&failure.run)?;
            coordinator.runs.change(run, |record| {
                if record.state == RunState::Running {
                    record.fail(Some(shard), Some(key), failure.reason);
                }
            })
            .await;
        }
        FailureStage::Proving => {
            let run = convert::run_id(&failure.run)?;
            let record = coordinator.find_run(run).await?;
            let entry = record.shards.get(shard.as_usize());
            let current = entry.is_some_and(|entry| {
                entry.attempt == failure.attempt && entry.receipt.as_ref().is_some_and(|receipt| receipt.worker == key)
            });
            if record.awaits_proof(shard) && current {
                coordinator.reject(run, shard, key, format!("its proof failed: {}", failure.reason)).await;
            }
        }
        FailureStage::Unspecified => return Err(Status::invalid_argument("a failure without a stage")),
    }
    Ok(())
}

async fn note_progress(coordinator: &Coordinator, progress: v1::Progress) -> Result<(), Status> {
    let run = convert::run_id(&progress.run)?;
    let step: String = progress.step.chars().take(80).collect();
    coordinator.runs.mention(run, |record| {
        if let Some(shard) = record.shards.get_mut(progress.shard as usize) {
            shard.step = step;
        }
    });
    Ok(())
}

async fn leave(coordinator: &Arc<Coordinator>, session: SessionId, key: PublicKey) {
    let Some(member) = coordinator.cluster.member(session) else { return };
    let given = coordinator.cluster.leave(session);
    tracing::warn!(worker = key.short(), role = %member.role, "worker lost");
    if let Some(shard) = member.shard {
        coordinator.worker_left(shard, key);
        coordinator.fail_runs_of(shard, key).await;
    }
    coordinator.give_out(given).await;
}
