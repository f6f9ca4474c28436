//! The runner that drives the Python wheel: one child process for a series of calls, so that Python starts once.
//!
//! A child can be started ahead of its job, whose limits hold from the moment at which it waits for the greeting.

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

/// A Python process that loads ezkl, or has loaded it.
pub(crate) struct WheelRunner {
    child: Child,
    site: PathBuf,
    /// Whether its greeting was read.
    ready: bool,
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

impl WheelRunner {
    /// Starts Python with the package in `site`.
    ///
    /// # Errors
    /// [`BackendError::Missing`] when there is no such Python.
    pub(crate) fn start(python: &Path, site: &Path) -> Result<Self, BackendError> {
        let mut command = Command::new(python);
        command.args(["-I", "-B", "-c", SCRIPT]).arg(site).arg(std::process::id().to_string());
        let missing = |error| BackendError::Missing(format!("cannot start Python (`{}`): {error}", python.display()));
        let child = Child::start(command, Some(MARKER)).map_err(missing)?;
        Ok(Self { child, site: site.to_owned(), ready: false })
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.is_alive()
    }

    /// Waits until ezkl is loaded.
    ///
    /// # Errors
    /// [`BackendError::Missing`] when the package cannot be loaded or is another version.
    pub(crate) fn ready(mut self, frame: &Frame<'_>) -> Result<Self, BackendError> {
        if self.ready {
            return Ok(self);
        }
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
        self.ready = true;
        Ok(self)
    }

    /// Ends a job; returns how much memory is still held, bytes.
    pub(crate) fn rest(&mut self) -> u64 {
        self.child.begin_anew()
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
