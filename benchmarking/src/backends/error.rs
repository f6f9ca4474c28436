//! Why there is no comparison at all, and why a system has no figure in one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use shardproof_models::{FloatError, InputError, ModelError};
use thiserror::Error;

use crate::plot::PlotError;
use crate::table::TableError;

/// Why the comparison cannot be made.
#[derive(Debug, Error)]
pub enum ComparisonError {
    /// An adapter's manifest is none.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it, with the key.
        reason: String,
    },
    /// Two systems would have the same name in tables.
    #[error("two systems are named `{0}`: rename one in its manifest")]
    Twice(String),
    /// `--systems` names none that is built in.
    #[error("unknown system `{name}`: expected one of {}", known.join(", "))]
    UnknownSystem {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A model of the comparison cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model's samples do not fit it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A model has no answer in floats to compare with.
    #[error("the float answer: {0}")]
    Float(#[from] FloatError),
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A plot could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ComparisonError {
    /// For `map_err` where a path is at hand.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Why a system has no figures for a model, or no more of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It crashed, hit a limit, or did what it must not.
    Failed(String),
    /// It was not tried.
    Skipped(String),
    /// It says that it cannot do this model.
    Unsupported(String),
    /// The benchmark was stopped.
    Interrupted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
            Self::Unsupported(reason) => write!(f, "unsupported: {reason}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// How a system came out of a model: `ok`, or the [`Stop`] in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(pub Option<Stop>);

impl Status {
    /// Whether all was measured, and every check passed.
    pub fn is_ok(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("ok"),
            Some(stop) => stop.fmt(f),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
