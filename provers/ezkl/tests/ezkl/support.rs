//! A chain of three tiny shards, x -> (h, a) -> r -> y, taken through the whole backend once per boundary mode.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use shardproof_common::backend::{
    Backend, Inference, Job, Limits, ProofVerifier, Registered, SetupRequest, ShardFiles, VerifyError, VerifyRequest,
};
use shardproof_common::card::{EzklKeys, ShardCard, ShardKeys};
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions};
use shardproof_common::statement::{BackendId, Statement};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier};
use tokio_util::sync::CancellationToken;

/// The configuration of all tests: one cache in the build directory, so that the wheel is installed once.
pub(crate) fn config() -> EzklConfig {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ezkl-cache");
    EzklConfig { cache_dir: Some(cache), ..EzklConfig::from_env() }
}

/// A test model.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).with_extension("onnx")
}

/// Calls `work` with a job in `directory`.
pub(crate) fn with_job<T>(directory: &Path, limits: Limits, work: impl FnOnce(&Job<'_>) -> T) -> T {
    let cancel = CancellationToken::new();
    work(&Job { directory, limits, cancel: &cancel, progress: &|_| {} })
}

/// Scale 7 keeps the table of the sigmoid, and with it the circuits, small.
pub(crate) fn options() -> EzklOptions {
    EzklOptions { input_scale: Some(7), ..EzklOptions::default() }
}

/// What enters the chain.
pub(crate) const INPUT: [f32; 4] = [0.5, -1.0, 0.25, 0.875];
/// What the model answers to it, by the script that made the models.
pub(crate) const ANSWER: [f64; 3] = [0.290_737_88, 0.521_114_71, 0.488_247_67];

pub(crate) type Names = Vec<(String, Vec<u64>)>;

pub(crate) fn names(tensors: &[(&str, u64)]) -> Names {
    tensors.iter().map(|(name, width)| ((*name).to_owned(), vec![1, *width])).collect()
}

/// The shards' models with the tensors at their boundaries.
pub(crate) fn shards() -> [(&'static str, Names, Names); 3] {
    [
        ("first", names(&[("x", 4)]), names(&[("h", 4), ("a", 4)])),
        ("middle", names(&[("h", 4), ("a", 4)]), names(&[("r", 3)])),
        ("last", names(&[("r", 3)]), names(&[("y", 3)])),
    ]
}

/// Calibration samples of the given tensors, wide enough for whatever [`INPUT`] leads to.
pub(crate) fn samples(tensors: &Names) -> Vec<Vec<FloatTensor>> {
    let sample = |sign: f32| {
        let tensor = |(_, shape): &(String, Vec<u64>)| {
            let values = (0..shape.iter().product()).map(|i| sign * (1.0 + i as f32 / 4.0)).collect();
            FloatTensor { shape: shape.clone(), values }
        };
        tensors.iter().map(tensor).collect()
    };
    vec![sample(1.0), sample(-1.0)]
}

/// One shard of a chain after inference and proof.
pub(crate) struct Link {
    /// Holds the files for as long as the link is used.
    _directory: tempfile::TempDir,
    pub(crate) files: ShardFiles,
    pub(crate) verifying_key: Vec<u8>,
    pub(crate) input: Vec<Tensor>,
    pub(crate) inference: Inference,
    pub(crate) statement: Statement,
    pub(crate) proof: Vec<u8>,
}

/// What the plan fixes for a chain.
#[derive(Clone)]
pub(crate) struct ChainPlan {
    pub(crate) config: EzklConfig,
    /// Modes of the four boundaries.
    pub(crate) modes: [BoundaryMode; 4],
    pub(crate) options: EzklOptions,
    pub(crate) min_logrows: Option<u32>,
    /// How many of the shards.
    pub(crate) length: usize,
}

impl ChainPlan {
    pub(crate) fn new(inner: BoundaryMode) -> Self {
        let modes = [BoundaryMode::Public, inner, inner, BoundaryMode::Public];
        Self { config: config(), modes, options: options(), min_logrows: None, length: 3 }
    }

    /// Sets up, runs and proves.
    pub(crate) fn run(&self) -> Vec<Link> {
        let backend = EzklBackend::new(self.config.clone());
        let mut links: Vec<Link> = Vec::new();
        for (index, (name, inputs, outputs)) in shards().into_iter().enumerate().take(self.length) {
            let directory = tempfile::tempdir().unwrap();
            let previous: Option<Vec<TensorSpec>> = links.last().map(|link| link.files.card.output.clone());
            let (files, verifying_key) =
                self.set_up(&backend, directory.path(), index, name, &inputs, &outputs, previous.as_deref());
            let input = match links.last() {
                Some(link) => link.inference.output.clone(),
                None => {
                    let floats = FloatTensor { shape: vec![1, 4], values: INPUT.to_vec() };
                    vec![Tensor::Integer(floats.quantise(files.card.input[0].scale).unwrap())]
                }
            };
            links.push(run_link(&backend, directory, files, verifying_key, input));
        }
        links
    }

    #[allow(clippy::too_many_arguments, reason = "what a setup takes")]
    fn set_up(
        &self,
        backend: &EzklBackend,
        directory: &Path,
        index: usize,
        name: &str,
        inputs: &Names,
        outputs: &Names,
        previous: Option<&[TensorSpec]>,
    ) -> (ShardFiles, Vec<u8>) {
        let samples = samples(inputs);
        let options = BackendOptions::Ezkl(self.options.clone());
        let request = SetupRequest {
            shard: ShardIndex(index as u32),
            model: &model(name),
            samples: &samples,
            input: previous,
            input_names: inputs,
            output_names: outputs,
            input_mode: self.modes[index],
            output_mode: self.modes[index + 1],
            options: &options,
            min_logrows: self.min_logrows,
        };
        let setup = with_job(directory, Limits::default(), |job| backend.setup(&request, job)).unwrap();
        let verifying_key = std::fs::read(setup.verifying_key.unwrap()).unwrap();
        let files = ShardFiles {
            shard: request.shard,
            card: setup.card,
            options: options.clone(),
            input_mode: request.input_mode,
            output_mode: request.output_mode,
            model: request.model.to_owned(),
            files: setup.worker_files,
        };
        (files, verifying_key)
    }
}

fn run_link(
    backend: &EzklBackend,
    directory: tempfile::TempDir,
    files: ShardFiles,
    verifying_key: Vec<u8>,
    input: Vec<Tensor>,
) -> Link {
    let path = directory.path();
    let inference = with_job(path, Limits::default(), |job| backend.infer(&files, &input, job)).unwrap();
    let statement = Statement {
        protocol: PROTOCOL_VERSION,
        backend: BackendId { kind: files.card.backend.kind, version: shardproof_ezkl::VERSION.to_owned() },
        model: Digest::of(b"model"),
        architecture: Digest::of(b"architecture"),
        plan: Digest::of(b"plan"),
        shard: files.shard,
        shards: 3,
        run: RunId::from_bytes([7; 16]),
        input: inference.input_boundary.clone(),
        output: inference.output_boundary.clone(),
        keys: files.card.keys.digest(),
    };
    let proof = with_job(path, Limits::default(), |job| backend.prove(&files, &input, &statement, job)).unwrap().bytes;
    Link { _directory: directory, files, verifying_key, input, inference, statement, proof }
}

impl Link {
    pub(crate) fn registered(&self) -> Registered<'_> {
        Registered {
            options: &self.files.options,
            input_mode: self.files.input_mode,
            output_mode: self.files.output_mode,
        }
    }

    pub(crate) fn keys(&self) -> &EzklKeys {
        let ShardKeys::Ezkl(keys) = &self.files.card.keys else { panic!("not ezkl's keys") };
        keys
    }

    /// The card with its keys changed.
    pub(crate) fn card_with(&self, change: impl FnOnce(&mut EzklKeys)) -> ShardCard {
        let mut card = self.files.card.clone();
        let ShardKeys::Ezkl(keys) = &mut card.keys else { panic!("not ezkl's keys") };
        change(keys);
        card
    }

    /// The request with which an honest proof is verified.
    pub(crate) fn request(&self) -> VerifyRequest<'_> {
        let shown = |mode, tensors| (mode == BoundaryMode::Public).then_some(tensors);
        VerifyRequest {
            statement: &self.statement,
            card: &self.files.card,
            registered: self.registered(),
            verifying_key: &self.verifying_key,
            input: shown(self.files.input_mode, self.input.as_slice()),
            output: shown(self.files.output_mode, self.inference.output.as_slice()),
            proof: &self.proof,
        }
    }
}

/// Verifies in a directory of its own.
pub(crate) fn verify(request: &VerifyRequest<'_>) -> Result<(), VerifyError> {
    verify_with(config(), request)
}

/// Verifies with another configuration.
pub(crate) fn verify_with(config: EzklConfig, request: &VerifyRequest<'_>) -> Result<(), VerifyError> {
    let directory = tempfile::tempdir().unwrap();
    with_job(directory.path(), Limits::default(), |job| EzklVerifier::new(config).verify(request, job))
}

/// The reason for which a request is rejected.
pub(crate) fn rejection(request: &VerifyRequest<'_>) -> String {
    match verify(request) {
        Err(VerifyError::Rejected(reason) | VerifyError::Instances(reason) | VerifyError::Weights(reason)) => reason,
        Err(VerifyError::Unavailable(error)) => panic!("could not be checked: {error}"),
        Ok(()) => panic!("accepted"),
    }
}

/// The chain with hashed inner boundaries.
pub(crate) fn hashed() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| ChainPlan::new(BoundaryMode::Hashed).run())
}

/// Two shards of the chain with public boundaries.
pub(crate) fn public() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| ChainPlan { length: 2, ..ChainPlan::new(BoundaryMode::Public) }.run())
}

/// The chain with committed inner boundaries, all shards of one size.
pub(crate) fn polycommit() -> &'static [Link] {
    static CHAIN: OnceLock<Vec<Link>> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let min_logrows = hashed().iter().map(|link| link.keys().srs.logrows).max();
        ChainPlan { min_logrows, ..ChainPlan::new(BoundaryMode::Polycommit) }.run()
    })
}

/// Makes a shell script that can be run.
///
/// A program of its own writes the file: this one starts processes on many threads, and one that is just being started
/// would hold the file open, which keeps it from being run.
pub(crate) fn executable(directory: &Path, name: &str, body: &str) -> PathBuf {
    let (draft, path) = (directory.join(format!("{name}.draft")), directory.join(name));
    std::fs::write(&draft, format!("#!/bin/sh\n{body}\n")).unwrap();
    let installed = Command::new("install").args(["-m", "755"]).args([&draft, &path]).status().unwrap();
    assert!(installed.success());
    path
}

/// The Python of this machine, which the tests' stand-ins hand over to.
pub(crate) fn real_python() -> PathBuf {
    config().python.unwrap_or_else(|| PathBuf::from("python3"))
}
