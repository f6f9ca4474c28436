//! The process that is started ahead of its job.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shardproof_common::backend::{Backend, BackendError, Job, Limits, ProofVerifier, VerifyRequest};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier, KeepWarm};
use tokio_util::sync::CancellationToken;

use crate::limits::{DIRECTORY, is_gone, wait_for};
use crate::support::{config, executable, hashed, real_python, with_job};

/// A configuration that keeps a process ready, and whose processes add their ids to a list in `directory`.
fn listed(directory: &Path, keep: KeepWarm) -> EzklConfig {
    let body = format!("echo $$ >> '{}'\nexec '{}' \"$@\"", directory.join("pids").display(), real_python().display());
    EzklConfig { python: Some(executable(directory, "python", &body)), keep_warm: Some(keep), ..config() }
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
/// A process waits longer than any test, whatever it holds.
const SAME: KeepWarm = KeepWarm { idle: LONG, memory_bytes: u64::MAX };
/// A new process waits after every job.
const NEW: KeepWarm = KeepWarm { idle: LONG, memory_bytes: 0 };

#[test]
fn one_process_serves_job_after_job() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), SAME));
    let first = &hashed()[0];
    for _ in 0..3 {
        assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    }
    let prove = |job: &Job<'_>| backend.prove(&first.files, &first.input, &first.statement, job).unwrap();
    let proof = with_job(directory.path(), Limits::default(), prove);
    let verdict = with_job(directory.path(), Limits::default(), |job| {
        EzklVerifier::new(config()).verify(&VerifyRequest { proof: &proof.bytes, ..first.request() }, job)
    });
    verdict.unwrap();
    let processes = started(directory.path(), 1);
    assert_eq!(processes.len(), 1);
    assert!(!is_gone(processes[0]));
    drop(backend);
    wait_for("the end of the process that waited", || is_gone(processes[0]));
}

#[test]
fn every_proof_is_verified_by_a_new_process() {
    let directory = tempfile::tempdir().unwrap();
    let verifier = EzklVerifier::new(listed(directory.path(), SAME));
    for jobs in 1..=3 {
        with_job(directory.path(), Limits::default(), |job| verifier.verify(&hashed()[0].request(), job)).unwrap();
        let processes = started(directory.path(), jobs + 1);
        assert_eq!(processes.len(), jobs + 1, "one for each job so far, and one for the next");
        assert!(processes[..jobs].iter().all(|&pid| is_gone(pid)));
    }
}

#[test]
fn a_process_that_holds_too_much_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), NEW));
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
    let backend = EzklBackend::new(listed(directory.path(), SAME));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 1)[0];
    kill(waiting, Signal::SIGKILL).unwrap();
    wait_for("its end", || is_gone(waiting));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    assert_eq!(started(directory.path(), 2).len(), 2);
}

#[test]
fn a_process_that_cannot_load_ezkl_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), NEW));
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
    let keep = KeepWarm { idle: Duration::from_millis(300), ..SAME };
    let backend = EzklBackend::new(listed(directory.path(), keep));
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    let waiting = started(directory.path(), 1)[0];
    // Awaited as well: nothing is left of it.
    wait_for("its end", || !Path::new(&format!("/proc/{waiting}")).exists());
    assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
    assert_eq!(started(directory.path(), 2).len(), 2);
}

#[test]
fn limits_and_cancellation_hold_for_a_process_that_waited() {
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(listed(directory.path(), SAME));
    let first = &hashed()[0];
    let cancel = CancellationToken::new();
    let at = |step: &str| {
        if step == "witness" {
            cancel.cancel();
        }
    };
    let cancelled = Job { directory: directory.path(), limits: Limits::default(), cancel: &cancel, progress: &at };
    let late = || infer(&backend, directory.path(), Limits { deadline: Some(Duration::ZERO), ..Limits::default() });
    let large = || infer(&backend, directory.path(), Limits { memory_bytes: Some(1 << 20), ..Limits::default() });
    let stop = || backend.infer(&first.files, &first.input, &cancelled).map(|_| true);
    type Fail<'a> = &'a dyn Fn() -> Result<bool, BackendError>;
    let failures: [(&str, Fail<'_>); 3] = [("deadline", &late), ("of memory", &large), ("cancelled", &stop)];
    for (index, (reason, fail)) in failures.into_iter().enumerate() {
        assert!(infer(&backend, directory.path(), Limits::default()).unwrap());
        let processes = started(directory.path(), index + 1);
        assert_eq!(processes.len(), index + 1, "the last job that failed left nothing to take");
        assert!(!is_gone(processes[index]));
        let error = fail().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(is_gone(processes[index]), "the job that failed took the one that waited with it");
    }
    assert_eq!(started(directory.path(), 3).len(), 3, "a job that failed prepares nothing");
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
        let waiting = started(directory.path(), 1)[0];
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
    let backend = Box::leak(Box::new(EzklBackend::new(listed(&directory, SAME))));
    assert!(infer(backend, &directory, Limits::default()).unwrap());
    fs::write(directory.join("done"), "").unwrap();
    let started = Instant::now();
    while std::env::var("SHARDPROOF_TEST_ENDS").as_deref() == Ok("is killed") {
        assert!(started.elapsed() < LONG, "nobody killed this process");
        std::thread::sleep(Duration::from_millis(20));
    }
}
