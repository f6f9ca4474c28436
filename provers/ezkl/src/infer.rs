//! A worker's side at inference time: from integers to integers, with the witness that the proof will need.

use std::fs;

use shardproof_common::backend::{BackendError, Inference, ShardFiles};
use shardproof_common::plan::BoundaryMode;
use shardproof_common::tensor::{Tensor, TensorSpec};

use crate::backend::{file, file_of, keys_of};
use crate::frame::{Frame, failed};
use crate::runner::{Op, Runner};
use crate::settings::Settings;
use crate::tools::Tools;
use crate::witness::{Side, Witness, write_integers};

/// Name of the witness in a job's directory.
pub(crate) const WITNESS: &str = "witness.json";

/// Runs `shard` on `input`; the witness is left in the job's directory.
pub(crate) fn infer(
    tools: &Tools,
    shard: &ShardFiles,
    input: &[Tensor],
    frame: &Frame<'_>,
) -> Result<Inference, BackendError> {
    let (witness, peak_rss_bytes) = tools.with_runner(frame, |runner| {
        let witness = make_witness(runner, shard, input, frame)?;
        Ok::<_, BackendError>((witness, runner.peak_rss_bytes()))
    })?;
    let output = witness.outputs(&shard.card.output)?;
    let witness_path = frame.job.directory.join(WITNESS);
    Ok(Inference {
        input_boundary: witness.boundary(Side::Input, shard.input_mode, input)?,
        output_boundary: witness.boundary(Side::Output, shard.output_mode, &output)?,
        output,
        witness_bytes: fs::metadata(&witness_path).map_err(BackendError::io(&witness_path))?.len(),
        peak_rss_bytes,
    })
}

/// Makes the witness of `input` and reads it back.
pub(crate) fn make_witness(
    runner: &mut dyn Runner,
    shard: &ShardFiles,
    input: &[Tensor],
    frame: &Frame<'_>,
) -> Result<Witness, BackendError> {
    check_input(input, &shard.card.input)?;
    let settings =
        Settings::parse(&keys_of(&shard.card)?.settings).map_err(|error| failed("witness", error.to_string()))?;
    frame.at("witness");
    let data = frame.job.directory.join("input.json");
    let output = frame.job.directory.join(WITNESS);
    write_integers(&data, input)?;
    let commits = [shard.input_mode, shard.output_mode].contains(&BoundaryMode::Polycommit);
    let call = Op::Witness {
        data: &data,
        circuit: file_of(shard, file::CIRCUIT)?,
        output: &output,
        vk: if commits { Some(file_of(shard, file::VK)?) } else { None },
        srs: if commits { Some(file_of(shard, file::SRS)?) } else { None },
    };
    runner.call(&call, frame).map_err(|error| error.at(call.step()))?;
    let witness = Witness::read(&output)?;
    if !witness.is_of(input) {
        return Err(failed("witness", "ezkl changed the input"));
    }
    witness.check_lookups(&settings)?;
    Ok(witness)
}

fn check_input(input: &[Tensor], specs: &[TensorSpec]) -> Result<(), BackendError> {
    if input.len() != specs.len() {
        return Err(BackendError::Input(format!("expected {} input tensors, found {}", specs.len(), input.len())));
    }
    for (tensor, spec) in input.iter().zip(specs) {
        let Some(integers) = tensor.as_integer() else {
            return Err(BackendError::Input(format!("input `{}`: expected integers, found floats", spec.name)));
        };
        if integers.shape != spec.shape || integers.values.len() as u64 != spec.elements() {
            let (expected, found) = (&spec.shape, &integers.shape);
            return Err(BackendError::Input(format!(
                "input `{}`: expected shape {expected:?}, found {found:?}",
                spec.name
            )));
        }
        if integers.scale != spec.scale {
            let (expected, found) = (spec.scale, integers.scale);
            return Err(BackendError::Input(format!(
                "input `{}`: expected scale {expected}, found {found}",
                spec.name
            )));
        }
    }
    Ok(())
}
