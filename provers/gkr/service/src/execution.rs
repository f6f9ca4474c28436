//! Runs of a shard, executed together, and the one proof of them all.

use std::fmt;

use shardproof_common::backend::{BackendError, ShardFiles};
use shardproof_common::ids::Digest;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{IntegerTensor, Tensor, TensorSpec};
use shardproof_gkr::pcs::Committed;
use shardproof_gkr::{CommittedBoundaries, Timings, commit_tensor};
use shardproof_integer::{RunError, Trace};

use crate::batch::{Asserted, Member, seal};
use crate::boundary::{Side, encode, integers};
use crate::loaded::Loaded;
use crate::setup::failed;

/// What came of some runs, with what their boundaries need.
pub(crate) struct Execution {
    trace: Trace,
    /// The output tensors of each run.
    pub(crate) answers: Vec<Vec<Tensor>>,
    input: Bound,
    output: Bound,
}

/// What refers to a boundary's values.
enum Bound {
    Public,
    /// For each tensor the commitment of each run.
    Committed(Vec<Vec<Committed>>),
}

impl Execution {
    /// Runs the shard once on each of `inputs`.
    ///
    /// # Errors
    /// When an input does not fit the shard, or a value leaves its range.
    pub(crate) fn run(
        loaded: &Loaded,
        shard: &ShardFiles,
        inputs: &[&[Tensor]],
        timings: &mut Timings,
    ) -> Result<Self, BackendError> {
        let refuse = |error: &dyn std::fmt::Display| BackendError::Input(format!("shard {}: {error}", shard.shard));
        let mut values: Vec<Vec<i64>> = vec![Vec::new(); shard.card.input.len()];
        for input in inputs {
            let tensors = integers(input).map_err(|error| refuse(&error))?;
            check_form(input, &shard.card.input).map_err(|error| refuse(&error))?;
            values.iter_mut().zip(tensors).for_each(|(all, tensor)| all.extend(tensor));
        }
        let runs = inputs.len();
        let executed = timings.time("execute", "", || loaded.executor.run(&values, runs));
        let trace = executed.map_err(|error| refuse(&Refused(error)))?;
        let outputs: Vec<&[i64]> =
            loaded.key.verifying().graph().graph().outputs.iter().map(|&output| trace.tensor(output)).collect();
        let answer = |run| {
            let tensors = outputs.iter().zip(&shard.card.output);
            tensors.map(|(values, spec)| tensor(of_run(values, run, runs), spec)).collect()
        };
        let answers = (0..runs).map(answer).collect();
        let sides = timings.time("commit", "boundaries", || {
            let input = Bound::of(shard.input_mode, values.iter().map(Vec::as_slice), runs)?;
            Ok((input, Bound::of(shard.output_mode, outputs.iter().copied(), runs)?))
        });
        let (input, output) = sides.map_err(|error: String| failed("commit", shard.shard, error))?;
        Ok(Self { answers, input, output, trace })
    }

    /// Bytes of all tensors.
    pub(crate) fn bytes(&self) -> usize {
        self.trace.tensors.iter().map(|values| values.len() * size_of::<i64>()).sum()
    }

    /// Both boundaries of one run, whose input tensors were `input`, as a statement names them.
    pub(crate) fn boundaries(&self, run: usize, input: &[Tensor]) -> (Boundary, Boundary) {
        (self.input.boundary(run, input), self.output.boundary(run, &self.answers[run]))
    }

    /// Proves the runs, with `contexts` for their statements' digests.
    ///
    /// # Errors
    /// When the protocol refuses.
    pub(crate) fn prove(
        &self,
        loaded: &Loaded,
        contexts: &[Digest],
        inputs: &[&[Tensor]],
        timings: &mut Timings,
    ) -> Result<Vec<u8>, String> {
        let members = contexts.iter().zip(inputs).enumerate().map(|(run, (&context, input))| {
            let (stated_input, stated_output) = self.boundaries(run, input);
            Ok(Member {
                context,
                input: Side::of(&stated_input, Some(input))?,
                output: Side::of(&stated_output, Some(&self.answers[run]))?,
            })
        });
        let members: Vec<Member> = members.collect::<Result<_, String>>()?;
        let (first, rest) = members.split_first().ok_or("nothing to prove")?;
        let asserted = Asserted::of(first, rest);
        let committed = CommittedBoundaries { input: self.input.committed(), output: self.output.committed() };
        let proof = loaded
            .key
            .prove(&asserted.statement(), &self.trace, committed, timings)
            .map_err(|error| error.to_string())?;
        Ok(seal(&members, &proof.to_bytes()))
    }
}

/// An input that the shard cannot be run on, for who sent it and for who serves the model.
struct Refused(RunError);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_out_of_range() {
            f.write_str(
                "the input leads out of the range that the model was calibrated on: send one like the calibration samples, or \
                 have the coordinator started with --samples FILE that has such inputs; ",
            )?;
        }
        self.0.fmt(f)
    }
}

impl Bound {
    fn of<'a>(mode: BoundaryMode, tensors: impl Iterator<Item = &'a [i64]>, runs: usize) -> Result<Self, String> {
        match mode {
            BoundaryMode::Public => Ok(Self::Public),
            BoundaryMode::Committed => {
                let commit = |values: &[i64]| {
                    let each = (0..runs).map(|run| commit_tensor(of_run(values, run, runs)));
                    each.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
                };
                Ok(Self::Committed(tensors.map(commit).collect::<Result<_, String>>()?))
            }
            BoundaryMode::Hashed | BoundaryMode::Polycommit => Err(format!("a boundary is {mode}")),
        }
    }

    /// As a statement names it.
    fn boundary(&self, run: usize, tensors: &[Tensor]) -> Boundary {
        match self {
            Self::Public => Boundary::public(tensors),
            Self::Committed(committed) => {
                let encoded = committed.iter().map(|runs| encode(runs[run].commitment()));
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

/// A boundary of one run, as a statement names it, of tensors that nothing is known of.
///
/// # Errors
/// When they are floats, or cannot be committed to.
pub(crate) fn boundary_of(mode: BoundaryMode, tensors: &[Tensor]) -> Result<Boundary, BackendError> {
    let values = integers(tensors).map_err(BackendError::Input)?;
    let bound = Bound::of(mode, values.iter().map(Vec::as_slice), 1).map_err(BackendError::Input)?;
    Ok(bound.boundary(0, tensors))
}

/// Inputs have the registered shapes and scales.
fn check_form(input: &[Tensor], specs: &[TensorSpec]) -> Result<(), String> {
    Boundary::public(input).conforms_to(specs).map_err(|error| error.to_string())
}

/// The values of one run of `[runs, elements]`.
fn of_run(values: &[i64], run: usize, runs: usize) -> &[i64] {
    let elements = values.len() / runs;
    &values[run * elements..(run + 1) * elements]
}

fn tensor(values: &[i64], spec: &TensorSpec) -> Tensor {
    Tensor::Integer(IntegerTensor { shape: spec.shape.clone(), scale: spec.scale, values: values.to_vec() })
}
