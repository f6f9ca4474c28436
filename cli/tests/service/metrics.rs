//! What programs tell Prometheus about themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Duration;

use shardproof_proto::v1::RunState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{PATIENCE, Service, assert_state, fails, samples};

/// An address that nobody listens at just now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The values of all metrics, by name and labels; each of ours has to say what it is.
async fn scrape(address: &str) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let helped: BTreeSet<&str> =
        answer.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let typed = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    typed.for_each(|name| assert!(helped.contains(name), "{name} has no help in {answer}"));
    let samples = answer.lines().filter(|line| line.starts_with("shardproof_"));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

/// Scrapes until a gauge, which is set from time to time, has this value.
async fn until(address: &str, gauge: &str, value: f64) -> BTreeMap<String, f64> {
    let reached = async {
        loop {
            let found = scrape(address).await;
            if found.get(gauge) == Some(&value) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{gauge} is never {value}"))
}

#[tokio::test]
async fn programs_count_and_time_what_they_do() {
    let [of_coordinator, of_first, of_spare] = [free_address(), free_address(), free_address()];
    let mut service = Service::start("mlp", &["LAST"], 2, &["--metrics", &of_coordinator]);
    until(&of_coordinator, r#"shardproof_shards{state="vacant"}"#, 1.0).await;
    service.add_worker("FIRST", &["--metrics", &of_first]);
    service.add_worker("FIRST", &["--metrics", &of_spare]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    assert_state(&run, RunState::Answered);
    service.prove(&run, &[]).await.unwrap();
    assert_state(&service.settled(&run).await, RunState::Verified);

    until(&of_coordinator, "shardproof_spares", 1.0).await;
    // A run's end is seen before its workers' records are.
    let found = until(&of_coordinator, r#"shardproof_worker_events_total{event="proved"}"#, 2.0).await;
    let expected = [
        (r#"shardproof_runs_total{state="submitted"}"#, 1.0),
        (r#"shardproof_runs_total{state="answered"}"#, 1.0),
        (r#"shardproof_runs_total{state="verified"}"#, 1.0),
        (r#"shardproof_proofs_total{state="requested"}"#, 2.0),
        (r#"shardproof_proofs_total{state="verified"}"#, 2.0),
        ("shardproof_run_seconds_count", 1.0),
        ("shardproof_prove_seconds_count", 2.0),
        ("shardproof_verify_seconds_count", 2.0),
        ("shardproof_database_away", 0.0),
        ("shardproof_serving", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
    assert!(found["shardproof_run_seconds_sum"] > 0.0 && found["shardproof_prove_seconds_sum"] > 0.0, "{found:#?}");
    let found = until(&of_coordinator, r#"shardproof_shards{state="ready"}"#, 2.0).await;
    assert!(found["shardproof_received_bytes_total"] > 0.0 && found["shardproof_sent_bytes_total"] > 0.0);

    until(&of_first, "shardproof_ready", 1.0).await;
    let found = until(&of_first, r#"shardproof_proofs_total{outcome="made"}"#, 1.0).await;
    let expected = [
        (r#"shardproof_runs_total{outcome="passed"}"#, 1.0),
        ("shardproof_shard_seconds_count", 1.0),
        ("shardproof_prove_seconds_count", 1.0),
        ("shardproof_joined", 1.0),
        ("shardproof_assigned", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
    assert!(found["shardproof_spool_limit_bytes"] > 0.0 && found["shardproof_queue_free"] > 0.0, "{found:#?}");
    let found = until(&of_spare, "shardproof_joined", 1.0).await;
    assert_eq!((found["shardproof_assigned"], found["shardproof_ready"]), (0.0, 0.0), "a spare lacks nothing");

    // A shard that was loaded for a coordinator that is gone is not one that is assigned.
    service.coordinator.kill();
    until(&of_first, "shardproof_joined", 0.0).await;
    let found = until(&of_first, "shardproof_ready", 0.0).await;
    assert_eq!(found["shardproof_assigned"], 0.0, "{found:#?}");
}

#[tokio::test]
async fn a_proof_that_was_made_before_is_not_counted_again() {
    let mut service = Service::start("mlp", &[], 1, &[]);
    service.add_worker("SOLO", &["--hold-at", "after-proof"]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    service.prove(&run, &[]).await.unwrap();
    service.workers[0].until_logged("holding at after-proof");
    service.workers[0].kill();
    let address = free_address();
    service.restart_worker(0, &["--metrics", &address]);
    assert_state(&service.settled(&run).await, RunState::Verified);
    let counted: Vec<String> = scrape(&address).await.into_keys().filter(|name| name.contains("proofs")).collect();
    assert_eq!(counted, <[String; 0]>::default());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("w").display().to_string();
    let worker = ["worker", "127.0.0.1", "0", "127.0.0.1", "1", "SOLO", "--data-dir", &data, "--metrics", &address];
    let (code, said) = fails(&worker);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("--metrics {address}: ")) && said.contains("in use"), "{said}");
}
