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
async fn a_worker_that_hangs_over_a_proof_rejects_the_run_and_its_late_proof_changes_nothing() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--prove-deadline", "3"]);
    service.add_worker("LAST", &["--hold-at", "after-proof"]);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[1], "after-proof").await;
    let rejected = service.settled(&run).await;
    assert_state(&rejected, RunState::Rejected);
    assert_eq!((rejected.blamed_shard, &rejected.blamed_worker), (Some(1), &rejected.shards[1].worker));
    assert!(rejected.reason.contains("its proof did not come within 3 s"), "{}", rejected.reason);
    service.workers[1].signal("USR1");
    logged(&service.coordinator, "ignoring a proof that is not awaited").await;
    let after = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    assert_eq!((after.state(), after.reason), (RunState::Rejected, rejected.reason));
    ends_clean(service).await;
}

#[tokio::test]
async fn a_proof_of_an_earlier_attempt_is_fenced_and_the_later_one_counts() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &[]);
    service.add_worker("LAST", &["--hold-at", "after-proof"]);
    service.ready().await;
    let run = service.infer(&tiny_input()).await;
    service.prove(&run, &[]).await.unwrap();
    holding(&service.workers[1], "after-proof").await;
    // The restarted coordinator asks again; the worker answers that from its spool, and only then the first request.
    service.coordinator.kill();
    service.restart_coordinator();
    verifies(&service, &run, tiny_input()).await;
    service.workers[1].signal("USR1");
    logged(&service.coordinator, "ignoring a proof that is not awaited").await;
    verifies(&service, &run, tiny_input()).await;
    ends_clean(service).await;
}
