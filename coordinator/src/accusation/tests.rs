use std::time::Duration;

use shardproof_common::ids::Role;
use shardproof_common::receipt::Identity;
use shardproof_proto::v1::coordinator_message::Message;

use super::*;
use crate::testing::Bench;

/// A run that is rejected because its worker signed for two outputs, and the worker.
async fn contradicted(bench: &Bench) -> (RunId, Identity) {
    let worker = Identity::generate();
    let run = bench.run(1, |_| ()).await;
    let both = (bench.receipt(&worker, run, 0, 1, 2), bench.receipt(&worker, run, 0, 1, 3));
    bench.runs.change(run, |record| record.reject_for_contradiction(&both)).await.unwrap();
    (run, worker)
}

#[tokio::test]
async fn a_contradiction_is_still_in_the_record_when_a_coordinator_takes_it_up_again() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (run, worker) = contradicted(&bench).await;
    assert!(bench.store.load(run).await.unwrap().unwrap().contradiction.is_some());
    bench.resume(&[run]).await;
    bench.tasks.close();
    bench.tasks.wait().await;
    let record = bench.record(run).await;
    assert!(record.evidence.is_some() && !record.under_way());
    assert!(bench.workers.check(&worker.public()).is_err(), "convicted");
}

#[tokio::test]
async fn evidence_waits_for_a_disk_that_does_not_take_it() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (run, worker) = contradicted(&bench).await;
    let both = bench.record(run).await.contradiction.unwrap();
    std::fs::remove_dir(&bench.scratch).unwrap();
    let (coordinator, prepared) = ((*bench).clone(), bench.prepared().clone());
    let accusing = tokio::spawn(async move { coordinator.accuse_of_contradiction(run, &prepared, *both).await });
    tokio::time::sleep(STORE_PAUSE / 2).await;
    assert!(bench.record(run).await.under_way() && bench.workers.check(&worker.public()).is_ok());
    std::fs::create_dir(&bench.scratch).unwrap();
    accusing.await.unwrap();
    let record = bench.record(run).await;
    assert!(record.evidence.is_some() && !record.under_way());
    assert!(bench.workers.check(&worker.public()).is_err(), "convicted");
}

#[tokio::test]
async fn a_convicted_worker_is_out_while_the_database_is_away() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (run, worker) = contradicted(&bench).await;
    let (_, mut messages) = bench.join_ready(Role::Solo, 0, &worker);
    let both = bench.record(run).await.contradiction.unwrap();
    bench.store.close().await;
    let (coordinator, prepared) = ((*bench).clone(), bench.prepared().clone());
    let accusing = tokio::spawn(async move { coordinator.accuse_of_contradiction(run, &prepared, *both).await });
    let expelled = async { while messages.recv().await.is_some_and(|message| message.is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(60), expelled).await.unwrap();
    assert!(bench.workers.check(&worker.public()).is_err() && bench.holder(0).is_none());
    assert!(bench.record(run).await.evidence.is_none(), "that is not stored");
    bench.shutdown.cancel();
    accusing.await.unwrap();
}

#[tokio::test]
async fn a_stop_leaves_a_search_for_evidence_to_the_next_start() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (contradicted, _) = contradicted(&bench).await;
    let doubted = bench.run(1, |record| record.reject(ShardIndex(0), None, "wrong".into())).await;
    bench.runs.change(doubted, |record| record.open_dispute(ShardIndex(0), DisputeStage::Accusing)).await.unwrap();
    bench.shutdown.cancel();
    bench.clone().reexecute(doubted, ShardIndex(0)).await;
    assert!(bench.record(doubted).await.under_way());
    let both = bench.record(contradicted).await.contradiction.unwrap();
    bench.accuse_of_contradiction(contradicted, bench.prepared(), *both).await;
    assert!(bench.record(contradicted).await.under_way());
}

#[tokio::test]
async fn a_shard_is_run_again_once_the_worker_that_has_its_input_is_back() {
    let bench = Bench::new(2, &["--backend", "gkr"]).await;
    let (first, last) = (Identity::generate(), Identity::generate());
    let run = bench.run(1, |_| ()).await;
    let mut receipts = [bench.receipt(&first, run, 0, 1, 2), bench.receipt(&last, run, 1, 2, 3)];
    let committed = Binding::Committed(vec![vec![1]]);
    receipts[0].statement.output.binding = committed.clone();
    receipts[1].statement.input.binding = committed;
    let change = |record: &mut RunRecord| {
        for (shard, receipt) in record.shards.iter_mut().zip(receipts) {
            shard.receipt = Some(receipt);
        }
        record.reject(ShardIndex(1), Some(last.public()), "wrong".into());
        record.open_dispute(ShardIndex(1), DisputeStage::Accusing)
    };
    assert!(bench.runs.change(run, change).await.unwrap());
    let mut watch = bench.runs.watch(run).await.unwrap().unwrap();
    bench.resume(&[run]).await;
    let given_up = tokio::time::timeout(Duration::from_millis(300), watch.wait_for(|record| !record.in_dispute()));
    assert!(given_up.await.is_err(), "nobody is back to be asked");
    let (_, mut messages) = bench.join_ready(Role::First, 0, &first);
    let asked = async {
        while let Some(Ok(message)) = messages.recv().await {
            if let Some(Message::ShowOutput(show)) = message.message {
                return show.shard;
            }
        }
        panic!("not asked");
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap(), 0);
}
