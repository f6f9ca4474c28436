//! What a person sees while something takes long: a spinner on a terminal, one line per phase elsewhere. All of it on
//! standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// A phase of work that may take long. The display ends with the value.
#[derive(Debug)]
pub(crate) struct Phase {
    bar: Option<ProgressBar>,
    verbose: bool,
    last: String,
}

impl Phase {
    /// Begins a phase; away from a terminal its title is printed once.
    pub(crate) fn begin(title: &str, verbose: bool) -> Self {
        if !io::stderr().is_terminal() {
            output::say(title);
            return Self { bar: None, verbose, last: title.to_owned() };
        }
        let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar: Some(bar), verbose, last: title.to_owned() }
    }

    /// Says where the phase is; away from a terminal only when more was asked for, and only when it changed.
    pub(crate) fn step(&mut self, message: &str) {
        if self.last == message {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None if self.verbose => output::say(message),
            None => {}
        }
        message.clone_into(&mut self.last);
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
