//! The system benchmark on real processes, and on processes that fail: each failure is a row, never a gap.
//!
//! The programs that it starts are scripts around the built `shardproof`, which contains coordinator and worker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with the benchmark and the programs that it starts.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    /// `worker` is the script that is started as one.
    fn new(worker: &str) -> Self {
        Self::of(env!("CARGO_BIN_EXE_system_benchmark"), worker)
    }

    /// With another benchmark in place of the system's.
    fn of(benchmark: &str, worker: &str) -> Self {
        let stage = Self { directory: tempfile::tempdir().unwrap() };
        // By a process of its own: a file that this one had open for writing could not be started while a child that another
        // test starts just then still holds it open.
        let mut copy = Command::new("cp");
        copy.arg(benchmark).arg(stage.path("benchmark"));
        assert!(copy.status().unwrap().success());
        stage.script("shardproof", "exec SHARDPROOF \"$@\"");
        stage.script("coordinator", "exec SHARDPROOF coordinator \"$@\"");
        stage.script("worker", worker);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        let built = Path::new(env!("CARGO_BIN_EXE_system_benchmark")).with_file_name("shardproof");
        assert!(built.is_file(), "{} is not there: test the whole workspace, or build it first", built.display());
        let body = body.replace("SHARDPROOF", &built.display().to_string());
        fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let out = self.path("results").display().to_string();
        self.start(&[&["mlp", "--json", "--repeats", "1", "--out", &out], arguments].concat())
    }

    fn start(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.path("benchmark"));
        command.args(arguments);
        // The services' data directories, which are on their command lines, lie in it.
        command.env("TMPDIR", self.directory.path());
        command.output().unwrap()
    }
}

fn summary(output: &Output) -> Vec<serde_json::Value> {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    report["summary"].as_array().unwrap().clone()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const HONEST: &str = "exec SHARDPROOF worker \"$@\"";

#[test]
fn every_number_of_shards_is_measured_once() {
    let stage = Stage::new(HONEST);
    let output = stage.run(&["1,2"]);
    assert!(output.status.success(), "{}", said(&output));
    let rows = summary(&output);
    assert_eq!(rows.len(), 2);
    for (row, shards) in rows.iter().zip([1, 2]) {
        assert_eq!((row["num_shards"].as_u64(), row["status"].as_str()), (Some(shards), Some("verified")), "{row}");
        let positive = [
            "total_setup_time",
            "total_witness_generation_time",
            "total_proof_generation_time",
            "chain_wall_time",
            "total_verification_time",
            "offline_verification_time",
            "total_proof_size",
            "total_pk_size",
            "total_vk_size",
            "total_witness_size",
            "bundle_size",
            "coordinator_peak_bytes",
            "largest_worker_peak_bytes",
            "wire_bytes",
        ];
        for figure in positive {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
        assert!(row["wire_bytes"].as_u64() > row["total_proof_size"].as_u64(), "proofs travel");
    }
    assert!(stage.path("results/mlp/proving-time.png").is_file());
    assert!(stage.path("results/mlp/mlp-2-gkr-committed-committed-resources/shards.csv").is_file());

    let again = stage.run(&["1,2,3"]);
    assert!(again.status.success());
    assert_eq!(said(&again).matches("measured before").count(), 2, "{}", said(&again));
    assert_eq!(summary(&again)[..2], rows[..], "what is there is not measured again");
}

#[test]
fn a_worker_that_is_killed_is_a_failed_row() {
    let stage = Stage::new("echo 'listening on 127.0.0.1:1'; kill -9 $$");
    let output = stage.run(&["1"]);
    assert_eq!(output.status.code(), Some(1));
    let rows = summary(&output);
    assert_eq!(rows[0]["status"], "failed");
    assert!(rows[0]["reason"].as_str().unwrap().contains("worker-0 ended with signal: 9"), "{}", rows[0]["reason"]);
    let table = fs::read_to_string(stage.path("results/mlp/summary.csv")).unwrap();
    assert!(table.contains("failed"), "{table}");
}

#[test]
fn a_setup_that_fails_is_a_failed_row_with_the_coordinators_reason() {
    let stage = Stage::new(HONEST);
    let output = stage.run(&["1", "--", "--weight-bits=99"]);
    assert_eq!(output.status.code(), Some(1));
    let rows = summary(&output);
    assert_eq!(rows[0]["status"], "failed");
    assert!(rows[0]["reason"].as_str().unwrap().contains("weight bits"), "{}", rows[0]["reason"]);
}

#[test]
fn a_proof_that_is_rejected_is_a_failed_row() {
    let stage = Stage::new("exec SHARDPROOF worker --prove-delay-ms 600000 \"$@\"");
    let output = stage.run(&["1", "--", "--prove-deadline=1"]);
    assert_eq!(output.status.code(), Some(1));
    let rows = summary(&output);
    assert_eq!(rows[0]["status"], "failed");
    assert!(rows[0]["reason"].as_str().unwrap().contains("ended as rejected"), "{}", rows[0]["reason"]);
}

#[test]
fn what_takes_too_long_is_a_failed_row_and_leaves_no_process() {
    let stage = Stage::new("exec SHARDPROOF worker --prove-delay-ms 600000 \"$@\"");
    let output = stage.run(&["1", "--time-limit", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(summary(&output)[0]["reason"], "took longer than 2 s");
    let left = Command::new("pgrep").args(["-f", &stage.directory.path().display().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "processes that were started from there");
}

#[test]
fn what_does_not_fit_is_skipped_and_no_failure() {
    let stage = Stage::new(HONEST);
    let output = stage.run(&["1,99", "--memory-limit", "1M"]);
    assert!(output.status.success(), "{}", said(&output));
    let rows = summary(&output);
    let reason = |row: usize| rows[row]["reason"].as_str().unwrap().to_owned();
    assert_eq!((rows[0]["status"].as_str(), rows[1]["status"].as_str()), (Some("skipped"), Some("skipped")));
    assert!(reason(0).contains("predicted to need"), "{}", reason(0));
    assert!(reason(1).contains("at most 12 shards"), "{}", reason(1));
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn clients_draw_from_several_inputs_and_every_answer_is_that_of_its_input() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_load_benchmark"), HONEST);
    let out = stage.path("results").display().to_string();
    let arguments =
        ["mlp", "--json", "--shards", "1", "--clients", "1,3", "--seconds", "1", "--warmup", "0", "--out", &out];
    let report = report(&stage.start(&arguments));
    for (row, clients) in report["rows"].as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!((row["clients"].as_u64(), row["inputs"].as_u64()), (Some(clients), Some(8)), "{row}");
        assert_eq!(row["errors"].as_u64(), Some(0), "{row}");
        assert!(row["runs"].as_u64().unwrap() > 0, "{row}");
    }
}

#[test]
fn proofs_of_gkr_are_made_at_the_same_time() {
    let stage = Stage::of(env!("CARGO_BIN_EXE_overlap_benchmark"), HONEST);
    let report = report(&stage.start(&["mlp", "--json", "--shards", "2", "--delay-ms", "1500"]));
    assert_eq!((report["backend"].as_str(), report["overlapped"].as_bool()), (Some("gkr"), Some(true)), "{report}");
    assert!(report["prove_ms"].as_array().unwrap().iter().all(|ms| ms.as_u64().unwrap() >= 1500), "{report}");
}
