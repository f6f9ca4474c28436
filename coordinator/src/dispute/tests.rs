use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{PROTOCOL_VERSION, UnixMillis};
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::Identity;
use shardproof_common::statement::{BackendId, Boundary, Statement};

use super::*;

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
        (receipt(0, 1, b"output", &worker), PassedOn::Agrees),
        (receipt(0, 0, b"other", &worker), PassedOn::Agrees),
        (receipt(0, 1, b"output", &stranger), PassedOn::ByAnother(stranger.public())),
        (
            receipt(0, 1, b"other", &worker),
            PassedOn::Contradicts(Box::new((own.clone(), receipt(0, 1, b"other", &worker)))),
        ),
    ];
    for (passed_on, expected) in cases {
        let mut run = record();
        run.attempt = 1;
        run.shards[1].upstream = Some(passed_on.clone());
        assert_eq!(run.compare_passed_on(ShardIndex(0)), PassedOn::Agrees, "the first is not in");
        assert_eq!(run.shards[1].upstream, Some(passed_on), "it is kept until then");
        run.shards[0].receipt = Some(own.clone());
        assert_eq!(run.compare_passed_on(ShardIndex(0)), expected);
        assert_eq!(run.shards[1].upstream, None);
    }
}

#[test]
fn the_last_shards_receipt_is_compared_with_the_one_of_the_answer() {
    let worker = Identity::generate();
    let mut run = record();
    let (own, other) = (receipt(1, 0, b"output", &worker), receipt(1, 0, b"other", &worker));
    run.shards[1].receipt = Some(own.clone());
    run.answer_receipt = Some(other.clone());
    let both = (own, other);
    assert_eq!(run.compare_passed_on(ShardIndex(1)), PassedOn::Contradicts(Box::new(both.clone())));
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
