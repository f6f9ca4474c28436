//! A shard run again by whoever checks evidence.
//!
//! The executor is the one that workers run, so an honest worker's output comes out again, to the last integer, on every
//! machine. What is run is untrusted: graph and weights are run only when the key that they give is the registered one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use shardproof_common::backend::{BackendError, Job, ShardFiles};
use shardproof_common::card::ShardKeys;
use shardproof_common::evidence::{Executable, Reexecutor, RegisteredShard};
use shardproof_common::plan::BackendKind;
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::Tensor;
use shardproof_gkr::Timings;

use crate::execution::Execution;
use crate::loaded::Loaded;
use crate::setup::check_cancelled;

/// Runs the shards of evidence again; keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct GkrReexecutor;

impl Reexecutor for GkrReexecutor {
    fn execute(
        &self,
        shard: &RegisteredShard<'_>,
        executable: &Executable,
        input: &[Tensor],
        job: &Job<'_>,
    ) -> Result<(Boundary, Boundary), BackendError> {
        let ShardKeys::Gkr(keys) = &shard.card.keys else {
            let what = format!("was given a shard of {}", shard.card.backend.kind);
            return Err(BackendError::Unsupported { backend: BackendKind::Gkr, what });
        };
        check_cancelled(job)?;
        (job.progress)("making the shard's key again");
        let files = ShardFiles {
            shard: shard.index,
            card: shard.card.clone(),
            options: shard.options.clone(),
            input_mode: shard.input_mode,
            output_mode: shard.output_mode,
            model: PathBuf::new(),
            files: BTreeMap::new(),
        };
        let loaded = Loaded::from_bytes(&files, &executable.graph, &executable.weights, keys.verifying_key)?;
        check_cancelled(job)?;
        (job.progress)("running the shard again");
        let execution = Execution::run(&loaded, &files, &[input], &mut Timings::default())?;
        Ok(execution.boundaries(0, input))
    }
}
