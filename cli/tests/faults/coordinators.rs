//! The coordinator is killed at each stage of a run. It starts again on its data directory and goes on where it was.

use shardproof_proto::v1::{GetRequest, ProofState, RunState};

use crate::cluster::{Service, answer, assert_state};
use crate::support::{TINY, ends_clean, holding, proves, tiny_input, verifies};

const ROLES: [&str; 3] = ["FIRST", "MIDDLE", "LAST"];

/// A service whose coordinator holds at `stage`, the first time it runs.
fn service(stage: &str) -> Service {
    Service::start_once(TINY, &ROLES, 3, &[], &["--hold-at", stage])
}

fn kill_and_restart(service: &mut Service) {
    service.coordinator.kill();
    service.restart_coordinator();
}

#[tokio::test]
async fn killed_while_it_sets_up_a_shard() {
    let mut service = service("setup:2");
    holding(&service.coordinator, "setup").await;
    kill_and_restart(&mut service);
    service.ready().await;
    let found: Vec<bool> = service.status().await.shards.iter().map(|shard| shard.setup_cached).collect();
    assert_eq!(found, [true, false, false], "what was set up is not set up again");
    let run = service.infer(&tiny_input()).await;
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_after_it_accepted_a_run() {
    killed_with_a_run_at("submitted").await;
}

#[tokio::test]
async fn killed_with_one_receipt_in() {
    killed_with_a_run_at("receipt-taken:1").await;
}

#[tokio::test]
async fn killed_with_two_receipts_in() {
    killed_with_a_run_at("receipt-taken:2").await;
}

/// A run that was accepted is answered after the restart, without its client asking again.
async fn killed_with_a_run_at(stage: &str) {
    let mut service = service(stage);
    service.ready().await;
    let run = service.submit(&tiny_input()).await.unwrap();
    holding(&service.coordinator, stage.split(':').next().unwrap()).await;
    kill_and_restart(&mut service);
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_after_the_answer() {
    let mut service = Service::start(TINY, &ROLES, 3, &[]);
    service.ready().await;
    let before = service.infer(&tiny_input()).await;
    kill_and_restart(&mut service);
    service.ready().await;
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_eq!(answer(&kept), answer(&before));
    proves(&service, &before, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_after_proofs_were_requested() {
    let mut service = service("proof-requested");
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    // The answer never comes: the coordinator holds before it tells the workers.
    let (mut client, requested) = (service.client(), run.run.clone());
    let asking = tokio::spawn(async move {
        let request = shardproof_proto::v1::ProveRequest { run: requested, ..Default::default() };
        client.prove(request).await
    });
    holding(&service.coordinator, "proof-requested").await;
    kill_and_restart(&mut service);
    assert!(asking.await.unwrap().is_err());
    verifies(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_while_it_verifies_a_proof() {
    let mut service = service("verify:2");
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.coordinator, "verify").await;
    let held = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    assert!(held.shards.iter().any(|shard| shard.proof() == ProofState::Verifying), "{held:?}");
    kill_and_restart(&mut service);
    verifies(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}
