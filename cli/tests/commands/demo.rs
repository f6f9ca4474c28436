//! `shardproof demo` in float mode: quick, and all of its processes real.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::{fails, shardproof};

const PATIENCE: Duration = Duration::from_secs(120);

/// Processes whose command line names this directory: the demo's children keep their data below it.
fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names_it = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && String::from_utf8_lossy(&line).contains(needle)
    };
    ids.filter(names_it).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_float_demo_answers_is_labelled_unproven_and_leaves_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let output =
        shardproof(&["demo", "mlp", "--shards", "2", "--backend", "float", "--out", out, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["backend"], "float");
    assert_eq!(report["verified"], false);
    assert_eq!(report["bundle"], serde_json::Value::Null);
    assert_eq!(report["per_shard"].as_array().unwrap().len(), 2);
    assert!(report["max_abs_error"].as_f64().unwrap() < 1e-5);
    // The sample is the first held-out image of a 0: even, below zero.
    assert!(report["outputs"][0].as_f64().unwrap() < 0.0);
    assert_eq!(processes_of(directory.path()), Vec::<u32>::new());
    assert!(!directory.path().join("data").exists());
    assert!(directory.path().join("card.json").is_file());

    let text = shardproof(&["demo", "mlp", "--shards", "1", "--backend", "float", "--out", out]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("UNPROVEN"), "{text}");
    assert!(text.contains("SOLO"), "{text}");
}

#[test]
fn an_onnx_path_and_an_input_file_work_the_same_way() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("own.onnx");
    std::fs::write(&model, shardproof_models::zoo::find("testing").unwrap().onnx).unwrap();
    let input = directory.path().join("input.json");
    std::fs::write(&input, r#"{"input_data": [[0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8, 0.9, 1.0]]}"#).unwrap();
    let out = directory.path().join("out");
    let [model, input, out] = [&model, &input, &out].map(|path| path.to_str().unwrap());
    let args = ["demo", model, "--shards", "3", "--backend", "float", "--input", input, "--out", out, "--json"];
    let output = shardproof(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["shards"], 3);
    assert!(report["max_abs_error"].as_f64().unwrap() < 1e-5);
}

/// Starts a demo whose setup takes long enough to be interrupted, and waits until its coordinator and workers run.
fn start(directory: &Path) -> Child {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
    command.args(["demo", "mlp", "--shards", "2", "--backend", "ezkl", "--out", directory.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The demo itself, a coordinator and two workers.
    until("coordinator and workers run", || {
        assert_eq!(child.try_wait().unwrap(), None, "the demo ended early");
        processes_of(directory).len() >= 4
    });
    child
}

fn send(signal: &str, child: &Child) {
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn an_interrupted_demo_stops_its_children_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start(directory.path());
    send("-INT", &child);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(processes_of(directory.path()), Vec::<u32>::new());
    assert!(!directory.path().join("data").exists());
}

#[test]
fn the_children_of_a_killed_demo_end_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start(directory.path());
    child.kill().unwrap();
    child.wait().unwrap();
    until("all children ended", || processes_of(directory.path()).is_empty());
}

#[test]
fn a_demo_whose_setup_fails_shows_why_and_where_the_logs_are() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let output = shardproof(&[
        "demo",
        "mlp",
        "--shards",
        "2",
        "--backend",
        "ezkl",
        "--out",
        out,
        "--ezkl-cli",
        "/nonexistent/ezkl",
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/nonexistent/ezkl"), "{said}");
    assert!(said.contains(out), "{said}");
    assert_eq!(processes_of(directory.path()), Vec::<u32>::new());
}

#[test]
fn a_demo_of_a_model_that_cannot_be_quantised_names_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let floor = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/floor.onnx");
    for command in [["demo", floor, "--shards", "2", "--out", out].as_slice(), &["plan", floor, "--shards", "2"]] {
        let said = fails(1, command);
        assert!(said.contains("shard 1 cannot be proven with gkr: node `floor` (Floor) cannot be quantised"), "{said}");
        assert!(said.contains("--backend ezkl") && said.contains("--backend float"), "{said}");
        let floats = shardproof(&[command, &["--backend", "float"]].concat()).output().unwrap();
        assert!(floats.status.success(), "{}", String::from_utf8_lossy(&floats.stderr));
    }
    let said = fails(1, &["plan", "mlp", "--shards", "1", "--weight-bits", "99"]);
    assert!(said.contains("weight bits is 99; it must be from 2 to 20"), "{said}");
    assert_eq!(processes_of(directory.path()), Vec::<u32>::new());
}
