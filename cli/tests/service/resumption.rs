//! Runs that go on where they were when a process dies in the middle of them.
//!
//! A worker that is stopped (SIGSTOP) holds a run at a known place for as long as the test wants.

use std::process::Command;

use shardproof_proto::v1::{GetRequest, Run, RunState};

use crate::cluster::{Program, Service, answer, assert_close, assert_state, samples, verify_bundle};

fn signal(program: &Program, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &program.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

async fn state_of(service: &Service, run: &Run) -> Run {
    service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner()
}

/// Waits until the coordinator has the receipts of exactly these shards.
async fn until_receipts(service: &Service, run: &Run, shards: &[u32]) {
    let given = |run: &Run| -> Vec<u32> {
        run.shards.iter().filter(|shard| !shard.worker.is_empty()).map(|shard| shard.shard).collect()
    };
    let now = service.run_until(run, |run| given(run) == shards).await;
    assert_state(&now, RunState::Running);
    assert_eq!(given(&now), shards);
}

/// A service of three shards and a run that has come to shard `at`, whose worker is stopped.
async fn run_held_at(at: usize) -> (Service, Run) {
    let service = Service::start("mlp", &["FIRST", "MIDDLE", "LAST"], 3, &[]);
    service.ready().await;
    signal(&service.workers[at], "STOP");
    let run = service.submit(&samples("mlp")[0].0).await.unwrap();
    until_receipts(&service, &run, &(0..at as u32).collect::<Vec<_>>()).await;
    (service, run)
}

/// The run is answered as it should be, and every shard of it can be proven.
async fn assert_whole(service: &Service, run: &Run) {
    let settled = service.settled(run).await;
    assert_state(&settled, RunState::Answered);
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&settled), expected, 0.05);
    // Not all need be back for a run whose receipts were in.
    service.ready().await;
    service.prove(run, &[]).await.unwrap();
    let verified = service.settled(run).await;
    assert_state(&verified, RunState::Verified);
    let report = verify_bundle(service, &verified, input.clone()).await;
    assert!(report.is_verified(), "{report}");
}

#[tokio::test]
async fn a_coordinator_killed_after_a_run_was_accepted_goes_on_with_it() {
    let (mut service, run) = run_held_at(0).await;
    service.coordinator.kill();
    signal(&service.workers[0], "CONT");
    service.restart_coordinator();
    service.ready().await;
    assert_whole(&service, &run).await;
}

#[tokio::test]
async fn a_coordinator_killed_between_receipts_goes_on_with_the_run() {
    for at in [1, 2] {
        let (mut service, run) = run_held_at(at).await;
        service.coordinator.kill();
        signal(&service.workers[at], "CONT");
        service.restart_coordinator();
        service.ready().await;
        assert_whole(&service, &run).await;
    }
}

#[tokio::test]
async fn receipts_and_an_answer_that_were_given_while_the_coordinator_was_away_are_given_again() {
    let (mut service, run) = run_held_at(1).await;
    service.coordinator.kill();
    // The rest of the run happens without a coordinator: its last worker has nobody to give the answer to.
    signal(&service.workers[1], "CONT");
    service.restart_coordinator();
    assert_whole(&service, &run).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_of_a_run_goes_on_with_it() {
    for at in [0, 1, 2] {
        let (mut service, run) = run_held_at(at).await;
        service.workers[at].kill();
        service.restart_worker(at, &[]);
        assert_whole(&service, &run).await;
    }
}

#[tokio::test]
async fn a_spare_takes_a_run_over_in_a_new_attempt() {
    let (mut service, run) = run_held_at(2).await;
    // The one that gave the receipt of shard 1 is gone for good as well.
    service.add_worker("MIDDLE", &[]);
    service.add_worker("LAST", &[]);
    service.until("the spares are there", |status| status.workers.len() == 5).await;
    service.workers[1].kill();
    service.workers[2].kill();
    assert_whole(&service, &run).await;
    let spares = service.status().await.shards;
    let settled = state_of(&service, &run).await;
    for shard in [1, 2] {
        assert_eq!(settled.shards[shard].worker, spares[shard].worker);
    }
}

#[tokio::test]
async fn a_run_whose_worker_stays_away_fails_and_names_the_shard() {
    let mut service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float", "--rejoin-grace", "1"]);
    service.ready().await;
    signal(&service.workers[1], "STOP");
    let run = service.submit(&samples("mlp")[0].0).await.unwrap();
    until_receipts(&service, &run, &[0]).await;
    service.workers[1].kill();
    let failed = service.settled(&run).await;
    assert_state(&failed, RunState::Failed);
    assert_eq!(failed.blamed_shard, Some(1));
    assert!(failed.reason.contains("none took its place within 1 s"), "{}", failed.reason);
}
