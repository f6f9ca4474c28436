//! The configured ezkl, started when needed or ahead of need.

use std::sync::Arc;

use shardproof_common::backend::BackendError;

use crate::cli::CliRunner;
use crate::config::{EzklConfig, RunnerKind};
use crate::frame::Frame;
use crate::install::Installation;
use crate::runner::Runner;
use crate::warm::Nest;
use crate::wheel::{Loading, WheelRunner};

/// Where jobs get their runner from.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) config: EzklConfig,
    nest: Arc<Nest>,
}

impl Tools {
    pub(crate) fn new(config: EzklConfig) -> Self {
        Self { config, nest: Arc::default() }
    }

    /// Calls `job`; when it succeeds, a process for the next one is started if the configuration keeps one ready.
    pub(crate) fn carry_out<T, E>(&self, job: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        let outcome = job(self);
        if let (Ok(_), RunnerKind::Wheel, Some(idle)) = (&outcome, &self.config.runner, self.config.keep_warm) {
            let (python, site) = (self.config.python(), Installation::new(&self.config).site());
            self.nest.prepare(idle, || Loading::start(&python, &site));
        }
        outcome
    }

    /// The process that waits for a job, else a new one.
    ///
    /// # Errors
    /// As [`start`].
    pub(crate) fn start(&self, frame: &Frame<'_>) -> Result<Box<dyn Runner>, BackendError> {
        if let Some(waiting) = self.nest.take() {
            match waiting.ready(frame) {
                Ok(runner) => return Ok(Box::new(runner)),
                Err(error @ (BackendError::Cancelled | BackendError::Limit(_))) => return Err(error),
                // Whatever became of it while it waited, this job's own process tells whether ezkl works.
                Err(error) => tracing::debug!(%error, "the process that waited for a job is of no use"),
            }
        }
        start(&self.config, frame)
    }
}

/// Starts ezkl for a series of calls, installing it first where it is missing.
///
/// # Errors
/// [`BackendError::Missing`] when it is not there and cannot be installed.
pub(crate) fn start(config: &EzklConfig, frame: &Frame<'_>) -> Result<Box<dyn Runner>, BackendError> {
    match &config.runner {
        RunnerKind::Wheel => {
            let site = Installation::new(config).ensure_within(frame)?;
            let runner: WheelRunner = Loading::start(&config.python(), &site)?.ready(frame)?;
            Ok(Box::new(runner))
        }
        RunnerKind::Program(program) => Ok(Box::new(CliRunner::start(program, frame)?)),
    }
}
