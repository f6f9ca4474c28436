//! The network between neighbours: parted without a close, and slow.

use shardproof_proto::v1::{Run, RunState};

use crate::cluster::{Service, answer, assert_close, assert_state, samples};
use crate::relay::{Relay, Traffic};
use crate::support::{ends_clean, eventually, logged, peak_rss};

const FLOAT: &[&str] = &["--backend", "float"];

/// Two workers with a relay between them.
async fn parted_service(model: &str, first: &[&str], last: &[&str]) -> (Service, Relay) {
    let relay = Relay::start().await;
    let mut service = Service::start(model, &[], 2, FLOAT);
    service.add_worker("FIRST", first);
    service.add_worker("LAST", &[&["--advertise", relay.address.as_str()], last].concat());
    relay.lead_to(&service.workers[1].address);
    service.ready().await;
    (service, relay)
}

#[tokio::test]
async fn a_parted_hop_fails_the_run_in_time_and_is_named() {
    let (service, relay) = parted_service("mlp", &["--hop-deadline", "2"], &[]).await;
    let (input, expected) = &samples("mlp")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);

    relay.set(Traffic::Parted);
    let failed = service.infer(input).await;
    assert_state(&failed, RunState::Failed);
    assert!(failed.reason.contains("boundary 1 did not get from shard 0 to shard 1"), "{}", failed.reason);
    assert_eq!((failed.blamed_shard, failed.blamed_worker.as_str()), (Some(0), ""), "either end may be cut off");

    relay.set(Traffic::Open);
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_parted_first_hop_fails_the_run_in_time_and_is_named() {
    let relay = Relay::start().await;
    let mut service = Service::start("mlp", &[], 1, &["--backend", "float", "--hop-deadline", "2"]);
    service.add_worker("SOLO", &["--advertise", relay.address.as_str()]);
    relay.lead_to(&service.workers[0].address);
    service.ready().await;
    relay.set(Traffic::Parted);
    let (input, expected) = &samples("mlp")[0];
    let failed = service.infer(input).await;
    assert_state(&failed, RunState::Failed);
    assert!(failed.reason.contains("the worker of shard 0"), "{}", failed.reason);
    relay.set(Traffic::Open);
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    ends_clean(service).await;
}

#[tokio::test]
async fn a_slow_consumer_holds_the_runs_back_and_loses_none() {
    const RUNS: usize = 24;
    /// Bytes that pass with each run, no less.
    const BOUNDARY: u64 = 160_000;
    /// Bytes per second: a boundary takes half a second, far longer than it takes to compute.
    const RATE: u64 = 320_000;
    /// What the sender may hold besides what it needs to run its shard: a few boundaries, not those of all runs.
    const QUEUE: &str = "2";
    let (service, relay) = parted_service("attention", &["--queue", QUEUE, "--hop-deadline", "60"], &[]).await;
    let samples = samples("attention");
    let (input, expected) = &samples[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-4);
    let idle = peak_rss(&service.workers[0]);

    relay.set(Traffic::Slow(RATE));
    let (before, mut runs) = (relay.carried(), Vec::new());
    for _ in 0..RUNS {
        runs.push(service.submit(input).await.unwrap());
    }
    eventually("a boundary is half way", || relay.carried() > before + BOUNDARY / 2, || service.workers[0].logged())
        .await;
    let spooled = std::fs::read_dir(service.worker_data(0).join("spool")).unwrap().count() as u64;
    // Those that were passed on while the others were submitted stay in the spool.
    let passed = (relay.carried() - before) / BOUNDARY;
    assert!(spooled <= passed + 2 + 4, "{spooled} runs came to the first worker, {passed} left; it may queue {QUEUE}");
    relay.set(Traffic::Open);
    let ended: Vec<Run> = futures::future::join_all(runs.iter().map(|run| service.settled(run))).await;
    for run in &ended {
        assert_state(run, RunState::Answered);
        assert_close(&answer(run), expected, 1e-4);
    }
    let grown = peak_rss(&service.workers[0]).saturating_sub(idle);
    assert!(grown < 64 << 20, "the first worker grew by {grown} bytes");
    logged(&service.workers[1], "passed on").await;
    ends_clean(service).await;
}
