//! Under which conditions figures were made: what a table must say for its figures to mean anything.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use shardproof_common::{files, machine};

use crate::error::BenchError;
use crate::report::profile;

/// The machine and the programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The processor's name, or `unknown`.
    pub processor: String,
    /// Threads that the processor offers to this process.
    pub cores: usize,
    /// Main memory, bytes; 0 where the system doesn't say.
    pub memory_bytes: u64,
    /// Vector extensions that decide the native prover's speed and that it was compiled for.
    pub vectors: String,
    /// Version of the programs.
    pub version: String,
    /// `release` or `debug`.
    pub profile: String,
    /// When the figures were made, seconds since 1970.
    pub unix_seconds: u64,
    /// Processes that wanted to run at the start, averaged over a minute: well above 0 means that the machine was busy.
    pub load: f64,
}

impl Conditions {
    /// Those of this moment.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            processor: processor().unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: machine::memory_bytes().unwrap_or(0),
            vectors: vectors().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: profile().to_owned(),
            unix_seconds: since.map_or(0, |since| since.as_secs()),
            load: load().unwrap_or(f64::NAN),
        }
    }

    /// Writes them to `conditions.json` in `directory`, beside the figures that they are of.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), BenchError> {
        let path = directory.join("conditions.json");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })?;
        files::write_whole(&path, &text).map_err(BenchError::io(path.display().to_string()))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let gibibytes = self.memory_bytes as f64 / f64::from(1 << 30);
        let Self { processor, cores, vectors, version, profile, load, .. } = self;
        format!(
            "{cores} cores of {processor} ({vectors}), {gibibytes:.0} GiB, shardproof {version} ({profile}), load before {load:.1}"
        )
    }
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The widest vectors that this program, and so the programs beside it, were compiled for.
const fn vectors() -> &'static str {
    if cfg!(target_feature = "avx512f") {
        "AVX-512"
    } else if cfg!(target_feature = "avx2") {
        "AVX2"
    } else if cfg!(target_feature = "neon") {
        "NEON"
    } else {
        "no vector extensions"
    }
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_survive_their_file() {
        let conditions = Conditions { load: 0.5, ..Conditions::now() };
        let text = serde_json::to_string(&conditions).unwrap();
        assert_eq!(serde_json::from_str::<Conditions>(&text).unwrap(), conditions);
        assert!(conditions.cores > 0 && conditions.line().contains("cores"));
    }
}
