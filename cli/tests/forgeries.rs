//! A sample of the corpus of forged bundles through the program: for every check the first forgery that aims at it, and all
//! that is no forgery.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::collections::BTreeSet;

use assert_cmd::Command;
use serde_json::Value;
use shardproof_forgery::corpus::{self, Entry, INPUT_FILE, MODEL_FILE};
use shardproof_forgery::{Expected, Scene};

#[test]
fn the_program_says_of_each_forgery_which_check_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let index = corpus::write(directory.path(), &[Scene::GkrCommitted, Scene::GkrPublic], 3, |_| {}).unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let verify = |entry: &Entry| -> (Option<i32>, Value) {
        let file = |kind: &str| path(&format!("{}/{}.{kind}", entry.scene, entry.name));
        let output = Command::new(env!("CARGO_BIN_EXE_shardproof"))
            .args(["verify", &file("bundle"), "--card", &file("card"), "--output", &file("answer.json")])
            .args(["--input", &path(&format!("{}/{INPUT_FILE}", entry.scene)), "--model", &path(MODEL_FILE)])
            .args(["--owner-key", &index.owner_key.to_string(), "--json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{entry:?}: {said}")))
    };
    let mut seen = BTreeSet::new();
    for entry in &index.forgeries {
        let (expected, status, check) = match entry.expected {
            Expected::Verified => (Some(0), "verified", Value::Null),
            Expected::Partial => (Some(3), "partial", Value::Null),
            Expected::Rejected { check, .. } if seen.insert((entry.scene, check)) => {
                (Some(3), "rejected", check.as_str().into())
            }
            Expected::Rejected { .. } => continue,
        };
        let (code, report) = verify(entry);
        assert_eq!((code, &report["status"]), (expected, &status.into()), "{entry:?}: {report:#}");
        assert_eq!(report["refusal"]["check"], check, "{entry:?}: {report:#}");
    }
    assert!(seen.len() > 30, "{} forgeries were tried", seen.len());
}
