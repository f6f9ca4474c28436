//! Activations: in from the previous shard, through this one, out to the next.
//!
//! A boundary is acknowledged once it is spooled, so the previous worker may forget it. While the queue is full the
//! acknowledgement waits, which holds the previous worker back in turn. Only the worker that holds the shard before is
//! listened to, and the owner's side, which sends boundary 0 and what two workers are at odds about. What arrives is compared
//! with the receipt that comes with it before this worker signs its own; where they differ, that receipt is shown to the
//! coordinator, which finds out whose fault it is.
//!
//! A worker that signed two statements in one attempt of a run would convict itself. So an attempt takes one boundary; a later
//! attempt replaces it, an earlier one is refused; and runs are refused whose ids are so old that nothing may be left here of
//! what was signed for them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use shardproof_common::backend::{BackendError, Inference, Job};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::{PublicKey, Receipt, SignatureBytes, handed_digest};
use shardproof_common::statement::{Binding, Boundary, Statement};
use shardproof_common::tensor::{self, Tensor};
use shardproof_common::{chain, clock};
use shardproof_proto::convert;
use shardproof_proto::transport::activations;
use shardproof_proto::transport::artifacts::{self, TransferError};
use shardproof_proto::v1::activations_server::{Activations, ActivationsServer};
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, Activation, ActivationHeader, Delivered, FailureStage};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::Worker;
use crate::shard::HeldShard;
use crate::spool::{Arrival, Entry, SpoolError};

/// A sender that does not say within this time what it sends is turned away.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// Longest that a run may take, whatever the sender says.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
/// How far a run's id may be from this machine's clock, in either direction. What was signed for a run is remembered for as
/// long as its id is taken.
const OLDEST_RUN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The activation service as the health service names it.
pub(crate) type Server = ActivationsServer<Pipeline>;

/// The activation service of a worker.
pub(crate) struct Pipeline {
    worker: Arc<Worker>,
}

pub(crate) fn server(worker: Arc<Worker>) -> Server {
    ActivationsServer::new(Pipeline { worker })
}

/// One run on its way through this worker.
struct Passage {
    run: RunId,
    shard: Arc<HeldShard>,
    entry: Entry,
    arrival: Arrival,
    input: Vec<Tensor>,
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
        let run = sender.run;
        if let Some((entry, arrival, input)) = self.accept(&shard, &header, sender, &encoding).await? {
            self.worker.hold.reach(Stage::Spooled).await;
            let passage = Passage { run, shard, entry, arrival, input, deadline, _place_in_queue: place };
            self.worker.tasks.spawn(pass(self.worker.clone(), passage));
        }
        Ok(Response::new(Delivered {}))
    }
}

/// Who sends a boundary, established before its bytes are taken.
struct Sender {
    run: RunId,
    /// The previous worker's receipt; none at boundary 0.
    receipt: Option<Receipt>,
}

fn late(_: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("the boundary was not taken within the run's deadline")
}

impl Pipeline {
    /// Boundary 0 comes from the owner's side, every other one from the worker that holds the shard before, or from the owner's
    /// side on its behalf: nobody else can start a run here, or get ahead of the one that it is about.
    fn authenticate(&self, shard: &HeldShard, header: &ActivationHeader) -> Result<Sender, Status> {
        let run = convert::run_id(&header.run)?;
        if convert::digest("plan", &header.plan)? != shard.plan {
            return Err(Status::failed_precondition("this worker holds a shard of another plan"));
        }
        if header.boundary != shard.index().0 {
            let message = format!("this worker takes boundary {}, not {}", shard.index(), header.boundary);
            return Err(Status::failed_precondition(message));
        }
        check_age(run)?;
        let handed_by_owner = shard.index().0 == 0 || !header.owner_signature.is_empty();
        if handed_by_owner {
            let signature: SignatureBytes = convert::unpack("owner_signature", &header.owner_signature)?;
            let encoding = convert::digest("digest", &header.digest)?;
            let signed = handed_digest(run, shard.plan, header.boundary, header.attempt, encoding);
            shard.card.body.authority.verify(signed, &signature).map_err(|error| {
                Status::unauthenticated(format!("the boundary is not from the owner's side: {error}"))
            })?;
        }
        let Some(before) = shard.index().0.checked_sub(1) else { return Ok(Sender { run, receipt: None }) };
        let receipt: Receipt = convert::unpack("receipt", &header.receipt)?;
        if !handed_by_owner && self.worker.neighbours.borrow().previous != Some(receipt.worker) {
            return Err(Status::permission_denied("the sender does not hold the shard before this one"));
        }
        chain::check_receipt(&receipt, &shard.card, run, ShardIndex(before)).map_err(|refusal| {
            Status::invalid_argument(format!("the receipt that came with the boundary: {refusal}"))
        })?;
        Ok(Sender { run, receipt: Some(receipt) })
    }

    /// Checks a boundary against the shard and its sender's receipt and spools it; nothing to do when it was delivered before.
    async fn accept(
        &self,
        shard: &HeldShard,
        header: &ActivationHeader,
        sender: Sender,
        encoding: &[u8],
    ) -> Result<Option<(Entry, Arrival, Vec<Tensor>)>, Status> {
        let input = tensor::decode_boundary(encoding).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = Boundary::public(&input);
        let differs = |what: String| format!("boundary {}: {what}", header.boundary);
        let mut mismatch = found.conforms_to(&shard.files.card.input).err().map(|error| differs(error.to_string()));
        if let Some(promised) = sender.receipt.as_ref().map(|receipt| &receipt.statement.output)
            && matches!(promised.binding, Binding::Public(_))
            && *promised != found
        {
            mismatch = Some(differs("the receipt names other tensors than those that came with it".to_owned()));
        }
        if let Some(mismatch) = mismatch {
            // Before the refusal reaches the sender, which might otherwise be heard first.
            self.complain(&sender, shard.index(), header.attempt, &mismatch).await;
            return Err(Status::invalid_argument(mismatch));
        }
        let Sender { run, receipt: upstream } = sender;
        let arrival = Arrival { attempt: header.attempt, input: Digest::of(encoding), upstream };
        let entry = self.worker.spool.entry(run, shard.index());
        let _turn = self.worker.spool.turn(run);
        if let Some(earlier) = entry.arrival() {
            match arrival.attempt.cmp(&earlier.attempt) {
                Ordering::Less => {
                    let message = format!("attempt {} of this run has arrived already", earlier.attempt);
                    return Err(Status::failed_precondition(message));
                }
                Ordering::Equal if earlier.input == arrival.input => {
                    tracing::debug!(%run, "boundary delivered again");
                    return Ok(None);
                }
                Ordering::Equal => {
                    return Err(Status::already_exists("another boundary of this attempt was delivered before"));
                }
                Ordering::Greater => {}
            }
        }
        entry.write_input(encoding, &arrival).map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Some((entry, arrival, input)))
    }

    /// Shows the coordinator the receipt that what arrived does not fit.
    async fn complain(&self, sender: &Sender, shard: ShardIndex, attempt: u32, reason: &str) {
        let Some(receipt) = &sender.receipt else { return };
        let failure = v1::Failure {
            run: convert::run_bytes(sender.run),
            shard: shard.0,
            attempt: attempt.into(),
            stage: FailureStage::Link.into(),
            reason: reason.to_owned(),
            upstream: convert::pack(receipt),
        };
        self.worker.tell(Message::Failure(failure)).await;
    }
}

/// Refuses runs of which nothing may be remembered here, or may be remembered when they come again.
fn check_age(run: RunId) -> Result<(), Status> {
    let now = clock::now();
    let near = |created: UnixMillis| u128::from(created.0.abs_diff(now.0)) <= OLDEST_RUN.as_millis();
    if run.created().is_some_and(near) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "run {run} was not begun within 7 days of this machine's clock: set the clocks of both machines"
    )))
}

/// Takes a run through the shard and on to the next; tells the coordinator of success and of failure.
async fn pass(worker: Arc<Worker>, passage: Passage) {
    let (run, shard, attempt) = (passage.run, passage.shard.index(), passage.arrival.attempt);
    let upstream = passage.arrival.upstream.clone();
    let outcome = tokio::select! {
        outcome = run_and_forward(&worker, passage) => outcome,
        () = worker.shutdown.cancelled() => Err(PassError::Stopping),
    };
    if let Err(error) = outcome {
        if matches!(error, PassError::Superseded { .. }) {
            return tracing::info!(%run, %shard, %error, "attempt ended here");
        }
        tracing::warn!(%run, %shard, %error, "run failed here");
        let failure = v1::Failure {
            run: convert::run_bytes(run),
            shard: shard.0,
            attempt: attempt.into(),
            stage: error.stage().into(),
            reason: error.to_string(),
            upstream: upstream.as_ref().map(convert::pack).unwrap_or_default(),
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
    let receipt = sign(worker, &passage, statement)?;
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
        upstream: passage.arrival.upstream.as_ref().map(convert::pack).unwrap_or_default(),
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
        attempt: receipt.attempt,
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

/// Signs what came of an attempt, unless a later one has arrived meanwhile. A receipt that was given for it is given again.
fn sign(worker: &Worker, passage: &Passage, statement: Statement) -> Result<Receipt, PassError> {
    let _turn = worker.spool.turn(passage.run);
    let attempt = passage.arrival.attempt;
    if passage.entry.arrival().is_none_or(|latest| latest.attempt != attempt) {
        return Err(PassError::Superseded { attempt });
    }
    if let Some(receipt) = passage.entry.receipt_of(attempt) {
        return Ok(receipt);
    }
    let receipt = Receipt::sign(statement, attempt, clock::now().after(worker.keep_spool), &worker.identity);
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
    match &passage.arrival.upstream {
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
    #[error("attempt {attempt} was given up: a later one of the run has arrived")]
    Superseded { attempt: u32 },
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
            // Whoever finds fault with what it is sent says so with this code.
            Self::Delivery { status, .. } if status.code() == Code::InvalidArgument => FailureStage::Refused,
            Self::NoRoute | Self::Delivery { .. } | Self::Upload(_) => FailureStage::Delivery,
            Self::Link { .. } => FailureStage::Link,
            _ => FailureStage::Inference,
        }
    }
}
