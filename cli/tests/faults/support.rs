//! What every test of faults needs: programs that hold where they are told to, and a service that leaves nothing behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shardproof_common::tensor::FloatTensor;
use shardproof_proto::v1::{GetRequest, Run, RunState};

use crate::cluster::{PATIENCE, Program, Service, answer, assert_close, assert_state, verify_bundle};

/// The smallest network that is worth proving: 4-4-4-2, up to three shards.
pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

pub(crate) fn tiny_input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

/// Waits until `holds`, and fails with what `explain` says if it never does.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool, explain: impl Fn() -> String) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not so: {what}; {}", explain());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a program has logged `text`.
pub(crate) async fn logged(program: &Program, text: &str) {
    eventually(text, || program.logged().contains(text), || program.logged()).await;
}

/// Waits until a program that was started with `--hold-at STAGE` is there.
pub(crate) async fn holding(program: &Program, stage: &str) {
    logged(program, &format!("holding at {stage}")).await;
}

/// Waits until the run is as described.
pub(crate) async fn run_until(service: &Service, run: &Run, what: &str, holds: impl Fn(&Run) -> bool) -> Run {
    let started = Instant::now();
    loop {
        let now = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
        if holds(&now) {
            return now;
        }
        assert!(started.elapsed() < PATIENCE, "not so: {what}: {now:?}; {}", service.coordinator.logged());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Proves every shard of an answered run and checks its bundle as anyone else would.
pub(crate) async fn proves(service: &Service, run: &Run, input: Vec<FloatTensor>) {
    // Its answer may have been in when the coordinator that was asked for it ended.
    service.ready().await;
    service.prove(run, &[]).await.unwrap();
    verifies(service, run, input).await;
}

/// Waits for proofs that were requested and checks the bundle.
pub(crate) async fn verifies(service: &Service, run: &Run, input: Vec<FloatTensor>) {
    let run = service.settled(run).await;
    assert_state(&run, RunState::Verified);
    let report = verify_bundle(service, &run, input).await;
    assert!(report.is_verified(), "{report}");
    assert_close(&report.outputs.unwrap(), &answer(&run), 0.0);
}

/// Most memory that a program has had resident so far, bytes.
pub(crate) fn peak_rss(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Ends every program by SIGTERM. Each ends as it should, and no file is left half written.
pub(crate) async fn ends_clean(mut service: Service) {
    let Service { workers, coordinator, .. } = &mut service;
    for program in workers.iter_mut().chain([coordinator]) {
        if program.child.try_wait().unwrap().is_none() {
            program.signal("TERM");
            assert_eq!(ended(program).await, Some(0), "{}", program.logged());
        }
    }
    let left = half_files(service.directory.path());
    assert!(left.is_empty(), "left half done: {left:?}");
}

/// The exit code of a program that is to end. The test's connections are attended to meanwhile: servers wait for them.
pub(crate) async fn ended(program: &mut Program) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = program.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(started.elapsed() < PATIENCE, "did not stop: {}", program.logged());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Files that were being written, transferred or worked on.
pub(crate) fn half_files(directory: &Path) -> Vec<PathBuf> {
    let unfinished = |path: &Path| {
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        parent == "scratch" || parent == "partial" || name.starts_with(b".")
    };
    let mut left = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if unfinished(&path) {
            left.push(path);
        } else if path.is_dir() {
            left.extend(half_files(&path));
        }
    }
    left
}
