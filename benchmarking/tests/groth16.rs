//! The tests of the Groth16 adapter, which are JavaScript. They need Node.js, and those that prove something need the
//! packages that the adapter's `install` step fetches; what is missing is said.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_adapters_own_tests_pass() {
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no Node.js here");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/groth16");
    let output = Command::new("node").arg("--test").current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().find_map(|line| line.strip_prefix("# pass ").or(line.strip_prefix("ℹ pass ")));
    assert!(passed.is_some_and(|count| count.trim().parse::<u32>().unwrap() > 10), "{said}");
}
