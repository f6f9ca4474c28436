//! Why there is no figure.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use shardproof_common::card::CardError;
use shardproof_common::tensor::TensorError;
use shardproof_models::{InputError, ModelError};
use shardproof_proto::transport::artifacts::TransferError;
use thiserror::Error;

use crate::accuracy::error::AccuracyError;
use crate::plot::PlotError;
use crate::table::TableError;

/// Why a measurement failed.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The programs to be measured are not built.
    #[error("{} is not there: run `cargo build --release --workspace` first, and this program from the same profile", path.display())]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("{}: cannot start: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program ended, or never listened.
    #[error("the {name} {what}; its log ends with:\n{log}")]
    Service {
        /// `coordinator`, or a worker's role.
        name: String,
        /// What it did instead.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// The coordinator could not set the model up.
    #[error("setup failed: {0}")]
    Setup(String),
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long, s.
        seconds: u64,
    },
    /// A run ended otherwise than it should.
    #[error("run {run} ended as {state} instead of {expected}: {reason}")]
    Run {
        /// Its id.
        run: String,
        /// How it ended.
        state: String,
        /// How it should have ended.
        expected: &'static str,
        /// The coordinator's reason.
        reason: String,
    },
    /// The workers' logs do not say what they should.
    #[error("the log of the worker of shard {shard} tells of {found} boundaries passed on, expected {expected}")]
    Log {
        /// Whose log.
        shard: usize,
        /// Lines found.
        found: usize,
        /// Lines expected.
        expected: usize,
    },
    /// The two sides of a comparison did not do the same.
    #[error("service and script are not comparable: {what} is {service} in the service and {script} in the script")]
    NotComparable {
        /// What differs.
        what: &'static str,
        /// The service's.
        service: String,
        /// The script's.
        script: String,
    },
    /// The Python script failed.
    #[error("the Python script ended with {status}:\n{text}")]
    Script {
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
        text: String,
    },
    /// The Python script's output is not what this program reads.
    #[error("the Python script said {line:?}, expected {expected}")]
    ScriptOutput {
        /// What it said.
        line: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A run does not have the shards that it should.
    #[error("the run has {found} shards, expected {expected}")]
    Shards {
        /// As many as the configuration says.
        expected: usize,
        /// As many as the coordinator tells of.
        found: usize,
    },
    /// No repetition was made.
    #[error("nothing was measured: ask for one repetition at least")]
    NothingMeasured,
    /// A server's log doesn't say what its connections carried.
    #[error("the log of the {name} doesn't tell of its traffic: it did not end as it should")]
    Traffic {
        /// `coordinator`, or which worker.
        name: String,
    },
    /// Nothing came of a number of clients.
    #[error("{clients} clients: {error}")]
    Load {
        /// Clients at a time.
        clients: usize,
        /// The first error.
        error: String,
    },
    /// The offline verifier did not accept.
    #[error("offline verification ended with {status}:\n{said}")]
    Offline {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// Tables of one kind have different columns.
    #[error("{}: has the columns {found}, the ones before {expected}: measure all of them with the same version", path.display())]
    Columns {
        /// The table.
        path: PathBuf,
        /// Columns of the tables before.
        expected: String,
        /// Its own.
        found: String,
    },
    /// A table could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A plot could not be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The measurement was stopped by a signal.
    #[error("stopped by a signal")]
    Stopped,
    /// The coordinator's card is none.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The coordinator refused a call or is gone.
    #[error("the coordinator answered {}: {}", .0.code(), .0.message())]
    Call(#[from] tonic::Status),
    /// The coordinator cannot be reached.
    #[error("the coordinator cannot be reached: {0}")]
    Connection(#[from] shardproof_proto::transport::ChannelError),
    /// The input could not be sent.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The model is none that can be measured.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model's samples cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The answer is none.
    #[error("the answer: {0}")]
    Answer(#[from] TensorError),
    /// Accuracy could not be measured.
    #[error(transparent)]
    Accuracy(#[from] AccuracyError),
    /// The system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl BenchError {
    /// Names what was being done when the system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
