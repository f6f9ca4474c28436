//! The configured ezkl, started when needed or ahead of need.

use std::sync::Arc;

use shardproof_common::backend::BackendError;

use crate::cli::CliRunner;
use crate::config::{EzklConfig, RunnerKind};
use crate::frame::Frame;
use crate::install::Installation;
use crate::runner::Runner;
use crate::warm::Nest;
use crate::wheel::WheelRunner;

/// Where jobs get their runner from.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) config: EzklConfig,
    succession: Succession,
    nest: Arc<Nest>,
}

/// Which process waits for the next job, where one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Succession {
    /// The one that served the last job, if that went well.
    Same,
    /// A new one: what a job was given by others must not reach the next one, whatever it does to ezkl.
    New,
}

impl Tools {
    pub(crate) fn new(config: EzklConfig, succession: Succession) -> Self {
        Self { config, succession, nest: Arc::default() }
    }

    /// Calls `work` with a runner of its own: the process that waits for a job, else a new one, as [`start`] does.
    ///
    /// After success a process is left to wait for the next job, if the configuration says so.
    pub(crate) fn with_runner<T, E: From<BackendError>>(
        &self,
        frame: &Frame<'_>,
        work: impl FnOnce(&mut dyn Runner) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.config.runner != RunnerKind::Wheel {
            return work(start(&self.config, frame)?.as_mut());
        }
        let mut runner = self.wheel(frame)?;
        let done = work(&mut runner)?;
        self.leave(runner);
        Ok(done)
    }

    fn wheel(&self, frame: &Frame<'_>) -> Result<WheelRunner, BackendError> {
        if let Some(waiting) = self.nest.take() {
            match waiting.ready(frame) {
                Ok(runner) => return Ok(runner),
                Err(error @ (BackendError::Cancelled | BackendError::Limit(_))) => return Err(error),
                // Whatever became of it while it waited, this job's own process tells whether ezkl works.
                Err(error) => tracing::debug!(%error, "the process that waited for a job is of no use"),
            }
        }
        start_wheel(&self.config, frame)
    }

    /// Lets `runner`, whose job is done, or a successor wait for the next job.
    fn leave(&self, mut runner: WheelRunner) {
        let Some(keep) = self.config.keep_warm else { return };
        self.nest.keep(keep.idle, || {
            if self.succession == Succession::Same && runner.rest() <= keep.memory_bytes {
                return Ok(runner);
            }
            drop(runner);
            WheelRunner::start(&self.config.python(), &Installation::new(&self.config).site())
        });
    }
}

/// Starts ezkl for a series of calls, installing it first where it is missing.
///
/// # Errors
/// [`BackendError::Missing`] when it is not there and cannot be installed.
pub(crate) fn start(config: &EzklConfig, frame: &Frame<'_>) -> Result<Box<dyn Runner>, BackendError> {
    Ok(match &config.runner {
        RunnerKind::Wheel => Box::new(start_wheel(config, frame)?),
        RunnerKind::Program(program) => Box::new(CliRunner::start(program, frame)?),
    })
}

fn start_wheel(config: &EzklConfig, frame: &Frame<'_>) -> Result<WheelRunner, BackendError> {
    let site = Installation::new(config).ensure_within(frame)?;
    WheelRunner::start(&config.python(), &site)?.ready(frame)
}
