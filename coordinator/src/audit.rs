//! Audits: the proofs that nobody requested. What is proven is drawn over the receipts once all are in, with a nonce that the
//! client committed to before and reveals after ([`shardproof_common::audit`]).
//!
//! A run whose draw is outstanding is under way: a coordinator that restarts takes it up again. The receipts that a draw is over
//! are fixed when the run is answered, so that none of them can be exchanged for a luckier one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardproof_common::audit::{AuditPolicy, Nonce, NonceCommitment, receipt_digest};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use thiserror::Error;
use tonic::Status;

use crate::Coordinator;
use crate::record::RunRecord;
use crate::runs::{no_run, now_ms};

/// The audit of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) policy: AuditPolicy,
    /// The client's, where it takes part in the draw.
    pub(crate) commitment: Option<NonceCommitment>,
    /// Digests of the receipts that the draw is over, in the order of shards; none before the run is answered.
    pub(crate) receipts: Vec<Digest>,
    pub(crate) stage: AuditStage,
}

/// Where an audit stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuditStage {
    /// There is nothing to draw, or the run has no answer yet.
    #[default]
    Idle,
    /// The receipts are fixed, the draw is to come.
    Open,
    /// Made; of no shards perhaps.
    Drawn {
        /// Of a random draw.
        nonce: Option<Nonce>,
        shards: Vec<ShardIndex>,
    },
    /// The client kept its nonce for itself.
    Unrevealed,
}

impl Audit {
    pub(crate) fn new(policy: AuditPolicy, commitment: Option<NonceCommitment>) -> Self {
        Self { policy, commitment, receipts: Vec::new(), stage: AuditStage::Idle }
    }

    /// Whether the draw waits for the client.
    pub(crate) fn awaits_nonce(&self) -> bool {
        self.stage == AuditStage::Open && self.policy.is_random() && self.commitment.is_some()
    }
}

impl RunRecord {
    /// Fixes the receipts that the draw is over, once all are in.
    pub(crate) fn open_audit(&mut self) {
        if self.audit.policy != AuditPolicy::Request {
            let receipts = self.shards.iter().filter_map(|shard| shard.receipt.as_ref());
            self.audit.receipts = receipts.map(receipt_digest).collect();
            self.audit.stage = AuditStage::Open;
        }
    }

    /// Draws, and requests the proofs drawn; returns those that were not requested before.
    pub(crate) fn draw(&mut self, nonce: Nonce, now_ms: u64) -> Vec<ShardIndex> {
        if self.audit.stage != AuditStage::Open {
            return Vec::new();
        }
        let shards = self.audit.policy.draw(self.id, &self.audit.receipts, &nonce);
        let nonce = self.audit.policy.is_random().then_some(nonce);
        self.audit.stage = AuditStage::Drawn { nonce, shards: shards.clone() };
        // A run that was proven or rejected meanwhile owes nothing more.
        if self.state.is_terminal() { Vec::new() } else { self.request_proofs(&shards, now_ms) }
    }

    /// Takes the client's nonce. The same one may come twice.
    pub(crate) fn reveal(&mut self, nonce: Nonce, now_ms: u64) -> Result<Vec<ShardIndex>, RevealError> {
        let commitment = self.audit.commitment.ok_or(RevealError::NoCommitment)?;
        if nonce.commitment() != commitment {
            return Err(RevealError::AnotherNonce);
        }
        match self.audit.stage {
            _ if !self.audit.policy.is_random() => Err(RevealError::NothingToDraw),
            AuditStage::Idle => Err(RevealError::TooEarly),
            AuditStage::Unrevealed => Err(RevealError::TooLate),
            AuditStage::Open => Ok(self.draw(nonce, now_ms)),
            AuditStage::Drawn { .. } => Ok(Vec::new()),
        }
    }

    /// Gives up waiting for the client's nonce.
    pub(crate) fn forgo_nonce(&mut self) {
        if self.audit.awaits_nonce() {
            self.audit.stage = AuditStage::Unrevealed;
        }
    }
}

/// Why a nonce is not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum RevealError {
    #[error("the run was submitted without a commitment to a nonce")]
    NoCommitment,
    #[error("the nonce is not the one that the run was submitted with a commitment to")]
    AnotherNonce,
    #[error("the audit policy leaves nothing to a draw")]
    NothingToDraw,
    #[error("the run is not answered: keep the nonce secret until its receipts are in")]
    TooEarly,
    #[error("the nonce comes too late: the run counts as not audited")]
    TooLate,
}

impl Coordinator {
    /// Sees to the draw of a run that is answered: at once, or when the client reveals its nonce. Returns when it is made or
    /// given up.
    pub(crate) async fn audit(self: &Arc<Self>, run: RunId) {
        let Ok(Some(mut watch)) = self.runs.watch(run).await else { return };
        let (open, awaits_nonce) = {
            let record = watch.borrow();
            (record.audit.stage == AuditStage::Open, record.audit.awaits_nonce())
        };
        if open && !awaits_nonce {
            let nonce = Nonce::generate();
            let drawn = self.runs.change(run, |record| record.draw(nonce, now_ms())).await;
            self.send_requested(run, &drawn.unwrap_or_default()).await;
        } else if open {
            tokio::select! {
                () = tokio::time::sleep(self.settings.reveal_deadline) => {}
                () = self.shutdown.cancelled() => return,
                // The sender lives in the run table for as long as the draw is outstanding.
                _drawn = watch.wait_for(|record| record.state.is_terminal() || !record.audit.awaits_nonce()) => return,
            }
            self.runs.change(run, RunRecord::forgo_nonce).await;
        }
    }

    /// Takes the nonce that the client of a run reveals.
    pub(crate) async fn reveal(self: &Arc<Self>, run: RunId, nonce: Nonce) -> Result<RunRecord, Status> {
        let revealed = self.runs.change(run, |record| record.reveal(nonce, now_ms())).await;
        let revealed = revealed.ok_or_else(|| no_run(run))?;
        let requested = revealed.map_err(|error| match error {
            RevealError::NoCommitment | RevealError::AnotherNonce => Status::invalid_argument(error.to_string()),
            RevealError::NothingToDraw | RevealError::TooEarly | RevealError::TooLate => {
                Status::failed_precondition(error.to_string())
            }
        })?;
        self.send_requested(run, &requested).await;
        self.find_run(run).await
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::artifacts::Artifact;

    use super::*;
    use crate::record::{ProofState, RunState};

    fn nonce() -> Nonce {
        Nonce::from_bytes([7; 32])
    }

    /// A run that is answered under `policy`.
    fn answered(policy: &str, commitment: Option<NonceCommitment>) -> RunRecord {
        let mut run = running(policy, commitment);
        run.state = RunState::Answered;
        run.open_audit();
        // The receipts themselves are of no interest here.
        run.audit.receipts = vec![Digest::of(b"receipt 0"), Digest::of(b"receipt 1")];
        run
    }

    fn running(policy: &str, commitment: Option<NonceCommitment>) -> RunRecord {
        let input = Artifact { digest: Digest::of(b"x"), size: 1 };
        let mut run = RunRecord::new(RunId::generate(), Digest::of(b"plan"), 2, input, 5);
        run.audit = Audit::new(policy.parse().unwrap(), commitment);
        run
    }

    fn requested(run: &RunRecord) -> Vec<bool> {
        run.shards.iter().map(|shard| shard.proof == ProofState::Requested).collect()
    }

    #[test]
    fn a_draw_requests_what_it_draws_and_is_made_once() {
        let mut run = answered("runs:1", Some(nonce().commitment()));
        assert!(run.under_way() && run.audit.awaits_nonce());
        assert_eq!(run.reveal(nonce(), 9), Ok(vec![ShardIndex(0), ShardIndex(1)]));
        assert_eq!(requested(&run), [true, true]);
        assert_eq!(run.reveal(nonce(), 9), Ok(vec![]), "the same nonce again asks for nothing more");
        run.forgo_nonce();
        assert!(matches!(run.audit.stage, AuditStage::Drawn { nonce: Some(_), .. }));
    }

    #[test]
    fn a_draw_of_nothing_leaves_the_run_answered() {
        let mut run = answered("shards:0", Some(nonce().commitment()));
        assert_eq!(run.reveal(nonce(), 9), Ok(vec![]));
        assert_eq!((run.state, run.under_way(), requested(&run)), (RunState::Answered, false, vec![false, false]));
    }

    #[test]
    fn always_asks_for_all_and_request_for_nothing() {
        let mut run = answered("always", None);
        assert!(run.under_way() && !run.audit.awaits_nonce());
        assert_eq!(run.draw(nonce(), 9).len(), 2);
        assert_eq!(run.audit.stage, AuditStage::Drawn { nonce: None, shards: vec![ShardIndex(0), ShardIndex(1)] });
        let mut run = answered("request", None);
        assert!(!run.under_way());
        assert_eq!((run.draw(nonce(), 9), requested(&run)), (vec![], vec![false, false]));
    }

    #[test]
    fn nonces_that_are_not_due_are_refused_and_change_nothing() {
        let committed = Some(nonce().commitment());
        let cases = [
            (answered("runs:1", None), RevealError::NoCommitment),
            (answered("runs:1", Some(Nonce::from_bytes([8; 32]).commitment())), RevealError::AnotherNonce),
            (answered("always", committed), RevealError::NothingToDraw),
            (running("runs:1", committed), RevealError::TooEarly),
        ];
        for (mut run, error) in cases {
            assert_eq!(run.reveal(nonce(), 9), Err(error));
            assert_eq!(requested(&run), [false, false]);
        }
        let mut late = answered("runs:1", committed);
        late.forgo_nonce();
        assert_eq!(late.reveal(nonce(), 9), Err(RevealError::TooLate));
        assert_eq!((late.under_way(), requested(&late)), (false, vec![false, false]));
    }

    #[test]
    fn a_run_that_has_ended_owes_no_drawn_proof() {
        let mut run = answered("runs:1", Some(nonce().commitment()));
        run.reject(ShardIndex(0), None, "wrong".into());
        assert!(!run.under_way());
        assert_eq!(run.reveal(nonce(), 9), Ok(vec![]));
        assert_eq!(requested(&run), [false, false]);
    }
}
