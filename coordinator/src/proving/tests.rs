use shardproof_common::receipt::Identity;

use super::*;
use crate::testing::Bench;

const FIRST: ShardIndex = ShardIndex(0);

#[tokio::test]
async fn the_clock_of_an_absence_that_has_ended_says_nothing_of_a_later_one() {
    let bench = Bench::new(1, &["--backend", "float", "--rejoin-grace", "0"]).await;
    let worker = Identity::generate();
    let run = bench.run(1, |_| ()).await;
    let receipt = bench.receipt(&worker, run, 0, 1, 2);
    let change = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        record.shards[0].receipt = Some(receipt);
        record.request_proofs(&[FIRST], 1);
        // It has been back.
        record.renew_attempt(FIRST);
    };
    bench.runs.change(run, change).await.unwrap();
    bench.clone().await_return(run, FIRST, worker.public(), 1).await;
    assert_eq!(bench.record(run).await.state, RunState::Answered);
    bench.clone().await_return(run, FIRST, worker.public(), 2).await;
    assert_eq!(bench.record(run).await.state, RunState::Rejected);
}

#[tokio::test]
async fn only_what_an_earlier_process_left_is_taken_up() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (left, submitted) = (bench.run(1, |_| ()).await, bench.run(2, |_| ()).await);
    bench.resume(&[left]).await;
    assert_eq!(bench.tasks.len(), 1, "the run {submitted} is seen through already");
}
