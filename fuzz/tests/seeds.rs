//! Every target takes its seeds, and what was once found, without a fuzzer: the properties hold, the budgets suffice.
//!
//! One test alone: the limit on memory is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::path::Path;

use shardproof_fuzz::TARGETS;

#[test]
fn every_target_takes_its_seeds_and_what_was_once_found() {
    for target in TARGETS {
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        eprintln!("{}: {} seeds", target.name, seeds.len());
        for seed in seeds.iter().chain(&found(target.name)) {
            target.run(seed);
        }
        for seed in &seeds {
            for place in [0, 1, seed.len() / 2, seed.len() - 1] {
                let mut changed = seed.clone();
                if let Some(byte) = changed.get_mut(place) {
                    *byte ^= 0x55;
                }
                target.run(&changed);
            }
            target.run(&seed[..seed.len() / 2]);
        }
        target.run(&[]);
    }
}

/// Inputs that a target once failed on.
fn found(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("findings").join(target);
    let Ok(files) = folder.read_dir() else { return Vec::new() };
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}
