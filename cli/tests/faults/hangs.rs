//! Workers that hang: alive for the system, dead for everyone else, and back at an inconvenient time.

use shardproof_proto::v1::{GetRequest, RunState};

use crate::cluster::{Service, answer, assert_close, assert_state, samples};
use crate::support::{TINY, ends_clean, holding, logged, tiny_input, verifies};

#[tokio::test]
async fn a_worker_that_hangs_fails_the_run_in_time_and_serves_again_when_it_wakes() {
    let mut service = Service::start("mlp", &[], 2, &["--backend", "float"]);
    service.add_worker("FIRST", &["--hop-deadline", "2"]);
    service.add_worker("LAST", &[]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    service.workers[1].signal("STOP");
    let failed = service.infer(input).await;
    assert_state(&failed, RunState::Failed);
    assert!(
        failed.reason.contains("boundary 1 did not get from shard 0 to shard 1 at 127.0.0.1:"),
        "{}",
        failed.reason
    );
    service.workers[1].signal("CONT");
    service.ready().await;
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_worker_that_hangs_over_a_proof_rejects_the_run_and_its_late_proof_is_not_handed_over() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--prove-deadline", "10"]);
    service.add_worker("LAST", &["--hold-at", "after-proof"]);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    // Of its shard alone: another that is late for whatever reason would be named instead.
    service.prove(&run, &[1]).await.unwrap();
    holding(&service.workers[1], "after-proof").await;
    let rejected = service.settled(&run).await;
    assert_state(&rejected, RunState::Rejected);
    assert_eq!((rejected.blamed_shard, &rejected.blamed_worker), (Some(1), &rejected.shards[1].worker));
    assert!(rejected.reason.contains("its proof did not come within 10 s"), "{}", rejected.reason);
    logged(&service.workers[1], "proof cancelled").await;
    service.workers[1].signal("USR1");
    logged(&service.workers[1], "a proof that nobody wants any more is not handed over").await;
    let after = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    assert_eq!((after.state(), after.reason), (RunState::Rejected, rejected.reason));
    ends_clean(service).await;
}

#[tokio::test]
async fn a_proof_that_is_asked_for_again_while_it_is_handed_over_answers_the_later_request() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &[]);
    service.add_worker("LAST", &["--hold-at", "after-proof"]);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[1], "after-proof").await;
    service.coordinator.kill();
    service.restart_coordinator();
    logged(&service.workers[1], "the proof that is under way is asked for again").await;
    service.workers[1].signal("USR1");
    verifies(&service, &run, tiny_input()).await;
    logged(&service.workers[1], "proof reported").await;
    let log = service.workers[1].logged();
    assert_eq!(log.matches("proof reported").count(), 1, "{log}");
    ends_clean(service).await;
}
