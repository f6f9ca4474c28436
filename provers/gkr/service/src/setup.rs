//! The owner's side: from an ONNX shard and samples to an integer graph with keys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use shardproof_common::backend::{BackendError, Job, SetupRequest, ShardSetup};
use shardproof_common::card::{GkrKeys, ShardCard, ShardKeys};
use shardproof_common::ids::{Digest, ShardIndex};
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BackendKind, BackendOptions, GkrOptions, WeightVisibility};
use shardproof_common::statement::BackendId;
use shardproof_common::tensor::TensorSpec;
use shardproof_gkr::soundness::MIN_BITS;
use shardproof_gkr::{ProvingKey, Visibility};
use shardproof_models::quantise::{QuantiseOptions, Quantised, quantise};

use crate::boundary::extents;
use crate::key_file::{KeyFile, visibility_of};
use crate::{VERSION, loaded};

const KEY: &str = "gkr.vk";

/// Quantises the shard and makes its keys; files are left in the job's directory.
pub(crate) fn setup(request: &SetupRequest<'_>, job: &Job<'_>) -> Result<ShardSetup, BackendError> {
    let options = gkr_options(request.options)?;
    for mode in [request.input_mode, request.output_mode] {
        if !BackendKind::Gkr.has_mode(mode) {
            let what = format!("has no {mode} boundaries");
            return Err(BackendError::Unsupported { backend: BackendKind::Gkr, what });
        }
    }
    check_cancelled(job)?;
    (job.progress)("quantise");
    let onnx = fs::read(request.model).map_err(BackendError::io(request.model))?;
    let quantised = quantise(&onnx, &quantise_options(options, request), request.samples)
        .map_err(|error| BackendError::Input(format!("shard {}: {error}", request.shard)))?;
    check_cancelled(job)?;
    (job.progress)("keys");
    let (input, output) = (input_specs(request, &quantised)?, output_specs(request, &quantised)?);
    let key = ProvingKey::new(quantised.graph, quantised.weights, visibility(options.weights))
        .map_err(|error| failed("keys", request.shard, error))?;
    check_cancelled(job)?;

    let verifying = key.verifying();
    // What cannot be proven and verified is better known now than at the first proof.
    let account = loaded::account(verifying, [request.input_mode, request.output_mode], 1)
        .map_err(|error| failed("keys", request.shard, error))?;
    if !account.suffices() {
        let reason =
            format!("a proof would have {:.1} bits of soundness, {MIN_BITS} are the least", account.total_bits());
        return Err(failed("keys", request.shard, reason));
    }
    let graph = verifying.graph().graph().to_bytes();
    let weights = key.weights().to_bytes(verifying.graph()).map_err(|error| failed("keys", request.shard, error))?;
    let key_file = KeyFile::encode(verifying, key.weights()).map_err(|error| failed("keys", request.shard, error))?;
    let keys = GkrKeys { verifying_key: Digest::of(&key_file), weights: visibility_of(verifying) };
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf, BackendError> {
        let path = job.directory.join(name);
        fs::write(&path, bytes).map_err(BackendError::io(&path))?;
        Ok(path)
    };
    let worker_files = [(loaded::GRAPH, &graph), (loaded::WEIGHTS, &weights)];
    let worker_files = worker_files.into_iter().map(|(name, bytes)| Ok((name.to_owned(), write(name, bytes)?)));
    Ok(ShardSetup {
        card: ShardCard {
            backend: BackendId { kind: BackendKind::Gkr, version: VERSION.to_owned() },
            input,
            output,
            keys: ShardKeys::Gkr(keys),
        },
        worker_files: worker_files.collect::<Result<BTreeMap<_, _>, BackendError>>()?,
        verifying_key: Some(write(KEY, &key_file)?),
        peak_rss_bytes: peak_rss_bytes(),
        proving_key_bytes: (graph.len() + weights.len()) as u64,
    })
}

/// The plan's options, if they are gkr's.
pub(crate) fn gkr_options(options: &BackendOptions) -> Result<&GkrOptions, BackendError> {
    match options {
        BackendOptions::Gkr(options) => Ok(options),
        BackendOptions::Float | BackendOptions::Ezkl(_) => {
            let what = format!("was given options of {}", options.kind());
            Err(BackendError::Unsupported { backend: BackendKind::Gkr, what })
        }
    }
}

/// The protocol's word for it.
pub(crate) fn visibility(weights: WeightVisibility) -> Visibility {
    match weights {
        WeightVisibility::Committed => Visibility::Committed,
        WeightVisibility::Public => Visibility::Public,
    }
}

/// A failure of the backend's own.
pub(crate) fn failed(step: &str, shard: ShardIndex, cause: impl std::fmt::Display) -> BackendError {
    let message = format!("shard {shard}: {cause}");
    BackendError::Failed { backend: BackendKind::Gkr, step: step.to_owned(), message }
}

/// An error once the job is to stop.
pub(crate) fn check_cancelled(job: &Job<'_>) -> Result<(), BackendError> {
    if job.cancel.is_cancelled() { Err(BackendError::Cancelled) } else { Ok(()) }
}

/// Reads one of a shard's files.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, BackendError> {
    fs::read(path).map_err(BackendError::io(path))
}

fn quantise_options(options: &GkrOptions, request: &SetupRequest<'_>) -> QuantiseOptions {
    let given = request.input.map(|specs| specs.iter().map(|spec| spec.scale).collect());
    let wished = options.input_scale.map(|scale| vec![scale; request.input_names.len()]);
    QuantiseOptions {
        input_scales: given.or(wished),
        weight_bits: options.weight_bits,
        activation_bits: options.activation_bits,
        table_bits: options.table_bits,
        ..QuantiseOptions::new(options.target)
    }
}

fn input_specs(request: &SetupRequest<'_>, quantised: &Quantised) -> Result<Vec<TensorSpec>, BackendError> {
    let inputs = &quantised.graph.graph().inputs;
    let found = inputs.iter().map(|input| (Some(input.name.as_str()), extents(&input.shape), input.scale));
    specs("inputs", request, request.input_names, found.collect())
}

fn output_specs(request: &SetupRequest<'_>, quantised: &Quantised) -> Result<Vec<TensorSpec>, BackendError> {
    let graph = &quantised.graph;
    let outputs = graph.graph().outputs.iter();
    let found = outputs.map(|&output| (None, extents(graph.shape(output)), graph.graph().scale(output)));
    specs("outputs", request, request.output_names, found.collect())
}

/// The planned tensors with their scales, once they are those of the integer graph.
fn specs(
    side: &str,
    request: &SetupRequest<'_>,
    planned: &[(String, Vec<u64>)],
    found: Vec<(Option<&str>, Vec<u64>, i32)>,
) -> Result<Vec<TensorSpec>, BackendError> {
    let same = planned.len() == found.len()
        && planned
            .iter()
            .zip(&found)
            .all(|(planned, (name, shape, _))| name.is_none_or(|name| name == planned.0) && *shape == planned.1);
    if !same {
        let shard = request.shard;
        let message = format!("shard {shard}: planned {side} {planned:?}, the integer graph has {found:?}");
        return Err(BackendError::Input(message));
    }
    let specs = planned.iter().zip(&found).map(|((name, shape), (_, _, scale))| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        scale: *scale,
    });
    Ok(specs.collect())
}
