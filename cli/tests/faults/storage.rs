//! Storage that is away for a while. A full disk is in the tests of the service (`full_disk`).

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use shardproof_proto::v1::admin_client::AdminClient;
use shardproof_proto::v1::{GetRequest, ListWorkersRequest, RunState, StatusResponse};
use tonic::Code;

use crate::cluster::{Service, answer, assert_close, assert_state, samples};
use crate::support::{TINY, ends_clean, eventually, holding, tiny_input, verifies};

/// Holds the database so that nobody else can write, until it is dropped.
struct Locked {
    holder: Child,
    _until: ChildStdin,
}

impl Locked {
    fn lock(database: &Path) -> Self {
        const HOLD: &str = "import sqlite3, sys\n\
            database = sqlite3.connect(sys.argv[1], timeout=60)\n\
            database.execute('BEGIN EXCLUSIVE')\n\
            print('locked', flush=True)\n\
            sys.stdin.read()\n";
        let mut holder = Command::new("python3")
            .args(["-c", HOLD, database.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let until = holder.stdin.take().unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut said).unwrap();
        assert_eq!(said.trim(), "locked");
        Self { holder, _until: until }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

#[tokio::test]
async fn a_database_that_is_away_refuses_runs_and_loses_nothing() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let before = service.infer(input).await;
    let database = service.directory.path().join("coordinator").join("state.sqlite");
    let locked = Locked::lock(&database);
    let refused = service.submit(input).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().contains("the run is not accepted, because it cannot be stored"),
        "{}",
        refused.message()
    );
    drop(locked);
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_eq!(answer(&kept), answer(&before));
    ends_clean(service).await;
}

#[tokio::test]
async fn a_database_that_is_away_during_a_run_delays_it() {
    let mut service = Service::start("mlp", &["FIRST"], 2, &["--backend", "float"]);
    service.add_worker("LAST", &["--hold-at", "before-receipt"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.submit(input).await.unwrap();
    holding(&service.workers[1], "before-receipt").await;
    let database = service.directory.path().join("coordinator").join("state.sqlite");
    let locked = Locked::lock(&database);
    service.workers[1].signal("USR1");
    let log = || service.coordinator.logged();
    eventually("a change waits for the database", || log().contains("state cannot be stored"), log).await;
    drop(locked);
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    assert_close(&answer(&run), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_shard_that_is_away_is_told_and_held_against_nobody() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    service.workers[0].terminate();
    std::fs::remove_dir_all(service.worker_data(0).join("artifacts")).unwrap();
    let (here, away) = ["artifacts", "away"].map(|name| service.directory.path().join("coordinator").join(name)).into();
    std::fs::rename(&here, &away).unwrap();
    service.restart_worker(0, &[]);
    let told = |status: &StatusResponse| status.workers.iter().any(|worker| !worker.trouble.is_empty());
    service.until("the worker says what it does not get", told).await;
    let waiting = service.status().await.workers[0].clone();
    assert!(
        waiting.trouble.contains("fetching shard files: ") && waiting.trouble.contains("is not here"),
        "{waiting:?}"
    );
    // Another would fare no better.
    service.add_worker("SOLO", &[]);
    service.until("a spare is there", |status| status.workers.len() == 2).await;
    std::fs::rename(&away, &here).unwrap();
    service.ready().await;
    let status = service.status().await;
    assert_eq!((&status.shards[0].worker, told(&status)), (&waiting.key, false));
    let records = AdminClient::new(service.channel()).list_workers(ListWorkersRequest {}).await.unwrap().into_inner();
    assert!(records.workers.iter().all(|record| (record.failed, record.refused) == (0, 0)), "{records:?}");
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn artifacts_that_are_away_refuse_runs_and_are_there_again() {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    let before = service.infer(&tiny_input()).await;
    let (here, away) = ["artifacts", "away"].map(|name| service.directory.path().join("coordinator").join(name)).into();
    std::fs::rename(&here, &away).unwrap();
    let store = || shardproof_proto::transport::artifacts::store(service.channel(), "an input".into());
    let refused = store().await.unwrap_err();
    assert!(refused.to_string().contains("artifacts"), "{refused}");
    std::fs::rename(&away, &here).unwrap();
    store().await.unwrap();
    service.prove(&before, &[]).await.unwrap();
    verifies(&service, &before, tiny_input()).await;
    ends_clean(service).await;
}
