//! A worker is killed at each stage of its work. It comes back on its data directory, and the run ends verified.

use shardproof_proto::v1::RunState;

use crate::cluster::{Service, assert_state};
use crate::support::{TINY, ends_clean, holding, proves, run_until, tiny_input, verifies};

/// The worker that is killed holds the middle shard.
const MIDDLE: usize = 1;

/// A service whose middle worker holds at `stage`.
async fn service(stage: &str) -> Service {
    let mut service = Service::start(TINY, &["FIRST"], 3, &[]);
    service.add_worker("MIDDLE", &["--hold-at", stage]);
    service.add_worker("LAST", &[]);
    service
}

fn kill_and_restart(service: &mut Service) {
    service.workers[MIDDLE].kill();
    service.restart_worker(MIDDLE, &[]);
}

#[tokio::test]
async fn killed_while_it_fetches_its_shard() {
    let mut service = service("fetch").await;
    holding(&service.workers[MIDDLE], "fetch").await;
    kill_and_restart(&mut service);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_before_it_acknowledges_the_boundary() {
    killed_with_a_run_at("spooled").await;
}

#[tokio::test]
async fn killed_before_its_receipt() {
    killed_with_a_run_at("before-receipt").await;
}

#[tokio::test]
async fn killed_after_its_receipt_before_it_passes_the_run_on() {
    killed_with_a_run_at("after-receipt").await;
}

/// A run is at the middle worker, which dies and returns: the run goes on, and is proven as if nothing had been.
async fn killed_with_a_run_at(stage: &str) {
    let mut service = service(stage).await;
    service.ready().await;
    let run = service.submit(&tiny_input()).await.unwrap();
    holding(&service.workers[MIDDLE], stage).await;
    if stage == "after-receipt" {
        run_until(&service, &run, "the receipt has come", |run| !run.shards[MIDDLE].worker.is_empty()).await;
    }
    kill_and_restart(&mut service);
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn killed_while_it_proves() {
    killed_with_a_proof_at("prove").await;
}

#[tokio::test]
async fn killed_after_proving_before_it_reports() {
    killed_with_a_proof_at("after-proof").await;
}

/// A proof is asked for once; the worker dies over it, returns, and proves without being asked by anyone again.
async fn killed_with_a_proof_at(stage: &str) {
    let mut service = service(stage).await;
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[MIDDLE], stage).await;
    kill_and_restart(&mut service);
    verifies(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}
