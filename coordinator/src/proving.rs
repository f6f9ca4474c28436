//! Proofs: requested from the workers that gave the receipts, handed to `verifying` when they arrive.
//!
//! A worker that owes a proof may be away for a while: the request is sent again when it is back. One that stays away, whose
//! proof does not come in time, or whose proof fails, rejects the run and is named.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shardproof_common::clock;
use shardproof_common::hold::Stage;
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::receipt::PublicKey;
use shardproof_proto::convert;
use shardproof_proto::v1::coordinator_message::Message;
use shardproof_proto::v1::{CancelJob, ProofDone, ProveJob, ProveMember};
use tonic::Status;

use crate::Coordinator;
use crate::record::{DisputeStage, ProofState, RunRecord, RunState};
use crate::registry::SessionId;
use crate::runs::now_ms;
use crate::setup::Prepared;
use crate::workers::Event;

impl Coordinator {
    /// Requests proofs of `shards`, of all when none is named, for each of `runs`: of all runs or, where one of them cannot be
    /// proven, of none. Answers with the first run.
    pub(crate) async fn prove(self: &Arc<Self>, runs: &[RunId], shards: Vec<ShardIndex>) -> Result<RunRecord, Status> {
        self.check_accepting()?;
        let prepared = self.serving()?;
        if !prepared.provable() {
            return Err(Status::failed_precondition(
                "float mode proves nothing: start the coordinator with --backend gkr or ezkl",
            ));
        }
        let all = (0..prepared.shards.len() as u32).map(ShardIndex);
        let wanted: Vec<ShardIndex> = if shards.is_empty() { all.collect() } else { shards };
        let mut open = Vec::new();
        for &run in runs {
            let record = self.find_run(run).await?;
            if self.can_be_proven(&prepared, &record, &wanted)? {
                open.push(run);
            }
        }
        let mut jobs: BTreeMap<ShardIndex, Vec<RunId>> = BTreeMap::new();
        for &run in &open {
            let requested = self.runs.change(run, |record| record.request_proofs(&wanted, now_ms())).await;
            for shard in requested.unwrap_or_default() {
                jobs.entry(shard).or_default().push(run);
                self.tasks.spawn(self.clone().expire(run, shard));
            }
        }
        self.hold.reach(Stage::ProofRequested).await;
        for (shard, runs) in jobs {
            self.send_jobs(shard, &runs).await;
        }
        match runs.first() {
            Some(&first) => self.find_run(first).await,
            None => Err(Status::invalid_argument("no run is named")),
        }
    }

    /// Sends requests that a run's record holds already.
    pub(crate) async fn send_requested(self: &Arc<Self>, run: RunId, shards: &[ShardIndex]) {
        for &shard in shards {
            self.tasks.spawn(self.clone().expire(run, shard));
            self.send_jobs(shard, &[run]).await;
        }
    }

    /// Whether there is anything left to prove of a run; an error when there is, and it cannot be.
    fn can_be_proven(&self, prepared: &Prepared, record: &RunRecord, wanted: &[ShardIndex]) -> Result<bool, Status> {
        let run = record.id;
        if record.plan != prepared.plan {
            return Err(Status::failed_precondition(format!(
                "run {run} was made under another plan than the one now served"
            )));
        }
        if let Some(shard) = wanted.iter().find(|shard| shard.as_usize() >= prepared.shards.len()) {
            let message = format!("there is no shard {shard}: the plan has 0 to {}", prepared.shards.len() - 1);
            return Err(Status::invalid_argument(message));
        }
        match record.state {
            RunState::Running => return Err(Status::failed_precondition(format!("run {run} has no answer yet"))),
            RunState::Failed => {
                return Err(Status::failed_precondition(format!("run {run} failed: {}", record.reason)));
            }
            RunState::Rejected | RunState::Verified => return Ok(false),
            RunState::Answered | RunState::Partial => {}
        }
        let to_be_asked = |shard: &&ShardIndex| {
            record.shards.get(shard.as_usize()).is_some_and(|entry| entry.proof == ProofState::NotRequested)
        };
        for &shard in wanted.iter().filter(to_be_asked) {
            if record.promise_is_past(shard, clock::now()) {
                return Err(Status::failed_precondition(format!(
                    "the time until which shard {shard} of run {run} can be proven is past: its worker promised to keep what \
                     that takes for a while only (worker --keep-spool); run it again, and ask in time"
                )));
            }
            if let Err(reason) = self.prover_of(record, shard).and_then(|session| self.check_stays(session, shard)) {
                let receipt = record.shards.get(shard.as_usize()).and_then(|entry| entry.receipt.as_ref());
                if !receipt.is_some_and(|receipt| self.has_successor(shard, receipt.worker)) {
                    return Err(Status::failed_precondition(reason));
                }
            }
        }
        Ok(true)
    }

    /// The session that can prove a shard of a run: the worker that gave the receipt, while it holds the shard.
    fn prover_of(&self, record: &RunRecord, shard: ShardIndex) -> Result<SessionId, String> {
        let receipt = record.shards.get(shard.as_usize()).and_then(|shard| shard.receipt.as_ref());
        let worker = receipt.map(|receipt| receipt.worker).ok_or_else(|| format!("shard {shard} gave no receipt"))?;
        self.session_with(worker, shard).ok_or_else(|| {
            format!(
                "the run's boundary of shard {shard} is spooled at worker {}, which is not connected with that shard",
                worker.short()
            )
        })
    }

    /// Refuses to ask for anything new of a worker that is to stop.
    fn check_stays(&self, session: SessionId, shard: ShardIndex) -> Result<(), String> {
        match self.cluster.member(session) {
            Some(member) if !member.leaving => Ok(()),
            _ => Err(format!("the worker of shard {shard} is stopping: ask again when it is back")),
        }
    }

    /// The session of a worker that holds a shard and is ready. One that is to stop waits for what it owes.
    pub(crate) fn session_with(&self, worker: PublicKey, shard: ShardIndex) -> Option<SessionId> {
        self.cluster.with(|registry| {
            registry.by_key(&worker).filter(|(_, member)| member.shard == Some(shard) && member.ready).map(|(id, _)| id)
        })
    }

    /// Sends the requests for proofs of one shard, those of one worker together; without its worker a request waits for it to
    /// come back, or for the worker that took the shard over. The runs are of one requester: a worker may prove them together.
    pub(crate) async fn send_jobs(self: &Arc<Self>, shard: ShardIndex, runs: &[RunId]) {
        let mut owed: HashMap<PublicKey, Vec<(RunId, u64)>> = HashMap::new();
        for &run in runs {
            let Ok(record) = self.find_run(run).await else { continue };
            let Some(entry) = record.shards.get(shard.as_usize()) else { continue };
            if let Some(receipt) = &entry.receipt {
                owed.entry(receipt.worker).or_default().push((run, entry.attempt));
            }
        }
        for (worker, runs) in owed {
            let member = |&(run, attempt): &(RunId, u64)| ProveMember { run: convert::run_bytes(run), attempt };
            let job = ProveJob { shard: shard.0, members: runs.iter().map(member).collect() };
            let session = self.session_with(worker, shard);
            if session.is_some_and(|session| self.cluster.send(session, Message::Prove(job))) {
                continue;
            }
            let has_successor = self.has_successor(shard, worker);
            for (run, attempt) in runs {
                if has_successor {
                    self.tasks.spawn(self.clone().replay(run, shard));
                }
                self.tasks.spawn(self.clone().await_return(run, shard, worker, attempt));
            }
        }
    }

    /// Asks a worker that is back for the proofs it owes: for one at a time, because they may be of different requests. Those that
    /// another worker of the shard owes, which is gone, become this one's.
    pub(crate) async fn ask_again(self: &Arc<Self>, shard: ShardIndex, worker: PublicKey) {
        for run in self.runs.under_way() {
            let receipt = run.shards.get(shard.as_usize()).and_then(|entry| entry.receipt.as_ref());
            let lost = receipt.is_some_and(|receipt| receipt.worker != worker);
            if lost && run.awaits_proof(shard) {
                self.tasks.spawn(self.clone().replay(run.id, shard));
            } else if run.owed_by(shard, worker) {
                self.runs.change(run.id, |record| record.renew_attempt(shard)).await;
                self.send_jobs(shard, &[run.id]).await;
            }
        }
    }

    /// Starts the clock for the proofs that a worker owes and has left with.
    pub(crate) fn worker_left(self: &Arc<Self>, shard: ShardIndex, worker: PublicKey) {
        for run in self.runs.under_way().into_iter().filter(|run| run.owed_by(shard, worker)) {
            let attempt = run.proof_attempt(shard);
            self.tasks.spawn(self.clone().await_return(run.id, shard, worker, attempt));
        }
    }

    /// Rejects a run whose prover stays away, at once where it may not come back. Asked again since, in a later attempt than
    /// `attempt`, it was back: another absence has a clock of its own.
    async fn await_return(self: Arc<Self>, run: RunId, shard: ShardIndex, worker: PublicKey, attempt: u64) {
        let grace = self.settings.rejoin_grace;
        let barred = self.workers.check(&worker).is_err();
        if !barred {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
        // One that is back without the shard proves nothing.
        let holds = self
            .cluster
            .with(|registry| registry.by_key(&worker).is_some_and(|(_, member)| member.shard == Some(shard)));
        let Ok(record) = self.find_run(run).await else { return };
        if !holds && record.owed_by(shard, worker) && record.proof_attempt(shard) == attempt {
            let reason = if barred {
                "its worker was taken out while it owed the proof and may not return".to_owned()
            } else {
                format!("its worker was lost while it owed the proof and did not return within {} s", grace.as_secs())
            };
            let owes = |record: &RunRecord| record.owed_by(shard, worker) && record.proof_attempt(shard) == attempt;
            self.reject_while(owes, run, shard, worker, Event::Refused, reason).await;
        }
    }

    /// Rejects a run whose proof is late.
    async fn expire(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        let deadline = self.settings.prove_deadline;
        let Ok(Some(mut watch)) = self.runs.watch(run).await else { return };
        tokio::select! {
            () = tokio::time::sleep(deadline) => {}
            () = self.shutdown.cancelled() => return,
            // The sender lives in the run table for as long as the proof is awaited.
            _ended = watch.wait_for(|record| !record.awaits_proof(shard)) => return,
        }
        let receipt = watch.borrow().shards.get(shard.as_usize()).and_then(|shard| shard.receipt.clone());
        if let Some(receipt) = receipt {
            let reason = format!("its proof did not come within {} s", deadline.as_secs());
            let owes = |record: &RunRecord| record.owed_by(shard, receipt.worker);
            self.reject_while(owes, run, shard, receipt.worker, Event::Refused, reason).await;
        }
    }

    /// Takes a proof that a worker has stored here. A late one, or one that nobody asked for, is ignored.
    pub(crate) async fn take_proof(self: &Arc<Self>, worker: PublicKey, done: ProofDone) -> Result<(), Status> {
        let (run, shard) = (convert::run_id(&done.run)?, ShardIndex(done.shard));
        let artifact = convert::artifact(done.proof.as_ref())?;
        let record = self.find_run(run).await?;
        if record.owed_by(shard, worker) && record.proof_attempt(shard) == done.attempt {
            if matches!(self.artifacts.find(artifact.digest).await, Ok(None)) {
                let reason = "it told of a proof that it did not hand over".to_owned();
                let owes =
                    |record: &RunRecord| record.owed_by(shard, worker) && record.proof_attempt(shard) == done.attempt;
                self.reject_while(owes, run, shard, worker, Event::Failed, reason).await;
                return Ok(());
            }
            // On the disk before the run says that it is here.
            let local = self.artifacts.local().clone();
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || local.sync(artifact.digest)).await {
                tracing::warn!(%run, %shard, %error, "cannot sync a proof");
            }
        }
        let taken = self.runs.change(run, |record| {
            let entry = record.shards.get(shard.as_usize());
            let its_own =
                entry.and_then(|entry| entry.receipt.as_ref()).is_some_and(|receipt| receipt.worker == worker);
            let taken = its_own && record.take_proof(shard, done.attempt, artifact);
            if let Some(entry) = record.shards.get_mut(shard.as_usize()).filter(|_| taken) {
                entry.prove_us = done.prove_us;
                entry.peak_rss_bytes = entry.peak_rss_bytes.max(done.peak_rss_bytes);
                entry.step = "verify".into();
            }
            taken
        });
        if taken.await == Some(true) {
            self.tasks.spawn(self.clone().verify(run, shard));
        } else {
            tracing::info!(%run, %shard, worker = worker.short(), attempt = done.attempt, "ignoring a proof that is not awaited");
        }
        Ok(())
    }

    /// Rejects a run, names who is to blame, puts `event` on its record, and stops the proofs that are still being made.
    pub(crate) async fn reject(
        self: &Arc<Self>,
        run: RunId,
        shard: ShardIndex,
        worker: PublicKey,
        event: Event,
        reason: String,
    ) {
        self.reject_while(|_| true, run, shard, worker, event, reason).await;
    }

    /// The same, unless what it is rejected for no longer holds: what has been changed may not be stored yet, and not seen.
    async fn reject_while(
        self: &Arc<Self>,
        holds: impl FnOnce(&RunRecord) -> bool,
        run: RunId,
        shard: ShardIndex,
        worker: PublicKey,
        event: Event,
        reason: String,
    ) {
        let said = reason.clone();
        let rejected = self.change_and_withdraw(run, |record| {
            if !holds(record) {
                return None;
            }
            record.reject(shard, Some(worker), reason);
            Some(record.open_dispute(shard, DisputeStage::Accusing))
        });
        let Some(doubted) = rejected.await.flatten() else { return };
        tracing::warn!(%run, %shard, worker = worker.short(), reason = said, "run rejected");
        if doubted {
            // A proof that fails convicts nobody; the receipt may.
            self.tasks.spawn(self.clone().reexecute(run, shard));
        }
        self.note(worker, event).await;
    }

    /// Changes a run, and tells the workers to stop making proofs that nobody waits for any more.
    pub(crate) async fn change_and_withdraw<T>(
        &self,
        run: RunId,
        change: impl FnOnce(&mut RunRecord) -> T,
    ) -> Option<T> {
        let changed = self.runs.change(run, |record| {
            let mut withdrawn = record.awaited_proofs();
            let result = change(record);
            let awaited = record.awaited_proofs();
            withdrawn.retain(|proof| !awaited.contains(proof));
            (result, withdrawn)
        });
        let (result, withdrawn) = changed.await?;
        if !withdrawn.is_empty() {
            self.stop_proving(run, &withdrawn).await;
        }
        Some(result)
    }

    /// Tells the workers that make proofs of these shards to stop, unless they have been asked in a later attempt by now.
    async fn stop_proving(&self, run: RunId, withdrawn: &[(ShardIndex, u64)]) {
        let Ok(record) = self.find_run(run).await else { return };
        for &(shard, attempt) in withdrawn {
            if let Ok(session) = self.prover_of(&record, shard) {
                let job = CancelJob { run: convert::run_bytes(run), shard: shard.0, attempt };
                self.cluster.send(session, Message::CancelJob(job));
            }
        }
    }

    /// Cancels a run that has no answer, or the proofs that are still being made and that no audit drew.
    pub(crate) async fn cancel(&self, run: RunId) -> Result<RunRecord, Status> {
        let record = self.find_run(run).await?;
        if self.change_and_withdraw(run, RunRecord::cancel).await != Some(true) {
            return Err(Status::failed_precondition(if record.proofs_pending() {
                format!("the proofs of run {run} that are under way were drawn by the audit, or are being verified")
            } else {
                format!("nothing of run {run} is under way")
            }));
        }
        tracing::info!(%run, "run cancelled");
        self.find_run(run).await
    }

    /// Takes up the runs that an earlier process left: those without an answer are sent through again, proofs are asked for
    /// again or verified.
    pub(crate) async fn resume(self: &Arc<Self>, left: &[RunId]) {
        let Ok(prepared) = self.serving() else { return };
        for &run in left {
            let Ok(run) = self.find_run(run).await else { continue };
            if run.in_dispute() {
                // Whom it was about is known; whether a worker can be convicted is found out again.
                match run.dispute.filter(|_| run.state.is_terminal()) {
                    Some(dispute) => drop(self.tasks.spawn(self.clone().resume_accusation(run.clone(), dispute.shard))),
                    None => drop(self.runs.change(run.id, RunRecord::end_accusation).await),
                }
            }
            if run.state.is_terminal() {
                continue;
            }
            if run.plan != prepared.plan {
                let reason = "the coordinator serves another plan now, under which nothing is run or proven".to_owned();
                self.change_and_withdraw(run.id, |record| record.give_up(None, reason)).await;
                continue;
            }
            if run.state == RunState::Running {
                self.tasks.spawn(self.clone().see_through(run.id, prepared.clone(), None));
                continue;
            }
            let coordinator = self.clone();
            self.tasks.spawn(async move { coordinator.audit(run.id).await });
            for (index, entry) in run.shards.iter().enumerate() {
                let shard = ShardIndex(index as u32);
                match (entry.proof, &entry.receipt) {
                    (ProofState::Verifying, _) => drop(self.tasks.spawn(self.clone().verify(run.id, shard))),
                    (ProofState::Requested, Some(receipt)) => {
                        self.tasks.spawn(self.clone().await_return(run.id, shard, receipt.worker, entry.attempt));
                        self.tasks.spawn(self.clone().expire(run.id, shard));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
