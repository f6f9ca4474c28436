use shardproof_common::receipt::Identity;

use super::*;
use crate::testing::Bench;

fn record() -> RunRecord {
    let artifact = Artifact { digest: Digest::of(b"x"), size: 1 };
    let mut record = RunRecord::new(RunId::generate(), Digest::of(b"plan"), 2, artifact, 5);
    record.state = RunState::Answered;
    record
}

fn artifact() -> Artifact {
    Artifact { digest: Digest::of(b"proof"), size: 5 }
}

#[test]
fn all_proofs_make_verified_and_some_make_partial() {
    let mut run = record();
    assert_eq!(run.request_proofs(&[ShardIndex(0)], 10), [ShardIndex(0)]);
    assert!(run.under_way());
    assert!(run.take_proof(ShardIndex(0), 1, artifact()));
    assert!(run.proof_passed(ShardIndex(0), 3, 30));
    assert!(!run.proof_passed(ShardIndex(0), 3, 30), "it counts once");
    assert_eq!((run.state, run.under_way(), run.prove_wall_ms), (RunState::Partial, false, 20));
    assert_eq!(run.request_proofs(&[ShardIndex(0), ShardIndex(1)], 40), [ShardIndex(1)]);
    assert!(run.take_proof(ShardIndex(1), 1, artifact()));
    run.proof_passed(ShardIndex(1), 3, 50);
    assert_eq!(run.state, RunState::Verified);
}

#[test]
fn late_and_unasked_proofs_are_fenced() {
    let mut run = record();
    assert!(!run.take_proof(ShardIndex(0), 0, artifact()));
    run.request_proofs(&[ShardIndex(0)], 1);
    assert!(!run.take_proof(ShardIndex(0), 2, artifact()));
    assert!(!run.take_proof(ShardIndex(9), 1, artifact()));
    assert!(run.take_proof(ShardIndex(0), 1, artifact()));
    assert!(!run.take_proof(ShardIndex(0), 1, artifact()), "answered twice");
}

#[test]
fn another_worker_of_a_shard_begins_a_new_attempt_and_fences_the_one_before() {
    let mut run = record();
    run.state = RunState::Running;
    let [one, two, spare] = [1, 2, 3].map(|n| PublicKey::from_bytes([n; 32]));
    assert!(run.send_to(&[one, two]));
    assert!(!run.send_to(&[one, two]), "sent again as before");
    assert_eq!((run.attempt, run.counts(0), run.counts(1)), (0, true, false));
    run.answer = Some(artifact());
    assert!(run.send_to(&[one, spare]));
    assert_eq!((run.attempt, run.counts(0), run.counts(1), run.answer), (1, false, true, None));
    // A part that is sent again leaves what has come of the rest.
    run.attempt += 1;
    assert!(run.counts(1) && run.counts(2) && !run.counts(0));
    run.state = RunState::Answered;
    assert!(!run.send_to(&[one, two]));
}

#[test]
fn what_is_answered_does_not_fail_any_more_but_can_be_given_up() {
    let mut run = record();
    run.fail(Some(ShardIndex(0)), None, "its worker was lost".into());
    assert_eq!((run.state, run.reason.as_str(), run.blamed_shard), (RunState::Answered, "", None));
    run.give_up(Some(ShardIndex(1)), "nothing can be verified".into());
    assert_eq!((run.state, run.blamed_shard), (RunState::Failed, Some(ShardIndex(1))));
}

#[test]
fn terminal_states_never_change() {
    let mut run = record();
    run.request_proofs(&[ShardIndex(0), ShardIndex(1)], 1);
    run.reject(ShardIndex(1), None, "wrong".into());
    run.fail(None, None, "later".into());
    run.proof_passed(ShardIndex(0), 1, 2);
    assert_eq!((run.state, run.reason.as_str(), run.blamed_shard), (RunState::Rejected, "wrong", Some(ShardIndex(1))));
    assert!(!run.take_proof(ShardIndex(0), 1, artifact()));
    assert!(!run.under_way());
}

#[tokio::test]
async fn boundaries_are_the_runs_once_the_next_shard_has_signed_for_them() {
    let bench = Bench::new(3, &["--backend", "float"]).await;
    let worker = Identity::generate();
    let run = bench.run(1, |_| ()).await;
    let mut record = bench.record(run).await;
    record.fail(None, None, "over".into());
    let boundaries: Vec<Digest> = (0..3u32)
        .map(|shard| {
            let receipt = bench.receipt(&worker, run, shard, shard.into(), i64::from(shard) + 1);
            let output = public(&receipt.statement.output).unwrap();
            record.shards[shard as usize].receipt = Some(receipt);
            output
        })
        .collect();
    // The last one is the answer, which no worker stores.
    assert_eq!(record.passed_on_boundaries().collect::<Vec<_>>(), boundaries[..2]);
    record.shards[2].receipt = None;
    assert_eq!(record.passed_on_boundaries().collect::<Vec<_>>(), boundaries[..1]);
}
