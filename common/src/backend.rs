//! The interface that every proof system implements, one half for the parties that compute and one for the verifier.
//!
//! All calls block and may take hours: callers run them on threads of their own. A call ends early with
//! [`BackendError::Cancelled`] once its [`Job`]'s token is cancelled, and with [`BackendError::Limit`] when it exceeds the
//! job's limits; it leaves no process behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::card::{ShardCard, ShardKeys};
use crate::ids::ShardIndex;
use crate::plan::{BackendKind, BackendOptions, BoundaryMode};
use crate::statement::{BackendId, Boundary, Statement};
use crate::tensor::{FloatTensor, Tensor, TensorSpec};

/// What a proof system does on the owner's side (`setup`) and on a worker's (`infer`, `prove`).
pub trait Backend: Send + Sync {
    /// Name and version.
    fn id(&self) -> BackendId;

    /// Computes settings and keys of one shard, on the owner's side.
    ///
    /// # Errors
    /// When the shard cannot be set up within the job's limits.
    fn setup(&self, request: &SetupRequest<'_>, job: &Job<'_>) -> Result<ShardSetup, BackendError>;

    /// Gets ready for a shard ahead of its first run, so that no run pays for it. By default there is nothing to do.
    ///
    /// # Errors
    /// When the shard's files are not what the card registers.
    fn load(&self, shard: &ShardFiles) -> Result<(), BackendError> {
        let _nothing_to_load = shard;
        Ok(())
    }

    /// Runs one shard on `input`; what the proof will need later is left in the job's directory.
    ///
    /// # Errors
    /// When the input does not fit the shard, or a value leaves the calibrated range.
    fn infer(&self, shard: &ShardFiles, input: &[Tensor], job: &Job<'_>) -> Result<Inference, BackendError>;

    /// Proves `statement`, the inference on `input` in whose directory the job is.
    ///
    /// # Errors
    /// When the backend fails, exceeds its limits, or the statement is not true.
    fn prove(
        &self,
        shard: &ShardFiles,
        input: &[Tensor],
        statement: &Statement,
        job: &Job<'_>,
    ) -> Result<Proof, BackendError>;

    /// The output boundary of a shard as a statement names it, for whoever has the tensors and did not run the shard.
    ///
    /// # Errors
    /// [`BackendError::Input`] when the tensors are none that a statement can name; [`BackendError::Unsupported`] where only
    /// the next shard's circuit can bind them.
    fn output_boundary(&self, mode: BoundaryMode, output: &[Tensor]) -> Result<Boundary, BackendError> {
        match mode {
            BoundaryMode::Public => Ok(Boundary::public(output)),
            mode => {
                let what = format!("binds {mode} tensors in a circuit only");
                Err(BackendError::Unsupported { backend: self.id().kind, what })
            }
        }
    }

    /// Most runs of `shard` that [`Backend::prove_batch`] takes at once; at least 1, which is what it is by default.
    fn batch_limit(&self, shard: &ShardFiles) -> usize {
        let _one_at_a_time = shard;
        1
    }

    /// Proves several runs of a shard in one proof, whose bytes are the proof of each of them. Public boundaries of every
    /// run can be read from it, so all runs must be of one requester. The job is in the directory of the first run.
    ///
    /// # Errors
    /// As [`Backend::prove`], and when there are more runs than [`Backend::batch_limit`]. There is no proof of the others
    /// when one statement is not true.
    fn prove_batch(
        &self,
        shard: &ShardFiles,
        members: &[BatchMember<'_>],
        job: &Job<'_>,
    ) -> Result<Proof, BackendError> {
        match members {
            [BatchMember { input, statement }] => self.prove(shard, input, statement, job),
            members => {
                let what = format!("proves one run at a time, was given {}", members.len());
                Err(BackendError::Unsupported { backend: self.id().kind, what })
            }
        }
    }
}

/// One run of those that are proven together.
#[derive(Clone, Copy, Debug)]
pub struct BatchMember<'a> {
    /// What entered the shard.
    pub input: &'a [Tensor],
    /// What is proven of it.
    pub statement: &'a Statement,
}

/// What a proof system does for whoever checks.
pub trait ProofVerifier: Send + Sync {
    /// The proof system that this verifier checks proofs of.
    fn kind(&self) -> BackendKind;

    /// The one version whose proofs and keys it accepts.
    fn pinned_version(&self) -> &str;

    /// Reads registered settings and compares them with what the plan asks for: visibilities, scales, shapes, range
    /// checks. Called before any proof is verified.
    ///
    /// # Errors
    /// Names the setting that differs.
    fn check_settings(&self, card: &ShardCard, registered: &Registered<'_>) -> Result<(), String>;

    /// Compares what a verifying key, whose digest is the card's, says of itself with the card. Called before any proof is
    /// verified. By default a key says nothing but what [`ProofVerifier::check_settings`] compares.
    ///
    /// # Errors
    /// Names what differs.
    fn check_verifying_key(&self, card: &ShardCard, verifying_key: &[u8]) -> Result<(), String> {
        let (_card, _verifying_key) = (card, verifying_key);
        Ok(())
    }

    /// Checks `proof` under the registered keys for `statement`, whose boundaries the caller has compared with the card's.
    ///
    /// # Errors
    /// [`VerifyError::Instances`], [`VerifyError::Weights`] or [`VerifyError::Rejected`] when the proof is not one of this
    /// statement; [`VerifyError::Unavailable`] when it could not be checked.
    fn verify(&self, request: &VerifyRequest<'_>, job: &Job<'_>) -> Result<(), VerifyError>;
}

/// What the plan says of one shard, as far as settings depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Registered<'a> {
    /// The proof system's options.
    pub options: &'a BackendOptions,
    /// Mode of the input boundary.
    pub input_mode: BoundaryMode,
    /// Mode of the output boundary.
    pub output_mode: BoundaryMode,
}

/// One shard's proof with all that it is checked against.
#[derive(Clone, Copy, Debug)]
pub struct VerifyRequest<'a> {
    /// What the proof claims.
    pub statement: &'a Statement,
    /// The registered keys.
    pub card: &'a ShardCard,
    /// What the plan says of the shard.
    pub registered: Registered<'a>,
    /// Bytes of the verifying key, whose digest the caller has compared with the card's.
    pub verifying_key: &'a [u8],
    /// The input tensors where their boundary is public; the caller has compared them with the statement.
    pub input: Option<&'a [Tensor]>,
    /// The output tensors where their boundary is public.
    pub output: Option<&'a [Tensor]>,
    /// The backend's bytes.
    pub proof: &'a [u8],
}

/// Why [`ProofVerifier::verify`] did not accept.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The public instances are not of the registered layout, are not canonically encoded, or say something else than the
    /// statement's boundaries.
    #[error("{0}")]
    Instances(String),
    /// The weights that the proof is about are not the registered ones.
    #[error("{0}")]
    Weights(String),
    /// The proof does not hold.
    #[error("{0}")]
    Rejected(String),
    /// The proof could not be checked.
    #[error(transparent)]
    Unavailable(#[from] BackendError),
}

/// What a backend needs to know to set up one shard.
#[derive(Clone, Debug)]
pub struct SetupRequest<'a> {
    /// Which shard, for messages.
    pub shard: ShardIndex,
    /// The shard's ONNX file: default attributes explicit, dimensions fixed.
    pub model: &'a Path,
    /// Calibration samples: for each, the shard's inputs in floats.
    pub samples: &'a [Vec<FloatTensor>],
    /// The previous shard's outputs with their scales, which are this shard's inputs; nothing for shard 0.
    pub input: Option<&'a [TensorSpec]>,
    /// The shard's inputs by name and shape, in order.
    pub input_names: &'a [(String, Vec<u64>)],
    /// The shard's outputs by name and shape, in order.
    pub output_names: &'a [(String, Vec<u64>)],
    /// Mode of the input boundary.
    pub input_mode: BoundaryMode,
    /// Mode of the output boundary.
    pub output_mode: BoundaryMode,
    /// The plan's parameters for this shard.
    pub options: &'a BackendOptions,
    /// Smallest log2 of rows allowed, so that `polycommit` neighbours can agree on one k.
    pub min_logrows: Option<u32>,
}

/// What setting up a shard gives.
#[derive(Clone, Debug)]
pub struct ShardSetup {
    /// The entry of the model card.
    pub card: ShardCard,
    /// Files that workers need to run and prove, by name. The ONNX file is not among them.
    pub worker_files: BTreeMap<String, PathBuf>,
    /// The verifying key's file, where the backend has one.
    pub verifying_key: Option<PathBuf>,
    /// Peak memory of the setup, bytes.
    pub peak_rss_bytes: u64,
    /// Size of the proving key, bytes.
    pub proving_key_bytes: u64,
}

/// A shard's files as a worker holds them.
#[derive(Clone, Debug)]
pub struct ShardFiles {
    /// Which shard, for messages.
    pub shard: ShardIndex,
    /// The card's entry.
    pub card: ShardCard,
    /// The plan's parameters for this shard.
    pub options: BackendOptions,
    /// Mode of the input boundary.
    pub input_mode: BoundaryMode,
    /// Mode of the output boundary.
    pub output_mode: BoundaryMode,
    /// The shard's ONNX file.
    pub model: PathBuf,
    /// [`ShardSetup::worker_files`].
    pub files: BTreeMap<String, PathBuf>,
}

/// What running a shard gives.
#[derive(Clone, Debug)]
pub struct Inference {
    /// The output tensors, in the order of the shard's outputs.
    pub output: Vec<Tensor>,
    /// The input boundary as the statement names it.
    pub input_boundary: Boundary,
    /// The output boundary as the statement names it.
    pub output_boundary: Boundary,
    /// Bytes of the witness.
    pub witness_bytes: u64,
    /// Peak memory, bytes.
    pub peak_rss_bytes: u64,
}

/// A backend's proof of one statement.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The backend's encoding.
    pub bytes: Vec<u8>,
    /// Peak memory, bytes.
    pub peak_rss_bytes: u64,
}

/// The frame in which one call runs.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Files of this job; exists. For `infer` and `prove` of one run it is the same, so that `prove` finds the witness.
    pub directory: &'a Path,
    /// What the call may use.
    pub limits: Limits,
    /// Ends the call early.
    pub cancel: &'a CancellationToken,
    /// Told what the call is at, a few words such as `calibrate`.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// What a call may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time.
    pub deadline: Option<Duration>,
    /// Resident memory of the call's processes, bytes.
    pub memory_bytes: Option<u64>,
    /// What the planner predicted for memory, bytes, for the message when the limit is hit.
    pub predicted_bytes: Option<u64>,
}

/// Why a backend failed.
#[derive(Debug, Error)]
pub enum BackendError {
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A limit was hit; the message says which, and what the planner had predicted.
    #[error("{0}")]
    Limit(String),
    /// The backend is not installed, or not in the pinned version; the message says how to install it.
    #[error("{0}")]
    Missing(String),
    /// The input does not fit the shard, or a value leaves its range.
    #[error("{0}")]
    Input(String),
    /// The proof system failed.
    #[error("{backend} failed at {step}: {message}")]
    Failed {
        /// Which backend.
        backend: BackendKind,
        /// Its step.
        step: String,
        /// What it said.
        message: String,
    },
    /// The backend does not do this.
    #[error("{backend} {what}")]
    Unsupported {
        /// Which backend.
        backend: BackendKind,
        /// What it does not do, as a predicate.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl BackendError {
    /// For `map_err` where a path is at hand.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl ShardKeys {
    /// Whether a run under these keys can be proven at all.
    pub fn provable(&self) -> bool {
        !matches!(self, Self::Float)
    }
}
