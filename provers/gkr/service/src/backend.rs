//! The backend: everything in this process, on all cores.
//!
//! A run is executed when it is asked for and once more when it is proven, because the executor is much faster than keeping
//! its trace would be. A call that is under way cannot be interrupted between its steps, each of which takes a second or two
//! for the largest shards; it looks at its token before each.

use shardproof_common::backend::{Backend, BackendError, Inference, Job, Proof, SetupRequest, ShardFiles, ShardSetup};
use shardproof_common::files;
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BackendKind, BoundaryMode};
use shardproof_common::statement::{BackendId, Boundary, Statement};
use shardproof_common::tensor::{IntegerTensor, Tensor, TensorSpec};
use shardproof_gkr::pcs::Committed;
use shardproof_gkr::{CommittedBoundaries, Timings, commit_tensor};
use shardproof_integer::{TensorId, Trace};

use crate::VERSION;
use crate::boundary::{Side, encode, integers};
use crate::loaded::{Cache, Loaded};
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
        let run = Run::execute(&loaded, shard, input, &mut Timings::default())?;
        check_cancelled(job)?;
        let witness: usize = run.trace.tensors.iter().map(|values| values.len() * size_of::<i64>()).sum();
        Ok(Inference {
            input_boundary: run.input.boundary(input),
            output_boundary: run.output.boundary(&run.answer),
            output: run.answer,
            witness_bytes: witness as u64,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    fn prove(
        &self,
        shard: &ShardFiles,
        input: &[Tensor],
        statement: &Statement,
        job: &Job<'_>,
    ) -> Result<Proof, BackendError> {
        check_cancelled(job)?;
        (job.progress)("prove");
        let loaded = self.cache.get(shard)?;
        let mut timings = Timings::default();
        let run = Run::execute(&loaded, shard, input, &mut timings)?;
        check_cancelled(job)?;
        let sides = [
            ("input", &statement.input, run.input.boundary(input)),
            ("output", &statement.output, run.output.boundary(&run.answer)),
        ];
        if let Some((side, ..)) = sides.iter().find(|(_, stated, found)| *stated != found) {
            let reason = format!("shard {}: the statement's {side} boundary is not that of this input", shard.shard);
            return Err(BackendError::Input(reason));
        }
        let unstated = |reason: String| failed("prove", shard.shard, reason);
        let input_side = Side::of(&statement.input, Some(input)).map_err(unstated)?;
        let output_side = Side::of(&statement.output, Some(&run.answer)).map_err(unstated)?;
        let context = statement.digest();
        let asserted = shardproof_gkr::Statement {
            context: context.as_bytes(),
            runs: 1,
            input: input_side.boundary(),
            output: output_side.boundary(),
        };
        let committed = CommittedBoundaries { input: run.input.committed(), output: run.output.committed() };
        let proof = loaded
            .key
            .prove(&asserted, &run.trace, committed, &mut timings)
            .map_err(|error| failed("prove", shard.shard, error))?;
        check_cancelled(job)?;
        let path = job.directory.join(TIMINGS_FILE);
        files::write_whole(&path, timings.to_csv().as_bytes()).map_err(BackendError::io(&path))?;
        Ok(Proof { bytes: proof.to_bytes(), peak_rss_bytes: peak_rss_bytes() })
    }
}

/// One execution of a shard with what its boundaries need.
struct Run {
    trace: Trace,
    answer: Vec<Tensor>,
    input: Bound,
    output: Bound,
}

/// What refers to a boundary's values.
enum Bound {
    Public,
    /// For each tensor the commitment of the one run.
    Committed(Vec<Vec<Committed>>),
}

impl Run {
    fn execute(
        loaded: &Loaded,
        shard: &ShardFiles,
        input: &[Tensor],
        timings: &mut Timings,
    ) -> Result<Self, BackendError> {
        let refuse = |error: &dyn std::fmt::Display| BackendError::Input(format!("shard {}: {error}", shard.shard));
        let values = integers(input).map_err(|error| refuse(&error))?;
        check_form(input, &shard.card.input).map_err(|error| refuse(&error))?;
        let trace = timings.time("execute", "", || loaded.executor.run(&values, 1)).map_err(|error| refuse(&error))?;
        let outputs = &loaded.key.verifying().graph().graph().outputs;
        let answer = outputs.iter().zip(&shard.card.output).map(|(&output, spec)| tensor(&trace, output, spec));
        let answer: Vec<Tensor> = answer.collect();
        let sides = timings.time("commit", "boundaries", || {
            let input = Bound::of(shard.input_mode, values.iter().map(Vec::as_slice))?;
            Ok((input, Bound::of(shard.output_mode, outputs.iter().map(|&output| trace.tensor(output)))?))
        });
        let (input, output) = sides.map_err(|error: String| failed("commit", shard.shard, error))?;
        Ok(Self { answer, input, output, trace })
    }
}

impl Bound {
    fn of<'a>(mode: BoundaryMode, tensors: impl Iterator<Item = &'a [i64]>) -> Result<Self, String> {
        match mode {
            BoundaryMode::Public => Ok(Self::Public),
            BoundaryMode::Committed => {
                let commit = |values: &[i64]| Ok(vec![commit_tensor(values).map_err(|error| error.to_string())?]);
                Ok(Self::Committed(tensors.map(commit).collect::<Result<_, String>>()?))
            }
            BoundaryMode::Hashed | BoundaryMode::Polycommit => Err(format!("a boundary is {mode}")),
        }
    }

    /// As a statement names it.
    fn boundary(&self, tensors: &[Tensor]) -> Boundary {
        match self {
            Self::Public => Boundary::public(tensors),
            Self::Committed(committed) => {
                let encoded = committed.iter().flatten().map(|committed| encode(committed.commitment()));
                Boundary::committed(tensors, encoded.collect())
            }
        }
    }

    fn committed(&self) -> &[Vec<Committed>] {
        match self {
            Self::Public => &[],
            Self::Committed(committed) => committed,
        }
    }
}

/// Inputs have the registered shapes and scales.
fn check_form(input: &[Tensor], specs: &[TensorSpec]) -> Result<(), String> {
    Boundary::public(input).conforms_to(specs).map_err(|error| error.to_string())
}

fn tensor(trace: &Trace, output: TensorId, spec: &TensorSpec) -> Tensor {
    let values = trace.tensor(output).to_vec();
    Tensor::Integer(IntegerTensor { shape: spec.shape.clone(), scale: spec.scale, values })
}
