//! The corpus as files, and the table of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shardproof_common::chain::Check;
use shardproof_forgery::{Expected, Scene, corpus, forgeries, table};

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let scene = directory.join(Scene::GkrCommitted.as_str());
    for folder in [directory, &scene] {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                let name = entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_corpus_of_gkr_follows_from_its_seed() {
    let write = |seed| {
        let directory = tempfile::tempdir().unwrap();
        let index = corpus::write(directory.path(), &[Scene::GkrCommitted], seed, |_| {}).unwrap();
        (index.forgeries.len(), contents(directory.path()))
    };
    let (count, first) = write(5);
    assert_eq!(count, forgeries::of(Scene::GkrCommitted).len());
    assert_eq!(first.len(), 3 * count + 3, "bundle, card and answer of each; model, input, list");
    let (_, again) = write(5);
    assert!(first == again, "the same seed gives the same bytes");
    let (_, other) = write(6);
    assert!(first["gkr-committed/honest.bundle"] != other["gkr-committed/honest.bundle"]);
    let list: serde_json::Value = serde_json::from_slice(&first[corpus::INDEX]).unwrap();
    let listed = list["forgeries"].as_array().unwrap();
    let entry = listed.iter().find(|entry| entry["name"] == "shards-reordered").unwrap();
    assert_eq!(
        (&entry["forger"], &entry["expected"]["rejected"]["check"]),
        (&"messenger".into(), &"shard-list".into())
    );
}

#[test]
fn names_are_names_of_files_and_of_one_forgery_each() {
    let mut names = BTreeSet::new();
    for forgery in forgeries::all() {
        assert!(forgery.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
        assert!(!forgery.scenes.is_empty() && !forgery.change.is_empty(), "{}", forgery.name);
        assert!(names.insert(forgery.name.clone()), "two forgeries are called {}", forgery.name);
    }
}

#[test]
fn every_check_is_aimed_at() {
    let aimed = |check: Check| {
        forgeries::all()
            .iter()
            .any(|forgery| matches!(forgery.expected, Expected::Rejected { check: at, .. } if at == check))
    };
    let spared: Vec<Check> = Check::ALL.into_iter().filter(|&check| !aimed(check)).collect();
    assert_eq!(spared, [], "no forgery is for these checks alone");
}

#[test]
fn the_readme_has_the_table_of_the_code() {
    let readme = include_str!("../README.md");
    assert!(readme.ends_with(&table::markdown()), "write `forge --table` to the end of common/forgery/README.md");
}
