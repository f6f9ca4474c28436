use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{PROTOCOL_VERSION, UnixMillis};
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::Identity;
use shardproof_common::statement::{BackendId, Boundary, Statement};

use super::*;
use crate::record::ProofState;

fn boundary(content: &[u8]) -> Boundary {
    Boundary { tensors: Vec::new(), binding: Binding::Public(Digest::of(content)) }
}

fn receipt(shard: u32, attempt: u32, output: &[u8], worker: &Identity) -> Receipt {
    let statement = Statement {
        protocol: PROTOCOL_VERSION,
        backend: BackendId { kind: BackendKind::Gkr, version: String::new() },
        model: Digest::of(b""),
        architecture: Digest::of(b""),
        plan: Digest::of(b""),
        shard: ShardIndex(shard),
        shards: 2,
        run: RunId::from_bytes([1; 16]),
        input: boundary(b"input"),
        output: boundary(output),
        keys: Digest::of(b""),
    };
    Receipt::sign(statement, attempt, UnixMillis(0), worker)
}

fn record() -> RunRecord {
    let input = Artifact { digest: Digest::of(b"input"), size: 1 };
    RunRecord::new(RunId::from_bytes([1; 16]), Digest::of(b""), 2, input, 0)
}

#[test]
fn what_was_passed_on_is_compared_once_both_are_in() {
    let (worker, stranger) = (Identity::generate(), Identity::generate());
    let own = receipt(0, 1, b"output", &worker);
    let cases = [
        (receipt(0, 1, b"output", &worker), None),
        (receipt(0, 0, b"output", &stranger), None),
        (receipt(0, 1, b"output", &stranger), Some(stranger.public())),
    ];
    for (passed_on, expected) in cases {
        let mut run = record();
        run.attempt = 1;
        run.shards[1].upstream = Some(passed_on.clone());
        assert_eq!(run.passed_on_by_another(ShardIndex(0)), None, "the first is not in");
        assert_eq!(run.shards[1].upstream, Some(passed_on), "it is kept until then");
        run.shards[0].receipt = Some(own.clone());
        assert_eq!(run.passed_on_by_another(ShardIndex(0)), expected);
        assert_eq!(run.shards[1].upstream, None);
    }
}

#[test]
fn whoever_signs_twice_is_found_in_whichever_attempts_and_wherever_the_first_receipt_is() {
    let (worker, stranger) = (Identity::generate(), Identity::generate());
    let first = |shard| receipt(shard, 0, b"output", &worker);
    let mut own = record();
    own.shards[0].receipt = Some(first(0));
    let mut passed_on = record();
    passed_on.shards[1].upstream = Some(first(0));
    let mut answered = record();
    answered.answer_receipt = Some(first(1));
    for (mut run, shard) in [(own, 0), (passed_on, 0), (answered, 1)] {
        // Another attempt forgets no signature.
        let [one, other] = [1, 2].map(|n| PublicKey::from_bytes([n; 32]));
        run.send_to(&[one, one]);
        run.send_to(&[one, other]);
        for attempt in [0, 1] {
            let second = receipt(shard, attempt, b"other", &worker);
            assert_eq!(run.contradicted_by(&second), Some(Box::new((first(shard), second.clone()))));
            assert_eq!(run.contradicted_by(&receipt(shard, attempt, b"output", &worker)), None, "it says the same");
            assert_eq!(run.contradicted_by(&receipt(shard, attempt, b"other", &stranger)), None, "another's word");
        }
        let second = receipt(shard, 1, b"other", &worker);
        run.shards[shard as usize].proof = ProofState::Verified;
        assert_eq!(run.contradicted_by(&second), None, "what is proven stands");
        run.shards[shard as usize].proof = ProofState::Requested;
        let both = run.contradicted_by(&second).unwrap();
        run.reject_for_contradiction(&both);
        assert_eq!(run.contradicted_by(&second), None, "it is over");
    }
}

#[test]
fn a_run_in_which_a_worker_signs_twice_is_under_way_until_the_evidence_is_there() {
    let worker = Identity::generate();
    let mut run = record();
    let both = (receipt(1, 0, b"output", &worker), receipt(1, 0, b"other", &worker));
    run.reject_for_contradiction(&both);
    assert_eq!((run.state, run.blamed_shard), (RunState::Rejected, Some(ShardIndex(1))));
    run.dispute_at(DisputeStage::Settled);
    assert!(run.under_way(), "whoever watches hears of the evidence");
    run.end_accusation();
    assert!(!run.under_way());
}

#[test]
fn one_dispute_is_open_at_a_time() {
    let mut run = record();
    assert!(run.open_dispute(ShardIndex(0), DisputeStage::Showing));
    assert!(!run.open_dispute(ShardIndex(0), DisputeStage::Accusing));
    run.dispute_at(DisputeStage::Settled);
    assert!(run.open_dispute(ShardIndex(0), DisputeStage::Showing), "another attempt may have another dispute");
}

#[test]
fn what_does_not_reach_a_worker_is_no_refusal_of_its() {
    let lost =
        [Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal, Code::Aborted];
    assert!(lost.iter().all(|&code| !is_refusal(code)));
    let said = [Code::InvalidArgument, Code::PermissionDenied, Code::AlreadyExists, Code::FailedPrecondition];
    assert!(said.iter().all(|&code| is_refusal(code)));
}
