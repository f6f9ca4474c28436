//! The workers' side: one stream each, from join to loss.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shardproof_common::address;
use shardproof_common::chain::printable;
use shardproof_common::clock;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, Role, ShardIndex};
use shardproof_common::receipt::{PublicKey, Receipt, SignatureBytes};
use shardproof_proto::convert;
use shardproof_proto::v1::control_server::Control;
use shardproof_proto::v1::coordinator_message::Message as ToWorker;
use shardproof_proto::v1::worker_message::Message as FromWorker;
use shardproof_proto::v1::{
    self, CoordinatorMessage, FailureStage, HeartbeatRequest, HeartbeatResponse, WorkerMessage,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;
use crate::cluster::Stream;
use crate::delivery::Interruption;
use crate::dispute::Complaint;
use crate::inference::Told;
use crate::record::RunState;
use crate::registry::SessionId;
use crate::workers::Event;

/// Messages that may wait for a worker that reads slowly, beyond which it is taken for stuck.
const BACKLOG: usize = 1024;
/// Messages of one worker that are seen to at a time; with as many the next one waits in its connection.
const HANDLED_AT_A_TIME: usize = 256;
/// Largest message from a worker: a receipt with its commitments.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;
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
    // Each goes as far as it can, in the order in which they came, and then waits for the disk beside the others.
    let mut handled = FuturesUnordered::new();
    loop {
        let message = tokio::select! {
            message = inbound.message(), if handled.len() < HANDLED_AT_A_TIME => message,
            Some(()) = handled.next() => continue,
            () = closed.cancelled() => break,
        };
        match message {
            Ok(Some(WorkerMessage { message: Some(message) })) => {
                handled.push(handle(&coordinator, session, key, message));
            }
            Ok(Some(WorkerMessage { message: None })) => {}
            Ok(None) | Err(_) => break,
        }
    }
    // What has come goes as far as it can before the worker counts as gone. What waits for the disk goes on beside that: however
    // long it takes, nothing is to be passed on to a worker that is not there.
    std::future::poll_fn(|cx| {
        while let std::task::Poll::Ready(Some(())) = handled.poll_next_unpin(cx) {}
        std::task::Poll::Ready(())
    })
    .await;
    tokio::join!(leave(&coordinator, session, key), async { while handled.next().await.is_some() {} });
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
    let role: Role = join
        .role
        .parse()
        .map_err(|error: shardproof_common::ids::ParseIdError| Status::invalid_argument(error.to_string()))?;
    let rank = coordinator.workers.rank(&key);
    let joined = coordinator.cluster.join(key, role, join.address.clone(), rank, stream.clone(), closed.clone());
    let (session, given) = joined.map_err(|error| Status::invalid_argument(error.to_string()))?;
    // Barred since it was looked at: whoever bars a key looks for it among those that have joined.
    if let Err(refused) = coordinator.workers.check(&key) {
        coordinator.expel(key, "is refused from now on").await;
        return Err(Status::permission_denied(refused.to_string()));
    }
    coordinator.workers.seen(key, false).await;
    tracing::info!(worker = key.short(), %role, address = join.address, "worker joined");
    if coordinator.cluster.member(session).is_some_and(|member| member.shard.is_none()) {
        tracing::info!(worker = key.short(), %role, "every place of its role is taken: the worker is a spare");
    }
    coordinator.give_out(given).await;
    Ok((session, key))
}

fn check_join(coordinator: &Coordinator, join: &v1::Join, nonce: Digest) -> Result<PublicKey, Status> {
    if join.protocol != PROTOCOL_VERSION {
        let message =
            format!("the worker speaks protocol version {}, the coordinator {PROTOCOL_VERSION}", join.protocol);
        return Err(Status::invalid_argument(message));
    }
    let key = convert::public_key(&join.key)?;
    let signature: SignatureBytes = convert::unpack("signature", &join.signature)?;
    key.verify(Digest::derive("shardproof 2 join", &(nonce, key)), &signature)
        .map_err(|error| Status::unauthenticated(error.to_string()))?;
    coordinator.workers.check(&key).map_err(|refused| Status::permission_denied(refused.to_string()))?;
    if !is_address(&join.address) {
        return Err(Status::invalid_argument(format!("`{}` is no address host:port", printable(&join.address))));
    }
    Ok(key)
}

/// `host:port` in the characters that names and addresses have.
fn is_address(text: &str) -> bool {
    address::check(text).is_ok()
}

async fn handle(coordinator: &Arc<Coordinator>, session: SessionId, key: PublicKey, message: FromWorker) {
    let outcome = match message {
        FromWorker::Ready(ready) => {
            let holds = check_served(coordinator, &ready).and_then(|()| check_holds(coordinator, session, ready.shard));
            if let Ok(shard) = holds {
                tracing::info!(worker = key.short(), %shard, "worker ready");
                // What it had sent when its last connection broke may be lost.
                coordinator.interrupt_runs_of(shard, key);
                coordinator.cluster.ready(session, shard);
                coordinator.ask_again(shard, key).await;
            }
            holds.map(drop)
        }
        FromWorker::InferenceDone(done) => take_receipt(coordinator, session, key, done).await,
        FromWorker::ProofDone(done) => coordinator.take_proof(key, done).await,
        FromWorker::Failure(failure) => take_failure(coordinator, session, key, failure).await,
        FromWorker::Progress(progress) => note_progress(coordinator, session, &progress),
        FromWorker::Shown(shown) => {
            check_holds(coordinator, session, shown.shard).and_then(|_| coordinator.take_shown(key, &shown))
        }
        FromWorker::Leaving(_) => {
            coordinator.tasks.spawn(coordinator.clone().let_go(session, key));
            Ok(())
        }
        FromWorker::Join(_) => Err(Status::invalid_argument("a second join")),
    };
    if let Err(status) = outcome {
        tracing::warn!(worker = key.short(), reason = status.message(), "ignoring a malformed message");
    }
}

fn is_last(coordinator: &Coordinator, shard: ShardIndex) -> bool {
    shard.as_usize() + 1 == coordinator.planned.plan.shards.len()
}

/// What a worker is ready for must be of the plan that is served.
fn check_served(coordinator: &Coordinator, ready: &v1::Ready) -> Result<(), Status> {
    let plan = convert::digest("plan", &ready.plan)?;
    let served = plan == coordinator.planned.plan.digest();
    served.then_some(()).ok_or_else(|| Status::failed_precondition("the worker is ready for another plan's shard"))
}

/// The shard that a worker speaks of must be the one that it holds.
fn check_holds(coordinator: &Coordinator, session: SessionId, shard: u32) -> Result<ShardIndex, Status> {
    let held = coordinator.cluster.member(session).and_then(|member| member.shard);
    let holds = held == Some(ShardIndex(shard));
    holds.then_some(ShardIndex(shard)).ok_or_else(|| Status::permission_denied("the worker does not hold that shard"))
}

async fn take_receipt(
    coordinator: &Arc<Coordinator>,
    session: SessionId,
    key: PublicKey,
    done: v1::InferenceDone,
) -> Result<(), Status> {
    let shard = check_holds(coordinator, session, done.shard)?;
    let run = convert::run_id(&done.run)?;
    let receipt: Receipt = convert::unpack("receipt", &done.receipt)?;
    if receipt.worker != key {
        return Err(Status::invalid_argument("the receipt is another worker's"));
    }
    let told = Told {
        receipt,
        upstream: unpack_if_there(&done.upstream)?,
        witness_us: done.witness_us,
        witness_bytes: done.witness_bytes,
        peak_rss_bytes: done.peak_rss_bytes,
    };
    coordinator.take_receipt(run, shard, told).await;
    Ok(())
}

fn unpack_if_there(receipt: &[u8]) -> Result<Option<Receipt>, Status> {
    (!receipt.is_empty()).then(|| convert::unpack("upstream", receipt)).transpose()
}

/// A failure before the answer ends the run; one of an awaited proof rejects it.
async fn take_failure(
    coordinator: &Arc<Coordinator>,
    session: SessionId,
    key: PublicKey,
    failure: v1::Failure,
) -> Result<(), Status> {
    let shard = check_holds(coordinator, session, failure.shard)?;
    let reason = printable(&failure.reason);
    match failure.stage() {
        FailureStage::Setup => {
            tracing::error!(worker = key.short(), %shard, reason, "worker cannot take its shard");
            if coordinator.cluster.troubled(session, reason) {
                coordinator.note(key, Event::Refused).await;
            } else {
                coordinator.make_way(key).await;
            }
        }
        FailureStage::Fetch => {
            tracing::error!(worker = key.short(), %shard, reason, "worker does not get its shard from here");
            coordinator.cluster.hindered(session, reason);
        }
        FailureStage::Link => {
            let before = shard.0.checked_sub(1).map(ShardIndex);
            let before =
                before.ok_or_else(|| Status::invalid_argument("boundary 0 has the coordinator's signature"))?;
            let complaint = Complaint { shown: unpack_if_there(&failure.upstream)?, of_attempt: Some(failure.attempt) };
            coordinator.take_complaint(convert::run_id(&failure.run)?, before, complaint).await;
        }
        FailureStage::Refused if !is_last(coordinator, shard) => {
            coordinator.take_complaint(convert::run_id(&failure.run)?, shard, Complaint::default()).await;
        }
        stage @ (FailureStage::Inference | FailureStage::Delivery | FailureStage::Upload | FailureStage::Refused) => {
            let run = convert::run_id(&failure.run)?;
            // What does not get across a hop may be either neighbour's doing. None is named; both are noted if it goes on. What
            // is not stored here may be this side's.
            let blamed = matches!(stage, FailureStage::Inference | FailureStage::Refused).then_some(key);
            let ended = coordinator.runs.change(run, |record| {
                let given_up = stage == FailureStage::Delivery && record.in_dispute();
                let late = !record.counts(failure.attempt);
                let open = record.state == RunState::Running && !given_up && !late;
                match stage {
                    _ if !open => {}
                    FailureStage::Refused => record.reject(shard, blamed, reason),
                    _ => record.fail(Some(shard), blamed, reason),
                }
                let next = record.holders.get(shard.as_usize() + 1).filter(|_| stage == FailureStage::Delivery);
                open.then(|| (std::iter::once(key).chain(next.copied()).collect::<Vec<_>>(), record.submitted_ms))
            });
            let noted = matches!(stage, FailureStage::Inference | FailureStage::Delivery);
            let ended = ended.await.flatten().filter(|_| noted);
            if let Some((workers, submitted_ms)) = ended {
                coordinator.note_missed(&workers, submitted_ms).await;
            }
        }
        FailureStage::Away => {
            let run = convert::run_id(&failure.run)?;
            coordinator.interrupt(run, Interruption::Away(shard, reason));
        }
        FailureStage::Proving => {
            let run = convert::run_id(&failure.run)?;
            let record = coordinator.find_run(run).await?;
            let entry = record.shards.get(shard.as_usize());
            let current = entry.is_some_and(|entry| {
                entry.attempt == failure.attempt && entry.receipt.as_ref().is_some_and(|receipt| receipt.worker == key)
            });
            if record.awaits_proof(shard) && current && record.promise_is_past(shard, clock::now()) {
                // Asked for in time, asked again too late: nothing that its worker promised.
                let reason = format!("its proof did not come while its worker promised to make one: {reason}");
                coordinator.change_and_withdraw(run, |record| record.reject(shard, None, reason)).await;
            } else if record.awaits_proof(shard) && current {
                coordinator.reject(run, shard, key, Event::Refused, format!("its proof failed: {reason}")).await;
            }
        }
        FailureStage::Unspecified => return Err(Status::invalid_argument("a failure without a stage")),
    }
    Ok(())
}

fn note_progress(coordinator: &Coordinator, session: SessionId, progress: &v1::Progress) -> Result<(), Status> {
    check_holds(coordinator, session, progress.shard)?;
    let run = convert::run_id(&progress.run)?;
    let step = printable(&progress.step.chars().take(80).collect::<String>());
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
    coordinator.workers.seen(key, member.shard.is_some()).await;
    if let Some(shard) = member.shard {
        coordinator.worker_left(shard, key);
        coordinator.interrupt_runs_of(shard, key);
    }
    coordinator.give_out(given).await;
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use shardproof_common::receipt::Identity;

    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn only_the_holder_of_a_shard_is_ready_for_it() {
        let bench = Bench::new(1, &["--backend", "float"]).await;
        let (holder, spare) = (Identity::generate(), Identity::generate());
        bench.run(1, |_| ()).await;
        let (held, _held) = bench.join(Role::Solo, &holder);
        let (idle, _idle) = bench.join(Role::Solo, &spare);
        let changes = bench.cluster.changes();
        let plan = convert::digest_bytes(bench.prepared().plan);
        let ready = |shard, plan: &Bytes| FromWorker::Ready(v1::Ready { plan: plan.clone(), shard });
        for shard in [0, u32::MAX] {
            handle(&bench, idle, spare.public(), ready(shard, &plan)).await;
            assert!(!changes.has_changed().unwrap(), "shard {shard}");
        }
        for other in [Bytes::new(), convert::digest_bytes(Digest::of(b"another plan"))] {
            handle(&bench, held, holder.public(), ready(0, &other)).await;
            assert!(!changes.has_changed().unwrap(), "plan {other:?}");
        }
        handle(&bench, held, holder.public(), ready(0, &plan)).await;
        assert!(changes.has_changed().unwrap() && bench.cluster.member(held).unwrap().ready);
    }

    #[tokio::test]
    async fn a_worker_that_fails_every_run_hands_its_shard_to_a_spare() {
        let bench = Bench::new(1, &["--backend", "float"]).await;
        let (failing, spare) = (Identity::generate(), Identity::generate());
        let (session, _messages) = bench.join_ready(Role::Solo, 0, &failing);
        let (_, _others) = bench.join(Role::Solo, &spare);
        for _ in 0..5 {
            assert_eq!(bench.holder(0), Some(failing.public()));
            let run = bench.run(1, |_| ()).await;
            let stage = FailureStage::Inference.into();
            let failure = v1::Failure { run: convert::run_bytes(run), stage, ..Default::default() };
            handle(&bench, session, failing.public(), FromWorker::Failure(failure)).await;
            assert_eq!(bench.record(run).await.state, RunState::Failed);
        }
        assert_eq!(bench.holder(0), Some(spare.public()));
    }

    #[tokio::test]
    async fn a_hop_that_lets_nothing_through_counts_against_both_its_ends() {
        let bench = Bench::new(2, &["--backend", "float"]).await;
        let [first, last, spare] = [Identity::generate(), Identity::generate(), Identity::generate()];
        let (session, _messages) = bench.join_ready(Role::First, 0, &first);
        let (_, _others) = bench.join_ready(Role::Last, 1, &last);
        let (_, _spares) = bench.join(Role::Last, &spare);
        for _ in 0..5 {
            assert_eq!(bench.holder(1), Some(last.public()));
            let run = bench.run(1, |_| ()).await;
            let holders = [first.public(), last.public()];
            bench.runs.change(run, |record| record.send_to(&holders)).await.unwrap();
            let stage = FailureStage::Delivery.into();
            let failure = v1::Failure { run: convert::run_bytes(run), stage, ..Default::default() };
            handle(&bench, session, first.public(), FromWorker::Failure(failure)).await;
            let record = bench.record(run).await;
            assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None));
        }
        assert_eq!(bench.holder(1), Some(spare.public()));
        assert!(!bench.is_blameless(&first));
    }

    #[tokio::test]
    async fn what_is_not_stored_here_counts_against_nobody() {
        let bench = Bench::new(1, &["--backend", "float"]).await;
        let worker = Identity::generate();
        let (session, _messages) = bench.join_ready(Role::Solo, 0, &worker);
        for _ in 0..5 {
            let run = bench.run(1, |_| ()).await;
            let stage = FailureStage::Upload.into();
            let failure = v1::Failure { run: convert::run_bytes(run), stage, ..Default::default() };
            handle(&bench, session, worker.public(), FromWorker::Failure(failure)).await;
            let record = bench.record(run).await;
            assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None));
        }
        assert!(bench.is_blameless(&worker));
    }

    #[tokio::test]
    async fn a_shard_that_is_not_handed_out_here_is_shown_and_counts_against_nobody() {
        let bench = Bench::new(1, &["--backend", "float"]).await;
        let (worker, spare) = (Identity::generate(), Identity::generate());
        let (session, _messages) = bench.join(Role::Solo, &worker);
        let (_, _others) = bench.join(Role::Solo, &spare);
        for _ in 0..5 {
            let (stage, reason) = (FailureStage::Fetch.into(), "not here".to_owned());
            let failure = v1::Failure { stage, reason, ..Default::default() };
            handle(&bench, session, worker.public(), FromWorker::Failure(failure)).await;
        }
        bench.make_way(worker.public()).await;
        assert_eq!((bench.holder(0), bench.is_blameless(&worker)), (Some(worker.public()), true));
        assert_eq!(bench.cluster.member(session).unwrap().trouble.as_deref(), Some("not here"));
    }

    #[test]
    fn addresses_hold_nothing_that_a_terminal_would_act_on() {
        assert!(is_address("localhost:8001") && is_address("10.0.0.7:1") && is_address("[::1]:8001"));
        for wrong in
            ["", "localhost", ":80", "::1:18001", "host:0", "host:65536", "127.0.0.1:9\x1b]0;owned\x07:9", "a b:1"]
        {
            assert!(!is_address(wrong), "{wrong:?}");
        }
    }
}
