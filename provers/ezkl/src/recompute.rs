//! What a card registers for a shard, recomputed by whoever has the model.
//!
//! A verifying key does not depend on the scales that the settings name for the outputs, nor the settings on the weights,
//! so both are recomputed: ezkl makes the settings anew from the ONNX file, and every field must be the registered one.
//! Nothing is left out of the comparison. What calibration chooses - the scales of inputs and weights, the lookup range,
//! the digits of range checks and the number of rows - is taken from the card and given to ezkl as run arguments, and
//! every other run argument is ezkl's default, as in a setup. Whether those choices suit the model is a matter of its
//! answers, so the circuit is run on samples.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardproof_common::backend::{BackendError, Registered};
use shardproof_common::card::{EzklKeys, ShardCard};
use shardproof_common::ids::Digest;
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};

use crate::backend::keys_of;
use crate::circuit::{Wishes, Workbench};
use crate::config::EzklConfig;
use crate::frame::Frame;
use crate::runner::{CallError, Op};
use crate::settings::{Settings, canonical};
use crate::setup::ezkl_options;
use crate::witness::{Witness, write_integers};
use crate::{srs, tools};

/// Longest value that a difference quotes, in characters.
const MAX_QUOTED: usize = 200;

/// A shard's model and what is registered for it.
#[derive(Clone, Copy, Debug)]
pub struct RecomputeRequest<'a> {
    /// The shard's ONNX file, cut from the model anew.
    pub model: &'a Path,
    /// What the card registers.
    pub card: &'a ShardCard,
    /// What the plan asks for.
    pub registered: Registered<'a>,
    /// The registered outputs of the previous shard, which are this shard's inputs; nothing for shard 0.
    pub previous: Option<&'a [TensorSpec]>,
    /// Inputs to run the circuit on: for each, the shard's inputs in floats. At least one.
    pub samples: &'a [Vec<FloatTensor>],
}

/// What the model gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Recomputed {
    /// Other settings than the registered ones, or none: every field with what is registered and what the model gives.
    OtherSettings(Vec<String>),
    /// The same settings, under which ezkl makes no keys, for this reason.
    NoKeys(String),
    /// The same settings, and these keys.
    Keys(RecomputedKeys),
}

/// What follows from the registered settings.
#[derive(Clone, Debug, PartialEq)]
pub struct RecomputedKeys {
    /// The settings, which are the registered ones.
    pub settings: Box<Settings>,
    /// Digest of the verifying key.
    pub verifying_key: Digest,
    /// Whether the SRS at hand, which has the registered points, is the cached test SRS.
    pub insecure_test_srs: bool,
    /// The circuit run on the samples, or why it cannot be run on one of them.
    pub run: Result<SampleRun, String>,
}

/// The circuit run on samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleRun {
    /// Per sample, the outputs as integers at the registered scales.
    pub outputs: Vec<Vec<Tensor>>,
    /// Hashes of the weights where they are hashed: none where the shard has no weights.
    pub parameter_hashes: Vec<String>,
}

/// Recomputes what `request.card` registers; files are left in the job's directory.
pub(crate) fn recompute(
    config: &EzklConfig,
    request: &RecomputeRequest<'_>,
    frame: &Frame<'_>,
) -> Result<Recomputed, BackendError> {
    let keys = keys_of(request.card)?;
    let settings = match Settings::parse_canonical(&keys.settings) {
        Ok(settings) => settings,
        Err(reason) => return Ok(Recomputed::OtherSettings(vec![reason.to_string()])),
    };
    let path = |name: &str| frame.job.directory.join(name);
    let (circuit, vk, pk) = (path("circuit.ezkl"), path("vk.key"), path("pk.key"));
    let mut runner = tools::start(config, frame)?;
    let mut bench = Workbench { runner: runner.as_mut(), frame, model: request.model, settings: path("settings.json") };

    let differences = compare_settings(&mut bench, request, keys, &settings)?;
    if !differences.is_empty() {
        return Ok(Recomputed::OtherSettings(differences));
    }
    fs::write(&bench.settings, &keys.settings).map_err(BackendError::io(&bench.settings))?;
    let srs = srs::prepare(config, keys.srs.logrows, bench.runner, frame)?;
    if srs.srs.verifier != keys.srs.verifier {
        return Err(BackendError::Input(format!(
            "{} is not the SRS under which these keys were made: name that one with --srs FILE",
            srs.path.display()
        )));
    }
    frame.at("keys");
    let calls = [
        Op::Compile { model: request.model, circuit: &circuit, settings: &bench.settings },
        Op::Setup { circuit: &circuit, vk: &vk, pk: &pk, srs: &srs.path },
    ];
    for call in &calls {
        match bench.runner.call(call, frame) {
            Ok(_) => {}
            Err(CallError::Refused { message, .. }) => return Ok(Recomputed::NoKeys(message)),
            Err(error) => return Err(error.at(call.step())),
        }
    }
    let verifying_key = Digest::of(&fs::read(&vk).map_err(BackendError::io(&vk))?);
    let run = run_samples(&mut bench, request, &settings, &circuit)?;
    Ok(Recomputed::Keys(RecomputedKeys {
        settings: Box::new(settings),
        verifying_key,
        insecure_test_srs: srs.srs.insecure_test,
        run,
    }))
}

/// How the settings that ezkl makes of the model differ from the registered ones.
fn compare_settings(
    bench: &mut Workbench<'_>,
    request: &RecomputeRequest<'_>,
    keys: &EzklKeys,
    settings: &Settings,
) -> Result<Vec<String>, BackendError> {
    let options = ezkl_options(request.registered.options)?;
    let wishes = Wishes {
        options,
        input_mode: request.registered.input_mode,
        output_mode: request.registered.output_mode,
        input_scale: match request.previous {
            Some(previous) => previous.first().map(|spec| spec.scale),
            None => options.input_scale,
        },
    };
    match bench.redraft(&wishes, &settings.run_args) {
        Ok(()) => {}
        Err(CallError::Refused { message, .. }) => {
            return Ok(vec![format!("settings: ezkl makes none of the model and the card's run_args: {message}")]);
        }
        Err(error) => return Err(error.at("settings")),
    }
    let read = |text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| crate::frame::failed("settings", error.to_string()))
    };
    let remade = canonical(read(&bench.text()?)?);
    if remade == keys.settings {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    differences("", Some(&read(&keys.settings)?), Some(&read(&remade)?), &mut found);
    if found.is_empty() {
        found.push("settings: the card writes a number in another way than ezkl".to_owned());
    }
    Ok(found)
}

/// Adds a line for every field in which `stated` and `expected` differ.
fn differences(field: &str, stated: Option<&Value>, expected: Option<&Value>, lines: &mut Vec<String>) {
    if stated == expected {
        return;
    }
    if let (Some(Value::Object(one)), Some(Value::Object(other))) = (stated, expected) {
        for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
            let inner = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            differences(&inner, one.get(name), other.get(name), lines);
        }
        return;
    }
    let quoted = |value: Option<&Value>| match value.map(Value::to_string) {
        None => "nothing".to_owned(),
        Some(text) if text.chars().count() > MAX_QUOTED => text.chars().take(MAX_QUOTED).chain("...".chars()).collect(),
        Some(text) => text,
    };
    lines.push(format!("settings: {field} is {}, but the model gives {}", quoted(stated), quoted(expected)));
}

/// Runs the circuit on the samples as the card describes it: quantised at its input scales.
fn run_samples(
    bench: &mut Workbench<'_>,
    request: &RecomputeRequest<'_>,
    settings: &Settings,
    circuit: &Path,
) -> Result<Result<SampleRun, String>, BackendError> {
    if request.samples.is_empty() {
        return Err(BackendError::Input("recomputing a card takes a sample".to_owned()));
    }
    bench.frame.at("witness");
    let path = |name: &str| -> PathBuf { bench.frame.job.directory.join(name) };
    let (data, output) = (path("input.json"), path("witness.json"));
    let mut run = SampleRun::default();
    for (index, sample) in request.samples.iter().enumerate() {
        let refused = |reason: String| Ok(Err(format!("sample {index}: {reason}")));
        let input = match quantised(sample, &request.card.input) {
            Ok(input) => input,
            Err(reason) => return refused(reason),
        };
        write_integers(&data, &input)?;
        let call = Op::Witness { data: &data, circuit, output: &output, vk: None, srs: None };
        match bench.runner.call(&call, bench.frame) {
            Ok(_) => {}
            Err(CallError::Refused { message, .. }) => return refused(message),
            Err(error) => return Err(error.at(call.step())),
        }
        let witness = Witness::read(&output)?;
        let made = witness.check_lookups(settings).and_then(|()| witness.outputs(&request.card.output));
        match made {
            Ok(outputs) => run.outputs.push(outputs),
            Err(BackendError::Input(reason)) => return refused(reason),
            Err(error) => return Err(error),
        }
        if settings.run_args.param_visibility == crate::settings::Visibility::hashed() {
            run.parameter_hashes = witness.parameter_hashes()?;
        }
    }
    Ok(Ok(run))
}

fn quantised(sample: &[FloatTensor], specs: &[TensorSpec]) -> Result<Vec<Tensor>, String> {
    if sample.len() != specs.len() {
        return Err(format!("expected {} tensors, found {}", specs.len(), sample.len()));
    }
    let one = |(tensor, spec): (&FloatTensor, &TensorSpec)| {
        let integers = tensor.quantise(spec.scale).map_err(|reason| format!("input `{}`: {reason}", spec.name))?;
        Ok(Tensor::Integer(integers))
    };
    sample.iter().zip(specs).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let stated = serde_json::json!({"a": {"x": 1, "y": [1, 2]}, "only_stated": true, "same": 1});
        let expected = serde_json::json!({"a": {"x": 1, "y": [1, 3]}, "only_expected": "z".repeat(500), "same": 1});
        let mut lines = Vec::new();
        differences("", Some(&stated), Some(&expected), &mut lines);
        assert_eq!(lines[0], "settings: a.y is [1,2], but the model gives [1,3]");
        assert_eq!(lines[1], "settings: only_stated is true, but the model gives nothing");
        assert!(lines[2].starts_with("settings: only_expected is nothing, but the model gives \"zzz"));
        assert!(lines[2].ends_with("...") && lines.len() == 3);
    }
}
