//! A run as the command line shows it.

use serde::Serialize;
use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::tensor::{Tensor, decode_boundary};
use shardproof_proto::convert;
use shardproof_proto::v1::{Dispute, DisputeStage, ProofState, Run, RunState, ShardProgress};

use crate::audit::AuditView;
use crate::output::Outcome;
use crate::table::{self, Table};

/// What is known of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunView {
    /// The run's id.
    pub(crate) run: String,
    /// `running`, `answered`, `partial`, `verified`, `rejected` or `failed`.
    pub(crate) state: &'static str,
    /// The answer dequantised, tensor after tensor, once there; not in a list of runs.
    pub(crate) outputs: Option<Vec<f64>>,
    /// Bytes of the answer's encoding, once there.
    pub(crate) answer_bytes: Option<u64>,
    /// Why the run failed.
    pub(crate) failure: Option<String>,
    /// Who is to blame for the rejection.
    pub(crate) rejected: Option<Rejection>,
    /// From the request for proofs to the last verdict, ms.
    pub(crate) prove_ms_wall: u64,
    /// Unix time, ms.
    pub(crate) submitted_unix_ms: u64,
    /// Which proofs were asked for without a request.
    pub(crate) audit: Option<AuditView>,
    /// The last dispute about what a shard put out, if there was one.
    pub(crate) dispute: Option<DisputeView>,
    /// Whether `shardproof evidence` has something against a worker.
    pub(crate) evidence: bool,
    /// One entry per shard, in order.
    pub(crate) shards: Vec<ShardView>,
}

/// Why a run is rejected.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rejection {
    /// The shard, where one is to blame.
    pub(crate) shard: Option<u32>,
    /// The worker's key, where one is to blame.
    pub(crate) worker: Option<String>,
    /// What is wrong.
    pub(crate) reason: String,
}

/// A question about what a shard put out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DisputeView {
    /// The shard.
    pub(crate) shard: u32,
    /// `showing`, `handing`, `accusing` or `settled`.
    pub(crate) stage: &'static str,
}

/// One shard's part in a run; what was not measured is 0.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShardView {
    /// Index from 0.
    pub(crate) shard: u32,
    /// FIRST, MIDDLE, LAST or SOLO.
    pub(crate) role: &'static str,
    /// `not requested`, `requested`, `verifying`, `verified` or `rejected`.
    pub(crate) proof: &'static str,
    /// What the worker is at.
    pub(crate) step: String,
    /// The worker's key.
    pub(crate) worker: String,
    /// Until when its proof may be asked for, Unix time, ms; 0 without a receipt.
    pub(crate) provable_until_unix_ms: u64,
    /// Running the shard.
    pub(crate) witness_ms: f64,
    /// Proving it.
    pub(crate) prove_ms: f64,
    /// Verifying the proof.
    pub(crate) verify_ms: f64,
    /// Size of the proof.
    pub(crate) proof_bytes: u64,
    /// Size of the witness.
    pub(crate) witness_bytes: u64,
    /// Peak memory of the worker's jobs.
    pub(crate) peak_rss_bytes: u64,
}

impl RunView {
    /// Reads what the coordinator sent.
    ///
    /// # Errors
    /// Names the field that cannot be read.
    pub(crate) fn read(run: &Run) -> anyhow::Result<Self> {
        let id = convert::run_id(&run.run)
            .map_err(|status| anyhow::anyhow!("the coordinator sent a bad run: {}", status.message()))?;
        let outputs = match run.answer.as_ref() {
            [] => None,
            encoding => Some(decode_boundary(encoding)?.iter().flat_map(Tensor::to_reals).collect()),
        };
        let reason = || (!run.reason.is_empty()).then(|| run.reason.clone());
        let rejected = (run.state() == RunState::Rejected).then(|| Rejection {
            shard: run.blamed_shard,
            worker: (!run.blamed_worker.is_empty()).then(|| run.blamed_worker.clone()),
            reason: reason().unwrap_or_else(|| "no reason given".to_owned()),
        });
        Ok(Self {
            run: id.to_string(),
            state: state_name(run.state()),
            outputs,
            answer_bytes: run.answer_artifact.as_ref().map(|answer| answer.size),
            failure: (run.state() == RunState::Failed)
                .then(|| reason().unwrap_or_else(|| "no reason given".to_owned())),
            rejected,
            prove_ms_wall: run.prove_wall_ms,
            submitted_unix_ms: run.submitted_unix_ms,
            audit: run.audit.as_ref().map(AuditView::read).transpose()?,
            dispute: run.dispute.as_ref().map(DisputeView::read),
            evidence: run.evidence,
            shards: run.shards.iter().map(|shard| ShardView::read(shard, run.shards.len())).collect(),
        })
    }

    /// How a command that reports this run exits.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.state {
            "rejected" => Outcome::Rejected,
            "failed" => Outcome::Failure,
            _ => Outcome::Success,
        }
    }

    /// The run in full.
    pub(crate) fn render(&self) -> String {
        let mut out = format!("run     {}\nstate   {}\n", self.run, self.state_in_words());
        if let Some(outputs) = &self.outputs {
            out.push_str(&format!("answer  {}\n", table::values(outputs)));
        }
        if let Some(failure) = &self.failure {
            out.push_str(&format!("failure {failure}\n"));
        }
        if let Some(rejected) = &self.rejected {
            out.push_str(&format!("reason  {}\n", rejected.describe()));
        }
        if let Some(audit) = self.audit.as_ref().and_then(AuditView::describe) {
            out.push_str(&format!("audit   {audit}\n"));
        }
        if self.evidence {
            out.push_str(&format!("evidence against the worker: shardproof evidence {}\n", self.run));
        }
        out.push('\n');
        out.push_str(&self.shard_table().render());
        out
    }

    /// One line: what is under way.
    pub(crate) fn progress(&self) -> String {
        let verified = self.shards.iter().filter(|shard| shard.proof == "verified").count();
        let requested = self.shards.iter().filter(|shard| shard.proof != "not requested").count();
        let busy: Vec<String> = self
            .shards
            .iter()
            .filter(|shard| !shard.step.is_empty() && shard.proof != "verified")
            .map(|shard| format!("shard {}: {}", shard.shard, shard.step))
            .collect();
        let head = match requested {
            0 => self.state.to_owned(),
            _ => format!("proofs: {verified} of {requested} verified"),
        };
        if let Some(dispute) = self.dispute.as_ref().and_then(DisputeView::in_words) {
            return format!("{head}; {dispute}");
        }
        if busy.is_empty() { head } else { format!("{head}; {}", busy.join("; ")) }
    }

    fn state_in_words(&self) -> &'static str {
        match self.state {
            "answered" => "answered (receipts agree, nothing proven)",
            "partial" => "partial (some shards proven)",
            "verified" => "verified (every check passed on every shard)",
            other => other,
        }
    }

    fn shard_table(&self) -> Table {
        let mut table =
            Table::new(&["shard", "role", "worker", "proof", ">run", ">prove", ">verify", ">proof size", ">memory"]);
        for shard in &self.shards {
            table.row([
                shard.shard.to_string(),
                shard.role.to_owned(),
                shard.worker.chars().take(8).collect(),
                shard.proof.to_owned(),
                table::duration(shard.witness_ms),
                table::duration(shard.prove_ms),
                table::duration(shard.verify_ms),
                table::bytes(shard.proof_bytes),
                table::bytes(shard.peak_rss_bytes),
            ]);
        }
        table
    }
}

impl Rejection {
    /// Shard, worker and reason in one line.
    pub(crate) fn describe(&self) -> String {
        let worker = self.worker.as_deref().map(|key| format!(" (worker {})", key.chars().take(8).collect::<String>()));
        match self.shard {
            Some(shard) => format!("shard {shard}{}: {}", worker.unwrap_or_default(), self.reason),
            None => self.reason.clone(),
        }
    }
}

impl DisputeView {
    fn read(dispute: &Dispute) -> Self {
        let stage = match dispute.stage() {
            DisputeStage::Unspecified => "unknown",
            DisputeStage::Showing => "showing",
            DisputeStage::Handing => "handing",
            DisputeStage::Accusing => "accusing",
            DisputeStage::Settled => "settled",
        };
        Self { shard: dispute.shard, stage }
    }

    /// What is done about it; nothing once it is settled.
    fn in_words(&self) -> Option<String> {
        let shard = self.shard;
        match self.stage {
            "showing" => Some(format!("dispute: the worker of shard {shard} is to show what it put out")),
            "handing" => Some(format!("dispute: what shard {shard} put out is handed to the next worker")),
            "accusing" => Some(format!("looking for evidence against the worker of shard {shard}")),
            _ => None,
        }
    }
}

impl ShardView {
    fn read(shard: &ShardProgress, shards: usize) -> Self {
        Self {
            shard: shard.shard,
            role: Role::of(ShardIndex(shard.shard), shards).as_str(),
            proof: proof_name(shard.proof()),
            step: shard.step.clone(),
            worker: shard.worker.clone(),
            provable_until_unix_ms: shard.provable_until_unix_ms,
            witness_ms: table::ms(shard.witness_us),
            prove_ms: table::ms(shard.prove_us),
            verify_ms: table::ms(shard.verify_us),
            proof_bytes: shard.proof_bytes,
            witness_bytes: shard.witness_bytes,
            peak_rss_bytes: shard.peak_rss_bytes,
        }
    }
}

fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "unknown",
        RunState::Running => "running",
        RunState::Answered => "answered",
        RunState::Partial => "partial",
        RunState::Verified => "verified",
        RunState::Rejected => "rejected",
        RunState::Failed => "failed",
    }
}

fn proof_name(state: ProofState) -> &'static str {
    match state {
        ProofState::Unspecified => "not requested",
        ProofState::Requested => "requested",
        ProofState::Verifying => "verifying",
        ProofState::Verified => "verified",
        ProofState::Rejected => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::ids::RunId;
    use shardproof_common::tensor::{IntegerTensor, encode_boundary};

    use super::*;

    fn sample(state: RunState) -> Run {
        let answer = Tensor::Integer(IntegerTensor { shape: vec![1, 1], scale: 7, values: vec![64] });
        let shard = |shard, proof: ProofState| ShardProgress {
            shard,
            proof: proof.into(),
            worker: "ab".repeat(32),
            witness_us: 40_000,
            prove_us: 6_430_000,
            verify_us: 41_000,
            proof_bytes: 17_100,
            ..ShardProgress::default()
        };
        Run {
            run: convert::run_bytes(RunId::from_bytes([7; 16])),
            state: state.into(),
            answer: encode_boundary(&[answer]).into(),
            shards: vec![shard(0, ProofState::Verified), shard(1, ProofState::Requested)],
            ..Run::default()
        }
    }

    #[test]
    fn an_answer_is_dequantised_and_laid_out() {
        let view = RunView::read(&sample(RunState::Partial)).unwrap();
        assert_eq!(view.outputs, Some(vec![0.5]));
        assert_eq!(view.outcome(), Outcome::Success);
        let text = view.render();
        assert!(text.contains("answer  [0.500000]"), "{text}");
        assert!(text.contains("0      FIRST  abababab  verified"), "{text}");
        assert!(text.contains("6.4 s"), "{text}");
        assert_eq!(view.progress(), "proofs: 1 of 2 verified");
    }

    #[test]
    fn a_rejection_names_shard_and_worker_and_decides_the_exit() {
        let run = Run {
            blamed_shard: Some(1),
            blamed_worker: "cd".repeat(32),
            reason: "proof: no".to_owned(),
            ..sample(RunState::Rejected)
        };
        let view = RunView::read(&run).unwrap();
        assert_eq!(view.outcome(), Outcome::Rejected);
        assert!(view.render().contains("reason  shard 1 (worker cdcdcdcd): proof: no"));
    }

    #[test]
    fn a_bad_answer_is_an_error_not_a_panic() {
        let run = Run { answer: vec![1, 2, 3].into(), ..sample(RunState::Answered) };
        assert!(RunView::read(&run).is_err());
    }
}
