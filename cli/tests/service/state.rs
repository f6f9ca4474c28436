//! State that more than one machine shares, that is away for a while, and that is cleared.

use std::path::Path;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;
use shardproof_proto::v1::{GetRequest, RunState};
use shardproof_testing::Postgres;
use tonic::Code;

use crate::cluster::{PATIENCE, Program, Service, answer, assert_close, assert_state, command, samples, strings};

/// A service of two shards on `database`, whose artifacts are where another coordinator can reach them.
fn shared(database: &Postgres, artifacts: &Path) -> Service {
    let (database, artifacts) = (database.url(), format!("file://{}", artifacts.display()));
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--database", &database, "--artifacts", &artifacts]);
    assert!(!service.directory.path().join("coordinator/state.sqlite").exists());
    service
}

/// Starts a second coordinator of the same service on a data directory of its own; it listens once it serves.
fn stand_by(service: &Service) -> (std::path::PathBuf, std::thread::JoinHandle<Program>) {
    let directory = service.directory.path().to_owned();
    let (first, second) = (directory.join("coordinator"), directory.join("second"));
    std::fs::create_dir(&second).unwrap();
    std::fs::copy(first.join("owner.key"), second.join("owner.key")).unwrap();
    let mut arguments = service.coordinator_arguments().to_vec();
    let data = arguments.iter_mut().find(|argument| Path::new(argument) == first).unwrap();
    *data = second.display().to_string();
    let log = directory.join("second.log");
    (log, std::thread::spawn(move || Program::start(&directory, "second", &arguments)))
}

async fn until_logged(log: &Path, text: &str) {
    let started = Instant::now();
    while !std::fs::read_to_string(log).is_ok_and(|said| said.contains(text)) {
        assert!(started.elapsed() < PATIENCE, "not logged: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_stands_by_takes_over_and_goes_on_with_what_is_under_way() {
    let database = Postgres::start().unwrap();
    let artifacts = tempfile::tempdir().unwrap();
    let mut service = shared(&database, artifacts.path());
    service.ready().await;
    let (log, second) = stand_by(&service);
    until_logged(&log, "standing by").await;
    let (input, expected) = &samples("mlp")[0];
    let before = service.infer(input).await;
    service.workers[1].signal("STOP");
    let run = service.submit(input).await.unwrap();
    service.coordinator.kill();
    service.workers[1].signal("CONT");
    service.coordinator = second.join().unwrap();
    service.ready().await;
    assert!(service.status().await.shards.iter().all(|shard| shard.setup_cached), "the setup is shared");
    let settled = service.settled(&run).await;
    assert_state(&settled, RunState::Answered);
    assert_close(&answer(&settled), expected, 0.05);
    let kept = service.client().get(GetRequest { run: before.run.clone() }).await.unwrap().into_inner();
    assert_eq!(answer(&kept), answer(&before), "artifacts are shared");
    service.prove(&before, &[]).await.unwrap();
    assert_state(&service.settled(&before).await, RunState::Verified);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ends_gives_its_lease_back() {
    let database = Postgres::start().unwrap();
    let artifacts = tempfile::tempdir().unwrap();
    let mut service = shared(&database, artifacts.path());
    service.ready().await;
    let (log, second) = stand_by(&service);
    until_logged(&log, "standing by").await;
    assert_eq!(service.coordinator.terminate().code(), Some(0));
    service.coordinator = second.join().unwrap();
    until_logged(&log, "the lease is this coordinator's: it was given back").await;
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 0.05);
}

#[test]
fn one_that_cannot_listen_gives_its_lease_back() {
    let database = Postgres::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let [first, second, artifacts] = ["first", "second", "artifacts"].map(path);
    std::fs::create_dir(&second).unwrap();
    std::fs::create_dir(&artifacts).unwrap();
    let (url, artifacts) = (database.url(), format!("file://{}", artifacts.display()));
    let arguments = |port: &str, data: &Path| {
        let data = data.display().to_string();
        let line = ["coordinator", "127.0.0.1", port, "1", "mlp", "--backend", "float", "--data-dir", &data];
        strings(&[line.as_slice(), &["--database", &url, "--artifacts", &artifacts]].concat())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let failed = command(&arguments(&port, &first)).output().unwrap();
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(failed.status.code() == Some(1) && said.contains("cannot listen on"), "{said}");
    std::fs::copy(first.join("owner.key"), second.join("owner.key")).unwrap();
    let coordinator = Program::start(directory.path(), "second", &arguments("0", &second));
    assert!(!coordinator.logged().contains("standing by"), "{}", coordinator.logged());
}

#[tokio::test]
async fn while_the_database_is_away_runs_are_refused_or_wait() {
    let mut database = Postgres::start().unwrap();
    let artifacts = tempfile::tempdir().unwrap();
    let service = shared(&database, artifacts.path());
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    service.workers[0].signal("STOP");
    let run = service.submit(input).await.unwrap();
    database.stop();
    service.workers[0].signal("CONT");
    let refused = service.submit(input).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("cannot be stored"), "{}", refused.message());
    until_logged(&service.coordinator.log, "state cannot be stored").await;
    database.resume().unwrap();
    let settled = service.settled(&run).await;
    assert_state(&settled, RunState::Answered);
    assert_close(&answer(&settled), expected, 0.05);
    assert_close(&answer(&service.infer(input).await), expected, 0.05);
}

fn gc(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_shardproof")).args(["gc", "--json"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn what_nobody_needs_is_removed_from_a_service_that_goes_on_and_from_one_that_stopped() {
    let mut service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.infer(input).await;
    let address = service.coordinator.address.clone();
    let at_once = ["--coordinator", address.as_str(), "--keep-runs", "0s", "--keep-artifacts", "0s"];
    let dry = gc(&[&at_once[..], &["--dry-run"]].concat());
    assert_eq!((&dry["runs"], &dry["dry_run"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(
        answer(&service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner()),
        answer(&run)
    );
    // The input as the client sent it, and as it was quantised, and the answer; the same bytes are stored once.
    let removed = gc(&at_once);
    assert_eq!(removed["runs"], 1);
    assert!(removed["artifacts"].as_u64().unwrap() >= 1, "{removed}");
    let gone = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);

    let [coordinator, worker] =
        ["coordinator", "worker0"].map(|name| service.directory.path().join(name).display().to_string());
    let in_use =
        Command::new(env!("CARGO_BIN_EXE_shardproof")).args(["gc", "--data-dir", &coordinator]).output().unwrap();
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use by another process"));
    service.coordinator.kill();
    service.workers[0].kill();
    let offline = gc(&["--data-dir", &coordinator, "--keep-runs", "0s", "--keep-artifacts", "0s"]);
    assert_eq!(offline["runs"], 1);
    // What the worker promised to keep is kept.
    assert_eq!(gc(&["--data-dir", &worker])["spool"]["entries"], 0);
    service.restart_coordinator();
    service.restart_worker(0, &[]);
    service.ready().await;
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
}

#[test]
fn databases_and_stores_of_other_kinds_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().display().to_string();
    for (flag, value, said) in [
        ("--database", "mysql://localhost/x", "--database takes a URL such as postgres://"),
        ("--artifacts", "ftp://host/x", "`ftp://host/x` is no place for artifacts"),
    ] {
        let arguments = strings(&["coordinator", "127.0.0.1", "0", "1", "mlp", "--data-dir", &data, flag, value]);
        let output = Command::new(env!("CARGO_BIN_EXE_shardproof")).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(said), "{errors}");
    }
}
