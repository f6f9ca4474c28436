//! Clocks that jump: of the coordinator, of a worker, ahead and back.

use shardproof_proto::v1::RunState;
use tonic::Code;

use crate::cluster::{Service, assert_state};
use crate::support::{TINY, ends_clean, proves, tiny_input};

const HOUR_MS: i64 = 3_600_000;

async fn service() -> Service {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    service
}

async fn restart_coordinator_at(service: &mut Service, offset_ms: i64) {
    service.coordinator.kill();
    service.restart_coordinator_once(&[&format!("--clock-offset-ms={offset_ms}")]);
    service.ready().await;
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_loses_neither_runs_nor_proofs() {
    let mut service = service().await;
    let first = service.infer(&tiny_input()).await;
    restart_coordinator_at(&mut service, 2 * HOUR_MS).await;
    let ahead = service.infer(&tiny_input()).await;
    proves(&service, &first, tiny_input()).await;
    restart_coordinator_at(&mut service, -2 * HOUR_MS).await;
    let back = service.infer(&tiny_input()).await;
    for run in [&ahead, &back] {
        assert_state(run, RunState::Answered);
        proves(&service, run, tiny_input()).await;
    }
    ends_clean(service).await;
}

#[tokio::test]
async fn a_clock_past_the_promise_of_a_receipt_refuses_the_proof_and_blames_nobody() {
    let mut service = service().await;
    let run = service.infer(&tiny_input()).await;
    restart_coordinator_at(&mut service, 25 * HOUR_MS).await;
    let refused = service.prove(&run, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("can be proven is past"), "{}", refused.message());
    restart_coordinator_at(&mut service, 0).await;
    proves(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_weeks_off_says_so() {
    let mut service = service().await;
    service.workers[0].kill();
    service.restart_worker(0, &[&format!("--clock-offset-ms={}", 14 * 24 * HOUR_MS)]);
    service.ready().await;
    let failed = service.infer(&tiny_input()).await;
    assert_state(&failed, RunState::Failed);
    assert!(failed.reason.contains("set the clocks of both machines"), "{}", failed.reason);
    ends_clean(service).await;
}
