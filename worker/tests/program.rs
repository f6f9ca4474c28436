//! The program `worker`: what it says when it cannot start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::process::Command;

#[test]
fn what_keeps_it_from_starting_is_one_line_or_one_object() {
    let fails = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args(["127.0.0.1", "0", "127.0.0.1", "9", "SOLO", "--tls", "nope"]).args(more);
        let output = command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = fails(&[]);
    assert!(said.starts_with("error: nope/ca.pem: ") && said.lines().count() == 1, "{said}");
    let said = fails(&["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_str(said.trim_end()).unwrap();
    assert_eq!(line["level"], "ERROR");
}
