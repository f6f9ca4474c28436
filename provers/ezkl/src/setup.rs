//! The owner's side: settings and keys of one shard.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use shardproof_common::backend::{BackendError, Registered, SetupRequest, ShardSetup};
use shardproof_common::card::{EzklKeys, ShardCard, ShardKeys};
use shardproof_common::ids::Digest;
use shardproof_common::plan::{BackendKind, BackendOptions, BoundaryMode, EzklOptions, ParameterVisibility};
use shardproof_common::statement::BackendId;
use shardproof_common::tensor::{FloatTensor, TensorSpec};

use crate::backend::file;
use crate::circuit::{SampleFiles, Wishes, Workbench};
use crate::frame::{Frame, failed};
use crate::runner::Op;
use crate::tools::Tools;
use crate::witness::{Witness, write_floats};
use crate::{VERSION, check, srs};

/// Computes settings and keys; files are left in the job's directory.
pub(crate) fn setup(tools: &Tools, request: &SetupRequest<'_>, frame: &Frame<'_>) -> Result<ShardSetup, BackendError> {
    let options = ezkl_options(request.options)?;
    let wishes = Wishes {
        options,
        input_mode: request.input_mode,
        output_mode: request.output_mode,
        input_scale: match request.input {
            Some(previous) => Some(one_scale(request, previous)?),
            None => options.input_scale,
        },
    };
    let directory = frame.job.directory;
    let path = |name: &str| directory.join(name);
    let (data, circuit, vk, pk) = (path("calibration.json"), path("circuit.ezkl"), path("vk.key"), path("pk.key"));
    write_floats(&data, request.samples)?;
    let each = write_each(directory, request.samples)?;
    let samples = SampleFiles { together: &data, each: &each };

    tools.with_runner(frame, |runner| {
        let mut bench = Workbench { runner, frame, model: request.model, settings: path("settings.json") };
        bench.draft(&wishes)?;
        if let Some(fidelity) = bench.calibrate(&wishes, samples, directory)? {
            tracing::info!(shard = %request.shard, ?fidelity, "quantisation error over the calibration samples");
        }
        bench.make_room(request.min_logrows, longest_commitment(request))?;
        let settings = bench.read()?;
        bench.compile(&circuit)?;
        let srs = srs::prepare(&tools.config, settings.run_args.logrows, bench.runner, frame)?;
        bench.keys(&circuit, &srs.path, &vk, &pk)?;

        let parameter_hashes = match options.parameters {
            ParameterVisibility::Hashed => parameter_hashes(&mut bench, &each, &circuit, directory)?,
            ParameterVisibility::Fixed | ParameterVisibility::Private => Vec::new(),
        };
        let verifying_key = Digest::of(&fs::read(&vk).map_err(BackendError::io(&vk))?);
        let keys = EzklKeys { verifying_key, settings: bench.text()?, srs: srs.srs, parameter_hashes };
        let card = ShardCard {
            backend: BackendId { kind: BackendKind::Ezkl, version: VERSION.to_owned() },
            input: specs(request.input_names, &settings.model_input_scales)?,
            output: specs(request.output_names, &settings.model_output_scales)?,
            keys: ShardKeys::Ezkl(Box::new(keys)),
        };
        check_own_card(request, &card)?;

        let proving_key_bytes = fs::metadata(&pk).map_err(BackendError::io(&pk))?.len();
        let worker_files = BTreeMap::from([
            (file::CIRCUIT.to_owned(), circuit),
            (file::SETTINGS.to_owned(), path("settings.json")),
            (file::VK.to_owned(), vk.clone()),
            (file::PK.to_owned(), pk),
            (file::SRS.to_owned(), srs.path),
        ]);
        let peak_rss_bytes = bench.runner.peak_rss_bytes();
        Ok(ShardSetup { card, worker_files, verifying_key: Some(vk), peak_rss_bytes, proving_key_bytes })
    })
}

/// ezkl's options in the plan's.
pub(crate) fn ezkl_options(options: &BackendOptions) -> Result<&EzklOptions, BackendError> {
    match options {
        BackendOptions::Ezkl(options) => Ok(options),
        other => Err(BackendError::Input(format!("the plan's options are for {}, not for ezkl", other.kind()))),
    }
}

/// The scale that all of `previous` have; ezkl has one input scale.
fn one_scale(request: &SetupRequest<'_>, previous: &[TensorSpec]) -> Result<i32, BackendError> {
    let shard = request.shard;
    let Some(first) = previous.first() else {
        return Err(BackendError::Input(format!("shard {shard} has no inputs")));
    };
    match previous.iter().find(|spec| spec.scale != first.scale) {
        None => Ok(first.scale),
        Some(other) => Err(BackendError::Unsupported {
            backend: BackendKind::Ezkl,
            what: format!(
                "has one scale for all inputs, but those of shard {shard} differ: `{}` has scale {}, `{}` has {}; choose another \
                 cut",
                first.name, first.scale, other.name, other.scale
            ),
        }),
    }
}

/// Elements of the longest tensor that is committed to by a polynomial, if any is.
fn longest_commitment(request: &SetupRequest<'_>) -> Option<u64> {
    let sides = [(request.input_mode, request.input_names), (request.output_mode, request.output_names)];
    let committed = sides.into_iter().filter(|(mode, _)| *mode == BoundaryMode::Polycommit);
    committed.flat_map(|(_, tensors)| tensors).map(|(_, shape)| shape.iter().product()).max()
}

/// Hashes of the weights, from a witness of the first sample.
fn parameter_hashes(
    bench: &mut Workbench<'_>,
    samples: &[PathBuf],
    circuit: &Path,
    directory: &Path,
) -> Result<Vec<String>, BackendError> {
    let data = samples.first().ok_or_else(|| BackendError::Input("hashing the weights takes a sample".to_owned()))?;
    bench.frame.at("hash of the weights");
    let output = directory.join("calibration-witness.json");
    let call = Op::Witness { data, circuit, output: &output, vk: None, srs: None };
    bench.runner.call(&call, bench.frame).map_err(|error| error.at(call.step()))?;
    Witness::read(&output)?.parameter_hashes()
}

/// Writes a data file per sample.
fn write_each(directory: &Path, samples: &[Vec<FloatTensor>]) -> Result<Vec<PathBuf>, BackendError> {
    let write = |(index, sample): (usize, &Vec<FloatTensor>)| {
        let path = directory.join(format!("sample-{index}.json"));
        write_floats(&path, std::slice::from_ref(sample)).map(|()| path)
    };
    samples.iter().enumerate().map(write).collect()
}

fn specs(names: &[(String, Vec<u64>)], scales: &[i32]) -> Result<Vec<TensorSpec>, BackendError> {
    if names.len() != scales.len() {
        return Err(failed("settings", format!("the shard has {} tensors, ezkl found {}", names.len(), scales.len())));
    }
    let spec = |((name, shape), &scale): (&(String, Vec<u64>), &i32)| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        scale,
    };
    Ok(names.iter().zip(scales).map(spec).collect())
}

/// Refuses what a verifier would refuse, and inputs that do not continue the previous shard's outputs.
fn check_own_card(request: &SetupRequest<'_>, card: &ShardCard) -> Result<(), BackendError> {
    let registered =
        Registered { options: request.options, input_mode: request.input_mode, output_mode: request.output_mode };
    check::checked(card, &registered).map_err(|mismatch| failed("settings", mismatch.to_string()))?;
    let Some(previous) = request.input else { return Ok(()) };
    let continues = previous.len() == card.input.len()
        && previous.iter().zip(&card.input).all(|(out, spec)| out.scale == spec.scale && out.shape == spec.shape);
    match continues {
        true => Ok(()),
        false => Err(BackendError::Unsupported {
            backend: BackendKind::Ezkl,
            what: format!(
                "gives the inputs of shard {} other shapes or scales than the shard before has as outputs: expected \
                 {previous:?}, found {:?}; choose another cut",
                request.shard, card.input
            ),
        }),
    }
}
