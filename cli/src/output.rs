//! The one place that writes to standard output: data alone goes there, in text or as JSON. Everything said to a person
//! goes to standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// How a command reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    verbose: bool,
}

/// What a command that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All went well.
    Success,
    /// The command ran, but what it reports has failed: an inference without an answer, a doctor's finding.
    Failure,
    /// A run, a bundle or a card is rejected, or is not verified where that was the question.
    Rejected,
}

impl Outcome {
    /// What a command that did both things reports: a rejection before a failure, a failure before success.
    pub(crate) const fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rejected, _) | (_, Self::Rejected) => Self::Rejected,
            (Self::Failure, _) | (_, Self::Failure) => Self::Failure,
            (Self::Success, Self::Success) => Self::Success,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Failure => Self::from(1),
            Outcome::Rejected => Self::from(3),
        }
    }
}

impl Output {
    /// `json`: data as JSON instead of text. `verbose`: more is said on standard error.
    pub(crate) const fn new(json: bool, verbose: bool) -> Self {
        Self { json, verbose }
    }

    /// Whether data is printed as JSON.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Whether more than usual is said.
    pub(crate) const fn verbose(&self) -> bool {
        self.verbose
    }

    /// Prints `value` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn data<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
            write_all(&json)
        } else {
            write_all(&text(value))
        }
    }

    /// Prints `value` as one line of JSON, or what `text` makes of it; for commands that report again and again.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn event<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        if self.json {
            let json = serde_json::to_string(value).map_err(io::Error::other)?;
            write_all(&json)
        } else {
            write_all(&text(value))
        }
    }

    /// Prints text that has no JSON form, such as a completion script.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        forgive_closed_pipe(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    /// Says something to the person at the terminal.
    pub(crate) fn say(&self, message: &str) {
        say(message);
    }

    /// Says something that only a person who asked for more wants to read.
    pub(crate) fn detail(&self, message: &str) {
        if self.verbose {
            say(message);
        }
    }

    /// Says something that must not be missed.
    pub(crate) fn warn(&self, message: &str) {
        say(&format!("WARNING: {message}"));
    }
}

/// Says something to the person at the terminal; a closed standard error means that nobody is there to read it.
pub(crate) fn say(message: &str) {
    let _nobody_reads = writeln!(io::stderr(), "{message}");
}

fn write_all(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let newline: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    let written =
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(newline)).and_then(|()| stdout.flush());
    forgive_closed_pipe(written)
}

/// Whoever closed the pipe (`| head`) has read what they wanted.
fn forgive_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
