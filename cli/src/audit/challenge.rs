//! What a client compares the draw of its run's audit with.

use anyhow::Result;
use shardproof_common::audit::{AuditPolicy, Nonce};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_proto::v1::{Audit, AuditState, ProofState, Run, RunState};
use thiserror::Error;

use super::receipts;

/// What a client knows of the audit of its run before the draw.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) run: RunId,
    pub(super) nonce: Nonce,
    /// As the coordinator stated it when it took the run.
    pub(super) policy: AuditPolicy,
    /// As they were when the nonce was still secret; none until it is revealed.
    pub(super) receipts: Option<Vec<Digest>>,
    /// Whether the coordinator took the nonce.
    pub(super) revealed: bool,
}

impl Challenge {
    /// Whether the nonce is to be revealed now; notes the receipts that are shown.
    pub(super) fn due(&mut self, update: &Run) -> Result<bool> {
        let Some(audit) = &update.audit else { return Ok(false) };
        if audit.state() != AuditState::AwaitingNonce || self.receipts.is_some() {
            return Ok(false);
        }
        let shown = receipts(audit)?;
        let complete = !shown.is_empty() && shown.len() == update.shards.len();
        if complete {
            self.receipts = Some(shown);
        }
        Ok(complete)
    }

    /// Compares the draw with what follows from the policy, the receipts and the nonce.
    pub(super) fn check(&self, run: &Run) -> Result<(), WrongDraw> {
        let none = Audit::default();
        let audit = run.audit.as_ref().unwrap_or(&none);
        if audit.policy != self.policy.to_string() {
            return Err(WrongDraw::Policy { promised: self.policy, found: audit.policy.chars().take(80).collect() });
        }
        let shown = self.receipts.as_deref();
        let drawn: Vec<ShardIndex> = audit.drawn.iter().copied().map(ShardIndex).collect();
        match (audit.state(), self.policy) {
            // A run that was rejected or failed on its way has nothing to draw over.
            (AuditState::Unspecified, _) if !matches!(run.state(), RunState::Answered | RunState::Partial) => Ok(()),
            (AuditState::Unspecified, AuditPolicy::Request) => Ok(()),
            // Whoever reveals nothing can expect nothing; that a nonce was refused is told apart.
            (AuditState::AwaitingNonce | AuditState::Unrevealed, _) if !self.revealed => Ok(()),
            (AuditState::Unspecified | AuditState::AwaitingNonce | AuditState::Unrevealed, _) => {
                Err(WrongDraw::Missing)
            }
            (AuditState::Drawn, AuditPolicy::Request) => Err(WrongDraw::Uncalled),
            (AuditState::Drawn, AuditPolicy::Always) => {
                let all = (0..run.shards.len() as u32).map(ShardIndex).collect();
                compare(run, all, drawn)
            }
            (AuditState::Drawn, AuditPolicy::Runs(_) | AuditPolicy::Shards(_)) => {
                let shown = shown.ok_or(WrongDraw::Early)?;
                if audit.nonce != self.nonce.as_bytes().as_slice() || audit.coordinators_nonce {
                    return Err(WrongDraw::Nonce);
                }
                if !audit.receipts.iter().map(AsRef::as_ref).eq(shown.iter().map(|digest| digest.as_bytes().as_slice()))
                {
                    return Err(WrongDraw::Receipts);
                }
                compare(run, self.policy.draw(self.run, shown, &self.nonce), drawn)
            }
        }
    }
}

/// The right shards were drawn, and their proofs asked for.
fn compare(run: &Run, expected: Vec<ShardIndex>, found: Vec<ShardIndex>) -> Result<(), WrongDraw> {
    if expected != found {
        return Err(WrongDraw::Shards { expected, found });
    }
    let asked = |shard: &ShardIndex| {
        run.shards.get(shard.as_usize()).is_some_and(|shard| shard.proof() != ProofState::Unspecified)
    };
    match expected.iter().find(|shard| !asked(shard)) {
        Some(&shard) if run.state() != RunState::Rejected => Err(WrongDraw::NotAsked { shard }),
        _ => Ok(()),
    }
}

/// What is wrong with a draw.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum WrongDraw {
    #[error("the run was taken under the policy {promised}, its audit says {found}")]
    Policy { promised: AuditPolicy, found: String },
    #[error("the run was answered and nothing was drawn")]
    Missing,
    #[error("something was drawn although nothing is to be proven without a request")]
    Uncalled,
    #[error("it was drawn before this client revealed its nonce")]
    Early,
    #[error("it was drawn with another nonce than this client's")]
    Nonce,
    #[error("it is over other receipts than those that were shown before the nonce was revealed")]
    Receipts,
    #[error("shards {} follow from receipts and nonce, shards {} are said to be drawn", list(expected), list(found))]
    Shards { expected: Vec<ShardIndex>, found: Vec<ShardIndex> },
    #[error("shard {shard} was drawn and its proof not asked for")]
    NotAsked { shard: ShardIndex },
}

fn list(shards: &[ShardIndex]) -> String {
    let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
    format!("[{}]", shards.join(", "))
}

#[cfg(test)]
mod tests {
    use shardproof_proto::convert;
    use shardproof_proto::v1::ShardProgress;

    use super::*;

    const RUN: RunId = RunId::from_bytes([3; 16]);

    /// A run in two shards under `policy`, as an honest coordinator shows it once its receipts are in.
    fn awaiting(policy: &str) -> (Challenge, Run) {
        let nonce = Nonce::from_bytes([5; 32]);
        let challenge = Challenge { run: RUN, nonce, policy: policy.parse().unwrap(), receipts: None, revealed: false };
        let audit = Audit {
            policy: policy.to_owned(),
            state: AuditState::AwaitingNonce.into(),
            nonce_commitment: nonce.commitment().as_bytes().to_vec().into(),
            receipts: [b"0", b"1"].map(|receipt| convert::digest_bytes(Digest::of(receipt))).to_vec(),
            ..Audit::default()
        };
        let shard = |shard| ShardProgress { shard, ..ShardProgress::default() };
        let run = Run {
            run: convert::run_bytes(RUN),
            state: RunState::Answered.into(),
            audit: Some(audit),
            shards: vec![shard(0), shard(1)],
            ..Run::default()
        };
        (challenge, run)
    }

    /// The same once it is drawn and proven.
    fn drawn(policy: &str) -> (Challenge, Run) {
        let (mut challenge, mut run) = awaiting(policy);
        assert!(challenge.due(&run).unwrap());
        challenge.revealed = true;
        let shards = challenge.policy.draw(RUN, challenge.receipts.as_ref().unwrap(), &challenge.nonce);
        let audit = run.audit.as_mut().unwrap();
        audit.set_state(AuditState::Drawn);
        audit.nonce = challenge.nonce.as_bytes().to_vec().into();
        audit.drawn = shards.iter().map(|shard| shard.0).collect();
        for shard in shards {
            run.shards[shard.as_usize()].set_proof(ProofState::Verified);
        }
        (challenge, run)
    }

    fn tampered(policy: &str, tamper: impl FnOnce(&mut Run, &mut Audit)) -> Result<(), WrongDraw> {
        let (challenge, mut run) = drawn(policy);
        let mut audit = run.audit.take().unwrap();
        tamper(&mut run, &mut audit);
        run.audit = Some(audit);
        challenge.check(&run)
    }

    #[test]
    fn an_honest_draw_passes() {
        for policy in ["runs:1", "runs:0", "shards:0.5", "always"] {
            assert_eq!(tampered(policy, |_, _| ()), Ok(()), "{policy}");
        }
        let (challenge, mut run) = awaiting("request");
        run.audit.as_mut().unwrap().set_state(AuditState::Unspecified);
        assert_eq!(challenge.check(&run), Ok(()));
    }

    #[test]
    fn whatever_a_coordinator_could_change_after_it_knows_the_nonce_is_compared() {
        let wrong = |error: WrongDraw| Err(error);
        let other = || convert::digest_bytes(Digest::of(b"other"));
        let relaxed = tampered("runs:1", |_, audit| audit.policy = "runs:0.01".to_owned());
        let promised = "runs:1".parse().unwrap();
        assert_eq!(relaxed, wrong(WrongDraw::Policy { promised, found: "runs:0.01".to_owned() }));
        assert_eq!(tampered("runs:1", |_, audit| audit.nonce = other()), wrong(WrongDraw::Nonce));
        assert_eq!(tampered("runs:1", |_, audit| audit.coordinators_nonce = true), wrong(WrongDraw::Nonce));
        assert_eq!(tampered("runs:1", |_, audit| audit.receipts[1] = other()), wrong(WrongDraw::Receipts));
        assert_eq!(tampered("runs:1", |_, audit| drop(audit.receipts.pop())), wrong(WrongDraw::Receipts));
        let (expected, found) = (vec![ShardIndex(0), ShardIndex(1)], vec![ShardIndex(1)]);
        for policy in ["runs:1", "always"] {
            let (expected, found) = (expected.clone(), found.clone());
            let fewer = tampered(policy, |_, audit| audit.drawn = vec![1]);
            assert_eq!(fewer, wrong(WrongDraw::Shards { expected, found }));
        }
        let shard = ShardIndex(1);
        let idle = tampered("runs:1", |run, _| run.shards[1].set_proof(ProofState::Unspecified));
        assert_eq!(idle, wrong(WrongDraw::NotAsked { shard }));
        let on_its_way = tampered("runs:1", |run, audit| {
            run.set_state(RunState::Rejected);
            audit.set_state(AuditState::Unspecified);
        });
        assert_eq!(on_its_way, Ok(()), "a run that is rejected before it is answered has no draw");
    }

    #[test]
    fn an_answer_without_a_draw_is_reported() {
        for state in [AuditState::Unspecified, AuditState::AwaitingNonce, AuditState::Unrevealed] {
            let missing = tampered("runs:1", |run, audit| {
                run.set_state(RunState::Answered);
                audit.set_state(state);
            });
            assert_eq!(missing, Err(WrongDraw::Missing));
        }
        let (challenge, run) = awaiting("request");
        let mut uncalled = run;
        uncalled.audit.as_mut().unwrap().set_state(AuditState::Drawn);
        assert_eq!(challenge.check(&uncalled), Err(WrongDraw::Uncalled));
        let (challenge, mut refused) = awaiting("runs:1");
        refused.audit.as_mut().unwrap().set_state(AuditState::Unrevealed);
        assert_eq!(challenge.check(&refused), Ok(()), "not audited, and shown as such");
        let (mut challenge, run) = drawn("runs:1");
        challenge.receipts = None;
        assert_eq!(challenge.check(&run), Err(WrongDraw::Early));
    }

    #[test]
    fn the_nonce_is_revealed_once_and_over_all_receipts() {
        let (mut challenge, run) = awaiting("runs:1");
        let mut fewer = run.clone();
        fewer.audit.as_mut().unwrap().receipts.pop();
        assert!(!challenge.due(&fewer).unwrap());
        let mut early = run.clone();
        early.audit.as_mut().unwrap().set_state(AuditState::Unspecified);
        assert!(!challenge.due(&early).unwrap());
        assert!(challenge.due(&run).unwrap());
        assert!(!challenge.due(&run).unwrap(), "revealed already");
    }
}
