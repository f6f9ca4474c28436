//! Logging: structured, on standard error, so that standard output carries data alone.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

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

/// The error with its causes in one line; a cause that the text before already tells is not told again.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Says why a program ends, as its log lines look.
pub fn report(error: &(dyn Error + 'static), format: LogFormat) {
    let described = describe(error);
    match format {
        LogFormat::Text => {
            // A closed standard error means that nobody is there to read it.
            let _nobody_reads = writeln!(io::stderr(), "error: {described}");
        }
        LogFormat::Json => tracing::error!("{described}"),
    }
}

/// Starts logging. `RUST_LOG` overrides `default_filter`.
pub fn init(default_filter: &str, format: LogFormat) {
    let default_filter = || EnvFilter::new(format!("{default_filter},{QUIET}"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second subscriber in one process (tests) keeps the first.
    let _already_started = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<io::Error>,
    }

    #[test]
    fn causes_are_told_once() {
        let told = |text| Told { text, source: Some(io::Error::other("disk full")) };
        assert_eq!(describe(&told("x: disk full")), "x: disk full");
        assert_eq!(describe(&told("writing")), "writing: disk full");
    }
}
