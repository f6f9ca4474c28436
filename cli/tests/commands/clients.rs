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

    /// Lets it go on from where it was told to hold.
    fn go_on(&self) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", "USR1", &id]).status().unwrap().success());
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
    assert!(proving.contains("float mode proves nothing"), "{proving}");
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

/// Over IPv6, with and without brackets and TLS, from the client through both workers and back.
#[test]
fn a_service_runs_over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no ::1");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let authority = path("authority");
    json(&["cert", "init", &authority]);
    let issue = |role: &str, host: &[&str]| {
        json(&[&["cert", "issue", &authority, "--role", role, "--out", &path(role)], host].concat());
        ["--tls".to_owned(), path(role)]
    };
    let [server, worker, client] =
        [("coordinator", "::1"), ("worker", "[::1]"), ("client", "")].map(|(role, host)| match host {
            "" => issue(role, &[]),
            host => issue(role, &["--host", host]),
        });
    std::fs::write(path("input.json"), serde_json::json!({ "input_data": [vec![0.5; 25]] }).to_string()).unwrap();
    for (n, tls) in [false, true].into_iter().enumerate() {
        let with = |args: &[&str], tls_args: &[String; 2], name: &str| {
            let more: Vec<&str> = tls_args.iter().filter(|_| tls).map(String::as_str).collect();
            Service::start(&[args, &more].concat(), &directory.path().join(format!("{name}{n}")))
        };
        let start = ["coordinator", "::1", "0", "2", "mlp", "--backend", "float"];
        let coordinator = with(&start, &server, "coordinator");
        assert!(coordinator.address.starts_with("[::1]:"), "{}", coordinator.address);
        let port = coordinator.port();
        let _first = with(&["worker", "[::1]", "0", "::1", port, "FIRST"], &worker, "first");
        let _last = with(&["worker", "::1", "0", "[::1]", port, "LAST"], &worker, "last");
        let input = path("input.json");
        let ask = ["infer", "--wait", "--input", &input, "--coordinator", &coordinator.address];
        let more: Vec<&str> = client.iter().filter(|_| tls).map(String::as_str).collect();
        assert_eq!(json(&[ask.as_slice(), &more].concat())["state"], "answered");
    }
}

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

/// A coordinator with `extra` arguments that serves the tiny network, and the file of an input for it.
fn serve_tiny(data: &Path, shards: &str, extra: &[&str]) -> (Service, String) {
    let input = data.join("input.json");
    std::fs::write(&input, r#"{"input_data": [[0.5, -0.25, 0.75, 1.0]]}"#).unwrap();
    let arguments = [&["coordinator", "127.0.0.1", "0", shards, TINY], extra].concat();
    (Service::start(&arguments, &data.join("coordinator")), input.to_str().unwrap().to_owned())
}

#[test]
fn a_run_is_proven_shard_by_shard_and_its_bundle_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (coordinator, input) = serve_tiny(directory.path(), "2", &[]);
    let start = |role: &str| {
        let arguments = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), role];
        Service::start(&arguments, &directory.path().join(role))
    };
    let _workers = [start("LAST"), start("FIRST")];
    let at = ["--coordinator", &coordinator.address];
    let with = |args: &[&str]| json(&[args, &at].concat());

    let answered = with(&["infer", "--wait", "--input", &input]);
    let run = answered["run"].as_str().unwrap();
    let said = fails(1, &[&["prove", run, "--shard", "2"], at.as_slice()].concat());
    assert!(said.contains("shard 2"), "{said}");
    let partial = with(&["prove", run, "--shard", "1", "--out", &path("partial.bundle")]);
    assert_eq!(partial["state"], "partial");
    let verified = with(&["prove", run, "--out", &path("run.bundle")]);
    assert_eq!(verified["state"], "verified");
    assert_eq!(verified["bundle"].as_str().unwrap(), path("run.bundle"));
    with(&["card", "fetch", "--out", &path("card.json")]);
    drop(coordinator);

    let answer = path("answer.json");
    std::fs::write(&answer, answered.to_string()).unwrap();
    let (card, bundle, partial) = (path("card.json"), path("run.bundle"), path("partial.bundle"));
    let supplied = ["--card", &card, "--input", &input, "--output", &answer, "--model", TINY];
    let report = json(&[&["verify", &bundle], supplied.as_slice()].concat());
    assert_eq!(report["status"], "verified");
    let output = shardproof(&[&["verify", &partial], supplied.as_slice()].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stdout).unwrap().contains("partial: not everything is proven"));
}

#[test]
fn what_the_coordinator_refuses_is_told_once_and_in_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let (coordinator, input) = serve_tiny(directory.path(), "1", &["--max-upload", "10"]);
    let arguments = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), "SOLO"];
    let _worker = Service::start(&arguments, &directory.path().join("worker"));
    let said = fails(1, &["infer", "--wait", "--input", &input, "--coordinator", &coordinator.address]);
    assert_eq!(said.matches("--max-upload").count(), 1, "{said}");
    assert!(said.contains("error: sending the input: ") && !said.contains("resources"), "{said}");
}

#[test]
fn an_input_unlike_those_of_the_calibration_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let (coordinator, input) = serve_tiny(directory.path(), "1", &[]);
    let arguments = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), "SOLO"];
    let _worker = Service::start(&arguments, &directory.path().join("worker"));
    std::fs::write(&input, r#"{"input_data": [[900, -800, 700, 1000]]}"#).unwrap();
    let args = ["infer", "--wait", "--input", &input, "--coordinator", &coordinator.address];
    let output = shardproof(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = ["leads out of the range that the model was calibrated on", "--samples FILE"];
    assert!(expected.iter().all(|expected| said.contains(expected)), "{said}");
}

/// Of several runs one is cancelled while all are being proven.
#[test]
fn the_bundles_of_runs_are_fetched_although_another_was_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let (coordinator, input) = serve_tiny(directory.path(), "1", &[]);
    let held = ["--hold-at", "prove"];
    let arguments = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), "SOLO"];
    let worker = Service::start(&[arguments.as_slice(), &held].concat(), &directory.path().join("worker"));
    let at = ["--coordinator", &coordinator.address];
    let with = |args: &[&str]| json(&[args, &at].concat());
    let infer = || with(&["infer", "--wait", "--input", &input])["run"].as_str().unwrap().to_owned();
    let (first, second) = (infer(), infer());

    // What would keep the bundle from being written is said while nothing is proven.
    let nowhere = directory.path().join("nowhere/run.bundle");
    let said = fails(1, &[&["prove", &first, "--out", nowhere.to_str().unwrap()], at.as_slice()].concat());
    assert!(said.contains("nowhere: cannot write here") && said.contains("--out"), "{said}");
    assert_eq!(with(&["runs"])[0]["shards"][0]["proof"], "not requested");

    let out = directory.path().join("bundles");
    let mut proving = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
    proving.args(["prove", &first, &second, "--json", "-v", "--out"]).arg(&out).args(at);
    let mut proving = proving.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(proving.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("0 of 1 verified")));
    with(&["cancel", &first]);
    worker.go_on();
    let refused = format!("error: the proofs of run {first} were cancelled");
    assert!(said.any(|line| line == refused));
    let output = proving.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let proved: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((proved.as_array().unwrap().len(), &proved[0]["state"]), (1, &Value::from("verified")));
    assert!(out.join(format!("{second}.bundle")).is_file());
    assert!(!out.join(format!("{first}.bundle")).exists());

    // A directory takes the bundle of one run as well.
    let again = with(&["prove", &second, "--out", directory.path().to_str().unwrap()]);
    assert!(again["bundle"].as_str().unwrap().ends_with(&format!("/{second}.bundle")));
}

#[test]
fn every_command_that_reports_a_rejected_run_exits_3_and_names_shard_and_worker() {
    let directory = tempfile::tempdir().unwrap();
    let (coordinator, input) = serve_tiny(directory.path(), "1", &["--rejoin-grace", "1"]);
    let arguments = ["worker", "127.0.0.1", "0", "127.0.0.1", coordinator.port(), "SOLO", "--prove-delay-ms", "600000"];
    let worker = Service::start(&arguments, &directory.path().join("worker"));
    let at = ["--coordinator", &coordinator.address];
    let answered = json(&[&["infer", "--wait", "--input", &input], at.as_slice()].concat());
    let run = answered["run"].as_str().unwrap();
    let key = answered["shards"][0]["worker"].as_str().unwrap();

    let mut proving = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"));
    proving.args(["prove", run, "--json", "-v"]).args(at).current_dir(directory.path());
    let mut proving = proving.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(proving.stderr.take().unwrap()).lines();
    // Once the proof is owed, its worker dies and does not come back.
    let mut said = said.map(Result::unwrap);
    assert!(said.any(|line| line.contains("0 of 1 verified")));
    drop(worker);
    drop(said);
    let output = proving.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let rejected: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rejected["state"], "rejected");
    assert_eq!(rejected["rejected"]["shard"], 0);
    assert_eq!(rejected["rejected"]["worker"], key);

    for command in [["watch", run].as_slice(), &["runs"]] {
        let output = shardproof(&[command, &at].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{command:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("rejected") && text.contains("shard 0"), "{text}");
    }
}
