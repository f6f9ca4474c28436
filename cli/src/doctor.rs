//! `shardproof doctor`: what this machine has, what is missing, and what to do about it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use shardproof_common::ids::PROTOCOL_VERSION;
use shardproof_common::{machine, process};
use shardproof_ezkl::{Installation, Status};

use crate::backends::EzklChoice;
use crate::output::{Outcome, Output};
use crate::table;

/// Free room below which proving keys may not fit, bytes.
const LOW_DISK: u64 = 2_000_000_000;
/// Memory below which the larger models cannot be proven, bytes.
const LOW_MEMORY: u64 = 2_000_000_000;

/// Checks what this machine has for proving and verifying. Exits 1 when the ezkl that --ezkl-cli names cannot work here.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    ezkl: EzklChoice,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    version: &'static str,
    protocol: u32,
    float_engine: &'static str,
    cores: usize,
    memory_bytes: Option<u64>,
    cache: Place,
    data: Place,
    temporary: Place,
    gkr: String,
    ezkl: Status,
    ezkl_can_work: bool,
    findings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Place {
    path: PathBuf,
    free_bytes: Option<u64>,
    writable: bool,
}

/// `shardproof doctor`.
pub(crate) async fn run(args: DoctorArgs, output: Output) -> Result<Outcome> {
    let asked_for_ezkl = args.ezkl.ezkl_cli.is_some();
    let diagnosis = tokio::task::spawn_blocking(move || Diagnosis::make(&args)).await.context("the look around")?;
    output.data(&diagnosis, Diagnosis::render)?;
    Ok(if diagnosis.ezkl_can_work || !asked_for_ezkl { Outcome::Success } else { Outcome::Failure })
}

impl Diagnosis {
    fn make(args: &DoctorArgs) -> Self {
        let config = args.ezkl.config();
        let ezkl = Installation::new(&config).status();
        let mut diagnosis = Self {
            version: env!("CARGO_PKG_VERSION"),
            protocol: PROTOCOL_VERSION,
            float_engine: shardproof_models::ENGINE_VERSION,
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: machine::memory_bytes(),
            cache: Place::look(config.cache_dir()),
            data: Place::look(process::default_data_dir()),
            temporary: Place::look(std::env::temp_dir()),
            gkr: format!("version {}, built in, needs nothing", shardproof_gkr_service::VERSION),
            ezkl_can_work: ezkl.is_hopeful(),
            ezkl,
            findings: Vec::new(),
        };
        diagnosis.findings = diagnosis.find();
        diagnosis
    }

    fn find(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if !self.ezkl_can_work {
            findings.push(format!(
                "ezkl cannot work here, which only `--backend ezkl` needs; by hand: {}",
                self.ezkl.command_by_hand
            ));
        }
        let places = [
            ("cache", &self.cache, "SHARDPROOF_CACHE_DIR"),
            ("data", &self.data, "--data-dir"),
            ("temporary", &self.temporary, "TMPDIR"),
        ];
        for (name, place, remedy) in places {
            if !place.writable {
                findings.push(format!(
                    "the {name} directory {} cannot be written; choose another: {remedy}",
                    place.path.display()
                ));
            }
            if place.free_bytes.is_some_and(|free| free < LOW_DISK) {
                findings.push(format!(
                    "the {name} directory has little room; proving keys take 20 MB to some GB per shard: {remedy}"
                ));
            }
        }
        if self.memory_bytes.is_some_and(|bytes| bytes < LOW_MEMORY) {
            findings.push(
                "little memory: use more shards, and see `shardproof plan MODEL --shards N` for what each needs"
                    .to_owned(),
            );
        }
        findings
    }

    fn render(&self) -> String {
        let memory = self.memory_bytes.map_or_else(|| "unknown".to_owned(), table::bytes);
        let mut out = format!(
            "shardproof {} (protocol {}, float engine {})\nmachine   {} cores, {memory} of memory\n",
            self.version, self.protocol, self.float_engine, self.cores
        );
        for (name, place) in [("cache", &self.cache), ("data", &self.data), ("temporary", &self.temporary)] {
            let free = place.free_bytes.map_or_else(|| "unknown".to_owned(), table::bytes);
            let writable = if place.writable { "" } else { ", NOT WRITABLE" };
            out.push_str(&format!("{name:<9} {} ({free} free{writable})\n", place.path.display()));
        }
        out.push_str(&format!("gkr       {}\n{}\n", self.gkr, self.ezkl));
        if self.findings.is_empty() {
            out.push_str("\nAll is well.\n");
        }
        for finding in &self.findings {
            out.push_str(&format!("\n! {finding}\n"));
        }
        out
    }
}

impl Place {
    /// Looks at a directory, or at the nearest one above that is there already.
    fn look(path: PathBuf) -> Self {
        let there = path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."));
        let free_bytes = fs4::available_space(there).ok();
        let writable = tempfile::tempfile_in(there).is_ok();
        Self { path, free_bytes, writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::look(directory.path().join("not").join("yet"));
        assert!(place.writable);
        assert!(place.free_bytes.is_some_and(|free| free > 0));
    }
}
