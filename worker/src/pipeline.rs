//! Activations: in from the previous shard, through this one, out to the next.
//!
//! A boundary is acknowledged once it is spooled, so the previous worker may forget it. One that comes again is answered once
//! more, with the same receipt and the same output, whatever was lost on the way before. While the queue is full the
//! acknowledgement waits, which holds the previous worker back in turn. Only the worker that holds the shard before is
//! listened to, and the owner's side, which sends boundary 0 and what two workers are at odds about; and both only with what the
//! owner's side signed for this attempt of the run, so that nobody makes up runs to fill the spool of the next. What arrives is
//! compared with the receipt that comes with it before this worker signs its own; where they differ, that receipt is shown to the
//! coordinator, which finds out whose fault it is.
//!
//! A neighbour that opens deliveries and sends nothing takes places in the queue from itself alone: what the owner's side hands
//! over in its stead has places of its own, and whoever takes the neighbour's shard over finds those of the one before free.
//!
//! A worker that signed two statements in one attempt of a run would convict itself. So an attempt takes one boundary; a later
//! attempt replaces it, an earlier one is refused; and runs are refused whose ids are so old that nothing may be left here of
//! what was signed for them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use prost::bytes::Bytes;
use shardproof_common::backend::{BackendError, Inference, Job};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::{PublicKey, Receipt, SignatureBytes, attempt_digest, handed_digest};
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

use crate::shard::HeldShard;
use crate::spool::{self, Arrival, SpoolError};
use crate::{Worker, metrics};

/// A sender that does not say within this time what it sends is turned away.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// How far a run's id may be from this machine's clock, in either direction. What was signed for a run is remembered for as
/// long as its id is taken.
pub(crate) const OLDEST_RUN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The activation service as the health service names it.
pub(crate) type Server = ActivationsServer<Pipeline>;

/// The activation service of a worker.
pub(crate) struct Pipeline {
    worker: Arc<Worker>,
}

pub(crate) fn server(worker: Arc<Worker>) -> Server {
    ActivationsServer::new(Pipeline { worker })
}

/// The runs that are on their way through this worker, each with what came again meanwhile.
pub(crate) type Passages = DashMap<RunId, Option<Passage>>;

/// One run on its way through this worker.
pub(crate) struct Passage {
    run: RunId,
    shard: Arc<HeldShard>,
    entry: spool::Entry,
    arrival: Arrival,
    /// The owner's for the arrival's attempt, to be passed on.
    attempt_signature: Bytes,
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

        let left = Duration::from_millis(header.deadline_ms).min(activations::LONGEST_RUN);
        let deadline = Instant::now() + left;
        let taken = tokio::time::timeout_at(deadline.into(), self.take(&sender, stream, &header));
        let (place, encoding) = tokio::select! {
            taken = taken => taken.map_err(late)??,
            () = self.replaced(&sender) => {
                return Err(Status::aborted("another worker holds the shard before this one by now"));
            }
        };
        if self.worker.shutdown.is_cancelled() {
            return Err(Status::unavailable("the worker is stopping"));
        }
        let run = sender.run;
        let (entry, arrival, input) = self.accept(&shard, &header, sender, &encoding).await?;
        self.worker.hold.reach(Stage::Spooled).await;
        let attempt_signature = header.attempt_signature;
        let passage =
            Passage { run, shard, entry, arrival, attempt_signature, input, deadline, _place_in_queue: place };
        match self.worker.passages.entry(run) {
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
    /// The previous worker's receipt; none at boundary 0.
    receipt: Option<Receipt>,
    /// Whether the owner's side hands the boundary over itself.
    is_owner: bool,
}

impl Sender {
    /// The worker that sends it, where it is one.
    fn neighbour(&self) -> Option<PublicKey> {
        self.receipt.as_ref().filter(|_| !self.is_owner).map(|receipt| receipt.worker)
    }

    /// Whether the owner's side sends it in a neighbour's stead.
    fn is_disputed(&self) -> bool {
        self.is_owner && self.receipt.is_some()
    }
}

fn late(_: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("the boundary was not taken within the run's deadline")
}

impl Pipeline {
    /// Boundary 0 comes from the owner's side, every other one from the worker that holds the shard before, or from the owner's
    /// side in its stead; and all of them for an attempt that the owner's side began: nobody else can start a run here, or get
    /// ahead of the one that it is about.
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
        let before = shard.index().0.checked_sub(1).map(ShardIndex);
        let receipt = before.map(|_| convert::unpack::<Receipt>("receipt", &header.receipt)).transpose()?;
        let sender = Sender { run, receipt, is_owner: before.is_none() || !header.owner_signature.is_empty() };
        if sender.is_owner {
            let encoding = convert::digest("digest", &header.digest)?;
            let signed = handed_digest(run, shard.plan, header.boundary, header.attempt, encoding);
            check_owners(shard, signed, &header.owner_signature, "the boundary")?;
        } else if self.worker.neighbours.borrow().previous != sender.neighbour() {
            return Err(Status::permission_denied("the sender does not hold the shard before this one"));
        }
        let signed = attempt_digest(run, shard.plan, header.attempt);
        check_owners(shard, signed, &header.attempt_signature, "this attempt of the run")?;
        if let (Some(receipt), Some(before)) = (&sender.receipt, before) {
            chain::check_receipt(receipt, &shard.card, run, before).map_err(|refusal| {
                Status::invalid_argument(format!("the receipt that came with the boundary: {refusal}"))
            })?;
        }
        Ok(sender)
    }

    /// Takes the boundary's bytes, once there is a place for the run. They have to keep coming: whoever hangs holds no place.
    async fn take(
        &self,
        sender: &Sender,
        stream: Streaming<Activation>,
        header: &ActivationHeader,
    ) -> Result<(OwnedSemaphorePermit, Vec<u8>), Status> {
        let queue = if sender.is_disputed() { &self.worker.disputed } else { &self.worker.queue };
        let place = queue.clone().acquire_owned().await;
        let place = place.map_err(|_| Status::unavailable("the worker is stopping"))?;
        let mut stream = activations::while_it_flows(stream, self.worker.hop_deadline);
        let encoding = activations::receive_encoding(&mut stream, header).await?;
        Ok((place, encoding))
    }

    /// Waits until another worker than the sender holds the shard before. One that is only away keeps its places.
    async fn replaced(&self, sender: &Sender) {
        let Some(neighbour) = sender.neighbour() else { return std::future::pending().await };
        let mut neighbours = self.worker.neighbours.subscribe();
        let replaced = neighbours.wait_for(|now| now.previous.is_some_and(|previous| previous != neighbour));
        if replaced.await.is_err() {
            // The worker ends.
            std::future::pending().await
        }
    }

    /// Checks a boundary against the shard and its sender's receipt and spools it, unless it was delivered before.
    async fn accept(
        &self,
        shard: &HeldShard,
        header: &ActivationHeader,
        sender: Sender,
        encoding: &[u8],
    ) -> Result<(spool::Entry, Arrival, Vec<Tensor>), Status> {
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
        let Sender { run, receipt: upstream, .. } = sender;
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
                    return Ok((entry, earlier, input));
                }
                Ordering::Equal => {
                    return Err(Status::already_exists("another boundary of this attempt was delivered before"));
                }
                Ordering::Greater => {}
            }
        }
        entry.write_input(encoding, &arrival).map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok((entry, arrival, input))
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

/// Checks a signature that only the owner's side can have made.
fn check_owners(shard: &HeldShard, signed: Digest, signature: &[u8], what: &str) -> Result<(), Status> {
    let refuse =
        |reason: &dyn fmt::Display| Status::unauthenticated(format!("{what} is not from the owner's side: {reason}"));
    let signature: SignatureBytes =
        convert::unpack("signature", signature).map_err(|status| refuse(&status.message()))?;
    shard.card.body.authority.verify(signed, &signature).map_err(|error| refuse(&error))
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

/// Takes a run through, and once more where it came again meanwhile.
async fn pass_all(worker: Arc<Worker>, first: Passage) {
    let run = first.run;
    let mut next = Some(first);
    while let Some(passage) = next {
        pass(&worker, passage).await;
        next = match worker.passages.entry(run) {
            Entry::Occupied(mut under_way) => {
                let again = under_way.get_mut().take();
                if again.is_none() {
                    under_way.remove();
                }
                again
            }
            Entry::Vacant(_) => None,
        };
    }
}

/// Takes a run through the shard and on to the next; tells the coordinator of success and of failure.
async fn pass(worker: &Arc<Worker>, passage: Passage) {
    let (run, shard, attempt) = (passage.run, passage.shard.index(), passage.arrival.attempt);
    let upstream = passage.arrival.upstream.clone();
    let outcome = tokio::select! {
        outcome = run_and_forward(worker, passage) => outcome,
        () = worker.shutdown.cancelled() => Err(PassError::Stopping),
    };
    if let Err(error) = outcome {
        if matches!(error, PassError::Superseded { .. }) {
            return tracing::info!(%run, %shard, %error, "attempt ended here");
        }
        tracing::warn!(%run, %shard, %error, "run failed here");
        metrics::note_run(false);
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
    if shard.card.body.shows_output_of(shard.index()) {
        // Whoever verifies needs the tensors of a public boundary, and only the neighbours have seen them.
        artifacts::store(worker.coordinator.clone(), encoding.clone()).await?;
    }
    metrics::note_shard(started.elapsed());
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
        attempt_signature: passage.attempt_signature.clone(),
        ..Default::default()
    };
    let left = passage.deadline.saturating_duration_since(Instant::now());
    let (from, shards) = (shard.index(), shard.card.body.plan.shards.len());
    let hop = Hop { from, shards, address: next.address().to_owned() };
    let (bytes, sent) = (encoding.len(), Instant::now());
    next.deliver(header, encoding, left).await.map_err(|status| PassError::Delivery { hop, status })?;
    let us = sent.elapsed().as_micros() as u64;
    tracing::info!(run = %passage.run, boundary = shard.index().0 + 1, bytes, us, "passed on");
    metrics::note_run(true);
    Ok(())
}

/// Signs what came of an attempt, unless a later one has arrived meanwhile. A receipt that was given for it is given again.
fn sign(worker: &Worker, passage: &Passage, statement: Statement) -> Result<Receipt, PassError> {
    let _turn = worker.spool.turn(passage.run);
    let attempt = passage.arrival.attempt;
    if passage.entry.arrival().is_none_or(|latest| latest.attempt != attempt) {
        return Err(PassError::Superseded { attempt });
    }
    if let Ok(given) = passage.entry.read_receipt() {
        // Two outputs for one input, signed by one key, would be evidence against it.
        if given.statement.input == statement.input && given.statement != statement {
            return Err(PassError::OtherStatement);
        }
        if given.attempt == attempt {
            return Ok(given);
        }
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
    address: String,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.from.0 + 1;
        write!(f, "boundary {to} did not get from shard {} to ", self.from)?;
        if to as usize == self.shards {
            f.write_str("the coordinator")?
        } else {
            write!(f, "shard {to}")?
        }
        write!(f, " at {}", self.address)
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
    #[error("run again, the shard gave another output than this worker has signed for: its installation has changed")]
    OtherStatement,
    #[error("attempt {attempt} was given up: a later one of the run has arrived")]
    Superseded { attempt: u32 },
    #[error("the run's deadline passed while it waited for its turn")]
    Deadline,
    #[error("the worker is stopping")]
    Stopping,
    #[error("the coordinator has not said where the outputs go, or named no address HOST:PORT")]
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
            Self::NoRoute | Self::Stopping | Self::Backend(BackendError::Cancelled) => FailureStage::Away,
            Self::Delivery { status, .. } if activations::may_pass(status.code()) => FailureStage::Away,
            Self::Upload(TransferError::Remote(status)) if activations::may_pass(status.code()) => FailureStage::Away,
            Self::Delivery { .. } => FailureStage::Delivery,
            Self::Upload(_) => FailureStage::Upload,
            Self::Link { .. } => FailureStage::Link,
            _ => FailureStage::Inference,
        }
    }
}
