//! A zoo model as one shard, and what its owner, worker and verifier do with it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use shardproof_common::backend::{
    Backend, BackendError, Inference, Job, Limits, ProofVerifier, Registered, SetupRequest, ShardFiles, ShardSetup,
    VerifyError, VerifyRequest,
};
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendOptions, BoundaryMode, GkrOptions, WeightVisibility};
use shardproof_common::statement::Statement;
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};
use shardproof_gkr_service::{GkrBackend, GkrVerifier};
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) fn with_job<T>(directory: &Path, action: impl FnOnce(&Job<'_>) -> T) -> T {
    let cancel = CancellationToken::new();
    action(&Job { directory, limits: Limits::default(), cancel: &cancel, progress: &|_| {} })
}

/// A zoo model as one shard.
pub(crate) struct Shard {
    pub(crate) directory: TempDir,
    pub(crate) setup: ShardSetup,
    pub(crate) files: ShardFiles,
    pub(crate) sample: Vec<FloatTensor>,
}

pub(crate) fn options(weights: WeightVisibility) -> BackendOptions {
    BackendOptions::Gkr(GkrOptions { weights, ..GkrOptions::default() })
}

pub(crate) fn try_setup(
    name: &str,
    directory: &Path,
    options: &BackendOptions,
    modes: [BoundaryMode; 2],
    given: Option<&[TensorSpec]>,
) -> Result<(ShardSetup, Vec<FloatTensor>), BackendError> {
    let source = ModelSource::resolve(name).unwrap();
    let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    let path = directory.join("shard.onnx");
    std::fs::write(&path, model.to_onnx()).unwrap();
    let samples = input::samples(&source, &model, 8, 0).unwrap().inputs;
    let names = |tensors: &[shardproof_common::plan::BoundaryTensor]| -> Vec<(String, Vec<u64>)> {
        tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    let request = SetupRequest {
        shard: ShardIndex(0),
        model: &path,
        samples: &samples,
        input: given,
        input_names: &names(model.inputs()),
        output_names: &names(model.outputs()),
        input_mode: modes[0],
        output_mode: modes[1],
        options,
        min_logrows: None,
    };
    let setup = with_job(directory, |job| GkrBackend::new().setup(&request, job))?;
    Ok((setup, samples.into_iter().next().unwrap()))
}

impl Shard {
    pub(crate) fn new(name: &str, weights: WeightVisibility, modes: [BoundaryMode; 2]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = options(weights);
        let (setup, sample) = try_setup(name, directory.path(), &options, modes, None).unwrap();
        let files = ShardFiles {
            shard: ShardIndex(0),
            card: setup.card.clone(),
            options,
            input_mode: modes[0],
            output_mode: modes[1],
            model: directory.path().join("shard.onnx"),
            files: setup.worker_files.clone(),
        };
        Self { directory, setup, files, sample }
    }

    pub(crate) fn input(&self) -> Vec<Tensor> {
        let specs = &self.files.card.input;
        self.sample.iter().zip(specs).map(|(x, spec)| Tensor::Integer(x.quantise(spec.scale).unwrap())).collect()
    }

    pub(crate) fn infer(&self) -> Inference {
        with_job(self.directory.path(), |job| GkrBackend::new().infer(&self.files, &self.input(), job)).unwrap()
    }

    pub(crate) fn statement(&self, inference: &Inference) -> Statement {
        Statement {
            protocol: PROTOCOL_VERSION,
            backend: self.files.card.backend.clone(),
            model: Digest::of(b"model"),
            architecture: Digest::of(b"architecture"),
            plan: Digest::of(b"plan"),
            shard: ShardIndex(0),
            shards: 1,
            run: RunId::from_bytes([7; 16]),
            input: inference.input_boundary.clone(),
            output: inference.output_boundary.clone(),
            keys: self.files.card.keys.digest(),
        }
    }

    pub(crate) fn prove(&self, statement: &Statement) -> Result<Vec<u8>, BackendError> {
        let input = self.input();
        let proof =
            with_job(self.directory.path(), |job| GkrBackend::new().prove(&self.files, &input, statement, job))?;
        Ok(proof.bytes)
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        std::fs::read(self.setup.verifying_key.as_ref().unwrap()).unwrap()
    }

    pub(crate) fn verify(
        &self,
        statement: &Statement,
        output: &[Tensor],
        key: &[u8],
        proof: &[u8],
    ) -> Result<(), VerifyError> {
        let input = self.input();
        let request = VerifyRequest {
            statement,
            card: &self.files.card,
            registered: self.registered(),
            verifying_key: key,
            input: (self.files.input_mode == BoundaryMode::Public).then_some(input.as_slice()),
            output: (self.files.output_mode == BoundaryMode::Public).then_some(output),
            proof,
        };
        with_job(self.directory.path(), |job| GkrVerifier::default().verify(&request, job))
    }

    pub(crate) fn registered(&self) -> Registered<'_> {
        let ShardFiles { options, input_mode, output_mode, .. } = &self.files;
        Registered { options, input_mode: *input_mode, output_mode: *output_mode }
    }
}

#[track_caller]
pub(crate) fn assert_rejected(result: Result<(), VerifyError>, reason: &str) {
    match result {
        Err(VerifyError::Rejected(found)) => assert!(found.contains(reason), "expected `{reason}`, found: {found}"),
        other => panic!("expected a rejection with `{reason}`, found {other:?}"),
    }
}
