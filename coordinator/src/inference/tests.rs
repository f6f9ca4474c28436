use shardproof_common::ids::Role;
use shardproof_common::receipt::Identity;

use super::*;
use crate::dispute::Complaint;
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
    let asked = Asked { provable_until: UnixMillis(0), output_is_here: true, before: None };
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

/// A run of two shards with workers, in its first attempt.
async fn sent(bench: &Bench, workers: [&Identity; 2]) -> RunId {
    let run = bench.run(1, |_| ()).await;
    let holders = workers.map(Identity::public);
    bench.runs.change(run, |record| record.send_to(&holders)).await.unwrap();
    run
}

#[tokio::test]
async fn what_a_successor_says_in_an_attempt_that_is_not_its_is_early_and_blames_nobody() {
    let bench = Bench::new(2, &["--backend", "float"]).await;
    let [first, last, successor] = [Identity::generate(), Identity::generate(), Identity::generate()];
    let run = sent(&bench, [&first, &last]).await;
    bench.take_receipt(run, ShardIndex(0), told(bench.receipt(&successor, run, 0, 1, 2))).await;
    assert!(!bench.record(run).await.has_receipt(ShardIndex(0)));
    bench.take_receipt(run, ShardIndex(0), told(bench.receipt(&first, run, 0, 1, 2))).await;
    assert!(bench.record(run).await.has_receipt(ShardIndex(0)));

    // The first worker is gone, and what its successor passed on comes with the successor's receipt.
    let (_, _messages) = bench.join_ready(Role::First, 0, &successor);
    let passed_on = |by: &Identity| {
        let upstream = Some(bench.receipt(by, run, 0, 1, 2));
        Told { upstream, ..told(bench.receipt(&last, run, 1, 2, 3)) }
    };
    bench.take_receipt(run, ShardIndex(1), passed_on(&successor)).await;
    let record = bench.record(run).await;
    assert_eq!((record.state, record.has_receipt(ShardIndex(1))), (RunState::Running, false), "{}", record.reason);
    // A stranger's is made up.
    bench.take_receipt(run, ShardIndex(1), passed_on(&Identity::generate())).await;
    let record = bench.record(run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Rejected, Some(last.public())), "{}", record.reason);
}

#[tokio::test]
async fn one_answer_is_taken_and_stored_of_the_worker_that_has_the_last_shard() {
    let bench = Bench::new(2, &["--backend", "float"]).await;
    let [first, last, other] = [Identity::generate(), Identity::generate(), Identity::generate()];
    let (_, _messages) = bench.join_ready(Role::Last, 1, &last);
    let run = sent(&bench, [&first, &last]).await;
    let answer = |value| (encode_boundary(&bench.tensors(2, value)), bench.receipt(&last, run, 1, 2, value));
    let check = async |value| {
        let (encoding, receipt) = answer(value);
        bench.check_answerer(bench.prepared(), run, &receipt, Digest::of(&encoding)).await
    };
    let (encoding, _) = answer(3);
    bench.take_answer(run, encoding.clone(), bench.receipt(&other, run, 1, 2, 3)).await.unwrap();
    assert_eq!(bench.artifacts.find(Digest::of(&encoding)).await.unwrap(), None, "it is another worker's");
    assert!(check(3).await.unwrap());
    let (encoding, receipt) = answer(3);
    bench.take_answer(run, encoding, receipt).await.unwrap();
    assert!(!check(3).await.unwrap(), "it is here");
    assert!(check(4).await.unwrap_err().message().contains("awaits no answer"));
    let (encoding, receipt) = answer(4);
    bench.take_answer(run, encoding.clone(), receipt).await.unwrap();
    assert_eq!(bench.artifacts.find(Digest::of(&encoding)).await.unwrap(), None, "nobody asked for a second one");
}

#[tokio::test]
async fn an_answer_that_the_disk_here_does_not_take_fails_the_run_and_blames_nobody() {
    let bench = Bench::new(2, &["--backend", "float"]).await;
    let [first, last] = [Identity::generate(), Identity::generate()];
    let run = sent(&bench, [&first, &last]).await;
    let answer = encode_boundary(&bench.tensors(2, 3));
    let partials = bench.artifacts.local().partial(Digest::of(b"")).parent().unwrap().to_owned();
    std::fs::remove_dir_all(&partials).unwrap();
    std::fs::write(&partials, b"no directory").unwrap();
    let refused = bench.take_answer(run, answer, bench.receipt(&last, run, 1, 2, 3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let record = bench.record(run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None), "{}", record.reason);
    assert!(record.reason.contains("could not be stored here"), "{}", record.reason);
}

/// Answered by `workers`, each of which gave a receipt in the first attempt.
async fn answered(bench: &Bench, workers: [&Identity; 2]) -> RunId {
    let run = sent(bench, workers).await;
    let receipts = [bench.receipt(workers[0], run, 0, 1, 2), bench.receipt(workers[1], run, 1, 2, 3)];
    let change = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        record.shards.iter_mut().zip(receipts).for_each(|(shard, receipt)| shard.receipt = Some(receipt));
        record.begin_replay()
    };
    assert_eq!(bench.runs.change(run, change).await, Some(Some(1)));
    run
}

/// The same receipt in a later attempt.
fn again(bench: &Bench, worker: &Identity, run: RunId, shard: u32, output: i64) -> Receipt {
    let first = bench.receipt(worker, run, shard, i64::from(shard) + 1, output);
    Receipt::sign(first.statement, 1, first.provable_until, worker)
}

#[tokio::test]
async fn a_worker_that_signs_another_output_when_the_run_is_sent_again_is_convicted() {
    let bench = Bench::new(2, &["--backend", "gkr", "--boundary", "public"]).await;
    let [first, last] = [Identity::generate(), Identity::generate()];
    for by_itself in [true, false] {
        let run = answered(&bench, [&first, &last]).await;
        let lie = again(&bench, &first, run, 0, 7);
        // It comes itself, or with what the next worker signs.
        let (shard, shown) = match by_itself {
            true => (0, told(lie)),
            false => (1, Told { upstream: Some(lie), ..told(again(&bench, &last, run, 1, 3)) }),
        };
        bench.take_receipt(run, ShardIndex(shard), shown).await;
        let record = bench.record(run).await;
        assert_eq!(
            (record.state, record.blamed_worker),
            (RunState::Rejected, Some(first.public())),
            "{}",
            record.reason
        );
        assert!(record.evidence.is_some(), "by itself: {by_itself}");
    }
}

#[tokio::test]
async fn a_worker_that_signs_another_output_in_a_later_attempt_is_convicted() {
    let bench = Bench::new(2, &["--backend", "gkr", "--boundary", "public"]).await;
    let [first, last, successor] = [Identity::generate(), Identity::generate(), Identity::generate()];
    let run = sent(&bench, [&first, &last]).await;
    bench.stored(1, 2).await;
    bench.take_receipt(run, ShardIndex(0), told(bench.receipt(&first, run, 0, 1, 2))).await;
    bench.runs.change(run, |record| record.send_to(&[first.public(), successor.public()])).await.unwrap();
    assert!(!bench.record(run).await.has_receipt(ShardIndex(0)), "it is to be given again");
    let complaint = Complaint { shown: Some(again(&bench, &first, run, 0, 7)), of_attempt: Some(1) };
    bench.take_complaint(run, ShardIndex(0), complaint).await;
    let record = bench.record(run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Rejected, Some(first.public())), "{}", record.reason);
    assert!(record.evidence.is_some());
}

#[tokio::test]
async fn what_contradicts_a_proven_receipt_is_of_no_consequence() {
    let bench = Bench::new(2, &["--backend", "gkr", "--boundary", "public"]).await;
    let [first, last] = [Identity::generate(), Identity::generate()];
    let run = answered(&bench, [&first, &last]).await;
    bench.runs.change(run, |record| record.shards[0].proof = crate::record::ProofState::Verified).await.unwrap();
    bench.take_receipt(run, ShardIndex(0), told(again(&bench, &first, run, 0, 7))).await;
    assert_eq!(bench.record(run).await.state, RunState::Answered);
}

#[tokio::test]
async fn whoever_shows_a_strangers_receipt_is_noted() {
    let bench = Bench::new(2, &["--backend", "float"]).await;
    let [first, last] = [Identity::generate(), Identity::generate()];
    let run = sent(&bench, [&first, &last]).await;
    bench.take_receipt(run, ShardIndex(0), told(bench.receipt(&first, run, 0, 1, 2))).await;
    let upstream = Some(bench.receipt(&Identity::generate(), run, 0, 1, 2));
    bench.take_receipt(run, ShardIndex(1), Told { upstream, ..told(bench.receipt(&last, run, 1, 2, 3)) }).await;
    let record = bench.record(run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Rejected, Some(last.public())), "{}", record.reason);
    assert!(!bench.is_blameless(&last) && bench.is_blameless(&first));
}
