//! Disputes: two neighbours disagree about the tensors between them, and one of them lies.
//!
//! The hop is made again through the coordinator. The worker that signed for the output shows it: the coordinator binds the
//! tensors itself and compares them with what was signed. Then it hands them, under the owner's signature, to the worker that
//! found fault with them, which must sign for exactly these. Whoever fails its part lied, or cannot show that it did not, and
//! the run is rejected in its name. Where both hold to what they signed (a network garbled the tensors), the run goes on.
//!
//! What a dispute finds is the coordinator's word, which is enough to reject a run and to give the worker less to do. It
//! convicts nobody: evidence is made of what the worker itself signed (`accusation`), and looked for whenever a dispute ends
//! with a liar. A worker that does not answer is no liar, only useless.

use std::sync::Arc;
use std::time::Duration;

use shardproof_common::chain;
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::{PublicKey, Receipt, attempt_digest, handed_digest};
use shardproof_common::statement::Binding;
use shardproof_common::tensor::encoded_bytes;
use shardproof_proto::convert;
use shardproof_proto::transport::{Party, activations};
use shardproof_proto::v1::coordinator_message::Message;
use shardproof_proto::v1::{ActivationHeader, ShowOutput, Shown};
use tokio::sync::oneshot;
use tonic::{Code, Status};

use crate::Coordinator;
use crate::binding::Unbound;
use crate::record::{DisputeStage, RunRecord, RunState};
use crate::runs::now_ms;
use crate::setup::Prepared;
use crate::workers::Event;

/// What is said against an output.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    /// The receipt that came with it, where the next shard's worker complains.
    pub(crate) shown: Option<Receipt>,
    /// The attempt in which it came there.
    pub(crate) of_attempt: Option<u64>,
}

/// A worker that was asked to show an output, and who waits for it.
pub(crate) struct Asked {
    worker: PublicKey,
    answer: oneshot::Sender<Result<Digest, String>>,
}

/// What a dispute comes to.
enum Ruling {
    /// Both hold to what they signed.
    Agreed,
    /// A worker is at fault.
    Against { shard: ShardIndex, worker: PublicKey, reason: String, refused: bool },
    /// Nobody can be named.
    Undecided(String),
    /// The run has ended otherwise.
    Moot,
}

impl Ruling {
    fn against(receipt: &Receipt, reason: String) -> Self {
        Self::Against { shard: receipt.statement.shard, worker: receipt.worker, reason, refused: false }
    }

    /// Against a worker that does not do its part, which may have other reasons than a lie.
    fn for_refusal(shard: ShardIndex, worker: PublicKey, reason: String) -> Self {
        Self::Against { shard, worker, reason, refused: true }
    }
}

impl Coordinator {
    /// A worker finds fault with what it was sent, or hears that of what it sent: opens a dispute about the output of `shard`.
    pub(crate) async fn take_complaint(self: &Arc<Self>, run: RunId, shard: ShardIndex, complaint: Complaint) {
        let Ok(prepared) = self.serving() else { return };
        let Complaint { shown, of_attempt } = complaint;
        let shown = shown.filter(|shown| chain::check_receipt(shown, &prepared.card, run, shard).is_ok());
        let contradiction = self.change_and_withdraw(run, |record| {
            let shown = shown?;
            if let Some(both) = record.contradicted_by(&shown) {
                record.reject_for_contradiction(&both);
                return Some(both);
            }
            // Compared once its worker's own is in.
            let next = ShardIndex(shard.0 + 1);
            if !record.has_receipt(next) && record.receipt(shard).is_none() {
                record.shards.get_mut(next.as_usize())?.upstream = Some(shown);
            }
            None
        });
        if let Some(both) = contradiction.await.flatten() {
            return self.accuse_of_contradiction(run, &prepared, *both).await;
        }
        let opened = self.runs.change(run, |record| {
            let signed_for = record.receipt(ShardIndex(shard.0 + 1)).is_some();
            if record.state != RunState::Running || signed_for {
                return false;
            }
            if let Some(open) = &mut record.dispute
                && (open.shard, open.stage) == (shard, DisputeStage::Handing)
                && of_attempt == Some(record.attempt.into())
            {
                open.faulted_again = true;
            }
            record.open_dispute(shard, DisputeStage::Showing)
        });
        if opened.await == Some(true) {
            tracing::warn!(%run, %shard, "dispute about what the shard put out");
            self.tasks.spawn(self.clone().settle(run, shard));
        }
    }

    /// Takes a dispute to its end.
    async fn settle(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        let ruling = tokio::select! {
            ruling = self.hear(run, shard) => ruling,
            () = self.shutdown.cancelled() => return,
        };
        match ruling {
            Ruling::Agreed => {
                tracing::info!(%run, %shard, "dispute settled: both workers hold to what they signed");
                self.runs.change(run, |record| record.dispute_at(DisputeStage::Settled)).await;
            }
            Ruling::Against { shard: at, worker, reason, refused } => {
                tracing::warn!(%run, shard = %at, worker = worker.short(), reason, "dispute settled");
                // On its record before anyone sees the verdict.
                self.note(worker, if refused { Event::Refused } else { Event::Failed }).await;
                self.runs
                    .change(run, |record| {
                        record.reject(at, Some(worker), reason);
                        record.dispute_at(if refused { DisputeStage::Settled } else { DisputeStage::Accusing });
                    })
                    .await;
                if !refused {
                    self.reexecute(run, at).await;
                }
            }
            Ruling::Undecided(reason) => {
                let reason = format!("its output is in dispute with the next shard's worker, and {reason}");
                self.runs
                    .change(run, |record| {
                        record.reject(shard, None, reason);
                        record.dispute_at(DisputeStage::Settled);
                    })
                    .await;
            }
            Ruling::Moot => {
                self.runs
                    .change(run, |record| {
                        // Where evidence is being made, whoever makes it ends the dispute.
                        if record.dispute.is_some_and(|dispute| dispute.stage != DisputeStage::Accusing) {
                            record.dispute_at(DisputeStage::Settled);
                        }
                    })
                    .await;
            }
        }
    }

    /// Makes the hop after `shard` again.
    async fn hear(self: &Arc<Self>, run: RunId, shard: ShardIndex) -> Ruling {
        let Ok(prepared) = self.serving() else { return Ruling::Moot };
        let next = ShardIndex(shard.0 + 1);
        let Some(record) = self.await_receipt(run, shard).await else {
            // Its worker keeps it back, or the next one complains of what it was not sent.
            if let Ok(record) = self.find_run(run).await
                && record.state == RunState::Running
            {
                let hop = record.holders.get(shard.as_usize()..).unwrap_or_default();
                self.note_missed(hop.get(..2).unwrap_or(hop), record.submitted_ms).await;
            }
            return Ruling::Undecided(format!("shard {shard} gave no receipt for it"));
        };
        let Some(receipt) = record.receipt(shard).cloned() else { return Ruling::Moot };
        let encoding = match self.ask_to_show(&prepared, &record, shard).await {
            Ok(encoding) => encoding,
            Err(reason) => {
                let reason = format!("its worker does not show the output that it signed for: {reason}");
                return Ruling::for_refusal(shard, receipt.worker, reason);
            }
        };
        match self.bind(&prepared, shard, &encoding).await {
            Ok(found) if found == receipt.statement.output => {}
            Ok(_) => {
                let reason = "its worker shows another output than it signed for".to_owned();
                return Ruling::against(&receipt, reason);
            }
            Err(Unbound::NoOutput(reason)) => {
                return Ruling::against(&receipt, format!("what its worker shows is no output of it: {reason}"));
            }
            Err(Unbound::Unable(reason)) => {
                return Ruling::Undecided(format!("the coordinator cannot bind it itself: {reason}"));
            }
        }
        self.hand_over(run, &prepared, &receipt, next, encoding).await
    }

    /// The run once the receipt of `shard` is in, which may be on its way on another stream.
    async fn await_receipt(&self, run: RunId, shard: ShardIndex) -> Option<RunRecord> {
        let mut watch = self.runs.watch(run).await.ok()??;
        let there = watch.wait_for(|record| record.state != RunState::Running || record.receipt(shard).is_some());
        let record = tokio::time::timeout(self.settings.dispute_deadline, there).await.ok()?.ok()?.clone();
        record.receipt(shard).is_some().then_some(record)
    }

    /// The encoding of what a shard put out: stored here where the boundary is public, else from the worker that signed for it.
    pub(crate) async fn ask_to_show(
        &self,
        prepared: &Prepared,
        record: &RunRecord,
        shard: ShardIndex,
    ) -> Result<Vec<u8>, String> {
        let receipt = record.receipt(shard).ok_or_else(|| format!("shard {shard} gave no receipt"))?;
        if let Binding::Public(digest) = &receipt.statement.output.binding
            && let Ok(encoding) = self.artifacts.read(*digest, self.settings.max_tensor_bytes).await
        {
            return Ok(encoding);
        }
        let session = self.until_there(|| self.session_with(receipt.worker, shard)).await;
        let session = session.ok_or_else(|| format!("it is not connected with shard {shard}"))?;
        let (sender, answer) = oneshot::channel();
        self.asked.insert((record.id, shard), Asked { worker: receipt.worker, answer: sender });
        let request = ShowOutput { run: convert::run_bytes(record.id), shard: shard.0 };
        let sent = self.cluster.send(session, Message::ShowOutput(request));
        let shown = match sent {
            true => tokio::time::timeout(self.settings.dispute_deadline, answer).await,
            false => Ok(Ok(Err("it does not read its messages".to_owned()))),
        };
        self.asked.remove(&(record.id, shard));
        let late = || format!("it did not answer within {} s", self.settings.dispute_deadline.as_secs());
        let digest = shown.map_err(|_| late())?.map_err(|_| "it was asked again".to_owned())??;
        let specs = prepared.shards.get(shard.as_usize()).map_or(&[][..], |shard| &shard.card.output);
        let limit = encoded_bytes(specs.iter().map(|spec| spec.shape.as_slice()), prepared.provable());
        let shown = self.artifacts.read(digest, limit).await.map_err(|error| error.to_string())?;
        // It was asked for: that is not held against whoever stored it.
        self.uploads.used(digest);
        Ok(shown)
    }

    /// Takes a worker's answer to [`ShowOutput`]; one that nobody waits for is ignored.
    pub(crate) fn take_shown(&self, worker: PublicKey, shown: &Shown) -> Result<(), Status> {
        let key = (convert::run_id(&shown.run)?, ShardIndex(shown.shard));
        let output = match &shown.output {
            Some(artifact) => Ok(convert::artifact(Some(artifact))?.digest),
            None => Err(format!("it says: {}", chain::printable(&shown.refusal))),
        };
        if let Some((_, asked)) = self.asked.remove_if(&key, |_, asked| asked.worker == worker) {
            // The one that asked may have given up.
            let _given_up = asked.answer.send(output);
        }
        Ok(())
    }

    /// Hands the output of the shard that gave `receipt` to the worker of the next, and waits for what it signs.
    async fn hand_over(
        self: &Arc<Self>,
        run: RunId,
        prepared: &Prepared,
        receipt: &Receipt,
        next: ShardIndex,
        encoding: Vec<u8>,
    ) -> Ruling {
        let attempt = self.runs.change(run, |record| {
            record.dispute_at(DisputeStage::Handing);
            record.attempt += 1;
            record.attempt
        });
        let Some(attempt) = attempt.await else { return Ruling::Moot };
        let ready = || {
            self.cluster.with(|registry| {
                let (_, member) = registry.holder(next).filter(|(_, member)| member.ready)?;
                Some((member.key, member.address.clone()))
            })
        };
        let Some((worker, address)) = self.until_there(ready).await else {
            return Ruling::Undecided("its worker has left".to_owned());
        };
        let digest = Digest::of(&encoding);
        let signed = self.owner.sign(handed_digest(run, prepared.plan, next.0, attempt, digest));
        let header = ActivationHeader {
            run: convert::run_bytes(run),
            plan: convert::digest_bytes(prepared.plan),
            boundary: next.0,
            attempt,
            receipt: convert::pack(receipt),
            owner_signature: convert::pack(&signed),
            attempt_signature: convert::pack(&self.owner.sign(attempt_digest(run, prepared.plan, attempt))),
            ..Default::default()
        };
        let hop = self.transport.hop(&address, Party::Worker, self.settings.hop_deadline);
        let delivered = match hop {
            // Once it is taken, the run has its own time left for all that follows.
            Ok(hop) => {
                let handed = hop.deliver(header, encoding.into(), self.time_left(run).await);
                let late = |_| Status::deadline_exceeded("it was not taken in time");
                tokio::time::timeout(self.settings.dispute_deadline, handed).await.map_err(late).flatten()
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        match delivered {
            Ok(()) => self.await_word(run, receipt, next, worker, attempt).await,
            Err(status) if !is_refusal(status.code()) => {
                Ruling::Undecided(format!("it did not get to its worker at {address}: {}", status.message()))
            }
            Err(status) => {
                let reason = format!(
                    "its worker refuses the output of shard {} that it was handed by the coordinator: {}",
                    receipt.statement.shard,
                    chain::printable(status.message())
                );
                Ruling::for_refusal(next, worker, reason)
            }
        }
    }

    /// What is looked for among the workers, once it is there: one that lost its connection comes back, and loads its shard first.
    async fn until_there<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut changes = self.cluster.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                let found = look();
                if found.is_some() || changes.changed().await.is_err() {
                    return found;
                }
            }
        };
        tokio::time::timeout(self.settings.dispute_deadline, found).await.ok().flatten()
    }

    /// What is left of the time that a run may take.
    async fn time_left(&self, run: RunId) -> Duration {
        let submitted_ms = self.find_run(run).await.map_or(0, |record| record.submitted_ms);
        self.settings.run_deadline.saturating_sub(Duration::from_millis(now_ms().saturating_sub(submitted_ms)))
    }

    /// Waits for what the next shard's worker makes of what it was handed.
    async fn await_word(
        &self,
        run: RunId,
        receipt: &Receipt,
        next: ShardIndex,
        worker: PublicKey,
        attempt: u32,
    ) -> Ruling {
        let Ok(Some(mut watch)) = self.runs.watch(run).await else { return Ruling::Moot };
        let signed = |record: &RunRecord| record.receipt(next).is_some_and(|receipt| receipt.attempt >= attempt);
        let faulted = |record: &RunRecord| record.dispute.is_some_and(|dispute| dispute.faulted_again);
        let word = watch.wait_for(|record| record.state != RunState::Running || signed(record) || faulted(record));
        let deadline = self.settings.dispute_deadline;
        let Ok(Ok(record)) = tokio::time::timeout(deadline, word).await else {
            let reason = format!(
                "its worker gave no receipt within {} s for the output of shard {} that it was handed by the coordinator",
                deadline.as_secs(),
                receipt.statement.shard
            );
            return Ruling::for_refusal(next, worker, reason);
        };
        if signed(&record) {
            Ruling::Agreed
        } else if record.state != RunState::Running {
            Ruling::Moot
        } else {
            let reason = format!(
                "its worker denies that what the coordinator handed it is the output that shard {} signed for, which it is",
                receipt.statement.shard
            );
            Ruling::for_refusal(next, worker, reason)
        }
    }
}

/// Whether a worker that did not take what it was handed says no, which the network or a full queue does not.
fn is_refusal(code: Code) -> bool {
    code != Code::DeadlineExceeded && !activations::nobody_there(code)
}

#[cfg(test)]
mod tests;
