//! What the benchmark is at, on standard error: a bar on a terminal, a line for each step otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar's clock moves on.
const TICK: Duration = Duration::from_millis(200);

/// Tells what is being done.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    done: u64,
}

impl Progress {
    /// Of so many steps.
    pub fn new(steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps);
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, steps, done: 0 }
    }

    /// Begins the next step.
    pub fn begin(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(what.to_owned());
            }
            None => eprintln!("[{}/{}] {what}", self.done + 1, self.steps),
        }
        self.done += 1;
    }

    /// Takes steps that won't come off the count.
    pub fn leave_out(&mut self, steps: u64) {
        self.steps = self.steps.saturating_sub(steps);
        if let Some(bar) = &self.bar {
            bar.set_length(self.steps);
        }
    }

    /// Says something that stays.
    pub fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{what}")),
            None => eprintln!("{what}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
