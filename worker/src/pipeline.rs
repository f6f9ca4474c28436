//! Activations: in from the previous shard, through this one, out to the next.
//!
//! A boundary is acknowledged once it is spooled, so the previous worker may forget it. While the queue is full the
//! acknowledgement waits, which holds the previous worker back in turn. Only the worker that holds the shard before is
//! listened to (for the first shard the owner's side), and what arrives is compared with the receipt that comes with it
//! before this worker signs its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use shardproof_common::backend::{BackendError, Inference, Job};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::{PublicKey, Receipt, SignatureError, input_digest};
use shardproof_common::statement::{Binding, Boundary};
use shardproof_common::tensor::{self, Tensor};
use shardproof_proto::convert;
use shardproof_proto::transport::artifacts::{self, TransferError};
use shardproof_proto::transport::{self, activations};
use shardproof_proto::v1::activations_server::{Activations, ActivationsServer};
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, Activation, ActivationHeader, Delivered, FailureStage};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status, Streaming};

use crate::Worker;
use crate::shard::HeldShard;
use crate::spool::{Entry, SpoolError};

/// A sender that does not say within this time what it sends is turned away.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// Longest that a run may take, whatever the sender says.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);

/// The activation service as the health service names it.
pub(crate) type Server = ActivationsServer<Pipeline>;

/// The activation service of a worker.
pub(crate) struct Pipeline {
    worker: Arc<Worker>,
}

pub(crate) fn server(worker: Arc<Worker>) -> Server {
    ActivationsServer::new(Pipeline { worker }).max_decoding_message_size(transport::MAX_MESSAGE_BYTES)
}

/// One run on its way through this worker.
struct Passage {
    run: RunId,
    shard: Arc<HeldShard>,
    entry: Entry,
    input: Vec<Tensor>,
    upstream: Option<Receipt>,
    deadline: Instant,
    _place_in_queue: OwnedSemaphorePermit,
}

#[tonic::async_trait]
impl Activations for Pipeline {
    async fn deliver(&self, request: Request<Streaming<Activation>>) -> Result<Response<Delivered>, Status> {
        let mut stream = request.into_inner();
        let held = self.worker.shard.borrow().clone();
        let shard = held.ok_or_else(|| Status::failed_precondition("this worker holds no shard yet"))?;
        let header = activations::receive_header(&mut stream, shard.input_bytes());
        let header = tokio::time::timeout(HEADER_DEADLINE, header).await.map_err(late)??;
        let sender = self.authenticate(&shard, &header)?;

        let left = Duration::from_millis(header.deadline_ms).min(LONGEST_RUN);
        let deadline = Instant::now() + left;
        let place = self.worker.queue.clone().acquire_owned();
        let place = tokio::time::timeout_at(deadline.into(), place).await.map_err(late)?;
        let place = place.map_err(|_| Status::unavailable("the worker is stopping"))?;
        let encoding = activations::receive_encoding(&mut stream, &header);
        let encoding = tokio::time::timeout_at(deadline.into(), encoding).await.map_err(late)??;
        if self.worker.shutdown.is_cancelled() {
            return Err(Status::unavailable("the worker is stopping"));
        }
        if let Some((entry, input)) = self.accept(&shard, &header, &sender, &encoding)? {
            self.worker.hold.reach(Stage::Spooled).await;
            let passage = Passage {
                run: sender.run,
                shard,
                entry,
                input,
                upstream: sender.receipt,
                deadline,
                _place_in_queue: place,
            };
            self.worker.tasks.spawn(pass(self.worker.clone(), passage));
        }
        Ok(Response::new(Delivered {}))
    }
}

/// Who sends a boundary, established before its bytes are taken.
struct Sender {
    run: RunId,
    /// The previous worker's receipt; none at boundary 0, which the coordinator signs.
    receipt: Option<Receipt>,
}

fn late(_: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("the boundary was not taken within the run's deadline")
}

impl Pipeline {
    /// Boundary 0 comes from the owner's side, every other one from the worker that holds the shard before: nobody else can
    /// start a run here, or get ahead of the one that it is about.
    fn authenticate(&self, shard: &HeldShard, header: &ActivationHeader) -> Result<Sender, Status> {
        let run = convert::run_id(&header.run)?;
        if convert::digest("plan", &header.plan)? != shard.plan {
            return Err(Status::failed_precondition("this worker holds a shard of another plan"));
        }
        if header.boundary != shard.index().0 {
            let message = format!("this worker takes boundary {}, not {}", shard.index(), header.boundary);
            return Err(Status::failed_precondition(message));
        }
        let Some(before) = shard.index().0.checked_sub(1) else {
            let signature = convert::unpack("receipt", &header.receipt)?;
            let signed = input_digest(run, shard.plan, convert::digest("digest", &header.digest)?);
            let refuse = |error: SignatureError| {
                Status::unauthenticated(format!("the input is not from the owner's side: {error}"))
            };
            shard.card.body.authority.verify(signed, &signature).map_err(refuse)?;
            return Ok(Sender { run, receipt: None });
        };
        let receipt: Receipt = convert::unpack("receipt", &header.receipt)?;
        if self.worker.neighbours.borrow().previous != Some(receipt.worker) {
            return Err(Status::permission_denied("the sender does not hold the shard before this one"));
        }
        receipt.check().map_err(|error| Status::unauthenticated(error.to_string()))?;
        let statement = &receipt.statement;
        if (statement.run, statement.shard, statement.plan) != (run, ShardIndex(before), shard.plan) {
            return Err(Status::invalid_argument(
                "the receipt that came with the boundary is for another run, shard or plan",
            ));
        }
        Ok(Sender { run, receipt: Some(receipt) })
    }

    /// Checks a boundary against the shard and its sender's receipt and spools it; nothing to do when it was delivered before.
    fn accept(
        &self,
        shard: &HeldShard,
        header: &ActivationHeader,
        sender: &Sender,
        encoding: &[u8],
    ) -> Result<Option<(Entry, Vec<Tensor>)>, Status> {
        let input = tensor::decode_boundary(encoding).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let arrived = Boundary::public(&input);
        arrived
            .conforms_to(&shard.files.card.input)
            .map_err(|error| Status::invalid_argument(format!("boundary {}: {error}", header.boundary)))?;
        let promised = sender.receipt.as_ref().map(|receipt| &receipt.statement.output);
        if promised.is_some_and(|promised| matches!(promised.binding, Binding::Public(_)) && *promised != arrived) {
            return Err(Status::invalid_argument("the receipt names other tensors than those that came with it"));
        }
        let entry = self.worker.spool.entry(sender.run, shard.index());
        match entry.input_digest() {
            Some(digest) if digest == Digest::of(encoding) => {
                tracing::debug!(run = %sender.run, "boundary delivered again");
                Ok(None)
            }
            Some(_) => Err(Status::already_exists("another boundary of this run was delivered before")),
            None => {
                entry.write_input(encoding).map_err(|error| Status::resource_exhausted(error.to_string()))?;
                Ok(Some((entry, input)))
            }
        }
    }
}

/// Takes a run through the shard and on to the next; tells the coordinator of success and of failure.
async fn pass(worker: Arc<Worker>, passage: Passage) {
    let (run, shard) = (passage.run, passage.shard.index());
    let outcome = tokio::select! {
        outcome = run_and_forward(&worker, passage) => outcome,
        () = worker.shutdown.cancelled() => Err(PassError::Stopping),
    };
    if let Err(error) = outcome {
        tracing::warn!(%run, %shard, %error, "run failed here");
        let failure = v1::Failure {
            run: convert::run_bytes(run),
            shard: shard.0,
            attempt: 0,
            stage: error.stage().into(),
            reason: error.to_string(),
        };
        worker.tell(Message::Failure(failure)).await;
    }
}

async fn run_and_forward(worker: &Arc<Worker>, passage: Passage) -> Result<(), PassError> {
    let started = Instant::now();
    let (passage, inference) = infer(worker, passage).await?;
    let shard = &passage.shard;
    check_upstream(&passage, &inference)?;
    worker.hold.reach(Stage::BeforeReceipt).await;

    let statement = shard.statement(passage.run, inference.input_boundary.clone(), inference.output_boundary.clone());
    let receipt = Receipt::sign(statement, 0, &worker.identity);
    passage.entry.write_receipt(&receipt)?;
    let encoding = Bytes::from(tensor::encode_boundary(&inference.output));
    if shard.shows_inner_output() {
        // Whoever verifies needs the tensors of a public boundary, and only the neighbours have seen them.
        artifacts::store(worker.coordinator.clone(), encoding.clone()).await?;
    }
    let done_us = started.elapsed().as_micros() as u64;
    let done = v1::InferenceDone {
        run: convert::run_bytes(passage.run),
        shard: shard.index().0,
        receipt: convert::pack(&receipt),
        witness_us: done_us,
        witness_bytes: inference.witness_bytes,
        peak_rss_bytes: inference.peak_rss_bytes,
    };
    worker.tell(Message::InferenceDone(done)).await;
    tracing::info!(run = %passage.run, shard = %shard.index(), us = done_us, "ran shard");
    worker.hold.reach(Stage::AfterReceipt).await;

    let next = worker.neighbours.borrow().next.clone().ok_or(PassError::NoRoute)?;
    let header = ActivationHeader {
        run: convert::run_bytes(passage.run),
        plan: convert::digest_bytes(shard.plan),
        boundary: shard.index().0 + 1,
        receipt: convert::pack(&receipt),
        ..Default::default()
    };
    let left = passage.deadline.saturating_duration_since(Instant::now());
    let hop = Hop { from: shard.index(), shards: shard.card.body.plan.shards.len() };
    let (bytes, sent) = (encoding.len(), Instant::now());
    activations::deliver(next, header, encoding, left).await.map_err(|status| PassError::Delivery { hop, status })?;
    let us = sent.elapsed().as_micros() as u64;
    tracing::info!(run = %passage.run, boundary = shard.index().0 + 1, bytes, us, "passed on");
    Ok(())
}

/// Runs the backend on a thread for blocking work, a few runs at a time.
async fn infer(worker: &Arc<Worker>, passage: Passage) -> Result<(Passage, Inference), PassError> {
    let compute = worker.compute.clone().acquire_owned();
    let permit = tokio::time::timeout_at(passage.deadline.into(), compute).await;
    let permit = permit.map_err(|_| PassError::Deadline)?.map_err(|_| PassError::Stopping)?;
    let cancel = worker.shutdown.child_token();
    let task = tokio::task::spawn_blocking(move || {
        let _computing = permit;
        let mut limits = passage.shard.limits;
        limits.deadline = Some(passage.deadline.saturating_duration_since(Instant::now()));
        let job = Job { directory: passage.entry.directory(), limits, cancel: &cancel, progress: &|_| {} };
        let inference = passage.shard.backend.infer(&passage.shard.files, &passage.input, &job);
        inference.map(|inference| (passage, inference))
    });
    Ok(task.await.map_err(PassError::Task)??)
}

/// Compares the boundary's commitment with the one that the previous worker signed.
fn check_upstream(passage: &Passage, inference: &Inference) -> Result<(), PassError> {
    match &passage.upstream {
        Some(upstream) if upstream.statement.output != inference.input_boundary => {
            Err(PassError::Link { worker: upstream.worker })
        }
        _ => Ok(()),
    }
}

/// Where a boundary did not get across.
#[derive(Debug)]
struct Hop {
    from: ShardIndex,
    shards: usize,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.from.0 + 1;
        write!(f, "boundary {to} did not get from shard {} to ", self.from)?;
        if to as usize == self.shards { f.write_str("the coordinator") } else { write!(f, "shard {to}") }
    }
}

/// Why a run did not get through a worker.
#[derive(Debug, Error)]
enum PassError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("worker {worker} signed for another boundary than the one that arrived from it")]
    Link { worker: PublicKey },
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the run's deadline passed while it waited for its turn")]
    Deadline,
    #[error("the worker is stopping")]
    Stopping,
    #[error("the coordinator has not said where the outputs go")]
    NoRoute,
    #[error("{hop}: {}: {}", status.code(), status.message())]
    Delivery { hop: Hop, status: Status },
    #[error("the coordinator did not take a public boundary: {0}")]
    Upload(#[from] TransferError),
    #[error("the inference task died: {0}")]
    Task(tokio::task::JoinError),
}

impl PassError {
    fn stage(&self) -> FailureStage {
        match self {
            Self::NoRoute | Self::Delivery { .. } | Self::Upload(_) => FailureStage::Delivery,
            Self::Link { .. } => FailureStage::Link,
            _ => FailureStage::Inference,
        }
    }
}
