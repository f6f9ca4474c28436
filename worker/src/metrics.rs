//! What a worker counts and times for those who watch it.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardproof_proto::transport::metrics::{SAMPLE, note_traffic};
use shardproof_proto::transport::traffic::Traffic;

use crate::Worker;

const RUNS: &str = "shardproof_runs_total";
const SHARD_SECONDS: &str = "shardproof_shard_seconds";
const PROOFS: &str = "shardproof_proofs_total";
const PROVE_SECONDS: &str = "shardproof_prove_seconds";
const QUEUE_FREE: &str = "shardproof_queue_free";
const SPOOL_BYTES: &str = "shardproof_spool_bytes";
const SPOOL_LIMIT: &str = "shardproof_spool_limit_bytes";
const JOINED: &str = "shardproof_joined";
const ASSIGNED: &str = "shardproof_assigned";
const READY: &str = "shardproof_ready";

/// Says what each metric is.
pub(crate) fn describe() {
    describe_counter!(RUNS, "Runs that were passed on, and that failed here");
    describe_histogram!(SHARD_SECONDS, "From a run's arrival to its receipt");
    describe_counter!(PROOFS, "Proofs that were made, and that could not be; of runs proven together, each");
    describe_histogram!(PROVE_SECONDS, "What each of the proofs that were made took");
    describe_gauge!(QUEUE_FREE, "Runs that would be taken at once");
    describe_gauge!(SPOOL_BYTES, "Bytes that spooled runs take");
    describe_gauge!(SPOOL_LIMIT, "Bytes that they may take");
    describe_gauge!(JOINED, "1 while the coordinator is there");
    describe_gauge!(ASSIGNED, "1 while it is there and has given this worker a shard, 0 for a spare");
    describe_gauge!(READY, "1 while that shard is loaded");
    note_session(false);
}

/// Notes whether the coordinator knows this worker.
pub(crate) fn note_session(joined: bool) {
    gauge!(JOINED).set(f64::from(u8::from(joined)));
}

/// Times a run on its way through the shard, up to its receipt.
pub(crate) fn note_shard(elapsed: Duration) {
    histogram!(SHARD_SECONDS).record(elapsed);
}

/// Counts a run that left the shard.
pub(crate) fn note_run(passed: bool) {
    counter!(RUNS, "outcome" => if passed { "passed" } else { "failed" }).increment(1);
}

/// Counts a run's proof, and times it where one was made.
pub(crate) fn note_proof(took: Option<Duration>) {
    counter!(PROOFS, "outcome" => if took.is_some() { "made" } else { "failed" }).increment(1);
    if let Some(took) = took {
        histogram!(PROVE_SECONDS).record(took);
    }
}

/// Notes from time to time how things stand, until the program ends.
pub(crate) async fn sample(worker: Arc<Worker>, traffic: Traffic) {
    let mut ticks = tokio::time::interval(SAMPLE);
    loop {
        ticks.tick().await;
        note_traffic(&traffic);
        let (used, limit) = worker.spool.usage();
        gauge!(QUEUE_FREE).set(worker.queue.available_permits() as f64);
        gauge!(SPOOL_BYTES).set(used as f64);
        gauge!(SPOOL_LIMIT).set(limit as f64);
        let assigned = worker.assigned.borrow().clone();
        let is_ready = worker.shard.borrow().as_ref().is_some_and(|held| Some(&held.assignment) == assigned.as_ref());
        gauge!(ASSIGNED).set(f64::from(u8::from(assigned.is_some())));
        gauge!(READY).set(f64::from(u8::from(is_ready)));
    }
}
