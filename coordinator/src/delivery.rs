//! Sees a run through its shards: boundary 0 goes to the first worker, and goes again whenever something on the way was lost.
//!
//! A worker that died, a connection that broke, a coordinator that was started again: whatever it was, the run is sent once more
//! as soon as every shard has a worker. That is always safe, because a worker that has a boundary already answers from its
//! spool, with its receipt and its output, so this side need not know how far the run had come. The trade-off: what had come
//! through passes once more. Where a shard has another worker than the one that gave its receipt, a new attempt begins, whose
//! number fences what is still on its way from the one before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use prost::bytes::Bytes;
use shardproof_common::artifacts::ArtifactError;
use shardproof_common::hold;
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::{PublicKey, attempt_digest, handed_digest};
use shardproof_proto::convert;
use shardproof_proto::transport::Party;
use shardproof_proto::transport::activations::{self, Hop};
use shardproof_proto::v1::ActivationHeader;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::Coordinator;
use crate::record::{RunRecord, RunState};
use crate::setup::Prepared;

/// Inputs on their way to the first worker at a time: enough that it never waits for the next one.
const HANDED_AT_A_TIME: usize = 32;
/// Times that a run is sent again although every worker was there.
const MOST_HICCUPS: u32 = 4;
/// Pause before it is sent again; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The runs that are seen through, and the way to their first worker.
pub(crate) struct Deliveries {
    interruptions: DashMap<RunId, mpsc::Sender<Interruption>>,
    first: Mutex<Option<(String, Hop)>>,
    /// Turns to hand an input over: what waits for one holds no input in memory, here or in the first worker's receive buffers.
    turns: Semaphore,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self { interruptions: DashMap::new(), first: Mutex::new(None), turns: Semaphore::new(HANDED_AT_A_TIME) }
    }
}

/// What makes it necessary to send a run again.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// A worker left that had not passed the run on.
    Lost(ShardIndex, PublicKey),
    /// The worker of this shard found nobody to pass the run on to, or stops.
    Away(ShardIndex, String),
}

/// Why a run was not handed over.
pub(crate) struct Trouble {
    /// Whether another try may go better.
    passing: bool,
    shard: ShardIndex,
    /// How many workers, from that of the shard on, the run may end at: both of a hop, the first alone, none that is there.
    workers: usize,
    pub(crate) reason: String,
}

impl Coordinator {
    /// Sees a run through until it has an answer or fails. `encoding` is boundary 0, where it is at hand.
    pub(crate) async fn see_through(self: Arc<Self>, run: RunId, prepared: Arc<Prepared>, encoding: Option<Bytes>) {
        let (interrupt, mut interruptions) = mpsc::channel(8);
        self.deliveries.interruptions.insert(run, interrupt);
        self.hold.reach(hold::Stage::Submitted).await;
        tokio::select! {
            () = self.send_until_answered(run, &prepared, encoding, &mut interruptions) => {}
            () = self.wait_while_running(run) => {}
            () = self.shutdown.cancelled() => {}
        }
        self.deliveries.interruptions.remove(&run);
        if !self.shutdown.is_cancelled() {
            if let Ok(record) = self.find_run(run).await {
                record.passed_on_boundaries().for_each(|boundary| self.uploads.used(boundary));
            }
            self.audit(run).await;
        }
    }

    async fn send_until_answered(
        self: &Arc<Self>,
        run: RunId,
        prepared: &Prepared,
        mut encoding: Option<Bytes>,
        interruptions: &mut mpsc::Receiver<Interruption>,
    ) {
        let deadline = Instant::now() + self.settings.run_deadline;
        let mut lost = None;
        let mut hiccups = 0;
        loop {
            let trouble = match self.send_once(run, prepared, encoding.take(), deadline, interruptions).await {
                Err(trouble) => trouble,
                Ok(()) => match timeout_at(deadline, interruptions.recv()).await {
                    Err(_) => return self.fail_late(run).await,
                    Ok(None) => return,
                    Ok(Some(Interruption::Lost(shard, worker))) => {
                        tracing::info!(%run, %shard, worker = worker.short(), "sending the run again: a worker was lost");
                        lost = Some((shard, worker));
                        continue;
                    }
                    Ok(Some(Interruption::Away(shard, reason))) => Trouble { passing: true, shard, workers: 2, reason },
                },
            };
            hiccups += 1;
            if !trouble.passing || hiccups > MOST_HICCUPS {
                let shard = trouble.shard;
                let worker = lost.filter(|(of, _)| *of == shard).map(|(_, worker)| worker);
                let fail = |record: &mut RunRecord| {
                    let hop = record.holders.get(shard.as_usize()..).unwrap_or_default();
                    let hop = hop.iter().take(trouble.workers).copied();
                    let suspects = hop
                        .filter(|&of_hop| Some(of_hop) != worker)
                        .chain(worker)
                        .filter(|_| record.state == RunState::Running)
                        .collect();
                    record.fail(Some(shard), worker, trouble.reason);
                    (suspects, record.submitted_ms)
                };
                let failed: Option<(Vec<PublicKey>, u64)> = self.runs.change(run, fail).await;
                if let Some((suspects, submitted_ms)) = failed {
                    self.note_missed(&suspects, submitted_ms).await;
                }
                return;
            }
            tracing::info!(%run, shard = %trouble.shard, reason = trouble.reason, "sending the run again");
            tokio::time::sleep(FIRST_PAUSE * 2u32.pow(hiccups - 1)).await;
        }
    }

    /// Waits for the workers and hands boundary 0 to the first.
    async fn send_once(
        &self,
        run: RunId,
        prepared: &Prepared,
        mut encoding: Option<Bytes>,
        deadline: Instant,
        interruptions: &mut mpsc::Receiver<Interruption>,
    ) -> Result<(), Trouble> {
        let first = ShardIndex(0);
        let stuck = |reason: String| Trouble { passing: false, shard: first, workers: 0, reason };
        let (holders, _turn) = self.workers_and_turn(deadline, &mut encoding).await?;
        // Whatever was told until now is made up for by what follows.
        while interruptions.try_recv().is_ok() {}
        let record = self.find_run(run).await.map_err(|status| stuck(status.message().to_owned()))?;
        let mut attempt = record.attempt;
        if record.clone().send_to(&holders) {
            // What has been changed and is not stored yet counts: the attempt is the one that this comes to.
            let sent = self.runs.change(run, |record| {
                record.send_to(&holders);
                record.attempt
            });
            attempt = sent.await.ok_or_else(|| stuck("its attempt could not be stored".to_owned()))?;
        }
        let encoding = match encoding {
            Some(encoding) => encoding,
            None => self.read_input(&record).await?,
        };
        match self.deliver_input(prepared, run, attempt, encoding, deadline).await {
            // Whichever worker it is that keeps the run: from now on it is late.
            Err(_) if Instant::now() >= deadline => Ok(()),
            delivered => delivered.map_err(|status| Trouble {
                passing: activations::may_pass(status.code()),
                shard: first,
                workers: 1,
                reason: format!("the worker of shard 0 did not take the input: {}", status.message()),
            }),
        }
    }

    /// The workers that hold the shards, and a turn to hand the input over. While the run waits for its turn, `encoding` is let go.
    async fn workers_and_turn(
        &self,
        deadline: Instant,
        encoding: &mut Option<Bytes>,
    ) -> Result<(Vec<PublicKey>, SemaphorePermit<'_>), Trouble> {
        let late = |reason: &str| {
            let reason = reason.to_owned();
            Trouble { passing: false, shard: ShardIndex(0), workers: 0, reason }
        };
        loop {
            let holders = self.await_workers(deadline).await.map_err(|shard| Trouble {
                passing: false,
                shard,
                workers: 0,
                reason: format!(
                    "the worker of shard {shard} was lost before it passed the run on, and none took its place within {} s",
                    self.settings.rejoin_grace.as_secs()
                ),
            })?;
            if let Ok(turn) = self.deliveries.turns.try_acquire() {
                return Ok((holders, turn));
            }
            *encoding = None;
            let turn = timeout_at(deadline, self.deliveries.turns.acquire()).await;
            let turn = turn.map_err(|_| late("the run's deadline passed before the first worker had room for it"))?;
            let turn = turn.map_err(|_| late("the coordinator is stopping"))?;
            // The workers may have changed meanwhile. A run that waits for one must not keep the others' turns.
            let holders = self.cluster.with(|registry| registry.unready().is_empty().then(|| registry.holders()));
            if let Some(holders) = holders {
                return Ok((holders, turn));
            }
        }
    }

    pub(crate) async fn read_input(&self, record: &RunRecord) -> Result<Bytes, Trouble> {
        let input = self.artifacts.read(record.input.digest, self.settings.max_tensor_bytes).await;
        input.map(Bytes::from).map_err(|error| Trouble {
            passing: matches!(error, ArtifactError::Remote { .. }),
            shard: ShardIndex(0),
            workers: 0,
            reason: format!("its input cannot be read: {error}"),
        })
    }

    /// Hands boundary 0 of a run to the first worker, under the owner's signature. The run may have an answer already: then its
    /// workers give their receipts once more, for this attempt.
    pub(crate) async fn deliver_input(
        &self,
        prepared: &Prepared,
        run: RunId,
        attempt: u32,
        encoding: Bytes,
        deadline: Instant,
    ) -> Result<(), Status> {
        let signed = self.owner.sign(handed_digest(run, prepared.plan, 0, attempt, Digest::of(&encoding)));
        let header = ActivationHeader {
            run: convert::run_bytes(run),
            plan: convert::digest_bytes(prepared.plan),
            owner_signature: convert::pack(&signed),
            attempt_signature: convert::pack(&self.owner.sign(attempt_digest(run, prepared.plan, attempt))),
            attempt,
            ..Default::default()
        };
        self.way_to_first()?.deliver(header, encoding, deadline.saturating_duration_since(Instant::now())).await
    }

    /// One connection serves all runs, for as long as the first worker is at the same address.
    fn way_to_first(&self) -> Result<Hop, Status> {
        let holder = self.cluster.with(|registry| registry.holder(ShardIndex(0)).map(|(_, m)| m.address.clone()));
        let address = holder.ok_or_else(|| Status::unavailable("it left"))?;
        // The value is replaced whole, so a panic elsewhere leaves it usable.
        let mut first = self.deliveries.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, hop)) = &*first
            && *known == address
        {
            return Ok(hop.clone());
        }
        let hop = self
            .transport
            .hop(&address, Party::Worker, self.settings.hop_deadline)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        *first = Some((address, hop.clone()));
        Ok(hop)
    }

    /// The workers that hold the shards, once all are ready; else a shard that has none within the grace.
    pub(crate) async fn await_workers(&self, deadline: Instant) -> Result<Vec<PublicKey>, ShardIndex> {
        let until = deadline.min(Instant::now() + self.settings.rejoin_grace);
        let mut changes = self.cluster.changes();
        loop {
            changes.mark_unchanged();
            let holders = self.cluster.with(|registry| match registry.unready().first() {
                Some(&vacant) => Err(vacant),
                None => Ok(registry.holders()),
            });
            let vacant = match holders {
                Ok(holders) => return Ok(holders),
                Err(vacant) => vacant,
            };
            if timeout_at(until, changes.changed()).await.is_err() {
                return Err(vacant);
            }
        }
    }

    async fn wait_while_running(&self, run: RunId) {
        if let Ok(Some(mut watch)) = self.runs.watch(run).await {
            // The sender lives in the run table for as long as the run is under way.
            let ended = watch.wait_for(|record| record.state != RunState::Running).await;
            if let Ok(record) = ended
                && record.state == RunState::Answered
            {
                self.workers.answered(&record.holders);
            }
        }
    }

    /// Fails a run whose answer did not come in time, and notes it against the workers of the hop at which it stands.
    async fn fail_late(self: &Arc<Self>, run: RunId) {
        let seconds = self.settings.run_deadline.as_secs();
        let fail = |record: &mut RunRecord| {
            let mut shards = (0..record.shards.len() as u32).map(ShardIndex);
            let silent = shards.clone().find(|&shard| !record.has_receipt(shard)).or(shards.next_back())?;
            if record.state != RunState::Running {
                return None;
            }
            let suspects = record.workers_before_and_of(silent);
            let reason = format!("no answer within {seconds} s: shard {silent} has not been heard of");
            record.fail(Some(silent), None, reason);
            Some((silent, suspects, record.submitted_ms))
        };
        let Some(Some((silent, suspects, submitted_ms))) = self.runs.change(run, fail).await else { return };
        // Where others have come further and not to their end, it waited for those.
        let is_jam = |other: &RunRecord| other.state == RunState::Running && other.has_receipt(silent);
        if !self.runs.any_under_way(is_jam) {
            self.note_missed(&suspects, submitted_ms).await;
        }
    }

    /// Notes that something on the way of a run was lost.
    pub(crate) fn interrupt(&self, run: RunId, interruption: Interruption) {
        if let Some(interrupt) = self.deliveries.interruptions.get(&run) {
            // One that finds no room is made up for by those before it.
            let _enough = interrupt.try_send(interruption);
        }
    }

    /// Has the runs sent again that a lost worker had not passed on.
    pub(crate) fn interrupt_runs_of(&self, shard: ShardIndex, worker: PublicKey) {
        for run in self.runs.under_way() {
            if run.awaits_passage(shard) {
                self.interrupt(run.id, Interruption::Lost(shard, worker));
            }
        }
    }
}

#[cfg(test)]
mod tests;
