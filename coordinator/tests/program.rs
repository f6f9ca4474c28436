//! The program `coordinator`: what it says when it cannot start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::process::Command;

/// Runs the program where backtraces are wanted; what it says on standard error.
fn fails(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    let output = command.args(args).env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(output.stdout, b"");
    said
}

#[test]
fn what_keeps_it_from_starting_is_one_line_that_names_what_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = |host: &str, port: &str, more: &[&str]| {
        let line = ["--backend", "float", "--data-dir", &data, host, port, "1", "mlp"];
        let said = fails(&[line.as_slice(), more].concat());
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let missing = "No such file or directory";
    for option in ["--admit", "--tokens", "--srs"] {
        let said = said("127.0.0.1", "0", &[option, "nope"]);
        assert!(said.starts_with(&format!("error: {option}")) && said.contains("nope"), "{said}");
        assert_eq!(said.matches(missing).count(), 1, "{said}");
    }
    let used = said("127.0.0.1", &port, &[]);
    assert!(used.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}: ")), "{used}");
    assert!(used.contains("give another port"), "{used}");
    // Of a block for documentation, which is no machine's.
    let foreign = said("203.0.113.1", "0", &[]);
    assert!(foreign.starts_with("error: cannot listen on 203.0.113.1: "), "{foreign}");
    assert!(foreign.contains("name or address of this machine") && !foreign.contains("port"), "{foreign}");
}

#[test]
fn where_the_log_is_json_so_is_its_last_line() {
    let said = fails(&["127.0.0.1", "0", "1", "mlp", "--admit", "nope", "--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(said.trim_end()).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["fields"]["message"].as_str().unwrap().starts_with("--admit nope: "), "{said}");
}
