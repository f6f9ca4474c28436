//! A worker is gone for good, and a spare takes its shard: for new runs, for the one under way, and for proofs of earlier ones.

use shardproof_proto::v1::RunState;

use crate::cluster::{Service, assert_state, bundle_of};
use crate::support::{TINY, ends_clean, holding, proves, run_until, tiny_input, verifies};

const MIDDLE: usize = 1;

/// Three workers, the middle one with `extra`, and a spare for it.
async fn service(extra: &[&str]) -> Service {
    let mut service = Service::start(TINY, &["FIRST"], 3, &[]);
    service.add_worker("MIDDLE", extra);
    service.add_worker("LAST", &[]);
    service.ready().await;
    service.add_worker("MIDDLE", &[]);
    service.until("the spare is there", |status| status.workers.len() == 4).await;
    service
}

/// Kills the middle worker and takes its data away; its shard is the spare's then.
async fn lose_the_middle_worker(service: &mut Service) {
    let lost = service.status().await.shards[MIDDLE].worker.clone();
    service.workers[MIDDLE].kill();
    std::fs::remove_dir_all(service.worker_data(MIDDLE)).unwrap();
    service
        .until("the spare has the shard", |status| status.shards[MIDDLE].ready && status.shards[MIDDLE].worker != lost)
        .await;
}

#[tokio::test]
async fn a_spare_proves_an_earlier_run_from_its_boundary() {
    let mut service = service(&[]).await;
    let run = service.infer(&tiny_input()).await;
    lose_the_middle_worker(&mut service).await;
    proves(&service, &run, tiny_input()).await;
    let spare = service.status().await.shards[MIDDLE].worker.clone();
    let receipt = &bundle_of(&service, &run).await.shards[MIDDLE].receipt;
    assert_eq!(receipt.worker.to_string(), spare, "the spare answers for what it proves");
    assert_eq!(receipt.attempt, 1);

    let fresh = service.infer(&tiny_input()).await;
    proves(&service, &fresh, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn a_spare_makes_the_proof_that_a_lost_worker_owed() {
    let mut service = service(&["--hold-at", "prove"]).await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[MIDDLE], "prove").await;
    lose_the_middle_worker(&mut service).await;
    verifies(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn a_spare_goes_on_with_a_run_under_way() {
    let mut service = service(&["--hold-at", "after-receipt"]).await;
    let run = service.submit(&tiny_input()).await.unwrap();
    holding(&service.workers[MIDDLE], "after-receipt").await;
    run_until(&service, &run, "the receipt has come", |run| !run.shards[MIDDLE].worker.is_empty()).await;
    lose_the_middle_worker(&mut service).await;
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn a_proof_that_nobody_can_make_rejects_the_run_by_name() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--rejoin-grace", "1"]);
    service.add_worker("LAST", &["--hold-at", "prove"]);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[1], "prove").await;
    service.workers[1].kill();
    let rejected = service.settled(&run).await;
    assert_state(&rejected, RunState::Rejected);
    assert_eq!((rejected.blamed_shard, &rejected.blamed_worker), (Some(1), &rejected.shards[1].worker));
    assert!(rejected.reason.contains("was lost while it owed the proof"), "{}", rejected.reason);
    ends_clean(service).await;
}
