use shardproof_common::ids::Role;
use shardproof_common::receipt::Identity;

use super::*;
use crate::testing::Bench;

fn told(receipt: Receipt) -> Told {
    Told { receipt, upstream: None, witness_us: 0, witness_bytes: 0, peak_rss_bytes: 0 }
}

#[tokio::test]
async fn a_receipt_for_another_input_rejects_the_run_before_its_answer_can_be_taken() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let worker = Identity::generate();
    let run = bench.run(1, |_| ()).await;
    let receipt = bench.receipt(&worker, run, 0, 2, 3);
    let mut record = bench.record(run).await;
    let asked = Asked { provable_until: UnixMillis(0), output_is_here: true };
    let taken = record_receipt(bench.prepared(), &mut record, ShardIndex(0), told(receipt), &asked);
    assert!(matches!(taken, Err(Fault::Its(_))));
    assert_eq!((record.state, record.blamed_worker), (RunState::Rejected, Some(worker.public())));
    record.answer = Some(bench.stored(1, 3).await);
    record.settle_inference();
    assert_eq!(record.state, RunState::Rejected);
}

#[tokio::test]
async fn a_receipt_for_a_public_boundary_counts_once_its_tensors_are_here() {
    let bench = Bench::new(2, &["--backend", "gkr", "--boundary", "public"]).await;
    let worker = Identity::generate();
    for is_here in [false, true] {
        let run = bench.run(1, |_| ()).await;
        if is_here {
            bench.stored(1, 2).await;
        }
        bench.take_receipt(run, ShardIndex(0), told(bench.receipt(&worker, run, 0, 1, 2))).await;
        let record = bench.record(run).await;
        let expected = if is_here { (RunState::Running, None) } else { (RunState::Rejected, Some(worker.public())) };
        assert_eq!((record.state, record.blamed_worker), expected, "{}", record.reason);
        assert_eq!(record.has_receipt(ShardIndex(0)), is_here);
    }
}

#[tokio::test]
async fn runs_submitted_at_once_are_no_more_than_are_allowed() {
    let bench = Bench::new(1, &["--backend", "float", "--max-runs", "2"]).await;
    let (_, _messages) = bench.join_ready(Role::Solo, 0, &Identity::generate());
    let input = bench.stored(0, 1).await.digest;
    let submitted = futures::future::join_all((0..10).map(|_| bench.submit(input, None))).await;
    assert_eq!(submitted.iter().filter(|run| run.is_ok()).count(), 2);
    let refused = submitted.into_iter().find_map(Result::err).unwrap();
    assert!(refused.message().contains("2 runs are under way"), "{}", refused.message());
}
