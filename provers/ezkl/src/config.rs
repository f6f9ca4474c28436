//! Where ezkl comes from, where its files are kept, and which structured reference string it proves under.

use std::path::PathBuf;
use std::time::Duration;

/// How long a call may go without using any processor time before it counts as stuck.
///
/// ezkl deadlocks when a value is missing from a lookup table while it proves. Such values are refused beforehand; this is
/// the second line for causes that nobody knows yet.
const STALL: Duration = Duration::from_secs(120);

/// What the backend needs to know of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EzklConfig {
    /// Which ezkl to run.
    pub runner: RunnerKind,
    /// The operator's structured reference string, from a ceremony; a cached insecure test SRS is used where there is none.
    pub srs: Option<PathBuf>,
    /// Where the wheel and test SRS files are kept; `shardproof` in the user's cache directory where nothing is given.
    pub cache_dir: Option<PathBuf>,
    /// The Python that runs the wheel; `python3` on the search path where nothing is given.
    pub python: Option<PathBuf>,
    /// How long a call may go without using any processor time before it is ended.
    pub stall: Duration,
    /// Whether a Python process with ezkl loaded waits for the next job, which then starts about 0.1 s sooner. None does
    /// where nothing is given; the `ezkl` program never does.
    pub keep_warm: Option<KeepWarm>,
}

/// What may wait for the next job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepWarm {
    /// For how long.
    pub idle: Duration,
    /// With how much resident memory, bytes. A process that holds more after its job ends with it, and a new one, which
    /// takes about 40 MB, waits in its place.
    pub memory_bytes: u64,
}

impl KeepWarm {
    /// Waits as services do: a proof is often asked for soon after its run.
    pub const SERVICE: Self = Self { idle: Duration::from_secs(300), memory_bytes: 128 << 20 };
}

/// Which ezkl to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerKind {
    /// The Python wheel, installed on first use.
    Wheel,
    /// The `ezkl` program at this path.
    Program(PathBuf),
}

impl Default for EzklConfig {
    fn default() -> Self {
        Self { runner: RunnerKind::Wheel, srs: None, cache_dir: None, python: None, stall: STALL, keep_warm: None }
    }
}

impl EzklConfig {
    /// The default, with `SHARDPROOF_CACHE_DIR` and `SHARDPROOF_PYTHON` from the environment.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { cache_dir: path("SHARDPROOF_CACHE_DIR"), python: path("SHARDPROOF_PYTHON"), ..Self::default() }
    }

    /// The directory for the wheel and test SRS files.
    pub fn cache_dir(&self) -> PathBuf {
        let default = || dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("shardproof");
        self.cache_dir.clone().unwrap_or_else(default)
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.python.clone().unwrap_or_else(|| PathBuf::from("python3"))
    }
}
