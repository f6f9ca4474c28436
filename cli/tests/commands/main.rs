//! The command line as its users meet it: what it prints, how it exits, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod clients;
mod demo;
mod refusals;
mod sources;

use assert_cmd::Command;

/// `shardproof ARGS`, talking to no coordinator unless told to.
pub(crate) fn shardproof(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardproof"));
    command.args(args).env_remove("SHARDPROOF_COORDINATOR").env_remove("RUST_LOG");
    command
}

/// Runs a command that has to fail with this exit code and returns what it says on standard error.
pub(crate) fn fails(code: i32, args: &[&str]) -> String {
    let output = shardproof(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?} said: {said}");
    said
}
