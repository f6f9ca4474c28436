//! Processes that die and come back.

use shardproof_proto::v1::{GetRequest, RunState};

use crate::cluster::{Service, answer, assert_close, assert_state, samples};

#[tokio::test]
async fn a_lost_worker_leaves_its_shard_vacant_until_it_returns() {
    let mut service = Service::start("mlp", &["FIRST", "MIDDLE", "LAST"], 3, &["--backend", "float"]);
    service.ready().await;
    service.workers[1].kill();
    service.until("shard 1 is vacant", |status| !status.shards[1].ready).await;
    let refused = service.submit(&samples("mlp")[0].0).await.unwrap_err();
    assert!(refused.message().contains("no worker is ready for shard 1"), "{}", refused.message());

    service.restart_worker(1, &[]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[tokio::test]
async fn a_spare_steps_in() {
    let mut service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float"]);
    service.ready().await;
    service.add_worker("FIRST", &[]);
    service.until("the spare is there", |status| status.workers.len() == 3).await;
    assert_eq!(service.status().await.workers.iter().filter(|worker| worker.shard.is_none()).count(), 1);
    service.workers[0].kill();
    service.until("the spare holds shard 0", |status| status.workers.len() == 2 && status.shards[0].ready).await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[tokio::test]
async fn a_restarted_coordinator_knows_its_runs_and_its_workers_return() {
    let mut service = Service::start("mlp", &["FIRST", "MIDDLE", "MIDDLE", "LAST"], 4, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let before = service.infer(input).await;
    let holders: Vec<_> = service.status().await.shards.into_iter().map(|shard| shard.worker).collect();
    service.coordinator.kill();
    service.restart_coordinator();
    service.ready().await;
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_state(&kept, RunState::Answered);
    assert_eq!(answer(&kept), answer(&before));
    let after: Vec<_> = service.status().await.shards.into_iter().map(|shard| shard.worker).collect();
    assert_eq!(after, holders, "every worker gets the shard back whose boundaries it has spooled");
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[tokio::test]
async fn both_programs_end_cleanly_on_sigterm() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    assert_eq!(service.workers[0].terminate().code(), Some(0));
    service.until("the shard is vacant", |status| !status.shards[0].ready).await;
    assert_eq!(service.coordinator.terminate().code(), Some(0));
}

// The server waits for its connections, so this one's has to be attended to while the test waits for the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_with_workers_ends_at_once() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    assert_eq!(service.coordinator.terminate().code(), Some(0));
    // A worker whose stream it had not ended would have kept its connection open until it is given up.
    service.coordinator.until_logged("received_bytes");
    assert!(!service.coordinator.logged().contains("did not end within"), "{}", service.coordinator.logged());
}
