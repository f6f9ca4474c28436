//! A measurement that failed is reported as failed, never as a number.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::process::{Command, Output};

/// Runs a copy of `program` that has no other programs beside it.
fn alone(program: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("benchmark");
    // By a process of its own: a file that this one had open for writing could not be started while a child that another
    // test starts just then still holds it open.
    assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
    Command::new(&copy).args(arguments).output().unwrap()
}

#[test]
fn programs_that_are_not_built_are_a_failure() {
    let programs = [
        ("hop", env!("CARGO_BIN_EXE_hop_benchmark")),
        ("service_cost", env!("CARGO_BIN_EXE_service_cost")),
        ("overlap", env!("CARGO_BIN_EXE_overlap_benchmark")),
    ];
    for (name, program) in programs {
        let output = alone(program, &["--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["benchmark"], name);
        let reason = said["failed"].as_str().unwrap();
        assert!(reason.contains("coordinator is not there: run `cargo build"), "{name}: {reason}");
        assert_eq!(said.as_object().unwrap().len(), 2, "no figure beside a failure");
    }
}

#[test]
fn without_json_a_failure_leaves_standard_output_empty() {
    let output = alone(env!("CARGO_BIN_EXE_hop_benchmark"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("hop: failed: "));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let output = alone(env!("CARGO_BIN_EXE_hop_benchmark"), &["--mebibytes", "0"]);
    assert_eq!(output.status.code(), Some(2));
}
