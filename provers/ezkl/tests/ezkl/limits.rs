//! What ends a call early, and that nothing is left running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shardproof_common::backend::{BackendError, Job, Limits};
use shardproof_ezkl::EzklConfig;
use shardproof_ezkl::steps::Steps;
use tokio_util::sync::CancellationToken;

use crate::support::{config, executable, hashed, real_python, with_job};

/// Names the directory of the process that a test starts and kills.
pub(crate) const DIRECTORY: &str = "SHARDPROOF_TEST_DIRECTORY";

/// A configuration whose children leave their process ids in `directory`.
fn tracked(directory: &Path) -> EzklConfig {
    let pid = directory.join("pid");
    let body = format!(
        "echo $$ > '{0}.draft' && mv '{0}.draft' '{0}'\nexec '{1}' \"$@\"",
        pid.display(),
        real_python().display()
    );
    EzklConfig { python: Some(executable(directory, "python", &body)), ..config() }
}

/// Waits for `condition`, on which a bounded wait is an error.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

fn child_of(directory: &Path) -> Pid {
    let path = directory.join("pid");
    wait_for("the start of ezkl", || path.exists());
    Pid::from_raw(fs::read_to_string(path).unwrap().trim().parse().unwrap())
}

/// A process that has ended but was not awaited by its parent counts as gone.
pub(crate) fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Files of the last shard, and a witness with a value that its table lacks, on which ezkl's prover never ends.
struct Endless {
    files: Vec<PathBuf>,
    witness: PathBuf,
    proof: PathBuf,
}

impl Endless {
    fn new(directory: &Path) -> Self {
        let files: Vec<PathBuf> = ["circuit", "pk", "srs"].map(|name| hashed()[2].files.files[name].clone()).into();
        let (data, witness) = (directory.join("wild.json"), directory.join("wild-witness.json"));
        fs::write(&data, r#"{"input_data": [[0.5, -1000.0, 2.0]]}"#).unwrap();
        with_job(directory, Limits::default(), |job| {
            Steps::new(config()).witness(&data, &files[0], &witness, None, job).unwrap();
        });
        Self { files, witness, proof: directory.join("never.json") }
    }

    fn prove(&self, config: EzklConfig, job: &Job<'_>) -> Result<(), BackendError> {
        let [circuit, pk, srs] = self.files.as_slice() else { panic!("three files") };
        Steps::new(config).prove(&self.witness, circuit, pk, srs, &self.proof, job)
    }
}

#[test]
fn a_hanging_call_ends_at_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let endless = Endless::new(directory.path());
    let limits = Limits { deadline: Some(Duration::from_secs(2)), ..Limits::default() };
    let error = with_job(directory.path(), limits, |job| endless.prove(tracked(directory.path()), job)).unwrap_err();
    assert!(
        matches!(&error, BackendError::Limit(reason) if reason == "prove did not end within the deadline of 2.0 s"),
        "{error}"
    );
    assert!(is_gone(child_of(directory.path())));
}

#[test]
fn a_call_that_computes_nothing_counts_as_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let endless = Endless::new(directory.path());
    let config = EzklConfig { stall: Duration::from_secs(2), ..tracked(directory.path()) };
    let error = with_job(directory.path(), Limits::default(), |job| endless.prove(config, job)).unwrap_err();
    assert!(error.to_string().starts_with("ezkl failed at prove: ezkl is stuck"), "{error}");
    assert!(is_gone(child_of(directory.path())));
}

#[test]
fn a_cancelled_call_ends() {
    let directory = tempfile::tempdir().unwrap();
    let endless = Endless::new(directory.path());
    let cancel = CancellationToken::new();
    let at = |step: &str| {
        if step == "prove" {
            cancel.cancel();
        }
    };
    let job = Job { directory: directory.path(), limits: Limits::default(), cancel: &cancel, progress: &at };
    let error = endless.prove(tracked(directory.path()), &job).unwrap_err();
    assert!(matches!(error, BackendError::Cancelled), "{error}");
    assert!(is_gone(child_of(directory.path())));
}

#[test]
fn a_killed_call_says_limit_and_prediction() {
    let directory = tempfile::tempdir().unwrap();
    let endless = Endless::new(directory.path());
    let config = tracked(directory.path());
    let limits = Limits { memory_bytes: Some(8 << 30), predicted_bytes: Some(3 << 30), ..Limits::default() };
    let error = thread::scope(|scope| {
        let proving = scope.spawn(|| with_job(directory.path(), limits, |job| endless.prove(config, job)).unwrap_err());
        kill(child_of(directory.path()), Signal::SIGKILL).unwrap();
        proving.join().unwrap()
    });
    assert!(matches!(error, BackendError::Limit(_)), "{error}");
    let reason = error.to_string();
    assert!(
        reason.contains("a limit of 8.00 GiB") && reason.contains("the planner had predicted 3.00 GiB"),
        "{reason}"
    );
}

#[test]
fn too_much_memory_ends_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let endless = Endless::new(directory.path());
    // More than the shell takes that leaves the process id, less than any Python.
    let limits = Limits { memory_bytes: Some(4 << 20), predicted_bytes: Some(512 << 10), ..Limits::default() };
    let error = with_job(directory.path(), limits, |job| endless.prove(tracked(directory.path()), job)).unwrap_err();
    let reason = error.to_string();
    assert!(matches!(error, BackendError::Limit(_)), "{reason}");
    assert!(reason.contains("more than its limit of 4.0 MiB; the planner had predicted 0.5 MiB"), "{reason}");
    assert!(is_gone(child_of(directory.path())));
}

#[test]
fn a_child_dies_with_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    hashed();
    let endless = Endless::new(directory.path());
    let [circuit, pk, srs] = endless.files.as_slice() else { panic!("three files") };
    for (from, to) in [(circuit, "circuit"), (pk, "pk"), (srs, "srs")] {
        fs::copy(from, directory.path().join(to)).unwrap();
    }
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limits::proves_without_end_when_started_by_a_test", "--ignored"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = child_of(directory.path());
    wait_for("the start of proving", || directory.path().join("proving").exists());
    assert!(!is_gone(child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the end of the child", || is_gone(child));
}

#[test]
#[ignore = "a helper process of another test"]
fn proves_without_end_when_started_by_a_test() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let files = ["circuit", "pk", "srs"].map(|name| directory.join(name)).into();
    let endless = Endless { files, witness: directory.join("wild-witness.json"), proof: directory.join("never.json") };
    let cancel = CancellationToken::new();
    let at = |step: &str| {
        if step == "prove" {
            fs::write(directory.join("proving"), "").unwrap();
        }
    };
    let limits = Limits { deadline: Some(Duration::from_secs(300)), ..Limits::default() };
    let job = Job { directory: &directory, limits, cancel: &cancel, progress: &at };
    endless.prove(tracked(&directory), &job).unwrap_err();
}
