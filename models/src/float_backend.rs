//! `float` mode as a backend: shards run, nothing is proven.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use shardproof_common::backend::{Backend, BackendError, Inference, Job, Proof, SetupRequest, ShardFiles, ShardSetup};
use shardproof_common::card::{ShardCard, ShardKeys};
use shardproof_common::ids::{Digest, ShardIndex};
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BackendKind, BoundaryTensor};
use shardproof_common::statement::{BackendId, Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};

use crate::engine::ENGINE_VERSION;
use crate::error::FloatError;
use crate::float::FloatShard;

/// Shards that stay loaded; a worker serves one or two.
const CACHED_SHARDS: usize = 4;

/// Runs shards in floats. Boundaries are public and hold floats; there are no keys and no proofs.
#[derive(Default)]
pub struct FloatBackend {
    loaded: Mutex<VecDeque<(Digest, FloatShard)>>,
}

impl FloatBackend {
    /// A backend with nothing loaded.
    pub fn new() -> Self {
        Self::default()
    }

    /// The shard in this file, loaded at most once while it is in use.
    fn shard(&self, path: &Path, index: ShardIndex) -> Result<FloatShard, BackendError> {
        let bytes = fs::read(path).map_err(BackendError::io(path))?;
        let digest = Digest::of(&bytes);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = loaded.iter().position(|(known, _)| *known == digest) {
            let entry = loaded.remove(position).expect("the position was just found");
            let shard = entry.1.clone();
            loaded.push_back(entry);
            return Ok(shard);
        }
        let shard = FloatShard::load(&bytes).map_err(|cause| failed("load", index, &cause))?;
        loaded.push_back((digest, shard.clone()));
        if loaded.len() > CACHED_SHARDS {
            loaded.pop_front();
        }
        Ok(shard)
    }
}

impl Backend for FloatBackend {
    fn id(&self) -> BackendId {
        BackendId { kind: BackendKind::Float, version: format!("tract {ENGINE_VERSION}") }
    }

    fn setup(&self, request: &SetupRequest<'_>, job: &Job<'_>) -> Result<ShardSetup, BackendError> {
        check_cancelled(job)?;
        (job.progress)("load");
        let shard = self.shard(request.model, request.shard)?;
        for (planned, found) in [(request.input_names, shard.inputs()), (request.output_names, shard.outputs())] {
            let same =
                planned.len() == found.len() && planned.iter().zip(found).all(|(p, f)| p.0 == f.name && p.1 == f.shape);
            if !same {
                let message = format!("shard {}: planned tensors {planned:?}, its file has {found:?}", request.shard);
                return Err(BackendError::Input(message));
            }
        }
        let card = ShardCard {
            backend: self.id(),
            input: shard.inputs().iter().map(spec_of).collect(),
            output: shard.outputs().iter().map(spec_of).collect(),
            keys: ShardKeys::Float,
        };
        Ok(ShardSetup {
            card,
            worker_files: BTreeMap::new(),
            verifying_key: None,
            peak_rss_bytes: peak_rss_bytes(),
            proving_key_bytes: 0,
        })
    }

    fn infer(&self, shard: &ShardFiles, input: &[Tensor], job: &Job<'_>) -> Result<Inference, BackendError> {
        check_cancelled(job)?;
        let runnable = self.shard(&shard.model, shard.shard)?;
        let floats = input.iter().enumerate().map(|(position, tensor)| match tensor {
            Tensor::Float(tensor) => Ok(tensor.clone()),
            Tensor::Integer(_) => Err(BackendError::Input(format!(
                "shard {}: input tensor {position} is of integers, float mode takes floats",
                shard.shard
            ))),
        });
        let floats: Vec<FloatTensor> = floats.collect::<Result<_, _>>()?;
        (job.progress)("infer");
        let results = runnable.run(&floats).map_err(|cause| failed("infer", shard.shard, &cause))?;
        check_cancelled(job)?;
        let output: Vec<Tensor> = results.into_iter().map(Tensor::Float).collect();
        Ok(Inference {
            input_boundary: Boundary::public(input),
            output_boundary: Boundary::public(&output),
            output,
            witness_bytes: 0,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn prove(&self, _: &ShardFiles, _: &[Tensor], _: &Statement, _: &Job<'_>) -> Result<Proof, BackendError> {
        Err(BackendError::Unsupported { backend: BackendKind::Float, what: "proves nothing".to_owned() })
    }
}

fn spec_of(tensor: &BoundaryTensor) -> TensorSpec {
    TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), scale: 0 }
}

fn check_cancelled(job: &Job<'_>) -> Result<(), BackendError> {
    if job.cancel.is_cancelled() { Err(BackendError::Cancelled) } else { Ok(()) }
}

fn failed(step: &str, shard: ShardIndex, cause: &FloatError) -> BackendError {
    match cause {
        FloatError::Input(_) | FloatError::NonFinite { .. } => BackendError::Input(format!("shard {shard}: {cause}")),
        FloatError::Load(_) | FloatError::Run(_) => BackendError::Failed {
            backend: BackendKind::Float,
            step: step.to_owned(),
            message: format!("shard {shard}: {cause}"),
        },
    }
}
