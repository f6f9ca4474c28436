//! Proofs, one at a time, on a thread of their own.
//!
//! A proof takes all cores, so two at a time would only make both late. What is proven is what the worker signed: the
//! statement comes from the spooled receipt, and a proof that was made before is answered from the spool.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use shardproof_common::backend::{BackendError, Job, Proof};
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, CancelJob, FailureStage, ProofDone, ProveJob};
use shardproof_proto::{convert, transport};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::spool::SpoolError;
use crate::{Worker, timings};

/// Where proof jobs wait for the proving thread.
pub(crate) struct Queue {
    sender: mpsc::Sender<Ticket>,
    under_way: Arc<DashMap<RunId, CancellationToken>>,
}

/// The proving thread's end of the queue.
pub(crate) struct Jobs {
    receiver: mpsc::Receiver<Ticket>,
    under_way: Arc<DashMap<RunId, CancellationToken>>,
}

struct Ticket {
    job: ProveJob,
    run: RunId,
    cancel: CancellationToken,
}

pub(crate) fn queue() -> (Queue, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let under_way = Arc::new(DashMap::new());
    (Queue { sender, under_way: under_way.clone() }, Jobs { receiver, under_way })
}

impl Queue {
    /// Queues a job. One that is for a run under way replaces it: the coordinator asks again only when it gave the first up.
    pub(crate) fn submit(&self, job: ProveJob) {
        let Ok(run) = convert::run_id(&job.run) else {
            tracing::error!("the coordinator sent a job for no run");
            return;
        };
        let cancel = CancellationToken::new();
        if let Some(earlier) = self.under_way.insert(run, cancel.clone()) {
            earlier.cancel();
        }
        if self.sender.send(Ticket { job, run, cancel }).is_err() {
            tracing::error!(%run, "the proving thread is gone");
        }
    }

    /// Stops the job for a run.
    pub(crate) fn cancel(&self, job: &CancelJob) {
        let under_way = convert::run_id(&job.run).ok().and_then(|run| self.under_way.remove(&run));
        if let Some((run, cancel)) = under_way {
            tracing::info!(%run, "proof cancelled");
            cancel.cancel();
        }
    }
}

/// Starts the proving thread, which ends with the process. `delay_ms` slows every proof down, for demonstrations.
pub(crate) fn start(worker: Arc<Worker>, jobs: Jobs, delay_ms: Option<u64>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let prove_one_by_one = move || {
        for ticket in jobs.receiver {
            let stop = ticket.cancel.clone();
            let stopping = worker.shutdown.clone();
            let forward_stop = runtime.spawn(async move {
                stopping.cancelled().await;
                stop.cancel();
            });
            let outcome = prove(&worker, &ticket, delay_ms.map(Duration::from_millis));
            forward_stop.abort();
            if !ticket.cancel.is_cancelled() {
                jobs.under_way.remove(&ticket.run);
            }
            worker.tasks.spawn_on(report(worker.clone(), ticket, outcome), &runtime);
        }
    };
    std::thread::Builder::new().name("proving".into()).spawn(prove_one_by_one)?;
    Ok(())
}

/// A proof with the time it took.
struct Made {
    proof: Proof,
    elapsed: Duration,
}

fn prove(worker: &Worker, ticket: &Ticket, delay: Option<Duration>) -> Result<Made, ProveError> {
    let started = Instant::now();
    if ticket.cancel.is_cancelled() {
        return Err(BackendError::Cancelled.into());
    }
    let held = worker.shard.borrow().clone();
    let shard = held.filter(|shard| shard.index() == ShardIndex(ticket.job.shard));
    let shard = shard.ok_or(ProveError::NotHeld { shard: ShardIndex(ticket.job.shard) })?;
    let entry = worker.spool.entry(ticket.run, shard.index());
    let receipt = entry.read_receipt()?;
    if receipt.statement.plan != shard.plan {
        return Err(ProveError::OtherPlan);
    }
    if let Some(bytes) = entry.read_proof() {
        return Ok(Made { proof: Proof { bytes, peak_rss_bytes: 0 }, elapsed: started.elapsed() });
    }
    let deadline = delay.map(|delay| started + delay);
    while deadline.is_some_and(|deadline| Instant::now() < deadline) && !ticket.cancel.is_cancelled() {
        std::thread::sleep(Duration::from_millis(20));
    }
    tracing::info!(run = %ticket.run, shard = %shard.index(), "proving");
    let report_step = |step: &str| {
        let (run, shard) = (ticket.job.run.clone(), ticket.job.shard);
        worker.mention(Message::Progress(v1::Progress { run, shard, step: step.to_owned() }));
    };
    let job =
        Job { directory: entry.directory(), limits: shard.limits, cancel: &ticket.cancel, progress: &report_step };
    let input = entry.read_input()?;
    let proof = shard.backend.prove(&shard.files, &input, &receipt.statement, &job)?;
    let elapsed = started.elapsed();
    if let Some(file) = &worker.timings
        && let Err(error) = timings::append(file, entry.directory(), ticket.run, shard.index())
    {
        tracing::warn!(%error, file = %file.display(), "cannot write timings");
    }
    entry.write_proof(&proof.bytes)?;
    Ok(Made { proof, elapsed })
}

/// Hands the proof over, or says why there is none. A cancelled job is nobody's any more and is not reported.
async fn report(worker: Arc<Worker>, ticket: Ticket, outcome: Result<Made, ProveError>) {
    let Ticket { job, run, .. } = ticket;
    let message = match outcome {
        Err(ProveError::Backend(BackendError::Cancelled)) => return,
        Err(error) => {
            tracing::warn!(%run, %error, "no proof");
            let (stage, reason) = (FailureStage::Proving.into(), error.to_string());
            Message::Failure(v1::Failure { run: job.run, shard: job.shard, attempt: job.attempt, stage, reason })
        }
        Ok(made) => match transport::artifacts::store(worker.coordinator.clone(), made.proof.bytes.into()).await {
            Ok(artifact) => Message::ProofDone(ProofDone {
                run: job.run,
                shard: job.shard,
                attempt: job.attempt,
                proof: Some(convert::artifact_ref(artifact)),
                prove_ms: made.elapsed.as_millis() as u64,
                peak_rss_bytes: made.proof.peak_rss_bytes,
            }),
            Err(error) => {
                // The proof stays in the spool; the coordinator asks again once it is back.
                tracing::warn!(%run, %error, "the coordinator did not take the proof");
                return;
            }
        },
    };
    tracing::info!(%run, shard = job.shard, "proof reported");
    worker.tell(message).await;
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
