//! Proofs, one at a time, on a thread of their own.
//!
//! Runs that the coordinator asks for in one job are of one requester and are proven together where the backend can. Each
//! stands for itself all the same: one that is cancelled, or cannot be proven, leaves the others alone.
//!
//! A proof takes all cores, so two at a time would only make both late. What is proven is what the worker signed: the
//! statement comes from the spooled receipt, and a proof that was made before is answered from the spool.

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
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, CancelJob, FailureStage, ProofDone, ProveJob};
use shardproof_proto::{convert, transport};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::shard::HeldShard;
use crate::spool::{self, SpoolError};
use crate::{Worker, metrics, timings};

/// Pause before a proof is handed over once more; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where proof jobs wait for the proving thread.
pub(crate) struct Queue {
    sender: mpsc::Sender<Ticket>,
    under_way: Arc<UnderWay>,
}

/// The proving thread's end of the queue.
pub(crate) struct Jobs {
    receiver: mpsc::Receiver<Ticket>,
    under_way: Arc<UnderWay>,
}

/// The runs whose proofs are wanted.
type UnderWay = DashMap<RunId, Wanted>;

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
    let under_way = Arc::new(DashMap::new());
    (Queue { sender, under_way: under_way.clone() }, Jobs { receiver, under_way })
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
        let new = runs.into_iter().filter_map(|(run, attempt)| match self.under_way.entry(run) {
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
        if self.sender.send(Ticket { shard: ShardIndex(job.shard), members }).is_err() {
            tracing::error!(shard = job.shard, "the proving thread is gone");
        }
    }

    /// Whether a proof of the run is waited for.
    pub(crate) fn needs(&self, run: RunId) -> bool {
        self.under_way.contains_key(&run)
    }

    /// Stops the job for a run. Runs that are proven with it go on, and their proof is not reported for this one.
    pub(crate) fn cancel(&self, job: &CancelJob) {
        let under_way = convert::run_id(&job.run).ok().and_then(|run| self.under_way.remove(&run));
        if let Some((run, wanted)) = under_way {
            tracing::info!(%run, "proof cancelled");
            wanted.cancel.cancel();
        }
    }
}

/// Starts the proving thread, which ends with the process. `delay_ms` slows every proof down, for demonstrations.
pub(crate) fn start(worker: Arc<Worker>, jobs: Jobs, delay_ms: Option<u64>) -> std::io::Result<()> {
    let prover = Prover {
        worker,
        under_way: jobs.under_way,
        delay: delay_ms.map(Duration::from_millis),
        runtime: tokio::runtime::Handle::current(),
    };
    let receiver = jobs.receiver;
    let prove_one_by_one = move || receiver.into_iter().for_each(|ticket| prover.serve(ticket));
    std::thread::Builder::new().name("proving".into()).spawn(prove_one_by_one)?;
    Ok(())
}

/// What the proving thread has.
struct Prover {
    worker: Arc<Worker>,
    under_way: Arc<UnderWay>,
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

/// A proof with each run's share of the time it took.
struct Made {
    proof: Proof,
    share: Duration,
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
                let made = Made { proof: Proof { bytes, peak_rss_bytes: 0 }, share: Duration::ZERO };
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
            Err(ProveError::Backend(error)) if batch.len() > 1 && !matches!(error, BackendError::Cancelled) => {
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
        let proof = shard.backend.prove_batch(&shard.files, &members, &job)?;
        let share = started.elapsed() / u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if let Some(file) = &self.worker.timings
            && let Err(error) = timings::append(file, directory, first.member.run, shard.index())
        {
            tracing::warn!(%error, file = %file.display(), "cannot write timings");
        }
        Ok(Made { proof, share })
    }

    /// Ends the work on runs with one outcome, which is reported for each that is still wanted.
    fn settle(&self, shard: ShardIndex, members: Vec<Member>, outcome: Result<Made, ProveError>) {
        for member in members.iter().filter(|member| !member.wanted.cancel.is_cancelled()) {
            metrics::note_proof(outcome.as_ref().ok().map(|made| made.share));
            self.under_way.remove(&member.run);
        }
        self.worker.tasks.spawn_on(report(self.worker.clone(), shard, members, outcome), &self.runtime);
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
    let wanted: Vec<Member> = members.into_iter().filter(|member| !member.wanted.cancel.is_cancelled()).collect();
    if wanted.is_empty() {
        return;
    }
    if outcome.is_ok() {
        worker.hold.reach(Stage::AfterProof).await;
    }
    let made = match outcome {
        Err(ProveError::Backend(BackendError::Cancelled)) => return,
        Err(error) => Err(error.to_string()),
        Ok(made) => {
            let Some(artifact) = hand_over(&worker, &wanted, made.proof.bytes.into()).await else { return };
            Ok((convert::artifact_ref(artifact), made.share, made.proof.peak_rss_bytes))
        }
    };
    for Member { run, wanted } in wanted {
        let attempt = wanted.attempt.load(Ordering::Relaxed);
        let (id, shard) = (convert::run_bytes(run), shard.0);
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
async fn hand_over(worker: &Worker, wanted: &[Member], proof: Bytes) -> Option<Artifact> {
    let mut pause = FIRST_PAUSE;
    loop {
        match transport::artifacts::store(worker.coordinator.clone(), proof.clone()).await {
            Ok(artifact) => return Some(artifact),
            Err(error) => tracing::warn!(%error, "the coordinator did not take a proof, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (2 * pause).min(LONGEST_PAUSE),
            // The proof stays in the spool.
            () = worker.shutdown.cancelled() => return None,
        }
        if wanted.iter().all(|member| member.wanted.cancel.is_cancelled()) {
            return None;
        }
    }
}

/// Why there is no proof.
#[derive(Debug, Error)]
enum ProveError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("this worker does not hold shard {shard}")]
    NotHeld { shard: ShardIndex },
    #[error("the run was made under another plan than the one now served")]
    OtherPlan,
}
