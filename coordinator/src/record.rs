//! One run as the coordinator knows it, and the transitions that it may make.
//!
//! Terminal states (verified, rejected, failed) never change. A proof that was requested and fails, or is for another
//! statement, rejects the run and names shard and worker.

use serde::{Deserialize, Serialize};
use shardproof_common::artifacts::Artifact;
use shardproof_common::evidence;
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::{PublicKey, Receipt};
use shardproof_common::statement::{Binding, Boundary};

use crate::audit::{Audit, AuditStage};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunState {
    /// On its way through the shards.
    Running,
    /// Receipts agree, nothing is proven.
    Answered,
    /// Some shards are proven.
    Partial,
    /// Every shard is proven and every check passed.
    Verified,
    /// A check failed.
    Rejected,
    /// There is no answer.
    Failed,
}

impl RunState {
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Verified | Self::Rejected | Self::Failed)
    }
}

/// Where the proof of one shard stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProofState {
    #[default]
    NotRequested,
    Requested,
    Verifying,
    Verified,
    Rejected,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) id: RunId,
    pub(crate) plan: Digest,
    pub(crate) submitted_ms: u64,
    pub(crate) state: RunState,
    pub(crate) reason: String,
    pub(crate) blamed_shard: Option<ShardIndex>,
    pub(crate) blamed_worker: Option<PublicKey>,
    /// Encoding of boundary 0.
    pub(crate) input: Artifact,
    /// Encoding of the last boundary.
    pub(crate) answer: Option<Artifact>,
    pub(crate) shards: Vec<ShardRecord>,
    /// Counts how often the run, or a part of it, was sent through the shards, from 0.
    pub(crate) attempt: u32,
    /// The attempt in which it was last sent through all shards because one of them had another worker: what was said in an
    /// earlier one is late.
    pub(crate) first_attempt: u32,
    /// The workers of its shards since then.
    pub(crate) holders: Vec<PublicKey>,
    /// The receipt that came with the answer, until the worker's own message is compared with it.
    #[serde(default)]
    pub(crate) answer_receipt: Option<Receipt>,
    #[serde(default)]
    pub(crate) dispute: Option<Dispute>,
    /// Two receipts by which a worker contradicts itself, until the evidence is made of them.
    #[serde(default)]
    pub(crate) contradiction: Option<Box<(Receipt, Receipt)>>,
    /// What convicts a worker of having lied in this run.
    #[serde(default)]
    pub(crate) evidence: Option<Artifact>,
    pub(crate) prove_requested_ms: u64,
    pub(crate) prove_wall_ms: u64,
    pub(crate) audit: Audit,
}

/// A question about what a shard put out, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dispute {
    /// The shard whose output is in question.
    pub(crate) shard: ShardIndex,
    pub(crate) stage: DisputeStage,
    /// Whether the next shard's worker finds fault with what the coordinator itself handed it.
    pub(crate) faulted_again: bool,
}

/// What is done to settle a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DisputeStage {
    /// The shard's worker is asked for its output.
    Showing,
    /// The output goes to the next shard's worker once more, from the coordinator.
    Handing,
    /// The coordinator looks for evidence against its worker, and may run the shard itself for it.
    Accusing,
    /// Nothing more: the run's state says what came of it.
    Settled,
}

/// One shard of a run. What is skipped here is stored in tables of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShardRecord {
    #[serde(skip)]
    pub(crate) receipt: Option<Receipt>,
    /// The receipt that came with the input, until that of the shard before is compared with it.
    #[serde(default)]
    pub(crate) upstream: Option<Receipt>,
    #[serde(default)]
    pub(crate) witness_us: u64,
    pub(crate) witness_bytes: u64,
    #[serde(skip)]
    pub(crate) proof: ProofState,
    /// Counts the requests for its proof; a completion of an earlier one is late and ignored.
    #[serde(skip)]
    pub(crate) attempt: u64,
    #[serde(skip)]
    pub(crate) artifact: Option<Artifact>,
    #[serde(default)]
    pub(crate) prove_us: u64,
    #[serde(default)]
    pub(crate) verify_us: u64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) step: String,
}

/// What became of a receipt that came for an answered run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// It counts from now on.
    Taken,
    /// It is late, or nothing waits for it.
    Ignored,
    /// It says something else than the one before, by whichever worker: one of the two lies.
    Contradicted,
}

impl RunRecord {
    pub(crate) fn new(id: RunId, plan: Digest, shards: usize, input: Artifact, now_ms: u64) -> Self {
        Self {
            id,
            plan,
            submitted_ms: now_ms,
            state: RunState::Running,
            reason: String::new(),
            blamed_shard: None,
            blamed_worker: None,
            input,
            answer: None,
            shards: vec![ShardRecord::default(); shards],
            attempt: 0,
            first_attempt: 0,
            holders: Vec::new(),
            answer_receipt: None,
            dispute: None,
            contradiction: None,
            evidence: None,
            prove_requested_ms: 0,
            prove_wall_ms: 0,
            audit: Audit::default(),
        }
    }

    /// The artifacts that the run refers to: as long as it is kept, so are they.
    pub(crate) fn artifacts(&self) -> Vec<Digest> {
        let mut found = vec![self.input.digest];
        found.extend([self.answer, self.evidence].into_iter().flatten().map(|artifact| artifact.digest));
        for shard in &self.shards {
            found.extend(shard.artifact.map(|proof| proof.digest));
            let statement = shard.receipt.as_ref().map(|receipt| &receipt.statement);
            found.extend(statement.into_iter().flat_map(|s| [public(&s.input), public(&s.output)]).flatten());
        }
        found
    }

    /// The public boundaries that workers stored and the next shard has signed that it took. Of others nobody knows that they are
    /// boundaries.
    pub(crate) fn passed_on_boundaries(&self) -> impl Iterator<Item = Digest> {
        let receipts = self.shards.iter().filter_map(|shard| shard.receipt.as_ref());
        let passed_on = receipts.filter(|receipt| self.has_receipt(ShardIndex(receipt.statement.shard.0 + 1)));
        passed_on.filter_map(|receipt| public(&receipt.statement.output))
    }

    /// Whether anything is still to happen without another request.
    pub(crate) fn under_way(&self) -> bool {
        let draw_pending = self.audit.stage == AuditStage::Open;
        let awaited = self.state == RunState::Running || draw_pending || self.proofs_pending();
        self.in_dispute() || !self.state.is_terminal() && awaited
    }

    /// Whether a dispute is open, or evidence to be made.
    pub(crate) fn in_dispute(&self) -> bool {
        self.contradiction.is_some() || self.dispute.is_some_and(|dispute| dispute.stage != DisputeStage::Settled)
    }

    /// Opens a dispute about what `shard` put out, unless one is open.
    pub(crate) fn open_dispute(&mut self, shard: ShardIndex, stage: DisputeStage) -> bool {
        let opened = !self.in_dispute();
        if opened {
            self.dispute = Some(Dispute { shard, stage, faulted_again: false });
        }
        opened
    }

    /// Goes on to the next stage of the open dispute.
    pub(crate) fn dispute_at(&mut self, stage: DisputeStage) {
        if let Some(dispute) = &mut self.dispute {
            dispute.stage = stage;
        }
    }

    /// Ends the search for evidence against a worker.
    pub(crate) fn end_accusation(&mut self) {
        self.contradiction = None;
        self.dispute_at(DisputeStage::Settled);
    }

    /// The receipt of a shard, once it is in. While the run is under way, one of an attempt that is over is none.
    pub(crate) fn receipt(&self, shard: ShardIndex) -> Option<&Receipt> {
        let receipt = self.shards.get(shard.as_usize())?.receipt.as_ref()?;
        (self.state != RunState::Running || self.counts(receipt.attempt.into())).then_some(receipt)
    }

    /// Ends a run in which a worker contradicts itself; it is under way until the evidence is made.
    pub(crate) fn reject_for_contradiction(&mut self, both: &(Receipt, Receipt)) {
        let (shard, worker) = (both.0.statement.shard, both.0.worker);
        self.reject(shard, Some(worker), "its worker gave two receipts that contradict each other".to_owned());
        if !self.open_dispute(shard, DisputeStage::Accusing) {
            self.dispute_at(DisputeStage::Accusing);
        }
        self.contradiction = Some(Box::new(both.clone()));
    }

    /// A receipt that its worker gave for the same shard, in whichever attempt, with the one that contradicts it: no honest worker
    /// signs both. What is proven stands, whatever else its worker signed.
    pub(crate) fn contradicted_by(&self, receipt: &Receipt) -> Option<Box<(Receipt, Receipt)>> {
        let shard = receipt.statement.shard;
        let entry = self.shards.get(shard.as_usize())?;
        if self.state.is_terminal() || entry.proof == ProofState::Verified {
            return None;
        }
        let passed_on = match self.shards.get(shard.as_usize() + 1) {
            Some(next) => &next.upstream,
            None => &self.answer_receipt,
        };
        let mut known = entry.receipt.iter().chain(passed_on);
        let known = known.find(|known| evidence::contradiction(known, receipt).is_ok())?;
        Some(Box::new((known.clone(), receipt.clone())))
    }

    /// Compares the receipt of `shard` with the one that its worker gave to the next shard, or with the answer, once both are
    /// in; gives the worker of the latter if it did not have the shard: whoever shows it made it up, or took it from a stranger.
    /// What agrees need not be kept any longer.
    pub(crate) fn passed_on_by_another(&mut self, shard: ShardIndex) -> Option<PublicKey> {
        let own = self.receipt(shard)?;
        let (worker, attempt) = (own.worker, own.attempt);
        let passed_on = match self.shards.get_mut(shard.as_usize() + 1) {
            Some(next) => &mut next.upstream,
            None => &mut self.answer_receipt,
        };
        // In one attempt a shard has one worker.
        let other = passed_on.take().filter(|other| other.attempt == attempt && other.worker != worker)?;
        Some(other.worker)
    }

    pub(crate) fn proofs_pending(&self) -> bool {
        self.shards.iter().any(|shard| matches!(shard.proof, ProofState::Requested | ProofState::Verifying))
    }

    /// The workers at whom a run may stand whose receipt of `shard`, or whose answer, does not come: the one that was to give it,
    /// and the one before, which may not have passed the run on.
    pub(crate) fn workers_before_and_of(&self, shard: ShardIndex) -> Vec<PublicKey> {
        let own = shard.as_usize();
        let first = if self.has_receipt(shard) { own } else { own.saturating_sub(1) };
        self.holders.get(first..=own).unwrap_or_default().to_vec()
    }

    /// Whether anything is still to come of `shard` before the answer: its receipt, or what tells that it passed the run on.
    pub(crate) fn awaits_passage(&self, shard: ShardIndex) -> bool {
        let next = ShardIndex(shard.0 + 1);
        let passed_on =
            if next.as_usize() < self.shards.len() { self.has_receipt(next) } else { self.answer.is_some() };
        self.state == RunState::Running && !(self.has_receipt(shard) && passed_on)
    }

    /// Whether the proof of `shard` is awaited.
    pub(crate) fn awaits_proof(&self, shard: ShardIndex) -> bool {
        !self.state.is_terminal() && self.shards.get(shard.as_usize()).is_some_and(|s| s.proof == ProofState::Requested)
    }

    /// Whether the proof of `shard` can no longer be demanded: its worker promised to keep what it takes until a time that is
    /// past.
    pub(crate) fn promise_is_past(&self, shard: ShardIndex, now: UnixMillis) -> bool {
        let receipt = self.shards.get(shard.as_usize()).and_then(|entry| entry.receipt.as_ref());
        receipt.is_some_and(|receipt| receipt.provable_until < now)
    }

    /// Whether `worker` gave the receipt of `shard` and its proof is awaited.
    pub(crate) fn owed_by(&self, shard: ShardIndex, worker: PublicKey) -> bool {
        let receipt = self.shards.get(shard.as_usize()).and_then(|entry| entry.receipt.as_ref());
        self.awaits_proof(shard) && receipt.is_some_and(|receipt| receipt.worker == worker)
    }

    /// Ends a run that has no answer. One that is answered, if only by what is not stored yet, does not fail any more.
    pub(crate) fn fail(&mut self, shard: Option<ShardIndex>, worker: Option<PublicKey>, reason: String) {
        if self.state == RunState::Running {
            self.end(RunState::Failed, shard, worker, reason);
        }
    }

    /// Ends a run of which nothing more can come.
    pub(crate) fn give_up(&mut self, shard: Option<ShardIndex>, reason: String) {
        self.end(RunState::Failed, shard, None, reason);
    }

    /// Ends a run in which a check failed.
    pub(crate) fn reject(&mut self, shard: ShardIndex, worker: Option<PublicKey>, reason: String) {
        if let Some(record) = self.shards.get_mut(shard.as_usize())
            && !matches!(record.proof, ProofState::NotRequested)
        {
            record.proof = ProofState::Rejected;
        }
        self.end(RunState::Rejected, Some(shard), worker, reason);
    }

    /// Ends a run that has no answer. Of an answered one, takes back the requests for proofs that no audit drew. Says whether there
    /// was anything to cancel.
    pub(crate) fn cancel(&mut self) -> bool {
        if self.state == RunState::Running {
            self.fail(None, None, "it was cancelled".to_owned());
            return true;
        }
        let drawn = match &self.audit.stage {
            AuditStage::Drawn { shards, .. } => shards.clone(),
            AuditStage::Idle | AuditStage::Open | AuditStage::Unrevealed => Vec::new(),
        };
        let mut withdrawn: Vec<ShardIndex> = (0..self.shards.len() as u32).map(ShardIndex).collect();
        withdrawn.retain(|shard| self.awaits_proof(*shard) && !drawn.contains(shard));
        for shard in &withdrawn {
            let record = &mut self.shards[shard.as_usize()];
            record.proof = ProofState::NotRequested;
            record.step.clear();
        }
        !withdrawn.is_empty()
    }

    fn end(&mut self, state: RunState, shard: Option<ShardIndex>, worker: Option<PublicKey>, reason: String) {
        if !self.state.is_terminal() {
            (self.state, self.blamed_shard, self.blamed_worker, self.reason) = (state, shard, worker, reason);
        }
    }

    /// Whether what is said in this attempt is in time.
    pub(crate) fn counts(&self, attempt: u64) -> bool {
        (u64::from(self.first_attempt)..=u64::from(self.attempt)).contains(&attempt)
    }

    /// Whether the receipt of `shard` is in.
    pub(crate) fn has_receipt(&self, shard: ShardIndex) -> bool {
        self.receipt(shard).is_some()
    }

    /// Whether the answer that comes with `receipt` is awaited: the first one of the worker that has the last shard in this attempt.
    pub(crate) fn awaits_answer(&self, receipt: &Receipt) -> bool {
        let holds = self.holders.last().is_none_or(|holder| *holder == receipt.worker);
        self.state == RunState::Running && self.answer.is_none() && holds && self.counts(receipt.attempt.into())
    }

    /// Prepares the run to be sent through its shards, which `holders` hold now; says whether that changes anything. Where one
    /// of them is another than before, a new attempt begins, in which every receipt is given again: in one attempt a shard has
    /// one worker.
    pub(crate) fn send_to(&mut self, holders: &[PublicKey]) -> bool {
        if self.state != RunState::Running || self.holders == holders {
            return false;
        }
        if !self.holders.is_empty() {
            self.attempt += 1;
            self.first_attempt = self.attempt;
            // What its workers signed stays: it may contradict what they sign now.
            self.answer = None;
        }
        self.holders = holders.to_vec();
        true
    }

    /// Becomes answered once every receipt and the answer are in.
    pub(crate) fn settle_inference(&mut self) {
        let complete = (0..self.shards.len() as u32).all(|shard| self.has_receipt(ShardIndex(shard)));
        if self.state == RunState::Running && self.answer.is_some() && complete {
            self.state = RunState::Answered;
            self.open_audit();
        }
    }

    /// Begins the attempt in which an answered run is sent through its shards again; none when it has no answer, or is settled.
    pub(crate) fn begin_replay(&mut self) -> Option<u32> {
        if !matches!(self.state, RunState::Answered | RunState::Partial) {
            return None;
        }
        self.attempt += 1;
        Some(self.attempt)
    }

    /// Takes a receipt of a run that was answered before and is sent through its shards again: in place of the one of an earlier
    /// attempt, if it says the same. What is proven, or about to be, keeps its receipt. The answer is what happened.
    pub(crate) fn replace_receipt(&mut self, shard: ShardIndex, receipt: &Receipt) -> Replaced {
        let attempt = self.attempt;
        let settled = matches!(self.state, RunState::Answered | RunState::Partial);
        let Some(entry) = self.shards.get_mut(shard.as_usize()).filter(|_| settled) else { return Replaced::Ignored };
        let Some(known) = &entry.receipt else { return Replaced::Ignored };
        if receipt.attempt != attempt || known.attempt >= attempt {
            return Replaced::Ignored;
        }
        if entry.proof == ProofState::Verified {
            return Replaced::Ignored;
        }
        if known.statement != receipt.statement {
            return Replaced::Contradicted;
        }
        if !matches!(entry.proof, ProofState::NotRequested | ProofState::Requested) {
            return Replaced::Ignored;
        }
        entry.receipt = Some(receipt.clone());
        Replaced::Taken
    }

    /// Requests proofs of `shards` that are not there yet; returns which those are.
    pub(crate) fn request_proofs(&mut self, shards: &[ShardIndex], now_ms: u64) -> Vec<ShardIndex> {
        let mut requested = Vec::new();
        for &shard in shards {
            if let Some(record) = self.shards.get_mut(shard.as_usize())
                && record.proof == ProofState::NotRequested
            {
                record.proof = ProofState::Requested;
                record.attempt += 1;
                requested.push(shard);
            }
        }
        if !requested.is_empty() {
            self.prove_requested_ms = now_ms;
        }
        requested
    }

    /// The shards whose proofs are awaited, each with its count of requests.
    pub(crate) fn awaited_proofs(&self) -> Vec<(ShardIndex, u64)> {
        let shards = (0..self.shards.len() as u32).map(ShardIndex).filter(|&shard| self.awaits_proof(shard));
        shards.map(|shard| (shard, self.proof_attempt(shard))).collect()
    }

    /// Counts the requests for the proof of `shard`.
    pub(crate) fn proof_attempt(&self, shard: ShardIndex) -> u64 {
        self.shards.get(shard.as_usize()).map_or(0, |entry| entry.attempt)
    }

    /// Counts up the attempt of a proof that is asked for again.
    pub(crate) fn renew_attempt(&mut self, shard: ShardIndex) {
        if let Some(record) = self.shards.get_mut(shard.as_usize()) {
            record.attempt += 1;
        }
    }

    /// Takes up a proof for verification if it is the one awaited.
    pub(crate) fn take_proof(&mut self, shard: ShardIndex, attempt: u64, artifact: Artifact) -> bool {
        let awaited = self.awaits_proof(shard);
        match self.shards.get_mut(shard.as_usize()) {
            Some(record) if awaited && record.attempt == attempt => {
                record.proof = ProofState::Verifying;
                record.artifact = Some(artifact);
                true
            }
            _ => false,
        }
    }

    /// Notes that the proof of `shard` passed, unless that is known or nobody waits for it; the state follows.
    pub(crate) fn proof_passed(&mut self, shard: ShardIndex, verify_us: u64, now_ms: u64) -> bool {
        let awaited = !self.state.is_terminal();
        let entry = self.shards.get_mut(shard.as_usize());
        let Some(entry) = entry.filter(|entry| awaited && entry.proof == ProofState::Verifying) else { return false };
        entry.proof = ProofState::Verified;
        entry.verify_us = verify_us;
        entry.step.clear();
        if !self.proofs_pending() {
            self.prove_wall_ms = now_ms.saturating_sub(self.prove_requested_ms);
        }
        let all = self.shards.iter().all(|s| s.proof == ProofState::Verified);
        self.state = if all { RunState::Verified } else { RunState::Partial };
        true
    }
}

/// The encoding that a boundary is shown by.
fn public(boundary: &Boundary) -> Option<Digest> {
    match boundary.binding {
        Binding::Public(digest) => Some(digest),
        Binding::Committed(_) => None,
    }
}

#[cfg(test)]
mod tests;
