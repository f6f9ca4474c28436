//! Shards in ezkl's integers: its witness generator's, through the backend that coordinator and workers use.
//!
//! A shard's setup makes keys, which no witness needs but which the backend has no setup without: on all but small models
//! most of the time goes there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shardproof_common::backend::{Backend, BackendError, Job, Limits, SetupRequest, ShardFiles};
use shardproof_common::plan::{BackendOptions, BoundaryTensor, CalibrationTarget, EzklOptions};
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, TensorSpec};
use shardproof_ezkl::{EzklBackend, EzklConfig, KeepWarm};
use shardproof_models::Split;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::error::AccuracyError;
use super::shards::{Answer, Failure, IntegerShard};
use crate::error::BenchError;

/// A shard that was set up.
struct EzklShard {
    backend: Arc<EzklBackend>,
    files: ShardFiles,
    input_scales: Vec<i32>,
    output_scales: Vec<i32>,
    /// Of the setup; removed with the shard.
    directory: TempDir,
    stop: CancellationToken,
}

/// One shard to set up.
struct Work<'a> {
    split: &'a Split,
    target: CalibrationTarget,
    index: usize,
    samples: &'a [Vec<FloatTensor>],
    /// The outputs of the shard before.
    input: Option<&'a [TensorSpec]>,
    /// The shard's ONNX file.
    model: PathBuf,
    stop: &'a CancellationToken,
}

/// Sets up shards that follow each other, each with its predecessor's scales.
///
/// # Errors
/// When ezkl is not there, or refuses a shard.
pub fn chain(
    split: &Split,
    target: CalibrationTarget,
    calibration: &[Vec<Vec<FloatTensor>>],
    stop: &CancellationToken,
) -> Result<Vec<Box<dyn IntegerShard>>, BenchError> {
    let config = EzklConfig { keep_warm: Some(KeepWarm::SERVICE), ..EzklConfig::from_env() };
    let backend = Arc::new(EzklBackend::new(config));
    let mut chain: Vec<Box<dyn IntegerShard>> = Vec::with_capacity(split.shards.len());
    let mut previous: Option<Vec<TensorSpec>> = None;
    for (index, samples) in calibration.iter().enumerate() {
        let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
        let model = directory.path().join("shard.onnx");
        std::fs::write(&model, &split.shards[index].onnx).map_err(BenchError::io(model.display().to_string()))?;
        let work = Work { split, target, index, samples, input: previous.as_deref(), model, stop };
        let files = work.set_up(&backend, directory.path()).map_err(|source| AccuracyError::Setup {
            target,
            shards: split.shards.len(),
            shard: index,
            source,
        })?;
        previous = Some(files.card.output.clone());
        let scales = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.scale).collect();
        chain.push(Box::new(EzklShard {
            backend: backend.clone(),
            input_scales: scales(&files.card.input),
            output_scales: scales(&files.card.output),
            files,
            directory,
            stop: stop.clone(),
        }));
    }
    Ok(chain)
}

impl Work<'_> {
    fn set_up(self, backend: &EzklBackend, directory: &Path) -> Result<ShardFiles, BackendError> {
        let (before, after) = (&self.split.plan.boundaries[self.index], &self.split.plan.boundaries[self.index + 1]);
        let (input_names, output_names) = (names(&before.tensors), names(&after.tensors));
        let options = BackendOptions::Ezkl(EzklOptions { target: self.target, ..EzklOptions::default() });
        let shard = self.split.shards[self.index].index;
        let request = SetupRequest {
            shard,
            model: &self.model,
            samples: self.samples,
            input: self.input,
            input_names: &input_names,
            output_names: &output_names,
            input_mode: before.mode,
            output_mode: after.mode,
            options: &options,
            min_logrows: None,
        };
        let setup = backend.setup(&request, &job(directory, self.stop))?;
        Ok(ShardFiles {
            shard,
            card: setup.card,
            options,
            input_mode: before.mode,
            output_mode: after.mode,
            model: self.model,
            files: setup.worker_files,
        })
    }
}

fn names(tensors: &[BoundaryTensor]) -> Vec<(String, Vec<u64>)> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

fn job<'a>(directory: &'a Path, stop: &'a CancellationToken) -> Job<'a> {
    Job { directory, limits: Limits::default(), cancel: stop, progress: &|_| {} }
}

impl IntegerShard for EzklShard {
    fn input_scales(&self) -> &[i32] {
        &self.input_scales
    }

    fn output_scales(&self) -> &[i32] {
        &self.output_scales
    }

    fn batch(&self) -> usize {
        1
    }

    fn run(&self, inputs: &[Vec<IntegerTensor>]) -> Result<Vec<Answer>, AccuracyError> {
        inputs.iter().map(|input| self.run_one(input)).collect()
    }
}

impl EzklShard {
    fn run_one(&self, input: &[IntegerTensor]) -> Result<Answer, AccuracyError> {
        let shard = self.files.shard.as_usize();
        let input: Vec<Tensor> = input.iter().cloned().map(Tensor::Integer).collect();
        match self.backend.infer(&self.files, &input, &job(self.directory.path(), &self.stop)) {
            Ok(inference) => {
                let integers: Option<Vec<IntegerTensor>> =
                    inference.output.iter().map(|tensor| tensor.as_integer().cloned()).collect();
                let reason = || BackendError::Input("ezkl answered with floats".to_owned());
                integers.map(Ok).ok_or_else(|| AccuracyError::Infer { shard, source: reason() })
            }
            // ezkl does not say which node a value that leaves its tables belongs to.
            Err(BackendError::Input(reason)) => Ok(Err(Failure { node: "unknown".to_owned(), reason })),
            Err(source) => Err(AccuracyError::Infer { shard, source }),
        }
    }
}
