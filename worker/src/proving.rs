//! Proofs, one at a time, on a thread of their own.
//!
//! Runs that the coordinator asks for in one job are of one requester and are proven together where the backend can. Each
//! stands for itself all the same: one that is cancelled, or cannot be proven, leaves the others alone.
//!
//! A proof takes all cores, so two at a time would only make both late. What is proven is what the worker signed: the
//! statement comes from the spooled receipt, and a proof that was made before is answered from the spool.
//!
//! A proof is under way until its report is on its way to the coordinator: until then it answers a later request, and can be
//! cancelled, however long the coordinator does not take it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use prost::bytes::Bytes;
use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::{BackendError, BatchMember, Job, Proof};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::statement::Statement;
use shardproof_common::tensor::Tensor;
use shardproof_proto::transport::artifacts::TransferError;
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, CancelJob, FailureStage, ProofDone, ProveJob};
use shardproof_proto::{convert, transport};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::shard::HeldShard;
use crate::spool::{self, SpoolError};
use crate::{Worker, metrics, timings};

/// Pause before a proof is handed over once more; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where proof jobs wait for the proving thread.
pub(crate) struct Queue {
    sender: mpsc::Sender<Ticket>,
    under_way: UnderWay,
}

/// The proving thread's end of the queue.
pub(crate) struct Jobs(mpsc::Receiver<Ticket>);

/// The proofs that are wanted. A worker may owe one of a run that it had another shard of before.
type UnderWay = DashMap<(RunId, ShardIndex), Wanted>;

/// What the coordinator said last about a proof that is under way.
#[derive(Clone)]
struct Wanted {
    /// The attempt that the proof is reported for.
    attempt: Arc<AtomicU64>,
    cancel: CancellationToken,
}

/// Runs of one request, which may be proven together.
struct Ticket {
    shard: ShardIndex,
    members: Vec<Member>,
}

/// One run of a ticket.
struct Member {
    run: RunId,
    wanted: Wanted,
}

pub(crate) fn queue() -> (Queue, Jobs) {
    let (sender, receiver) = mpsc::channel();
    (Queue { sender, under_way: DashMap::new() }, Jobs(receiver))
}

impl Queue {
    /// Queues a job. The proof of a run that is under way already is not begun again: it answers the later request.
    pub(crate) fn submit(&self, job: &ProveJob) {
        let runs = job.members.iter().map(|member| Ok((convert::run_id(&member.run)?, member.attempt)));
        let runs: Vec<(RunId, u64)> = match runs.collect::<Result<Vec<_>, Status>>() {
            Ok(runs) if !runs.is_empty() => runs,
            _ => {
                tracing::error!("the coordinator sent a job for no run");
                return;
            }
        };
        let shard = ShardIndex(job.shard);
        let new = runs.into_iter().filter_map(|(run, attempt)| match self.under_way.entry((run, shard)) {
            Entry::Occupied(known) => {
                tracing::info!(%run, attempt, "the proof that is under way is asked for again");
                known.get().attempt.store(attempt, Ordering::Relaxed);
                None
            }
            Entry::Vacant(free) => {
                let wanted = Wanted { attempt: Arc::new(attempt.into()), cancel: CancellationToken::new() };
                free.insert(wanted.clone());
                Some(Member { run, wanted })
            }
        });
        let members: Vec<Member> = new.collect();
        if members.is_empty() {
            return;
        }
        if self.sender.send(Ticket { shard, members }).is_err() {
            tracing::error!(shard = job.shard, "the proving thread is gone");
        }
    }

    /// Whether a proof of the run's shard is waited for.
    pub(crate) fn needs(&self, run: RunId, shard: ShardIndex) -> bool {
        self.under_way.contains_key(&(run, shard))
    }

    /// Stops the job for a run, unless it has been asked for again since. Runs that are proven with it go on, and their proof is
    /// not reported for this one.
    pub(crate) fn cancel(&self, job: &CancelJob) {
        let Ok(run) = convert::run_id(&job.run) else { return };
        let meant = |_: &_, wanted: &Wanted| wanted.attempt.load(Ordering::Relaxed) <= job.attempt;
        if let Some((_, wanted)) = self.under_way.remove_if(&(run, ShardIndex(job.shard)), meant) {
            tracing::info!(%run, shard = job.shard, "proof cancelled");
            wanted.cancel.cancel();
        }
    }

    /// Ends the work on a member that is to be reported now: the attempt to report it for, if it is still wanted. Who asks from now on
    /// is answered anew.
    fn conclude(&self, shard: ShardIndex, member: &Member) -> Option<u64> {
        let same = |_: &_, wanted: &Wanted| Arc::ptr_eq(&wanted.attempt, &member.wanted.attempt);
        let (_, wanted) = self.under_way.remove_if(&(member.run, shard), same)?;
        Some(wanted.attempt.load(Ordering::Relaxed))
    }
}

/// Starts the proving thread, which ends with the process. `delay_ms` slows every proof down, for demonstrations.
pub(crate) fn start(worker: Arc<Worker>, jobs: Jobs, delay_ms: Option<u64>) -> std::io::Result<()> {
    let prover =
        Prover { worker, delay: delay_ms.map(Duration::from_millis), runtime: tokio::runtime::Handle::current() };
    let prove_one_by_one = move || jobs.0.into_iter().for_each(|ticket| prover.serve(ticket));
    std::thread::Builder::new().name("proving".into()).spawn(prove_one_by_one)?;
    Ok(())
}

/// What the proving thread has.
struct Prover {
    worker: Arc<Worker>,
    delay: Option<Duration>,
    runtime: tokio::runtime::Handle,
}

/// A run with what it takes to prove it.
struct Prepared {
    member: Member,
    entry: spool::Entry,
    input: Vec<Tensor>,
    statement: Statement,
}

/// A proof with each run's share of the time it took; none where it was made before.
struct Made {
    proof: Proof,
    share: Option<Duration>,
}

impl Prover {
    /// Proves the runs of a ticket, as many at once as the backend takes.
    fn serve(&self, ticket: Ticket) {
        let held = self.worker.shard.borrow().clone().filter(|shard| shard.index() == ticket.shard);
        let Some(shard) = held else {
            let refuse =
                |member| self.settle(ticket.shard, vec![member], Err(ProveError::NotHeld { shard: ticket.shard }));
            return ticket.members.into_iter().for_each(refuse);
        };
        let limit = if ticket.members.len() == 1 { 1 } else { shard.backend.batch_limit(&shard.files).max(1) };
        // Even shares: 8 runs, at most 7 at once, are 4 and 4.
        let size = ticket.members.len().div_ceil(ticket.members.len().div_ceil(limit));
        let mut members = ticket.members.into_iter().peekable();
        while members.peek().is_some() {
            let batch = members.by_ref().take(size).filter_map(|member| self.prepare(&shard, member));
            let batch: Vec<Prepared> = batch.collect();
            self.prove_together(&shard, batch);
        }
    }

    /// Reads what a run was spooled with. One that cannot be proven, or was proven before, is settled here and leaves the
    /// others alone.
    fn prepare(&self, shard: &HeldShard, member: Member) -> Option<Prepared> {
        let entry = self.worker.spool.entry(member.run, shard.index());
        let read = || {
            if member.wanted.cancel.is_cancelled() {
                return Err(BackendError::Cancelled.into());
            }
            let receipt = entry.read_receipt()?;
            if receipt.statement.plan != shard.plan {
                return Err(ProveError::OtherPlan);
            }
            match entry.read_proof() {
                Some(bytes) => Ok(Err(bytes)),
                None => Ok(Ok((entry.read_input()?, receipt.statement))),
            }
        };
        match read() {
            Ok(Ok((input, statement))) => Some(Prepared { member, entry, input, statement }),
            Ok(Err(bytes)) => {
                let made = Made { proof: Proof { bytes, peak_rss_bytes: 0 }, share: None };
                self.settle(shard.index(), vec![member], Ok(made));
                None
            }
            Err(error) => {
                self.settle(shard.index(), vec![member], Err(error));
                None
            }
        }
    }

    /// One proof of all runs. If there is none, each is proven alone, so that a run that cannot be proven is known by name
    /// and takes no other with it.
    fn prove_together(&self, shard: &HeldShard, batch: Vec<Prepared>) {
        if batch.is_empty() {
            return;
        }
        match self.prove(shard, &batch) {
            Err(error) if batch.len() > 1 && !matches!(error, ProveError::Backend(BackendError::Cancelled)) => {
                tracing::warn!(runs = batch.len(), %error, "no proof of the runs together: proving each alone");
                batch.into_iter().for_each(|run| self.prove_together(shard, vec![run]));
            }
            Err(error) => {
                let members = batch.into_iter().map(|run| run.member).collect();
                self.settle(shard.index(), members, Err(error));
            }
            Ok(made) => {
                let mut spooled = Vec::new();
                for run in batch {
                    match run.entry.write_proof(&made.proof.bytes) {
                        Ok(()) => spooled.push(run.member),
                        Err(error) => self.settle(shard.index(), vec![run.member], Err(error.into())),
                    }
                }
                self.settle(shard.index(), spooled, Ok(made));
            }
        }
    }

    fn prove(&self, shard: &HeldShard, batch: &[Prepared]) -> Result<Made, ProveError> {
        let started = Instant::now();
        let [first, ..] = batch else { return Err(BackendError::Cancelled.into()) };
        let stop = StopWhenUnwanted::start(self, batch);
        self.runtime.block_on(self.worker.hold.reach(Stage::Prove));
        let deadline = self.delay.map(|delay| started + delay);
        while deadline.is_some_and(|deadline| Instant::now() < deadline) && !stop.token.is_cancelled() {
            std::thread::sleep(Duration::from_millis(20));
        }
        tracing::info!(run = %first.member.run, runs = batch.len(), shard = %shard.index(), "proving");
        let report_step = |step: &str| {
            for run in batch {
                let (run, shard) = (convert::run_bytes(run.member.run), shard.index().0);
                self.worker.mention(Message::Progress(v1::Progress { run, shard, step: step.to_owned() }));
            }
        };
        let directory = first.entry.directory();
        let job = Job { directory, limits: shard.limits, cancel: &stop.token, progress: &report_step };
        let members: Vec<BatchMember<'_>> =
            batch.iter().map(|run| BatchMember { input: &run.input, statement: &run.statement }).collect();
        let proof = unless_it_panics(|| shard.backend.prove_batch(&shard.files, &members, &job))?;
        let share = started.elapsed() / u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if let Some(file) = &self.worker.timings
            && let Err(error) = timings::append(file, directory, first.member.run, shard.index())
        {
            tracing::warn!(%error, file = %file.display(), "cannot write timings");
        }
        Ok(Made { proof, share: Some(share) })
    }

    /// Ends the work on runs with one outcome, which is reported for each that is still wanted.
    fn settle(&self, shard: ShardIndex, members: Vec<Member>, outcome: Result<Made, ProveError>) {
        let wanted: Vec<Member> = members.into_iter().filter(|member| !member.wanted.cancel.is_cancelled()).collect();
        for _ in &wanted {
            match &outcome {
                Ok(Made { share: None, .. }) => {}
                Ok(Made { share, .. }) => metrics::note_proof(*share),
                Err(_) => metrics::note_proof(None),
            }
        }
        self.worker.tasks.spawn_on(report(self.worker.clone(), shard, wanted, outcome), &self.runtime);
    }
}

/// What a backend makes. One that panics costs its own proof, not the thread that makes all others.
fn unless_it_panics<T>(work: impl FnOnce() -> Result<T, BackendError>) -> Result<T, ProveError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            Err(ProveError::Panicked(said.unwrap_or("it does not say why").to_owned()))
        }
    }
}

/// A token that is cancelled once no run of a batch is wanted any more, or the worker stops.
struct StopWhenUnwanted {
    token: CancellationToken,
    watching: tokio::task::JoinHandle<()>,
}

impl StopWhenUnwanted {
    fn start(prover: &Prover, batch: &[Prepared]) -> Self {
        let token = CancellationToken::new();
        let (stop, stopping) = (token.clone(), prover.worker.shutdown.clone());
        let wanted: Vec<CancellationToken> = batch.iter().map(|run| run.member.wanted.cancel.clone()).collect();
        let watching = prover.runtime.spawn(async move {
            let all_cancelled = async {
                for run in &wanted {
                    run.cancelled().await;
                }
            };
            tokio::select! {
                () = all_cancelled => {}
                () = stopping.cancelled() => {}
            }
            stop.cancel();
        });
        Self { token, watching }
    }
}

impl Drop for StopWhenUnwanted {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Hands the proof over once, then reports it, or why there is none, for each run. A run that was cancelled is nobody's any
/// more and is not reported.
async fn report(worker: Arc<Worker>, shard: ShardIndex, members: Vec<Member>, outcome: Result<Made, ProveError>) {
    if members.is_empty() {
        return;
    }
    if outcome.is_ok() {
        worker.hold.reach(Stage::AfterProof).await;
    }
    let made = match outcome {
        // Each of them was cancelled, or the worker stops.
        Err(ProveError::Backend(BackendError::Cancelled)) => return,
        Err(error) => Err(error.to_string()),
        Ok(made) => {
            let Some(artifact) = hand_over(&worker, shard, &members, made.proof.bytes.into()).await else { return };
            let share = made.share.unwrap_or_default();
            Ok((convert::artifact_ref(artifact), share, made.proof.peak_rss_bytes))
        }
    };
    for member in members {
        let Some(attempt) = worker.proving.conclude(shard, &member) else { continue };
        let (run, id, shard) = (member.run, convert::run_bytes(member.run), shard.0);
        let message = match &made {
            Ok((artifact, share, peak_rss_bytes)) => {
                let (proof, prove_us) = (Some(artifact.clone()), share.as_micros() as u64);
                tracing::info!(%run, shard, "proof reported");
                let peak_rss_bytes = *peak_rss_bytes;
                Message::ProofDone(ProofDone { run: id, shard, attempt, proof, prove_us, peak_rss_bytes })
            }
            Err(reason) => {
                tracing::warn!(%run, shard, reason, "no proof");
                let (stage, reason) = (FailureStage::Proving.into(), reason.clone());
                Message::Failure(v1::Failure { run: id, shard, attempt, stage, reason, ..Default::default() })
            }
        };
        worker.tell(message).await;
    }
}

/// Stores a proof at the coordinator, however long that is away; none once nobody wants it any more.
async fn hand_over(worker: &Worker, shard: ShardIndex, members: &[Member], proof: Bytes) -> Option<Artifact> {
    let all_cancelled = async {
        for member in members {
            member.wanted.cancel.cancelled().await;
        }
    };
    tokio::select! {
        artifact = store(worker, shard, members, proof) => Some(artifact),
        () = all_cancelled => {
            tracing::info!(%shard, "a proof that nobody wants any more is not handed over");
            None
        }
        // The proof stays in the spool.
        () = worker.shutdown.cancelled() => None,
    }
}

/// Tries until the coordinator takes the proof. A refusal is not likely to pass, unless someone does something about it: so those who
/// wait for the proof are told.
async fn store(worker: &Worker, shard: ShardIndex, members: &[Member], proof: Bytes) -> Artifact {
    let mut pause = FIRST_PAUSE;
    loop {
        match transport::artifacts::store(worker.coordinator.clone(), proof.clone()).await {
            Ok(artifact) => return artifact,
            Err(TransferError::Remote(status)) if is_refusal(&status) => {
                let reason = status.message();
                tracing::error!(%shard, reason, "the coordinator refuses a proof, trying again");
                for member in members.iter().filter(|member| !member.wanted.cancel.is_cancelled()) {
                    let (run, shard, step) =
                        (convert::run_bytes(member.run), shard.0, format!("proof refused: {reason}"));
                    worker.mention(Message::Progress(v1::Progress { run, shard, step }));
                }
                pause = LONGEST_PAUSE;
            }
            Err(error) => tracing::warn!(%error, "the coordinator did not take a proof, trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Whether the coordinator was there and said no.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument | Code::PermissionDenied)
}

/// Why there is no proof.
#[derive(Debug, Error)]
enum ProveError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the prover panicked: {0}")]
    Panicked(String),
    #[error("this worker does not hold shard {shard}")]
    NotHeld { shard: ShardIndex },
    #[error("the run was made under another plan than the one now served")]
    OtherPlan,
}

#[cfg(test)]
mod tests {
    use shardproof_proto::v1::ProveMember;

    use super::*;

    fn ask(queue: &Queue, run: RunId, shard: u32, attempt: u64) {
        queue.submit(&ProveJob { shard, members: vec![ProveMember { run: convert::run_bytes(run), attempt }] });
    }

    fn cancel(queue: &Queue, run: RunId, shard: u32, attempt: u64) {
        queue.cancel(&CancelJob { run: convert::run_bytes(run), shard, attempt });
    }

    #[test]
    fn a_cancel_stops_what_it_is_about_and_nothing_else() {
        let (queue, jobs) = queue();
        let run = RunId::generate();
        let needed = || [0, 1].map(|shard| queue.needs(run, ShardIndex(shard)));
        ask(&queue, run, 0, 1);
        ask(&queue, run, 1, 1);
        ask(&queue, run, 1, 2);
        let tickets: Vec<Ticket> = jobs.0.try_iter().collect();
        assert_eq!(tickets.iter().map(|ticket| ticket.shard.0).collect::<Vec<_>>(), [0, 1], "one job for each shard");
        cancel(&queue, run, 1, 1);
        assert_eq!(needed(), [true, true], "it was asked for again since");
        cancel(&queue, run, 1, 2);
        assert_eq!(needed(), [true, false]);
        let [of_first, of_second] = [0, 1].map(|ticket: usize| &tickets[ticket].members[0]);
        assert!(!of_first.wanted.cancel.is_cancelled() && of_second.wanted.cancel.is_cancelled());
    }

    #[test]
    fn a_prover_that_panics_fails_its_proof_and_says_why() {
        let said = |work: fn() -> Result<(), BackendError>| unless_it_panics(work).map_err(|error| error.to_string());
        assert_eq!(said(|| Ok(())), Ok(()));
        assert_eq!(said(|| Err(BackendError::Cancelled)), Err(BackendError::Cancelled.to_string()));
        let number = std::hint::black_box(3);
        assert_eq!(said(|| panic!("no layer")), Err("the prover panicked: no layer".to_owned()));
        let with_number = unless_it_panics::<()>(|| panic!("no layer {number}")).unwrap_err().to_string();
        assert_eq!(with_number, "the prover panicked: no layer 3");
    }

    #[test]
    fn a_proof_is_under_way_until_it_is_reported_for_the_latest_request() {
        let (queue, jobs) = queue();
        let (run, shard) = (RunId::generate(), ShardIndex(0));
        ask(&queue, run, 0, 1);
        let member = jobs.0.try_recv().unwrap().members.remove(0);
        ask(&queue, run, 0, 2);
        assert!(jobs.0.try_recv().is_err());
        assert_eq!(queue.conclude(shard, &member), Some(2));
        ask(&queue, run, 0, 3);
        assert_eq!(queue.conclude(shard, &member), None, "that is another job's");
        let later = jobs.0.try_recv().unwrap().members.remove(0);
        cancel(&queue, run, 0, 3);
        assert_eq!(queue.conclude(shard, &later), None, "nobody wants it any more");
    }
}
