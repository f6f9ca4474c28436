//! Logging: structured, on standard error, so that standard output carries data alone.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected text or json, found `{text}`")),
        }
    }
}

/// The float engine warns of operator sets that are newer than its tests, each time it reads a shard. Import has checked the
/// operators by then, and written out what depends on the set.
const QUIET: &str = "tract_onnx=error";

/// Starts logging. `RUST_LOG` overrides `default_filter`.
pub fn init(default_filter: &str, format: LogFormat) {
    let default_filter = || EnvFilter::new(format!("{default_filter},{QUIET}"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber in one process (tests) keeps the first.
    let _already_started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
