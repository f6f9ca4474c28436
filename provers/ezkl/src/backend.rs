//! The backend as the coordinator and the workers use it.

use std::path::PathBuf;

use shardproof_common::backend::{Backend, BackendError, Inference, Job, Proof, SetupRequest, ShardFiles, ShardSetup};
use shardproof_common::card::{EzklKeys, ShardCard, ShardKeys};
use shardproof_common::plan::BackendKind;
use shardproof_common::statement::{BackendId, Statement};
use shardproof_common::tensor::Tensor;

use crate::config::EzklConfig;
use crate::frame::Frame;
use crate::recompute::{RecomputeRequest, Recomputed};
use crate::tools::{Succession, Tools};
use crate::{VERSION, infer, prove, recompute, setup};

/// Names of the files that workers need.
pub(crate) mod file {
    pub(crate) const CIRCUIT: &str = "circuit";
    pub(crate) const SETTINGS: &str = "settings";
    pub(crate) const VK: &str = "vk";
    pub(crate) const PK: &str = "pk";
    pub(crate) const SRS: &str = "srs";
}

/// Proofs through ezkl.
#[derive(Clone, Debug)]
pub struct EzklBackend {
    tools: Tools,
}

impl EzklBackend {
    /// A backend that starts ezkl as `config` says, when it is first needed.
    pub fn new(config: EzklConfig) -> Self {
        Self { tools: Tools::new(config, Succession::Same) }
    }

    fn frame<'a>(&self, job: &'a Job<'a>) -> Frame<'a> {
        Frame::new(job, self.tools.config.stall)
    }

    /// Recomputes a shard's settings and keys from its ONNX file, and runs its circuit on samples.
    ///
    /// This takes the SRS under which the keys were made: the configured file, or the cached test SRS.
    ///
    /// # Errors
    /// When the SRS at hand is not the registered one, there is no sample, or ezkl cannot run to its end. What ezkl itself
    /// refuses is an answer.
    pub fn recompute(&self, request: &RecomputeRequest<'_>, job: &Job<'_>) -> Result<Recomputed, BackendError> {
        recompute::recompute(&self.tools.config, request, &self.frame(job))
    }
}

impl Backend for EzklBackend {
    fn id(&self) -> BackendId {
        BackendId { kind: BackendKind::Ezkl, version: VERSION.to_owned() }
    }

    fn setup(&self, request: &SetupRequest<'_>, job: &Job<'_>) -> Result<ShardSetup, BackendError> {
        setup::setup(&self.tools, request, &self.frame(job))
    }

    fn infer(&self, shard: &ShardFiles, input: &[Tensor], job: &Job<'_>) -> Result<Inference, BackendError> {
        infer::infer(&self.tools, shard, input, &self.frame(job))
    }

    fn prove(
        &self,
        shard: &ShardFiles,
        input: &[Tensor],
        statement: &Statement,
        job: &Job<'_>,
    ) -> Result<Proof, BackendError> {
        prove::prove(&self.tools, shard, input, statement, &self.frame(job))
    }
}

/// A shard's file by name.
pub(crate) fn file_of<'a>(shard: &'a ShardFiles, name: &str) -> Result<&'a PathBuf, BackendError> {
    shard.files.get(name).ok_or_else(|| BackendError::Input(format!("shard {} lacks its file `{name}`", shard.shard)))
}

/// The card's keys, which must be ezkl's.
pub(crate) fn keys_of(card: &ShardCard) -> Result<&EzklKeys, BackendError> {
    match &card.keys {
        ShardKeys::Ezkl(keys) => Ok(keys),
        _ => Err(BackendError::Input("the card's keys for this shard are not ezkl's".to_owned())),
    }
}
