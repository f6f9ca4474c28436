//! The client commands against a real coordinator and worker, in float mode.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::{fails, shardproof};

/// A service that ends with the value.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(args: &[&str], data: &Path) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
        command.args(args).arg("--data-dir").arg(data);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect("it says where it listens").to_owned();
        Self { child, address }
    }

    fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn json(args: &[&str]) -> Value {
    let output = shardproof(args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_client_waits_infers_lists_watches_and_fetches() {
    let directory = tempfile::tempdir().unwrap();
    let data = |name: &str| directory.path().join(name);
    let input = data("input.json");
    std::fs::write(&input, serde_json::json!({ "input_data": [vec![0.5; 25]] }).to_string()).unwrap();
    let input = input.to_str().unwrap();

    let start = ["coordinator", "127.0.0.1", "0", "1", "mlp", "--backend", "float"];
    let coordinator = Service::start(&start, &data("coordinator"));
    let at = ["--coordinator", &coordinator.address];
    let with = |args: &[&str]| json(&[args, &at].concat());

    // The client is there before the worker.
    let mut waiting = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
    waiting.args(["infer", "--wait", "--json", "--input", input]).args(at);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let worker_args = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), "SOLO"];
    let _worker = Service::start(&worker_args, &data("worker"));
    let answered = waiting.wait_with_output().unwrap();
    assert!(answered.status.success());
    let answered: Value = serde_json::from_slice(&answered.stdout).unwrap();
    assert_eq!(answered["state"], "answered");
    assert_eq!(answered["proven"], false);
    let run = answered["run"].as_str().unwrap();

    let status = with(&["status"]);
    assert_eq!(status["stage"], "serving");
    assert_eq!(status["shards"][0]["role"], "SOLO");
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);
    assert_eq!(with(&["runs"])[0]["run"], run);
    assert_eq!(with(&["watch", run])["outputs"], answered["outputs"]);

    let card = data("card.json");
    let shown = with(&["card", "fetch", "--out", card.to_str().unwrap()]);
    assert_eq!(json(&["card", "show", card.to_str().unwrap()]), shown);
    assert!(shown["backend"].as_str().unwrap().ends_with("(unproven)"));

    let text = shardproof(&["infer", "--input", input]).args(at).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("unproven"));
    let proving = fails(1, &[&["prove", run], at.as_slice()].concat());
    assert!(proving.contains("float"), "{proving}");
    let unknown = shardproof_common::ids::RunId::generate().to_string();
    assert!(fails(1, &[&["watch", &unknown], at.as_slice()].concat()).contains(&unknown));
    std::fs::write(input, r#"{"input_data": [[1]]}"#).unwrap();
    let misfit = fails(1, &[&["infer", "--input", input], at.as_slice()].concat());
    assert!(misfit.contains("expected 25 values"), "{misfit}");
}

#[test]
fn a_client_that_waits_says_so_and_finds_a_coordinator_that_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input.json");
    std::fs::write(&input, serde_json::json!({ "input_data": [vec![0.5; 25]] }).to_string()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let address = format!("127.0.0.1:{port}");
    let mut client = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
    client.args(["infer", "--wait", "--coordinator", &address, "--input"]).arg(&input);
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(client.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains(&format!("no coordinator at {address} yet")), "{said}");
    let start = ["coordinator", "127.0.0.1", &port, "1", "mlp", "--backend", "float"];
    let _coordinator = Service::start(&start, &directory.path().join("coordinator"));
    let worker = ["worker", "127.0.0.1", "0", "127.0.0.1", &port, "SOLO"];
    let _worker = Service::start(&worker, &directory.path().join("worker"));
    assert!(client.wait().unwrap().success());
}
