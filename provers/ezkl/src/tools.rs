//! The configured ezkl, started when needed.

use shardproof_common::backend::BackendError;

use crate::cli::CliRunner;
use crate::config::{EzklConfig, RunnerKind};
use crate::frame::Frame;
use crate::install::Installation;
use crate::runner::Runner;
use crate::wheel::WheelRunner;

/// Starts ezkl for a series of calls, installing it first where it is missing.
///
/// # Errors
/// [`BackendError::Missing`] when it is not there and cannot be installed.
pub(crate) fn start(config: &EzklConfig, frame: &Frame<'_>) -> Result<Box<dyn Runner>, BackendError> {
    match &config.runner {
        RunnerKind::Wheel => {
            let site = Installation::new(config).ensure_within(frame)?;
            Ok(Box::new(WheelRunner::start(&config.python(), &site, frame)?))
        }
        RunnerKind::Program(program) => Ok(Box::new(CliRunner::start(program, frame)?)),
    }
}
