//! `shardproof card check`: whoever has the model recomputes what its card states, and so need not take the owner's word
//! that the registered circuits are the model.
//!
//! Recomputed are the digests of model, architecture and plan with every shard, the settings with their scales, and the
//! verifying keys. A gkr key is the quantised graph with a commitment to its weights, or their digest: it is made anew. An ezkl
//! key fixes the circuit with its weights where they are `fixed`; where they are `hashed`, the hashes are recomputed too; where
//! they are `private`, nothing binds them, and the check says so. Scales that calibration is free to choose may still be too
//! coarse for the model, so every circuit is run on samples beside the float shard.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::Serialize;
use shardproof_common::backend::{Backend, BackendError, Job, Registered, SetupRequest, ShardFiles, ShardSetup};
use shardproof_common::card::{EzklKeys, GkrKeys, ModelCard, ShardCard, ShardKeys, Srs};
use shardproof_common::evidence::Executable;
use shardproof_common::ids::ShardIndex;
use shardproof_common::plan::{
    BackendOptions, BoundaryMode, BoundaryPlan, EzklOptions, ParameterVisibility, Plan, ShardPlan,
};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};
use shardproof_coordinator::CALIBRATION_SAMPLES;
use shardproof_ezkl::{EzklBackend, EzklConfig, RecomputeRequest, Recomputed, RecomputedKeys, SampleRun, Settings};
use shardproof_gkr_service::{GRAPH, GkrBackend, WEIGHTS};
use shardproof_models::{FloatShard, LoadOptions, parse_dim};

use crate::backends::EzklChoice;
use crate::model::ChosenModel;
use crate::output::{Outcome, Output};
use crate::{card, job, verify};

/// How many samples every ezkl circuit is run on; integer graphs are run on all on which the owner calibrates.
const CIRCUIT_SAMPLES: usize = 4;
/// Name of a shard's ONNX file in the directory of its setup.
const SHARD_FILE: &str = "shard.onnx";
/// Largest error of a circuit's outputs on the samples, relative to the range of the shard's outputs in floats. Calibrated
/// circuits of the zoo stay below a thousandth; weights of three binary places or fewer in the first half of `mlp` give a
/// sixth and more.
const MAX_RELATIVE_ERROR: f64 = 0.1;

/// Recomputes from the model what its card states: plan, shards, settings, verifying keys. Exits 3 when they differ.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Zoo model (mlp, cnn, mlp2, attention, testing) or path of an .onnx file.
    model: String,
    /// The card.
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Size of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    dims: Vec<(String, u64)>,
    /// SRS file under which the keys were made [default: the cached test SRS].
    #[arg(long, value_name = "FILE")]
    srs: Option<PathBuf>,
    /// Inputs to calibrate (gkr) and to try the circuits on, .npy of shape [samples, ...input] or ezkl's JSON: those that
    /// the owner used [default: the model's own, or random ones].
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    #[command(flatten)]
    ezkl: EzklChoice,
}

/// What became of each thing that the card states.
#[derive(Debug, Serialize)]
struct CheckReport {
    model: String,
    card: String,
    agrees: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Debug, Serialize)]
#[serde(tag = "finding", content = "reason", rename_all = "kebab-case")]
enum Finding {
    Same,
    /// As it should be, with what was found.
    Holds(String),
    Differs(String),
    /// There is nothing to compare; never counted as the same.
    Unbound(String),
}

/// `shardproof card check`.
pub(crate) async fn run(args: CheckArgs, output: Output) -> Result<Outcome> {
    let card = match card::read(&args.card)? {
        Ok(card) => card,
        Err(reason) => return verify::reject_unreadable("card", reason, output),
    };
    let chosen = ChosenModel::load(&args.model, &LoadOptions { dims: args.dims.clone() })?;
    let mut config = args.ezkl.config();
    config.srs = args.srs;
    let samples = chosen.samples(args.samples.as_deref(), CALIBRATION_SAMPLES)?;
    let report =
        job::run("recomputing the card", output, move |job| check(&chosen, samples, &card, &config, job)).await?;
    output.data(&report, CheckReport::render)?;
    Ok(if report.agrees { Outcome::Success } else { Outcome::Rejected })
}

fn check(
    chosen: &ChosenModel,
    mut samples: Vec<Vec<FloatTensor>>,
    card: &ModelCard,
    config: &EzklConfig,
    job: &Job<'_>,
) -> Result<CheckReport> {
    let plan = &card.body.plan;
    let mut lines = vec![
        same("model file", &plan.model, &chosen.model.digest()),
        same("architecture", &plan.architecture, &chosen.model.architecture()),
    ];
    let differs = |reason: String| Line { what: "plan".to_owned(), finding: Finding::Differs(reason) };
    if !lines.iter().all(Line::is_same) {
        lines.push(differs("the card's plan is for another model".to_owned()));
    } else {
        match chosen.model.split_as(plan) {
            Err(reason) => lines.push(differs(reason.to_string())),
            Ok((found, _)) if found != *plan => lines.push(differs(difference(plan, &found))),
            Ok((found, shards)) => {
                lines.push(same("plan", &plan.digest(), &found.digest()));
                for (index, shard) in shards.iter().enumerate() {
                    (job.progress)(&format!("shard {} of {}", index + 1, shards.len()));
                    let float = FloatShard::load(&shard.onnx)?;
                    let run = |sample: &Vec<FloatTensor>| float.run(sample);
                    let answers = samples.iter().map(run).collect::<Result<Vec<_>, _>>()?;
                    let tried = Tried { onnx: &shard.onnx, samples: &samples, answers: &answers };
                    lines.extend(check_shard(index, tried, card, config, job)?);
                    samples = answers;
                }
            }
        }
    }
    Ok(CheckReport {
        model: plan.model.to_string(),
        card: card.digest().to_string(),
        agrees: lines.iter().all(Line::is_same),
        lines,
    })
}

/// The first part of a card's plan that is not what the model, cut in the same places, gives.
fn difference(stated: &Plan, found: &Plan) -> String {
    let shard = stated.shards.iter().zip(&found.shards).position(|(stated, found)| stated != found);
    if let Some(index) = shard {
        let (stated, found) = (&stated.shards[index], &found.shards[index]);
        let what = |shard: &ShardPlan| {
            format!("the file {} of {} layers and {} parameters", shard.model, shard.layers, shard.parameters)
        };
        return format!("shard {index}: the card states {}, the model gives {}", what(stated), what(found));
    }
    let boundary = stated.boundaries.iter().zip(&found.boundaries).position(|(stated, found)| stated != found);
    match boundary {
        Some(index) => {
            let what = |plan: &Plan| card::describe(&plan.boundaries[index]);
            format!("boundary {index}: the card states {}, the model gives {}", what(stated), what(found))
        }
        None => format!("the card states protocol {}, this program has {}", stated.protocol, found.protocol),
    }
}

/// A shard's file, and its inputs and outputs in floats.
#[derive(Clone, Copy)]
struct Tried<'a> {
    onnx: &'a [u8],
    samples: &'a [Vec<FloatTensor>],
    answers: &'a [Vec<FloatTensor>],
}

impl Tried<'_> {
    /// The first few, for circuits that take long to run.
    fn some(&self) -> Self {
        let count = self.samples.len().min(CIRCUIT_SAMPLES);
        Self { samples: &self.samples[..count], answers: &self.answers[..count], ..*self }
    }
}

fn check_shard(
    index: usize,
    tried: Tried<'_>,
    card: &ModelCard,
    config: &EzklConfig,
    job: &Job<'_>,
) -> Result<Vec<Line>> {
    let shard = &card.body.shards[index];
    let options = &card.body.plan.shards[index].backend;
    let (keys, ezkl) = match (&shard.keys, options) {
        (ShardKeys::Ezkl(keys), BackendOptions::Ezkl(ezkl)) => (keys, ezkl),
        (ShardKeys::Gkr(_), BackendOptions::Gkr(_)) => return check_gkr(index, tried, card, job),
        _ => return Ok(Vec::new()),
    };
    let (input, output) = (&card.body.plan.boundaries[index], &card.body.plan.boundaries[index + 1]);
    let registered = Registered { options, input_mode: input.mode, output_mode: output.mode };
    let verifiers = EzklChoice::verifiers_of(config);
    let asked = verifiers.iter().filter(|verifier| verifier.kind() == shard.backend.kind);
    let asked = asked.map(|verifier| verifier.check_settings(shard, &registered)).collect::<Result<Vec<()>, _>>();

    let model = job.directory.join(format!("shard-{index}.onnx"));
    std::fs::write(&model, tried.onnx).with_context(|| format!("{}: cannot write the shard", model.display()))?;
    let previous = index.checked_sub(1).map(|before| card.body.shards[before].output.as_slice());
    let request = RecomputeRequest { model: &model, card: shard, registered, previous, samples: tried.some().samples };
    let recomputed = EzklBackend::new(config.clone()).recompute(&request, job)?;
    let line = |what: &str, finding: Finding| Line::of(index, what, finding);
    let asked = asked.err().map(|reason| line("settings", Finding::Differs(reason)));
    let mut lines: Vec<Line> = asked.into_iter().collect();
    match recomputed {
        Recomputed::OtherSettings(differences) => {
            lines.extend(differences.into_iter().map(|reason| line("settings", Finding::Differs(reason))));
        }
        Recomputed::NoKeys(reason) => lines.push(line("verifying key", Finding::Differs(reason))),
        Recomputed::Keys(found) => {
            lines.push(line("settings", Finding::Holds(scales(&found.settings))));
            lines.push(line("SRS", check_srs(&keys.srs, found.insecure_test_srs)));
            lines.push(line("verifying key", compare(&keys.verifying_key, &found.verifying_key)));
            lines.push(line("weights", check_weights(keys, ezkl, &found)));
            lines.push(line("accuracy", check_accuracy(&found.run, tried.some().answers)));
        }
    }
    Ok(lines)
}

/// Quantises the shard again as the plan asks and on the owner's samples, which gives the owner's keys or others; then runs
/// it in integers.
fn check_gkr(index: usize, tried: Tried<'_>, card: &ModelCard, job: &Job<'_>) -> Result<Vec<Line>> {
    let (shard, plan) = (&card.body.shards[index], &card.body.plan);
    let shard_index = ShardIndex(index as u32);
    let directory = job.directory.join(format!("shard-{index}"));
    let job = Job { directory: &directory, ..*job };
    let line = |what: &str, finding: Finding| Line::of(index, what, finding);
    let backend = GkrBackend::new();
    let made = match set_up_gkr(&backend, index, tried.onnx, tried.samples, card, &job)? {
        Ok(made) => made,
        Err(reason) => return Ok(vec![line("verifying key", Finding::Differs(reason))]),
    };
    let scales_of = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.scale).collect::<Vec<_>>();
    let scales =
        |card: &ShardCard| format!("inputs {:?}, outputs {:?}", scales_of(&card.input), scales_of(&card.output));
    let scales_line = match compare(&scales(shard), &scales(&made.card)) {
        Finding::Same => Finding::Holds(format!("scales: {}", scales(shard))),
        differs => differs,
    };
    let (ShardKeys::Gkr(stated), ShardKeys::Gkr(found)) = (&shard.keys, &made.card.keys) else { return Ok(Vec::new()) };
    let key_line = match compare(&stated.verifying_key, &found.verifying_key) {
        Finding::Differs(reason) => {
            Finding::Differs(format!("{reason}; a card calibrated on other samples needs --samples FILE"))
        }
        same => same,
    };
    let words = |keys: &GkrKeys| keys.weights.map_or_else(|| "none".to_owned(), |weights| weights.to_string());
    let mut lines = vec![line("settings", scales_line), line("verifying key", key_line)];
    // The key just compared was made from the weights.
    lines.push(line(
        "weights",
        match compare(&words(stated), &words(found)) {
            Finding::Same => compare(&stated.verifying_key, &found.verifying_key),
            differs => differs,
        },
    ));
    if lines.iter().all(Line::is_same) {
        let files = ShardFiles {
            shard: shard_index,
            card: made.card,
            options: plan.shards[index].backend.clone(),
            input_mode: BoundaryMode::Public,
            output_mode: BoundaryMode::Public,
            model: directory.join(SHARD_FILE),
            files: made.worker_files,
        };
        let run = run_integers(&backend, &files, tried.samples, &job);
        lines.push(line("accuracy", check_accuracy(&run, tried.answers)));
    }
    Ok(lines)
}

/// Makes the settings and keys of a gkr shard anew, in the job's directory, which is made.
///
/// # Errors
/// The outer one when that fails, the inner one when the shard cannot be one that the owner set up.
fn set_up_gkr(
    backend: &GkrBackend,
    index: usize,
    onnx: &[u8],
    samples: &[Vec<FloatTensor>],
    card: &ModelCard,
    job: &Job<'_>,
) -> Result<Result<ShardSetup, String>> {
    let plan = &card.body.plan;
    let (input, output) = (&plan.boundaries[index], &plan.boundaries[index + 1]);
    let directory = job.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("{}: cannot be made", directory.display()))?;
    let model = directory.join(SHARD_FILE);
    std::fs::write(&model, onnx).with_context(|| format!("{}: cannot write the shard", model.display()))?;
    let names = |boundary: &BoundaryPlan| -> Vec<(String, Vec<u64>)> {
        boundary.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    let request = SetupRequest {
        shard: ShardIndex(index as u32),
        model: &model,
        samples,
        input: index.checked_sub(1).map(|before| card.body.shards[before].output.as_slice()),
        input_names: &names(input),
        output_names: &names(output),
        input_mode: input.mode,
        output_mode: output.mode,
        options: &plan.shards[index].backend,
        min_logrows: None,
    };
    match backend.setup(&request, job) {
        Ok(made) => Ok(Ok(made)),
        Err(BackendError::Input(reason)) => Ok(Err(reason)),
        Err(error) => Err(error.into()),
    }
}

/// A shard of the card in integers, made from the model. Whether it is the registered one shows when it is used.
///
/// # Errors
/// When the model is not the card's, or the shard is not one of gkr.
pub(crate) fn executable(
    chosen: &ChosenModel,
    mut samples: Vec<Vec<FloatTensor>>,
    card: &ModelCard,
    shard: ShardIndex,
    job: &Job<'_>,
) -> Result<Executable> {
    let index = shard.as_usize();
    let (plan, shards) = chosen.model.split_as(&card.body.plan).context("the card's plan is not one of this model")?;
    ensure!(plan == card.body.plan, "the card's plan is not one of this model: {}", difference(&card.body.plan, &plan));
    let onnx = &shards.get(index).with_context(|| format!("the plan has no shard {shard}"))?.onnx;
    ensure!(
        matches!(card.body.shards[index].keys, ShardKeys::Gkr(_)),
        "shard {shard} is of {}, which is not run again",
        card.body.shards[index].backend.kind
    );
    for before in &shards[..index] {
        let float = FloatShard::load(&before.onnx)?;
        samples = samples.iter().map(|sample| float.run(sample)).collect::<Result<_, _>>()?;
    }
    let made = set_up_gkr(&GkrBackend::new(), index, onnx, &samples, card, job)?;
    let made = made.map_err(|reason| anyhow!("shard {shard} cannot be set up again: {reason}"))?;
    let file = |name: &str| -> Result<Vec<u8>> {
        let path = made.worker_files.get(name).with_context(|| format!("the setup made no file {name}"))?;
        std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))
    };
    Ok(Executable { graph: file(GRAPH)?.into(), weights: file(WEIGHTS)?.into() })
}

/// The outputs of the integer graph on samples, quantised at the card's scales.
fn run_integers(
    backend: &GkrBackend,
    shard: &ShardFiles,
    samples: &[Vec<FloatTensor>],
    job: &Job<'_>,
) -> Result<SampleRun, String> {
    let mut run = SampleRun::default();
    for (index, sample) in samples.iter().enumerate() {
        let quantised = sample.iter().zip(&shard.card.input).map(|(tensor, spec)| {
            tensor.quantise(spec.scale).map(Tensor::Integer).map_err(|reason| format!("sample {index}: {reason}"))
        });
        let input: Vec<Tensor> = quantised.collect::<Result<_, _>>()?;
        let inferred = backend.infer(shard, &input, job).map_err(|reason| format!("sample {index}: {reason}"))?;
        run.outputs.push(inferred.output);
    }
    Ok(run)
}

fn scales(settings: &Settings) -> String {
    let Settings { model_input_scales: inputs, model_output_scales: outputs, run_args, .. } = settings;
    format!("scales: inputs {inputs:?}, weights {}, outputs {outputs:?}", run_args.param_scale)
}

/// A card may call an SRS less trustworthy than it is, never more.
fn check_srs(stated: &Srs, is_test: bool) -> Finding {
    match (stated.insecure_test, is_test) {
        (false, true) => Finding::Differs("the card calls it a ceremony's, but it is the insecure test SRS".to_owned()),
        (true, _) => Finding::Holds("the insecure test SRS: whoever made it could forge proofs".to_owned()),
        (false, false) => Finding::Holds("the given file's; which ceremony made it is not checked".to_owned()),
    }
}

fn check_weights(keys: &EzklKeys, options: &EzklOptions, found: &RecomputedKeys) -> Finding {
    match (options.parameters, &found.run) {
        // The key just compared was made from them.
        (ParameterVisibility::Fixed, _) => compare(&keys.verifying_key, &found.verifying_key),
        (ParameterVisibility::Hashed, Ok(run)) => {
            compare(&keys.parameter_hashes.join(" "), &run.parameter_hashes.join(" "))
        }
        (ParameterVisibility::Hashed, Err(reason)) => Finding::Unbound(format!("not hashed: {reason}")),
        (ParameterVisibility::Private, _) => Finding::Unbound("private weights are bound by nothing".to_owned()),
    }
}

/// Compares the circuit's outputs with the shard's in floats.
fn check_accuracy(run: &Result<SampleRun, String>, answers: &[Vec<FloatTensor>]) -> Finding {
    let run = match run {
        Ok(run) => run,
        Err(reason) => return Finding::Differs(format!("{reason}; --samples FILE names other samples")),
    };
    let worst = relative_error(&run.outputs, answers);
    let said = format!("largest error {:.3} % of the outputs' range on {} samples", worst * 100.0, answers.len());
    if worst <= MAX_RELATIVE_ERROR {
        Finding::Holds(said)
    } else {
        Finding::Differs(format!("{said}, more than {} %", MAX_RELATIVE_ERROR * 100.0))
    }
}

/// Largest error of any output tensor, relative to the range of that tensor's values over all samples; of constant ones,
/// to their magnitude. Infinite when there is nothing to compare.
fn relative_error(outputs: &[Vec<Tensor>], answers: &[Vec<FloatTensor>]) -> f64 {
    let tensors = answers.first().map_or(0, Vec::len);
    let shapes_fit = outputs.len() == answers.len() && outputs.iter().all(|sample| sample.len() == tensors);
    if tensors == 0 || !shapes_fit {
        return f64::INFINITY;
    }
    let of_tensor = |index: usize| {
        let (mut lowest, mut highest, mut error) = (f64::INFINITY, f64::NEG_INFINITY, 0f64);
        for (found, expected) in outputs.iter().zip(answers) {
            let Some(found) = found[index].as_integer().map(|tensor| tensor.dequantise()) else { return f64::INFINITY };
            if found.len() != expected[index].values.len() {
                return f64::INFINITY;
            }
            for (found, expected) in found.into_iter().zip(expected[index].values.iter().map(|&x| f64::from(x))) {
                (lowest, highest) = (lowest.min(expected), highest.max(expected));
                error = error.max((found - expected).abs());
            }
        }
        let range = if highest > lowest { highest - lowest } else { highest.abs() };
        if error == 0.0 { 0.0 } else { error / range }
    };
    (0..tensors).map(of_tensor).fold(0.0, f64::max)
}

fn same<T: PartialEq + std::fmt::Display>(what: &str, stated: &T, found: &T) -> Line {
    Line { what: what.to_owned(), finding: compare(stated, found) }
}

fn compare<T: PartialEq + std::fmt::Display>(stated: &T, found: &T) -> Finding {
    if stated == found {
        Finding::Same
    } else {
        Finding::Differs(format!("the card states {stated}, the model gives {found}"))
    }
}

impl Line {
    fn of(shard: usize, what: &str, finding: Finding) -> Self {
        Self { what: format!("shard {shard}: {what}"), finding }
    }

    const fn is_same(&self) -> bool {
        matches!(self.finding, Finding::Same | Finding::Holds(_))
    }
}

impl CheckReport {
    fn render(&self) -> String {
        let mut out = String::new();
        for Line { what, finding } in &self.lines {
            let words = match finding {
                Finding::Same => "same".to_owned(),
                Finding::Holds(found) => format!("ok       {found}"),
                Finding::Differs(reason) => format!("DIFFERS  {reason}"),
                Finding::Unbound(reason) => format!("UNBOUND  {reason}"),
            };
            out.push_str(&format!("{what:<24} {words}\n"));
        }
        out.push_str(match self.agrees {
            true => "\nThe card is this model's.\n",
            false => "\nREJECTED: the card is not bound to this model, see above.\n",
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::tensor::IntegerTensor;

    use super::*;

    fn error(values: &[i64], scale: i32, answers: &[f32]) -> f64 {
        let shape = vec![answers.len() as u64];
        let found = Tensor::Integer(IntegerTensor { shape: shape.clone(), scale, values: values.to_vec() });
        relative_error(&[vec![found]], &[vec![FloatTensor { shape, values: answers.to_vec() }]])
    }

    #[test]
    fn errors_are_relative_to_the_range_of_the_outputs() {
        assert_eq!(error(&[0, 256, 512], 8, &[0.0, 1.0, 2.0]), 0.0);
        assert_eq!(error(&[0, 320, 512], 8, &[0.0, 1.0, 2.0]), 0.125);
        assert_eq!(error(&[0, 256, 512], 0, &[0.0, 1.0, 2.0]), 255.0, "read at another scale");
        assert_eq!(error(&[0, 0, 0], 8, &[0.0, 1.0, 2.0]), 1.0, "rounded away");
        assert_eq!(error(&[512, 512], 8, &[1.0, 1.0]), 1.0, "a constant output");
        assert_eq!(error(&[0], 8, &[0.0]), 0.0, "an output that is always zero");
        assert_eq!(error(&[1], 8, &[0.0]), f64::INFINITY, "which must stay so");
        assert_eq!(error(&[1], 8, &[1.0, 1.0]), f64::INFINITY, "another size");
        assert_eq!(relative_error(&[], &[]), f64::INFINITY, "nothing to compare");
    }

    #[test]
    fn a_test_srs_may_not_pass_for_a_ceremonys() {
        let srs = |insecure_test| Srs { logrows: 9, insecure_test, verifier: String::new() };
        assert!(matches!(check_srs(&srs(false), true), Finding::Differs(_)));
        for (stated, is_test) in [(true, true), (true, false), (false, false)] {
            assert!(matches!(check_srs(&srs(stated), is_test), Finding::Holds(_)));
        }
    }
}
