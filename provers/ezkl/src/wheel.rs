//! The runner that drives the Python wheel: one child process for the calls of one job, so that Python starts once.
//!
//! Starting has two halves, so that a child can be started ahead of its job: [`Loading`] is a process that loads ezkl and
//! then waits, [`WheelRunner`] one whose greeting was read, under the limits of the job that it now works for.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use shardproof_common::backend::BackendError;

use crate::VERSION;
use crate::child::{Child, join};
use crate::frame::{Frame, failed};
use crate::runner::{CallError, Op, Runner};

pub(crate) const SCRIPT: &str = include_str!("runner.py");
const MARKER: &str = "\u{1e}end of call";

/// A Python process with ezkl loaded.
pub(crate) struct WheelRunner {
    child: Child,
}

/// A Python process that loads ezkl, or has loaded it and waits for its first call.
pub(crate) struct Loading {
    child: Child,
    site: PathBuf,
}

/// The child's first line.
#[derive(Deserialize)]
struct Greeting {
    ready: bool,
    #[serde(default)]
    version: String,
    #[serde(default)]
    error: String,
}

/// The child's line after a call.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    accepted: bool,
    #[serde(default)]
    panicked: bool,
    #[serde(default)]
    error: String,
    peak_rss_bytes: u64,
}

impl Loading {
    /// Starts Python with the package in `site`.
    ///
    /// # Errors
    /// [`BackendError::Missing`] when there is no such Python.
    pub(crate) fn start(python: &Path, site: &Path) -> Result<Self, BackendError> {
        let mut command = Command::new(python);
        command.args(["-I", "-B", "-c", SCRIPT]).arg(site).arg(std::process::id().to_string());
        let missing = |error| BackendError::Missing(format!("cannot start Python (`{}`): {error}", python.display()));
        let child = Child::start(command, Some(MARKER)).map_err(missing)?;
        Ok(Self { child, site: site.to_owned() })
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.is_alive()
    }

    /// Waits until ezkl is loaded.
    ///
    /// # Errors
    /// [`BackendError::Missing`] when the package cannot be loaded or is another version.
    pub(crate) fn ready(mut self, frame: &Frame<'_>) -> Result<WheelRunner, BackendError> {
        let Some(line) = self.child.next_line("start", frame)? else {
            return Err(self.child.unexpected_end("start", frame));
        };
        let greeting: Greeting = serde_json::from_str(&line).map_err(|error| failed("start", error.to_string()))?;
        let text = self.child.text();
        let site = self.site.display();
        let remedy = format!("remove {site} and it will be installed again");
        if !greeting.ready {
            let said = join(&greeting.error, &text);
            return Err(BackendError::Missing(format!("ezkl in {site} cannot be loaded: {said}; {remedy}")));
        }
        if greeting.version != VERSION {
            let found = greeting.version;
            return Err(BackendError::Missing(format!("expected ezkl {VERSION}, found {found} in {site}; {remedy}")));
        }
        Ok(WheelRunner { child: self.child })
    }
}

impl Runner for WheelRunner {
    fn call(&mut self, op: &Op<'_>, frame: &Frame<'_>) -> Result<String, CallError> {
        let step = op.step();
        let request = serde_json::to_string(op).map_err(|error| failed(step, error.to_string()))?;
        if self.child.say(&request).is_err() {
            return Err(self.child.unexpected_end(step, frame).into());
        }
        let Some(line) = self.child.next_line(step, frame)? else {
            return Err(self.child.unexpected_end(step, frame).into());
        };
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| failed(step, format!("unreadable answer: {error}")))?;
        let text = self.child.text();
        self.child.note_peak(answer.peak_rss_bytes);
        if answer.ok && answer.accepted {
            return Ok(text);
        }
        let message = match (answer.ok, answer.panicked) {
            (true, _) => "ezkl answered no".to_owned(),
            (false, true) => format!("ezkl panicked: {}", answer.error),
            (false, false) => answer.error,
        };
        Err(CallError::Refused { message, text })
    }

    fn peak_rss_bytes(&self) -> u64 {
        self.child.peak_rss_bytes()
    }
}
