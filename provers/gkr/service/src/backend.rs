//! The backend: everything in this process, on all cores.
//!
//! A run is executed when it is asked for and once more when it is proven, because the executor is much faster than keeping
//! its trace would be. A call that is under way cannot be interrupted between its steps, each of which takes a second or two
//! for the largest shards; it looks at its token before each.

use shardproof_common::backend::{
    Backend, BackendError, BatchMember, Inference, Job, Proof, SetupRequest, ShardFiles, ShardSetup,
};
use shardproof_common::files;
use shardproof_common::ids::Digest;
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BackendKind, BoundaryMode};
use shardproof_common::statement::{BackendId, Boundary, Statement};
use shardproof_common::tensor::Tensor;
use shardproof_gkr::Timings;

use crate::VERSION;
use crate::execution::{Execution, boundary_of};
use crate::loaded::Cache;
use crate::setup::{check_cancelled, failed, setup};

/// Name of the file in a job's directory that says where the time of its last proof went: CSV of step, layer, milliseconds.
pub const TIMINGS_FILE: &str = "timings.csv";

/// Runs shards in integers and proves them natively. Keys of shards in use stay in memory.
#[derive(Debug, Default)]
pub struct GkrBackend {
    cache: Cache,
}

impl GkrBackend {
    /// A backend with nothing loaded.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for GkrBackend {
    fn id(&self) -> BackendId {
        BackendId { kind: BackendKind::Gkr, version: VERSION.to_owned() }
    }

    fn setup(&self, request: &SetupRequest<'_>, job: &Job<'_>) -> Result<ShardSetup, BackendError> {
        setup(request, job)
    }

    fn load(&self, shard: &ShardFiles) -> Result<(), BackendError> {
        self.cache.get(shard).map(drop)
    }

    fn infer(&self, shard: &ShardFiles, input: &[Tensor], job: &Job<'_>) -> Result<Inference, BackendError> {
        check_cancelled(job)?;
        (job.progress)("infer");
        let loaded = self.cache.get(shard)?;
        let mut execution = Execution::run(&loaded, shard, &[input], &mut Timings::default())?;
        check_cancelled(job)?;
        let (input_boundary, output_boundary) = execution.boundaries(0, input);
        let witness_bytes = execution.bytes() as u64;
        let output = std::mem::take(&mut execution.answers[0]);
        Ok(Inference { input_boundary, output_boundary, output, witness_bytes, peak_rss_bytes: peak_rss_bytes() })
    }

    fn prove(
        &self,
        shard: &ShardFiles,
        input: &[Tensor],
        statement: &Statement,
        job: &Job<'_>,
    ) -> Result<Proof, BackendError> {
        self.prove_batch(shard, &[BatchMember { input, statement }], job)
    }

    fn output_boundary(&self, mode: BoundaryMode, output: &[Tensor]) -> Result<Boundary, BackendError> {
        boundary_of(mode, output)
    }

    fn batch_limit(&self, shard: &ShardFiles) -> usize {
        // A shard that does not load says so when it is proven.
        self.cache.get(shard).map_or(1, |loaded| loaded.batch_limit(shard))
    }

    fn prove_batch(
        &self,
        shard: &ShardFiles,
        members: &[BatchMember<'_>],
        job: &Job<'_>,
    ) -> Result<Proof, BackendError> {
        check_cancelled(job)?;
        (job.progress)("prove");
        let loaded = self.cache.get(shard)?;
        let limit = if members.len() == 1 { 1 } else { loaded.batch_limit(shard) };
        if !(1..=limit).contains(&members.len()) {
            let what =
                format!("proves 1 to {limit} runs of shard {} at once, was given {}", shard.shard, members.len());
            return Err(BackendError::Unsupported { backend: BackendKind::Gkr, what });
        }
        let mut timings = Timings::default();
        let inputs: Vec<&[Tensor]> = members.iter().map(|member| member.input).collect();
        let execution = Execution::run(&loaded, shard, &inputs, &mut timings)?;
        check_cancelled(job)?;
        for (run, BatchMember { input, statement }) in members.iter().enumerate() {
            let (found_input, found_output) = execution.boundaries(run, input);
            let sides = [("input", &statement.input, found_input), ("output", &statement.output, found_output)];
            if let Some((side, ..)) = sides.iter().find(|(_, stated, found)| *stated != found) {
                let reason =
                    format!("shard {}: the statement's {side} boundary is not that of this input", shard.shard);
                return Err(BackendError::Input(reason));
            }
        }
        let contexts: Vec<Digest> = members.iter().map(|member| member.statement.digest()).collect();
        let bytes = execution
            .prove(&loaded, &contexts, &inputs, &mut timings)
            .map_err(|error| failed("prove", shard.shard, error))?;
        check_cancelled(job)?;
        let path = job.directory.join(TIMINGS_FILE);
        files::write_whole(&path, timings.to_csv().as_bytes()).map_err(BackendError::io(&path))?;
        Ok(Proof { bytes, peak_rss_bytes: peak_rss_bytes() })
    }
}
