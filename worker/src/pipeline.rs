//! Activations: in from the previous shard, through this one, out to the next.
//!
//! A boundary is acknowledged once it is spooled, so the previous worker may forget it. One that comes again is answered from
//! the spool: with the same receipt and the same output, whatever was lost on the way before; only a later attempt gets a receipt
//! of its own, over the same statement. While the queue is full the
//! acknowledgement waits, which holds the previous worker back in turn. Only the worker that holds the shard before is
//! listened to (for the first shard the owner's side), and what arrives is compared with the receipt that comes with it
//! before this worker signs its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use prost::bytes::Bytes;
use shardproof_common::backend::{BackendError, Inference, Job};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::{PublicKey, Receipt, SignatureError, input_digest};
use shardproof_common::statement::{Binding, Boundary, Statement};
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
use crate::spool::{self, SpoolError};

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

/// The runs that are on their way through this worker, each with what came again meanwhile.
pub(crate) type Passages = DashMap<RunId, Option<Passage>>;

/// One run on its way through this worker.
pub(crate) struct Passage {
    run: RunId,
    attempt: u32,
    /// Whether the boundary had been spooled before.
    again: bool,
    shard: Arc<HeldShard>,
    entry: spool::Entry,
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
        let (entry, input, again) = self.accept(&shard, &header, &sender, &encoding)?;
        let passage = Passage {
            run: sender.run,
            attempt: sender.attempt,
            again,
            shard,
            entry,
            input,
            upstream: sender.receipt,
            deadline,
            _place_in_queue: place,
        };
        match self.worker.passages.entry(passage.run) {
            // It follows when the one before is through: what that one sends may be lost.
            Entry::Occupied(mut under_way) => drop(under_way.insert(Some(passage))),
            Entry::Vacant(free) => {
                free.insert(None);
                self.worker.tasks.spawn(pass_all(self.worker.clone(), passage));
            }
        }
        Ok(Response::new(Delivered {}))
    }
}

/// Who sends a boundary, established before its bytes are taken.
struct Sender {
    run: RunId,
    attempt: u32,
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
            let attempt = header.attempt;
            let signed = input_digest(run, shard.plan, attempt, convert::digest("digest", &header.digest)?);
            let refuse = |error: SignatureError| {
                Status::unauthenticated(format!("the input is not from the owner's side: {error}"))
            };
            shard.card.body.authority.verify(signed, &signature).map_err(refuse)?;
            return Ok(Sender { run, attempt, receipt: None });
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
        Ok(Sender { run, attempt: receipt.attempt, receipt: Some(receipt) })
    }

    /// Checks a boundary against the shard and its sender's receipt and spools it; says whether it was spooled before.
    fn accept(
        &self,
        shard: &HeldShard,
        header: &ActivationHeader,
        sender: &Sender,
        encoding: &[u8],
    ) -> Result<(spool::Entry, Vec<Tensor>, bool), Status> {
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
                let given = entry.read_receipt().map_or(0, |receipt| receipt.attempt);
                if given > sender.attempt {
                    let message = format!("attempt {given} of this run came before attempt {}", sender.attempt);
                    return Err(Status::already_exists(message));
                }
                tracing::debug!(run = %sender.run, attempt = sender.attempt, "boundary delivered again");
                Ok((entry, input, true))
            }
            Some(_) => Err(Status::already_exists("another boundary of this run was delivered before")),
            None => {
                entry.write_input(encoding).map_err(|error| Status::resource_exhausted(error.to_string()))?;
                Ok((entry, input, false))
            }
        }
    }
}

/// Takes a run through, and once more where it came again meanwhile.
async fn pass_all(worker: Arc<Worker>, first: Passage) {
    let run = first.run;
    let mut next = Some(first);
    while let Some(passage) = next {
        pass(&worker, passage).await;
        next = match worker.passages.entry(run) {
            Entry::Occupied(mut under_way) => match under_way.get_mut().take() {
                Some(passage) => Some(passage),
                None => {
                    under_way.remove();
                    None
                }
            },
            Entry::Vacant(_) => None,
        };
    }
}

/// Takes a run through the shard and on to the next; tells the coordinator of success and of failure.
async fn pass(worker: &Arc<Worker>, passage: Passage) {
    let (run, shard, attempt) = (passage.run, passage.shard.index(), passage.attempt);
    if let Err(error) = run_and_forward(worker, passage).await {
        tracing::warn!(%run, %shard, %error, "run failed here");
        let failure = v1::Failure {
            run: convert::run_bytes(run),
            shard: shard.0,
            attempt: attempt.into(),
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

    let statement = shard.statement(passage.run, inference.input_boundary.clone(), inference.output_boundary.clone());
    let receipt = receipt_for(worker, &passage, statement)?;
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

    let next = worker.neighbours.borrow().next.clone().ok_or(PassError::NoRoute)?;
    let header = ActivationHeader {
        run: convert::run_bytes(passage.run),
        plan: convert::digest_bytes(shard.plan),
        boundary: shard.index().0 + 1,
        receipt: convert::pack(&receipt),
        attempt: receipt.attempt,
        ..Default::default()
    };
    let left = passage.deadline.saturating_duration_since(Instant::now());
    let (bytes, sent) = (encoding.len(), Instant::now());
    activations::deliver(next, header, encoding, left).await.map_err(|status| PassError::Delivery { status })?;
    let us = sent.elapsed().as_micros() as u64;
    tracing::info!(run = %passage.run, boundary = shard.index().0 + 1, bytes, us, "passed on");
    Ok(())
}

/// The receipt that was given before, or a new one: for the first statement about a run, or for a later attempt.
fn receipt_for(worker: &Worker, passage: &Passage, statement: Statement) -> Result<Receipt, PassError> {
    let given = if passage.again { passage.entry.read_receipt().ok() } else { None };
    match given {
        // Two statements under one key would be evidence against it.
        Some(given) if given.statement != statement => return Err(PassError::OtherStatement),
        Some(given) if given.attempt == passage.attempt => return Ok(given),
        _ => {}
    }
    let receipt = Receipt::sign(statement, passage.attempt, &worker.identity);
    passage.entry.write_receipt(&receipt)?;
    Ok(receipt)
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

/// Why a run did not get through a worker.
#[derive(Debug, Error)]
enum PassError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("worker {worker} signed for another boundary than the one that arrived from it")]
    Link { worker: PublicKey },
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(
        "run again, the shard gave another output than the one that this worker signed for: its installation has changed"
    )]
    OtherStatement,
    #[error("the run's deadline passed while it waited for its turn")]
    Deadline,
    #[error("the worker is stopping")]
    Stopping,
    #[error("the coordinator has not said where the outputs go")]
    NoRoute,
    #[error("the next shard did not take the outputs: {}: {}", status.code(), status.message())]
    Delivery { status: Status },
    #[error("the coordinator did not take a public boundary: {0}")]
    Upload(#[from] TransferError),
    #[error("the inference task died: {0}")]
    Task(tokio::task::JoinError),
}

impl PassError {
    fn stage(&self) -> FailureStage {
        match self {
            Self::NoRoute | Self::Stopping | Self::Backend(BackendError::Cancelled) => FailureStage::Away,
            Self::Delivery { status } if activations::may_pass(status.code()) => FailureStage::Away,
            Self::Upload(TransferError::Remote(status)) if activations::may_pass(status.code()) => FailureStage::Away,
            Self::Delivery { .. } | Self::Upload(_) => FailureStage::Delivery,
            Self::Link { .. } => FailureStage::Link,
            _ => FailureStage::Inference,
        }
    }
}
