//! What a coordinator counts and times for those who watch it.

use std::sync::Arc;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardproof_common::ids::ShardIndex;
use shardproof_proto::transport::metrics::{SAMPLE, note_traffic};
use shardproof_proto::transport::traffic::Traffic;

use crate::record::{ProofState, RunRecord, RunState};
use crate::registry::Registry;
use crate::runs::now_ms;
use crate::workers::Event;
use crate::{Coordinator, Stage};

const RUNS: &str = "shardproof_runs_total";
const RUN_SECONDS: &str = "shardproof_run_seconds";
const PROOFS: &str = "shardproof_proofs_total";
const PROVE_SECONDS: &str = "shardproof_prove_seconds";
const VERIFY_SECONDS: &str = "shardproof_verify_seconds";
const DISPUTES: &str = "shardproof_disputes_total";
const WORKER_EVENTS: &str = "shardproof_worker_events_total";
const RUNS_UNDER_WAY: &str = "shardproof_runs_under_way";
const SHARDS: &str = "shardproof_shards";
const SPARES: &str = "shardproof_spares";
const SERVING: &str = "shardproof_serving";
const DATABASE_AWAY: &str = "shardproof_database_away";

/// Says what each metric is.
pub(crate) fn describe() {
    describe_counter!(RUNS, "Runs that were submitted, and that came to each state");
    describe_histogram!(RUN_SECONDS, "From a run's submission to its answer");
    describe_counter!(PROOFS, "Proofs that were requested, verified and rejected");
    describe_histogram!(PROVE_SECONDS, "What workers took for a proof that was verified, by their account");
    describe_histogram!(VERIFY_SECONDS, "What the check of a proof took");
    describe_counter!(DISPUTES, "Disputes between neighbours, and about what a worker signed");
    describe_counter!(WORKER_EVENTS, "What was put on workers' records");
    describe_gauge!(RUNS_UNDER_WAY, "Runs that have something still to happen");
    describe_gauge!(
        SHARDS,
        "Shards whose worker is ready, loading, failing to load, or leaving, and those without one"
    );
    describe_gauge!(SPARES, "Workers that wait for a shard");
    describe_gauge!(SERVING, "1 once setup is done");
    describe_gauge!(DATABASE_AWAY, "1 while state cannot be stored");
}

/// Counts a run that was accepted.
pub(crate) fn note_submitted() {
    counter!(RUNS, "state" => "submitted").increment(1);
}

/// Counts what was put on a worker's record.
pub(crate) fn note_event(event: Event) {
    let event = match event {
        Event::Proved => "proved",
        Event::Failed => "failed",
        Event::Refused => "refused",
        Event::Convicted => "convicted",
    };
    counter!(WORKER_EVENTS, "event" => event).increment(1);
}

/// What is counted of a run, once it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It came to a state.
    To(RunState),
    /// It has its answer; with when it was submitted, Unix time, ms.
    Answered { submitted_ms: u64 },
    /// A dispute was opened.
    Disputed,
    /// A proof was asked for.
    ProofRequested,
    /// A proof passed, with what its making and its check took, us.
    ProofVerified { prove_us: u64, verify_us: u64 },
    /// A proof did not pass, or did not come.
    ProofRejected,
}

/// The steps of a run in one change. Changes that are stored together are looked at one by one, or what lies between would be missed.
pub(crate) fn steps(before: &RunRecord, after: &RunRecord) -> Vec<Step> {
    let mut steps = Vec::new();
    if before.state != after.state {
        steps.push(Step::To(after.state));
        let answered = matches!(after.state, RunState::Answered | RunState::Partial | RunState::Verified);
        if before.state == RunState::Running && answered {
            steps.push(Step::Answered { submitted_ms: after.submitted_ms });
        }
    }
    if after.in_dispute() && !before.in_dispute() {
        steps.push(Step::Disputed);
    }
    let shards = before.shards.iter().zip(&after.shards);
    let proofs =
        shards.filter(|(before, after)| before.proof != after.proof).filter_map(|(_, after)| match after.proof {
            ProofState::NotRequested | ProofState::Verifying => None,
            ProofState::Requested => Some(Step::ProofRequested),
            ProofState::Verified => Some(Step::ProofVerified { prove_us: after.prove_us, verify_us: after.verify_us }),
            ProofState::Rejected => Some(Step::ProofRejected),
        });
    steps.extend(proofs);
    steps
}

/// Counts a step of a run.
pub(crate) fn note_step(step: Step) {
    match step {
        Step::To(state) => counter!(RUNS, "state" => name(state)).increment(1),
        Step::Answered { submitted_ms } => {
            histogram!(RUN_SECONDS).record(now_ms().saturating_sub(submitted_ms) as f64 / 1e3);
        }
        Step::Disputed => counter!(DISPUTES).increment(1),
        Step::ProofRequested => counter!(PROOFS, "state" => "requested").increment(1),
        Step::ProofVerified { prove_us, verify_us } => {
            counter!(PROOFS, "state" => "verified").increment(1);
            // One that the worker had in its spool took no time now.
            if prove_us > 0 {
                histogram!(PROVE_SECONDS).record(prove_us as f64 / 1e6);
            }
            histogram!(VERIFY_SECONDS).record(verify_us as f64 / 1e6);
        }
        Step::ProofRejected => counter!(PROOFS, "state" => "rejected").increment(1),
    }
}

/// Notes from time to time how things stand, until the coordinator stops.
pub(crate) async fn sample(coordinator: Arc<Coordinator>, traffic: Traffic) {
    let mut ticks = tokio::time::interval(SAMPLE);
    loop {
        ticks.tick().await;
        note_traffic(&traffic);
        gauge!(RUNS_UNDER_WAY).set(coordinator.runs.count_under_way() as f64);
        gauge!(DATABASE_AWAY).set(f64::from(u8::from(coordinator.runs.are_away())));
        let serving = matches!(*coordinator.stage.borrow(), Stage::Serving(_));
        gauge!(SERVING).set(f64::from(u8::from(serving)));
        coordinator.cluster.with(note_shards);
    }
}

fn note_shards(registry: &Registry) {
    let states = ["ready", "loading", "failing", "leaving", "vacant"];
    let mut counts = states.map(|_| 0u32);
    for shard in (0..registry.shards() as u32).map(ShardIndex) {
        let state = match registry.holder(shard) {
            None => "vacant",
            Some((_, member)) if member.leaving => "leaving",
            Some((_, member)) if member.ready => "ready",
            Some((_, member)) if member.trouble.is_some() => "failing",
            Some(_) => "loading",
        };
        counts.iter_mut().zip(states).filter(|(_, name)| *name == state).for_each(|(count, _)| *count += 1);
    }
    for (state, count) in states.into_iter().zip(counts) {
        gauge!(SHARDS, "state" => state).set(count);
    }
    gauge!(SPARES).set(registry.members().filter(|member| member.shard.is_none()).count() as f64);
}

fn name(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Answered => "answered",
        RunState::Partial => "partial",
        RunState::Verified => "verified",
        RunState::Rejected => "rejected",
        RunState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn a_run_that_ends_without_an_answer_that_counts_took_no_time_to_answer() {
        let before = testing::run(1);
        let ended = |state| {
            let after = RunRecord { state, answer: Some(before.input), ..before.clone() };
            steps(&before, &after)
        };
        for state in [RunState::Rejected, RunState::Failed] {
            assert_eq!(ended(state), [Step::To(state)]);
        }
        let answered = [Step::To(RunState::Answered), Step::Answered { submitted_ms: before.submitted_ms }];
        assert_eq!(ended(RunState::Answered), answered);
    }
}
