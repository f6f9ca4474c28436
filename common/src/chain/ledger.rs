//! Keeps what became of each check, and decides what the run amounts to.

use std::collections::BTreeMap;

use super::check::{Check, Outcome, Refusal, printable};
use super::report::{CheckLine, ProofState, Report, ShardLine, Status};
use crate::card::ModelCard;
use crate::ids::RunId;
use crate::plan::BackendKind;

/// Outcomes so far. A check that nobody records stays [`Outcome::NotReached`]; one that failed stays failed.
#[derive(Default)]
pub(super) struct Ledger {
    outcomes: BTreeMap<Check, Outcome>,
    refusals: BTreeMap<Check, Refusal>,
}

impl Ledger {
    /// The check does not hold. The first refusal of a check is kept.
    pub(super) fn fail(&mut self, refusal: Refusal) {
        if !self.refusals.contains_key(&refusal.check) {
            let outcome = Outcome::Failed { shard: refusal.shard, reason: refusal.reason.clone() };
            self.outcomes.insert(refusal.check, outcome);
            self.refusals.insert(refusal.check, refusal);
        }
    }

    /// The check was made.
    pub(super) fn record(&mut self, check: Check, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.set(check, Outcome::Passed),
            Err(refusal) => self.fail(refusal),
        }
    }

    /// The check was made if the user supplied what it compares with.
    pub(super) fn record_supplied(&mut self, check: Check, result: Option<Result<(), Refusal>>, missing: &str) {
        match result {
            Some(result) => self.record(check, result),
            None => self.set(check, Outcome::NotSupplied { missing: missing.to_owned() }),
        }
    }

    /// The check was made for the proofs that there are; it passed only if nothing is missing.
    pub(super) fn record_proven(&mut self, check: Check, result: Result<(), Refusal>, missing: Option<&str>) {
        match (result, missing) {
            (Ok(()), Some(missing)) => self.set(check, Outcome::NotSupplied { missing: missing.to_owned() }),
            (result, _) => self.record(check, result),
        }
    }

    /// The check does not hold, and the user said beforehand, by `flag`, to go on.
    pub(super) fn waive(&mut self, check: Check, refusal: &Refusal, flag: &str) {
        let reason = printable(&format!("{flag}: {}", refusal.reason));
        self.set(check, Outcome::Waived { reason });
    }

    pub(super) fn any_failed(&self) -> bool {
        !self.refusals.is_empty()
    }

    fn set(&mut self, check: Check, outcome: Outcome) {
        if !self.refusals.contains_key(&check) {
            self.outcomes.insert(check, outcome);
        }
    }

    fn status(&self, shards: &[ShardLine]) -> Status {
        if let Some(refusal) = self.refusals.values().next() {
            return Status::Rejected(refusal.clone());
        }
        let holds = |check: &Check| match (check, self.outcomes.get(check)) {
            (_, Some(Outcome::Passed)) | (Check::Srs, Some(Outcome::Waived { .. })) => true,
            (check, Some(Outcome::NotSupplied { .. })) => check.needs_user(),
            _ => false,
        };
        let proven = |shard: &ShardLine| shard.proof == ProofState::Verified;
        if !shards.is_empty() && shards.iter().all(proven) && Check::ALL.iter().all(holds) {
            Status::Verified
        } else if shards.iter().any(proven) {
            Status::Partial
        } else {
            Status::Answered
        }
    }

    pub(super) fn into_report(
        mut self,
        card: &ModelCard,
        run: Option<RunId>,
        shards: Vec<ShardLine>,
        outputs: Option<Vec<f64>>,
    ) -> Report {
        let status = self.status(&shards);
        let rejected = matches!(status, Status::Rejected(_));
        let body = &card.body;
        let line = |check| CheckLine { check, outcome: self.outcomes.remove(&check).unwrap_or(Outcome::NotReached) };
        Report {
            checks: Check::ALL.into_iter().map(line).collect(),
            model_name: body.name.clone(),
            model: body.plan.model,
            card: card.digest(),
            owner: card.owner,
            run,
            float: body.shards.iter().any(|shard| shard.backend.kind == BackendKind::Float),
            shards,
            outputs: outputs.filter(|_| !rejected),
            status,
        }
    }
}
