//! The process that is started ahead of its job.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shardproof_common::backend::{Backend, BackendError, Job, Limits};
use shardproof_ezkl::{EzklBackend, EzklConfig};
use tokio_util::sync::CancellationToken;

use crate::limits::{DIRECTORY, is_gone, wait_for};
use crate::support::{config, executable, hashed, real_python, with_job};

/// A configuration that keeps a process ready, and whose processes add their ids to a list in `directory`.
fn listed(directory: &Path, idle: Duration) -> EzklConfig {
    let body = format!("echo $$ >> '{}'\nexec '{}' \"$@\"", directory.join("pids").display(), real_python().display());
    EzklConfig { python: Some(executable(directory, "python", &body)), keep_warm: Some(idle), ..config() }
}

/// The processes started so far, once there are `count`.
fn started(directory: &Path, count: usize) -> Vec<Pid> {
    let read = || {
        let text = fs::read_to_string(directory.join("pids")).unwrap_or_default();
        text.lines().map(|line| Pid::from_raw(line.parse().unwrap())).collect::<Vec<_>>()
    };
    wait_for("the start of a process", || read().len() >= count);
    read()
}

/// Runs the first shard, and returns whether it gave the known outputs.
fn infer(backend: &EzklBackend, directory: &Path, limits: Limits) -> Result<bool, BackendError> {
    let first = &hashed()[0];
    let outcome = with_job(directory, limits, |job| backend.infer(&first.files, &first.input, job))?;
    Ok(outcome.output == first.inference.output)
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn the_next_job_takes_the_process_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), LONG));
    for jobs in 1..=3 {
        assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
        // One for each job so far, and one for the next.
        let processes = started(directory.path(), jobs + 1);
        assert_eq!(processes.len(), jobs + 1);
        assert!(processes[..jobs].iter().all(|&pid| is_gone(pid)), "a job's process ends with it");
        assert!(!is_gone(processes[jobs]));
    }
    let waiting = started(directory.path(), 4)[3];
    drop(backend);
    wait_for("the end of the process that waited", || is_gone(waiting));
}

#[test]
fn a_process_that_died_while_it_waited_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), LONG));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 2)[1];
    kill(waiting, Signal::SIGKILL).unwrap();
    wait_for("its end", || is_gone(waiting));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    assert_eq!(started(directory.path(), 4).len(), 4, "the one that died was replaced, and the next one started");
}

#[test]
fn a_process_that_cannot_load_ezkl_any_more_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), LONG));
    // The second process to start says that it is another version.
    let lie = r#"echo '{"ready": true, "version": "0"}'; printf '\036end of call\n' >&2; exec cat"#;
    let pids = directory.path().join("pids");
    let body = format!(
        "echo $$ >> '{0}'\nif [ $(wc -l < '{0}') -eq 2 ]; then {lie}; fi\nexec '{1}' \"$@\"",
        pids.display(),
        real_python().display()
    );
    executable(directory.path(), "python", &body);
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    started(directory.path(), 2);
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    assert_eq!(started(directory.path(), 4).len(), 4);
}

#[test]
fn a_process_that_nobody_wants_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), Duration::from_millis(300)));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 2)[1];
    wait_for("the end of the process that waited", || is_gone(waiting));
    // Awaited as well: nothing is left of it.
    wait_for("its burial", || !Path::new(&format!("/proc/{waiting}")).exists());
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
}

#[test]
fn limits_and_cancellation_hold_for_a_process_that_waited() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), LONG));
    let first = &hashed()[0];
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    started(directory.path(), 2);
    let late = infer(&backend, directory.path(), Limits { deadline: Some(Duration::ZERO), ..Limits::default() });
    assert!(matches!(&late, Err(BackendError::Limit(reason)) if reason.contains("deadline")), "{late:?}");
    assert!(is_gone(started(directory.path(), 2)[1]), "the job that failed took it");

    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 4)[3];
    let large = infer(&backend, directory.path(), Limits { memory_bytes: Some(1 << 20), ..Limits::default() });
    assert!(matches!(&large, Err(BackendError::Limit(reason)) if reason.contains("of memory")), "{large:?}");
    assert!(is_gone(waiting));

    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 6)[5];
    let cancel = CancellationToken::new();
    let at = |step: &str| {
        if step == "witness" {
            cancel.cancel();
        }
    };
    let job = Job { directory: directory.path(), limits: Limits::default(), cancel: &cancel, progress: &at };
    let cancelled = backend.infer(&first.files, &first.input, &job);
    assert!(matches!(cancelled, Err(BackendError::Cancelled)), "{cancelled:?}");
    assert!(is_gone(waiting));
    assert_eq!(started(directory.path(), 6).len(), 6, "a job that failed prepares nothing");
}

#[test]
fn nothing_that_waits_outlives_this_process() {
    hashed();
    for how in ["returns", "is killed"] {
        let directory = tempfile::tempdir().unwrap();
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "warm::keeps_a_process_ready_when_started_by_a_test", "--ignored"])
            .env(DIRECTORY, directory.path())
            .env("SHARDPROOF_TEST_ENDS", how)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the helper's job", || directory.path().join("done").exists());
        let waiting = started(directory.path(), 2)[1];
        if how == "is killed" {
            assert!(!is_gone(waiting));
            parent.kill().unwrap();
        }
        parent.wait().unwrap();
        wait_for("the end of the process that waited", || is_gone(waiting));
    }
}

#[test]
#[ignore = "a helper process of another test"]
fn keeps_a_process_ready_when_started_by_a_test() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(std::path::PathBuf::from) else { return };
    // As a static of a program that ends: never dropped.
    let backend = Box::leak(Box::new(EzklBackend::new(listed(&directory, LONG))));
    assert!(infer(backend, &directory, Limits::default()).unwrap());
    fs::write(directory.join("done"), "").unwrap();
    let started = Instant::now();
    while std::env::var("SHARDPROOF_TEST_ENDS").as_deref() == Ok("is killed") {
        assert!(started.elapsed() < LONG, "nobody killed this process");
        std::thread::sleep(Duration::from_millis(20));
    }
}
