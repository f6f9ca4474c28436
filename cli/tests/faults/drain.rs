//! Programs that are told to stop while runs are under way.

use std::path::PathBuf;
use std::time::Duration;

use shardproof_proto::transport::{Party, Transport};
use shardproof_proto::v1::artifacts_client::ArtifactsClient;
use shardproof_proto::v1::{Chunk, GetRequest, RunState, WatchRequest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::cluster::{Service, answer, assert_close, assert_state, samples};
use crate::support::{ended, ends_clean, eventually, half_files, holding, logged};

const FLOAT: &[&str] = &["--backend", "float"];

/// Runs on their way while the program is told to stop.
const RUNS: usize = 12;

/// Longest that a program may take to end that nothing is under way in: several times what it gives its connections.
const STOP: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_coordinator_told_to_stop_answers_what_it_accepted() {
    let mut service = Service::start("mlp", &["FIRST"], 2, FLOAT);
    service.add_worker("LAST", &["--hold-at", "before-receipt", "--concurrency", "1"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(service.submit(input).await.unwrap());
    }
    holding(&service.workers[1], "before-receipt").await;
    service.coordinator.signal("TERM");
    logged(&service.coordinator, "taking no more runs").await;
    let refused = service.submit(input).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("the coordinator is stopping"), "{}", refused.message());
    assert!(service.coordinator.child.try_wait().unwrap().is_none(), "it waits for the runs");

    // Watched before the last one is answered: the coordinator is gone soon after.
    let mut watches = Vec::new();
    for run in &runs {
        let mut watch = service.client().watch(WatchRequest { run: run.run.clone() }).await.unwrap().into_inner();
        watches.push((watch.message().await.unwrap().unwrap(), watch));
    }
    service.workers[1].signal("USR1");
    for (mut run, mut watch) in watches {
        while let Some(later) = watch.message().await.unwrap() {
            run = later;
        }
        assert_state(&run, RunState::Answered);
        assert_close(&answer(&run), expected, 1e-5);
    }
    assert_eq!(ended(&mut service.coordinator).await, Some(0));
    ends_clean(service).await;
}

#[tokio::test]
async fn a_worker_told_to_stop_passes_on_what_is_under_way() {
    let mut service = Service::start("mlp", &["FIRST"], 3, FLOAT);
    service.add_worker("MIDDLE", &["--hold-at", "before-receipt", "--concurrency", "1"]);
    service.add_worker("LAST", &[]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(service.submit(input).await.unwrap());
    }
    holding(&service.workers[1], "before-receipt").await;
    service.workers[1].signal("TERM");
    logged(&service.coordinator, "the worker is to stop").await;
    let refused = service.submit(input).await.unwrap_err();
    assert!(refused.message().contains("no worker is ready for shard 1"), "{}", refused.message());
    assert!(service.workers[1].child.try_wait().unwrap().is_none(), "it waits for the runs");
    service.workers[1].signal("USR1");
    for run in &runs {
        let run = service.settled(run).await;
        assert_state(&run, RunState::Answered);
        assert_close(&answer(&run), expected, 1e-5);
    }
    assert_eq!(ended(&mut service.workers[1]).await, Some(0));
    service.restart_worker(1, &[]);
    service.ready().await;
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_worker_told_to_stop_makes_way_for_a_spare() {
    let mut service = Service::start("mlp", &["FIRST", "LAST"], 2, FLOAT);
    service.ready().await;
    service.add_worker("LAST", &[]);
    service.until("the spare is there", |status| status.workers.len() == 3).await;
    service.workers[1].signal("TERM");
    assert_eq!(ended(&mut service.workers[1]).await, Some(0));
    service.until("the spare holds shard 1", |status| status.workers.len() == 2 && status.shards[1].ready).await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_program_at_once_and_the_run_goes_on_after_the_restart() {
    let mut service = Service::start("mlp", &["FIRST"], 2, FLOAT);
    service.add_worker("LAST", &["--hold-at", "before-receipt"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.submit(input).await.unwrap();
    holding(&service.workers[1], "before-receipt").await;
    service.workers[1].signal("TERM");
    logged(&service.workers[1], "stopping; a second signal stops at once").await;
    service.workers[1].signal("TERM");
    assert_eq!(ended(&mut service.workers[1]).await, Some(130));
    service.coordinator.signal("TERM");
    logged(&service.coordinator, "taking no more runs").await;
    service.coordinator.signal("TERM");
    assert_eq!(ended(&mut service.coordinator).await, Some(130));
    service.restart_coordinator();
    service.restart_worker(1, &[]);
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    assert_close(&answer(&run), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_drain_has_a_deadline_and_what_is_left_goes_on_after_the_restart() {
    let mut service = Service::start_once("mlp", &["FIRST"], 2, FLOAT, &["--drain-deadline", "1"]);
    service.add_worker("LAST", &["--hold-at", "before-receipt"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.submit(input).await.unwrap();
    holding(&service.workers[1], "before-receipt").await;
    service.coordinator.signal("TERM");
    assert_eq!(ended(&mut service.coordinator).await, Some(0));
    logged(&service.coordinator, "the drain deadline has passed").await;
    service.restart_coordinator();
    service.workers[1].signal("USR1");
    service.ready().await;
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    assert_close(&answer(&run), expected, 1e-5);
    let known = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    assert_state(&known, RunState::Answered);
    eventually(
        "the worker is back",
        || service.workers[1].logged().matches("joined").count() == 2,
        || service.workers[1].logged(),
    )
    .await;
    ends_clean(service).await;
}

/// Calls that whoever made them never ends: anyone's look at the health, and an upload of which nothing more comes.
struct Lingering {
    health: tonic::Streaming<HealthCheckResponse>,
    _upload: tokio::sync::mpsc::Sender<Chunk>,
}

impl Lingering {
    async fn at(address: &str, party: Party) -> Self {
        let channel = Transport::plaintext().lazy_channel(address, party).unwrap();
        let watched = HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await;
        let mut health = watched.unwrap().into_inner();
        health.message().await.unwrap().unwrap();
        let (upload, chunks) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { ArtifactsClient::new(channel).store(ReceiverStream::new(chunks)).await });
        upload.send(Chunk { data: "begun".into() }).await.unwrap();
        Self { health, _upload: upload }
    }
}

#[tokio::test]
async fn connections_that_someone_keeps_open_do_not_hold_a_stop_up() {
    let mut service = Service::start("mlp", &["SOLO"], 1, FLOAT);
    service.ready().await;
    let Service { coordinator, workers, .. } = &mut service;
    for (program, party) in [(&mut workers[0], Party::Worker), (coordinator, Party::Coordinator)] {
        let mut lingering = Lingering::at(&program.address, party).await;
        program.signal("TERM");
        let code = tokio::time::timeout(STOP, ended(program)).await;
        assert_eq!(code, Ok(Some(0)), "{}", program.logged());
        while let Ok(Some(_)) = lingering.health.message().await {}
    }
    assert_eq!(half_files(service.directory.path()), <[PathBuf; 0]>::default());
}
