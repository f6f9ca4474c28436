//! The boundary of tensors that the coordinator has and whose shard it did not run: what a receipt for them must name.
//!
//! Public tensors and commitments of gkr follow from the tensors alone. What ezkl hashes or commits to comes out of a circuit, so
//! the next shard's witness is generated on them, which takes as long as running it.

use std::collections::BTreeMap;
use std::sync::Arc;

use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::{Backend, BackendError, Job, Limits, ShardFiles};
use shardproof_common::evidence::RegisteredShard;
use shardproof_common::ids::ShardIndex;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{Tensor, decode_boundary};

use crate::Coordinator;
use crate::setup::Prepared;

/// Why tensors have no boundary that could be compared.
pub(crate) enum Unbound {
    /// They are no output of the shard.
    NoOutput(String),
    /// The coordinator cannot tell.
    Unable(String),
}

impl Coordinator {
    /// The boundary of what a worker shows, as its statement should name it.
    pub(crate) async fn bind(
        self: &Arc<Self>,
        prepared: &Arc<Prepared>,
        shard: ShardIndex,
        encoding: &[u8],
    ) -> Result<Boundary, Unbound> {
        let tensors = decode_boundary(encoding).map_err(|error| Unbound::NoOutput(error.to_string()))?;
        let registered = RegisteredShard::of(&prepared.card, shard);
        let registered = registered.ok_or_else(|| Unbound::Unable(format!("the plan has no shard {shard}")))?;
        Boundary::public(&tensors)
            .conforms_to(&registered.card.output)
            .map_err(|error| Unbound::NoOutput(error.to_string()))?;
        let mode = registered.output_mode;
        let (coordinator, prepared) = (self.clone(), prepared.clone());
        let bound = tokio::task::spawn_blocking(move || coordinator.bind_blocking(&prepared, shard, mode, &tensors));
        bound.await.unwrap_or_else(|panic| Err(Unbound::Unable(panic.to_string())))
    }

    fn bind_blocking(
        &self,
        prepared: &Prepared,
        shard: ShardIndex,
        mode: BoundaryMode,
        tensors: &[Tensor],
    ) -> Result<Boundary, Unbound> {
        let unable = |error: &dyn std::fmt::Display| Unbound::Unable(error.to_string());
        let backend = self.backend_of(prepared, shard).map_err(|reason| unable(&reason))?;
        match backend.output_boundary(mode, tensors) {
            Err(BackendError::Unsupported { .. }) => {}
            bound => {
                return bound.map_err(|error| match error {
                    BackendError::Input(reason) => Unbound::NoOutput(reason),
                    error => unable(&error),
                });
            }
        }
        // Only a circuit binds these: the next shard's names its input as this one's names its output.
        let next = ShardIndex(shard.0 + 1);
        let backend = self.backend_of(prepared, next).map_err(|reason| unable(&reason))?;
        let files = self.files_of(prepared, next).ok_or_else(|| unable(&format!("the plan has no shard {next}")))?;
        let directory = tempfile::tempdir_in(&self.scratch).map_err(|error| unable(&error))?;
        let limits = Limits {
            deadline: Some(self.settings.dispute_deadline),
            memory_bytes: self.settings.memory_bytes,
            predicted_bytes: None,
        };
        let job = Job { directory: directory.path(), limits, cancel: &self.shutdown, progress: &|_| {} };
        let inference = backend.infer(&files, tensors, &job).map_err(|error| unable(&error))?;
        Ok(inference.input_boundary)
    }

    /// The backend of a shard.
    fn backend_of(&self, prepared: &Prepared, shard: ShardIndex) -> Result<&dyn Backend, String> {
        let setup = prepared.shards.get(shard.as_usize()).ok_or_else(|| format!("the plan has no shard {shard}"))?;
        let kind = setup.card.backend.kind;
        let backend = self.backends.iter().find(|backend| backend.id().kind == kind);
        backend.map(AsRef::as_ref).ok_or_else(|| format!("there is no backend {kind}"))
    }

    /// A shard's files as its worker has them.
    fn files_of(&self, prepared: &Prepared, index: ShardIndex) -> Option<ShardFiles> {
        let setup = prepared.shards.get(index.as_usize())?;
        let registered = RegisteredShard::of(&prepared.card, index)?;
        let path = |artifact: &Artifact| self.artifacts.path(artifact.digest);
        let files: BTreeMap<_, _> = setup.files.iter().map(|(name, artifact)| (name.clone(), path(artifact))).collect();
        Some(ShardFiles {
            shard: index,
            card: registered.card.clone(),
            options: registered.options.clone(),
            input_mode: registered.input_mode,
            output_mode: registered.output_mode,
            model: path(&setup.model),
            files,
        })
    }
}
