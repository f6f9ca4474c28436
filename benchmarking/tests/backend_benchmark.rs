//! `backend_benchmark` with the native systems, and with adapters that do wrong in every way that there is a rule against.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long something may take that takes no time.
const SOON: Duration = Duration::from_secs(30);

const PREPARE: &str = r#"
: > "$BENCH_WORK/pk"; printf 12345 > "$BENCH_WORK/pk"; printf 123 > "$BENCH_WORK/vk"
echo noise
echo '{"setup_ms": 4.5, "proving_key": ["pk"], "verifying_key": ["vk"]}'
"#;
/// A proof is a copy of the claim, which is of no value to anyone but shows whether the claim was changed.
const PROVE: &str = r#"
echo '{"public": ["9", "-10", "9", "0"], "inputs": 3}' > "$BENCH_WORK/claim.json"
cp "$BENCH_WORK/claim.json" "$BENCH_WORK/proof"
echo '{"witness_ms": 0.5, "prove_ms": 1.5, "witness": [], "proof": ["proof"], "output": [0.25]}'
"#;
const VERIFY: &str = r#"
grep -q '"9","-9","9","0"' "$BENCH_WORK/claim.json" && changed=false || changed=true
echo "{\"verify_ms\": 2.5, \"accepted\": $changed}"
"#;

/// An adapter in a folder of its own, whose steps are shell scripts.
struct Adapter {
    folder: TempDir,
}

impl Adapter {
    fn new(prepare: &str, prove: &str, verify: &str) -> Self {
        let adapter = Self { folder: tempfile::tempdir().unwrap() };
        for (step, script) in [("prepare", prepare), ("prove", prove), ("verify", verify)] {
            fs::write(adapter.path(step), script).unwrap();
        }
        adapter.write_manifest("", "true");
        adapter
    }

    /// With `line` among the steps and a program that must exit with 0.
    fn write_manifest(&self, line: &str, require: &str) {
        let manifest = format!(
            r#"
name = "fake"
about = "shell scripts that prove nothing"
[conditions]
arithmetisation = "none"
field = "none"
commitment = "none"
security = "none"
setup = "none"
zero_knowledge = false
weights = "bound to nothing"
platforms = "POSIX"
formats = "ONNX"
[require]
command = ["sh", "-c", "{require}"]
remedy = "do something about it"
[steps]
{line}
prepare = ["sh", "prepare"]
prove = ["sh", "prove"]
verify = ["sh", "verify"]
"#
        );
        fs::write(self.path("adapter.toml"), manifest).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The benchmark of one model with one output on an adapter and no other system but those of `arguments`.
fn benchmark(adapter: &Adapter, out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend_benchmark"));
    command.args(["mlp784", "--json", "--out"]).arg(out).arg("--adapter").arg(adapter.folder.path());
    command.args(arguments).env("SHARDPROOF_CACHE_DIR", adapter.path("cache"));
    if !arguments.contains(&"--systems") {
        command.arg("--systems=");
    }
    command
}

fn object(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// The status of the adapter's only row, and whether the benchmark exited with 0.
fn status(adapter: &Adapter, arguments: &[&str]) -> (String, bool) {
    let out = tempfile::tempdir().unwrap();
    let output = benchmark(adapter, out.path(), arguments).output().unwrap();
    let found = object(&output);
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "a system is never left out");
    assert_eq!(rows[0]["prove_ms_median"], Value::Null, "no figure of what is not ok");
    let csv = fs::read_to_string(out.path().join("backends.csv")).unwrap();
    assert!(csv.contains("fake"), "{csv}");
    (rows[0]["status"].as_str().unwrap().to_owned(), output.status.success())
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < SOON, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that scripts wrote down in a file, one id a line.
fn processes(file: &Path) -> Vec<i32> {
    fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn is_alive(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the name in brackets; a zombie is dead.
    status.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn native_systems_and_an_adapter_take_turns() {
    let adapter = Adapter::new(PREPARE, PROVE, VERIFY);
    let out = tempfile::tempdir().unwrap();
    let arguments = ["--systems", "gkr-committed,gkr-public", "--repeats", "2", "--num-threads", "1", "mlp:2,8"];
    let output = benchmark(&adapter, out.path(), &arguments).output().unwrap();
    let found = object(&output);
    // The second model has ten outputs, which the adapter doesn't give.
    assert_eq!(output.status.code(), Some(1));
    let rows = found["rows"].as_array().unwrap();
    let brief: Vec<_> = rows.iter().map(|row| [&row["model"], &row["system"], &row["passes"]]).collect();
    let wanted = serde_json::json!([
        ["mlp784", "gkr-committed", 2],
        ["mlp784", "gkr-public", 2],
        ["mlp784", "fake", 2],
        ["mlp:2,8", "gkr-committed", 2],
        ["mlp:2,8", "gkr-public", 2],
        ["mlp:2,8", "fake", 0]
    ]);
    assert_eq!(serde_json::to_value(brief).unwrap(), wanted);
    for row in &rows[..5] {
        assert_eq!((&row["status"], &row["control"]), (&"ok".into(), &"rejected".into()), "{row}");
        assert_eq!(row["threads"], 1);
    }
    assert!(rows[5]["status"].as_str().unwrap().contains("an answer of 1 values, the model has 10"));
    for row in [&rows[0], &rows[1], &rows[3], &rows[4]] {
        let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("no {name}: {row}"));
        for name in ["setup_ms", "witness_ms_median", "prove_ms_median", "verify_ms_median", "verifying_key_bytes"] {
            assert!(figure(name) > 0.0, "{name}");
        }
        for name in ["setup_peak_bytes", "prove_peak_bytes", "verify_peak_bytes"] {
            assert!(figure(name) > 1e6, "{name} {}", figure(name));
        }
        assert!(figure("prove_wall_ms_min") >= figure("prove_ms_min") && figure("proof_bytes") > 1000.0);
        assert!(figure("max_abs_error") < 0.1);
        // One answer of one value has no range that an error could be relative to.
        assert_eq!(row["relative_rmse"].is_number(), row["model"] == "mlp:2,8");
    }
    let fake = &rows[2];
    assert_eq!(
        (&fake["setup_ms"], &fake["prove_ms_median"], &fake["verify_ms_max"]),
        (&4.5.into(), &1.5.into(), &2.5.into())
    );
    assert_eq!((&fake["proving_key_bytes"], &fake["verifying_key_bytes"]), (&5.into(), &3.into()));

    let order: Vec<_> = found["passes"].as_array().unwrap().iter().map(|pass| pass["system"].clone()).collect();
    assert_eq!(order.len(), 10);
    let conditions: Value = serde_json::from_slice(&fs::read(out.path().join("conditions.json")).unwrap()).unwrap();
    assert_eq!(conditions["systems"][0]["zero_knowledge"], false);
    assert!(conditions["machine"]["cores"].as_u64().unwrap() > 0);
    assert_eq!(conditions["models"], serde_json::json!(["mlp784", "mlp:2,8"]), "whose conditions they are");
    assert!(conditions["systems"][0]["verify"].as_str().unwrap().contains("opening of the weights"));
    assert_eq!(conditions["systems"][2]["verify"], "", "the adapter does not say");
    for plot in ["prove_time.svg", "verify_time.png", "proof_size.svg", "peak_memory.png"] {
        assert!(out.path().join(plot).is_file(), "{plot}");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let second_round: Vec<&str> =
        said.lines().filter(|line| line.contains("mlp784") && line.contains("2 of 2")).collect();
    assert!(second_round[0].contains("gkr-public") && second_round[2].contains("gkr-committed"), "{second_round:?}");
}

#[test]
fn a_control_that_is_accepted_is_a_failure() {
    let adapter = Adapter::new(PREPARE, PROVE, r#"echo '{"verify_ms": 1, "accepted": true}'"#);
    let (status, success) = status(&adapter, &[]);
    assert!(status.starts_with("failed: the control was accepted"), "{status}");
    assert!(!success);
}

#[test]
fn a_control_that_is_not_judged_is_a_failure() {
    let verify = VERIFY.replace("changed=false", "{ echo lost >&2; exit 3; }");
    let (status, _) = status(&Adapter::new(PREPARE, PROVE, &verify), &[]);
    assert!(status.contains("was not judged: verify exited with 3: lost"), "{status}");
}

#[test]
fn a_proof_that_its_own_system_rejects_is_a_failure() {
    let adapter = Adapter::new(PREPARE, PROVE, r#"echo '{"verify_ms": 1, "accepted": false}'"#);
    assert_eq!(status(&adapter, &[]).0, "failed: the system rejects its own proof");
}

#[test]
fn rubbish_and_crashes_are_failures_with_what_was_said() {
    for (prepare, prove, wanted) in [
        ("echo done", PROVE, "failed: prepare printed \"done\" as its last line, expected {\"setup_ms\""),
        ("true", PROVE, "failed: prepare printed \"\" as its last line"),
        ("echo first >&2; echo out of luck >&2; exit 7", PROVE, "failed: prepare exited with 7: first | out of luck"),
        ("kill -SEGV $$", PROVE, "failed: prepare was ended by signal 11"),
        (PREPARE, "echo '{\"witness_ms\": 0, \"prove_ms\": 1}'", "failed: prove printed"),
        (PREPARE, &PROVE.replace("\"inputs\": 3", "\"inputs\": 9"), "`inputs` is 9, but there are 4 public values"),
        (PREPARE, &PROVE.replace("[\"proof\"]", "[\"../../secret\"]"), "leads out of the step's directory"),
        (PREPARE, &PROVE.replace("[\"proof\"]", "[\"nothing\"]"), "the file nothing"),
    ] {
        let (status, success) = status(&Adapter::new(prepare, prove, VERIFY), &[]);
        assert!(status.contains(wanted), "{status}");
        assert!(!success);
    }
}

#[test]
fn what_a_system_cannot_do_is_no_failure() {
    let adapter = Adapter::new(r#"echo '{"unsupported": "operator Gemm (node fc1)"}'"#, PROVE, VERIFY);
    assert_eq!(status(&adapter, &[]), ("unsupported: operator Gemm (node fc1)".to_owned(), true));
}

#[test]
fn what_is_not_installed_is_skipped_with_the_remedy() {
    let adapter = Adapter::new(PREPARE, PROVE, VERIFY);
    adapter.write_manifest("", "echo no such thing >&2; exit 1");
    assert_eq!(status(&adapter, &[]), ("skipped: no such thing; do something about it".to_owned(), true));
    adapter.write_manifest(r#"install = ["sh", "-c", "echo offline >&2; exit 1"]"#, "true");
    assert_eq!(status(&adapter, &[]), ("skipped: install exited with 1: offline".to_owned(), true));
    adapter.write_manifest(r#"install = ["no-such-program"]"#, "true");
    let (status, _) = status(&adapter, &[]);
    assert!(status.contains("no-such-program: cannot be started"), "{status}");
}

#[test]
fn ezkl_without_python_is_skipped() {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend_benchmark"));
    command.args(["--systems", "ezkl", "--json", "--out"]).arg(out.path());
    let output = command.env("SHARDPROOF_PYTHON", out.path().join("no-python")).output().unwrap();
    let status = object(&output)["rows"][0]["status"].as_str().unwrap().to_owned();
    assert!(status.starts_with("skipped: ") && status.contains("install Python"), "{status}");
    assert!(output.status.success());
}

#[test]
fn what_hangs_is_ended_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    let prove = format!("echo $$ >> {ids}; sleep 600 & echo $! >> {ids}; wait", ids = ids.display());
    let (status, success) = status(&Adapter::new(PREPARE, &prove, VERIFY), &["--time-limit", "1"]);
    assert_eq!(status, "failed: prove did not end within the time limit of 1 s");
    assert!(!success);
    let processes = processes(&ids);
    assert_eq!(processes.len(), 2);
    wait_for("the end of what hung", || !processes.iter().any(|&process| is_alive(process)));
}

#[test]
fn what_a_step_leaves_behind_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    let prepare = format!("sleep 600 & echo $! >> {}\n{PREPARE}", ids.display());
    let adapter = Adapter::new(&prepare, PROVE, VERIFY);
    let out = tempfile::tempdir().unwrap();
    let output = benchmark(&adapter, out.path(), &["--repeats", "1"]).output().unwrap();
    assert_eq!(object(&output)["rows"][0]["status"], "ok");
    let processes = processes(&ids);
    assert_eq!(processes.len(), 1);
    wait_for("the end of what was left behind", || !is_alive(processes[0]));
}

#[test]
fn memory_beyond_the_limit_is_a_failure() {
    let prepare = format!("b=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60\n{PREPARE}");
    let (status, _) = status(&Adapter::new(&prepare, PROVE, VERIFY), &["--memory-limit", "100M"]);
    assert_eq!(status, "failed: prepare took more memory than the limit of 100 MiB");
}

#[test]
fn ezkl_is_not_tried_where_the_prediction_is_beyond_the_limit() {
    let adapter = Adapter::new(PREPARE, PROVE, VERIFY);
    adapter.write_manifest("", "true");
    let out = tempfile::tempdir().unwrap();
    // A Python that only says its version: nothing else may be asked of it.
    let python = adapter.path("python");
    fs::write(&python, "#!/bin/sh\n[ \"$1\" = --version ]\n").unwrap();
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(adapter.path("cache").join(format!("ezkl-{}/ezkl", shardproof_ezkl::VERSION))).unwrap();
    let arguments = ["--systems", "ezkl", "--memory-limit", "30M", "--repeats", "1"];
    let output = benchmark(&adapter, out.path(), &arguments).env("SHARDPROOF_PYTHON", &python).output().unwrap();
    let status = object(&output)["rows"][0]["status"].as_str().unwrap().to_owned();
    assert!(status.starts_with("skipped: predicted ") && status.contains("the limit of 30 MiB"), "{status}");
}

/// A benchmark whose only proof hangs, once it does, with the ids of what hangs.
fn hanging(out: &Path, adapter: &mut Option<Adapter>, json: Stdio) -> (Child, Vec<i32>) {
    let ids = out.join("ids");
    let prove = format!("echo $$ >> {}; exec sleep 600", ids.display());
    let adapter = adapter.insert(Adapter::new(PREPARE, &prove, VERIFY));
    let mut command = benchmark(adapter, &out.join("results"), &["--systems", "gkr-committed"]);
    // One that is killed cannot clean up after itself.
    command.env("TMPDIR", out);
    let child = command.stdout(json).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a proof that hangs", || !processes(&ids).is_empty());
    (child, processes(&ids))
}

#[test]
fn an_interrupted_benchmark_ends_its_children_and_keeps_what_it_has() {
    let (out, mut adapter) = (tempfile::tempdir().unwrap(), None);
    let (child, processes) = hanging(out.path(), &mut adapter, Stdio::piped());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!is_alive(processes[0]));
    let found = object(&output);
    assert_eq!((&found["interrupted"], &found["rows"][1]["status"]), (&true.into(), &"interrupted".into()));
    assert_eq!(found["rows"][0]["passes"], 1, "its first proof was done");
    let passes = fs::read_to_string(out.path().join("results/passes.csv")).unwrap();
    assert!(passes.lines().count() == 2 && passes.contains("gkr-committed"), "{passes}");
}

#[test]
fn children_end_with_a_benchmark_that_is_killed() {
    let (out, mut adapter) = (tempfile::tempdir().unwrap(), None);
    let (mut child, processes) = hanging(out.path(), &mut adapter, Stdio::null());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the step", || !is_alive(processes[0]));
}

#[test]
fn wrong_usage_and_wrong_manifests_are_told() {
    let run =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_backend_benchmark")).args(arguments).output().unwrap();
    let usage = run(&["--configs", "5,100:7"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("the configuration `7`"));
    assert_eq!(run(&["--repeats", "0"]).status.code(), Some(2));

    let adapter = Adapter::new(PREPARE, PROVE, VERIFY);
    let manifest = fs::read_to_string(adapter.path("adapter.toml")).unwrap();
    fs::write(adapter.path("adapter.toml"), manifest.replace("zero_knowledge", "knowledge")).unwrap();
    let wrong = run(&["--json", "--adapter", adapter.folder.path().to_str().unwrap()]);
    let reason = object(&wrong)["failed"].as_str().unwrap().to_owned();
    assert!(reason.contains("adapter.toml") && reason.contains("knowledge"), "{reason}");
    assert_eq!(wrong.status.code(), Some(1));
    let unknown = run(&["--systems", "gkr"]);
    assert!(unknown.stdout.is_empty() && String::from_utf8_lossy(&unknown.stderr).contains("unknown system `gkr`"));
}
