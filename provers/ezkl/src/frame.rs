//! One call's limits, measured from its start: everything that the call does shares one deadline.

use std::time::{Duration, Instant};

use shardproof_common::backend::{BackendError, Job};
use shardproof_common::plan::BackendKind;

/// A job with the time at which it started.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) job: &'a Job<'a>,
    started: Instant,
    pub(crate) stall: Duration,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(job: &'a Job<'a>, stall: Duration) -> Self {
        Self { job, started: Instant::now(), stall }
    }

    /// Tells the job's owner what the call is at.
    pub(crate) fn at(&self, step: &str) {
        (self.job.progress)(step);
    }

    /// Ends the call if it was cancelled, or if its time or memory is used up.
    pub(crate) fn check(&self, step: &str, rss_bytes: u64) -> Result<(), BackendError> {
        if self.job.cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        let limits = &self.job.limits;
        if let Some(deadline) = limits.deadline.filter(|deadline| self.started.elapsed() >= *deadline) {
            let deadline = deadline.as_secs_f64();
            return Err(BackendError::Limit(format!("{step} did not end within the deadline of {deadline:.1} s")));
        }
        match limits.memory_bytes {
            Some(limit) if rss_bytes > limit => Err(BackendError::Limit(format!(
                "{step} used {} of memory, more than its limit of {}; {}",
                in_units(rss_bytes),
                in_units(limit),
                self.prediction()
            ))),
            _ => Ok(()),
        }
    }

    /// What was predicted for memory, in words.
    pub(crate) fn prediction(&self) -> String {
        match self.job.limits.predicted_bytes {
            Some(bytes) => format!("the planner had predicted {}", in_units(bytes)),
            None => "the planner had predicted nothing".to_owned(),
        }
    }

    /// The memory limit, in words.
    pub(crate) fn memory_limit(&self) -> String {
        match self.job.limits.memory_bytes {
            Some(bytes) => format!("a limit of {}", in_units(bytes)),
            None => "no limit of its own".to_owned(),
        }
    }
}

/// A failure of ezkl at `step`.
pub(crate) fn failed(step: &str, message: impl Into<String>) -> BackendError {
    BackendError::Failed { backend: BackendKind::Ezkl, step: step.to_owned(), message: message.into() }
}

/// Bytes in the unit in which people read them.
pub(crate) fn in_units(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
