//! `shardproof ezkl`: ezkl's workflow step by step for one shard, with the flags and file names that its users know.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use shardproof_common::backend::Job;
use shardproof_common::plan::{BoundaryMode, CalibrationTarget, EzklOptions, ParameterVisibility};
use shardproof_ezkl::steps::{CircuitOptions, Steps};
use shardproof_ezkl::{EzklConfig, Installation};

use crate::backends::EzklChoice;
use crate::job;
use crate::output::{Outcome, Output};

/// ezkl's workflow step by step for one shard (an ONNX file, for example one of `plan --write`).
#[derive(Args, Clone, Debug)]
pub(crate) struct EzklArgs {
    #[command(flatten)]
    ezkl: EzklChoice,
    /// SRS file of a trusted ceremony [default: a cached test SRS, which is insecure].
    #[arg(long, value_name = "FILE", global = true)]
    srs: Option<PathBuf>,
    #[command(subcommand)]
    step: Step,
}

/// Files of the workflow under ezkl's usual names.
#[derive(Subcommand, Clone, Debug)]
enum Step {
    /// Installs the pinned ezkl into the cache directory.
    Install,
    /// Writes the settings of a circuit, not calibrated.
    Settings {
        #[command(flatten)]
        model: ModelFile,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        circuit: CircuitFlags,
    },
    /// Calibrates the settings on samples.
    Calibrate {
        #[command(flatten)]
        model: ModelFile,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        circuit: CircuitFlags,
        /// Samples: {"input_data": [[...], ...]}.
        #[arg(long, short = 'D', value_name = "FILE", default_value = "calibration.json")]
        data: PathBuf,
    },
    /// Compiles the model under the settings.
    Compile {
        #[command(flatten)]
        model: ModelFile,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        compiled: CompiledFile,
    },
    /// Copies the SRS that the settings need: the operator's (--srs), or the cached insecure test SRS, made where missing.
    Srs {
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        srs: SrsFile,
    },
    /// Makes proving and verifying key.
    Setup {
        #[command(flatten)]
        compiled: CompiledFile,
        #[command(flatten)]
        srs: SrsFile,
        #[command(flatten)]
        vk: VkFile,
        #[command(flatten)]
        pk: PkFile,
    },
    /// Runs the circuit on an input.
    Witness {
        /// The input: {"input_data": [[...], ...]}.
        #[arg(long, short = 'D', value_name = "FILE", default_value = "input.json")]
        data: PathBuf,
        #[command(flatten)]
        compiled: CompiledFile,
        #[command(flatten)]
        witness: WitnessFile,
        /// The verifying key, which polynomial commitments (polycommit) take together with the SRS.
        #[arg(long, value_name = "FILE", requires = "commit_srs")]
        commit_vk: Option<PathBuf>,
        /// The SRS for polynomial commitments.
        #[arg(long, value_name = "FILE", requires = "commit_vk")]
        commit_srs: Option<PathBuf>,
    },
    /// Checks every constraint on a witness without proving.
    Mock {
        #[command(flatten)]
        witness: WitnessFile,
        #[command(flatten)]
        compiled: CompiledFile,
    },
    /// Proves a witness.
    Prove {
        #[command(flatten)]
        witness: WitnessFile,
        #[command(flatten)]
        compiled: CompiledFile,
        #[command(flatten)]
        pk: PkFile,
        #[command(flatten)]
        srs: SrsFile,
        #[command(flatten)]
        proof: ProofFile,
    },
    /// Verifies a proof; exits 3 when it does not verify. Says nothing about settings or key: compare them yourself.
    Verify {
        #[command(flatten)]
        proof: ProofFile,
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        vk: VkFile,
        #[command(flatten)]
        srs: SrsFile,
    },
}

macro_rules! file_flag {
    ($name:ident, $field:ident, $about:literal, $default:literal, $($flag:tt)+) => {
        #[derive(Args, Clone, Debug)]
        struct $name {
            #[doc = $about]
            #[arg($($flag)+, value_name = "FILE", default_value = $default)]
            $field: PathBuf,
        }
    };
}

file_flag!(ModelFile, model, "The shard's ONNX file.", "network.onnx", long, short = 'M');
file_flag!(SettingsFile, settings_path, "The circuit's settings.", "settings.json", long, short = 'S');
file_flag!(CompiledFile, compiled_circuit, "The compiled circuit.", "model.compiled", long);
file_flag!(SrsFile, srs_path, "The structured reference string.", "kzg.srs", long);
file_flag!(VkFile, vk_path, "The verifying key.", "vk.key", long);
file_flag!(PkFile, pk_path, "The proving key.", "pk.key", long);
file_flag!(WitnessFile, witness, "The witness.", "witness.json", long, short = 'W');
file_flag!(ProofFile, proof_path, "The proof.", "proof.json", long);

/// What fixes a circuit, in ezkl's words.
#[derive(Args, Clone, Debug)]
struct CircuitFlags {
    /// What calibration optimises: resources or accuracy.
    #[arg(long, default_value = "resources")]
    target: CalibrationTarget,
    /// Fixed-point scale of the inputs instead of the calibrated one.
    #[arg(long, value_name = "S")]
    input_scale: Option<i32>,
    /// Fixed-point scale of the weights instead of the calibrated one.
    #[arg(long, value_name = "S")]
    param_scale: Option<i32>,
    /// Range of the lookup tables, LO,HI or LO->HI, instead of the calibrated one.
    #[arg(long, value_name = "LO,HI", value_parser = parse_range, allow_hyphen_values = true)]
    lookup_range: Option<(i64, i64)>,
    /// log2 of the circuit's rows instead of the calibrated one.
    #[arg(long, short = 'K', value_name = "K")]
    logrows: Option<u32>,
    /// How the inputs enter: public, hashed or polycommit.
    #[arg(long, value_name = "VISIBILITY", default_value = "public")]
    input_visibility: BoundaryMode,
    /// How the outputs leave: public, hashed or polycommit.
    #[arg(long, value_name = "VISIBILITY", default_value = "public")]
    output_visibility: BoundaryMode,
    /// How the weights enter: fixed, hashed or private.
    #[arg(long, value_name = "VISIBILITY", default_value = "fixed")]
    param_visibility: ParameterVisibility,
}

impl CircuitFlags {
    fn options(&self) -> CircuitOptions {
        CircuitOptions {
            input: self.input_visibility,
            output: self.output_visibility,
            options: EzklOptions {
                target: self.target,
                parameters: self.param_visibility,
                input_scale: self.input_scale,
                parameter_scale: self.param_scale,
                lookup_range: self.lookup_range,
                logrows: self.logrows,
            },
        }
    }
}

/// `LO,HI`, or `LO->HI` as ezkl writes it.
fn parse_range(text: &str) -> Result<(i64, i64), String> {
    let (low, high) = text.split_once("->").or_else(|| text.split_once(',')).ok_or("expected LO,HI or LO->HI")?;
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("`{text}` is no integer"));
    let range = (number(low)?, number(high)?);
    if range.0 < range.1 { Ok(range) } else { Err(format!("{} is not below {}", range.0, range.1)) }
}

/// What a step gave, besides its files.
#[derive(Debug, Serialize)]
struct Done {
    step: &'static str,
    /// The file that was written.
    wrote: Vec<PathBuf>,
    /// What else there is to know.
    found: Value,
    #[serde(skip)]
    outcome: Option<Outcome>,
}

/// Runs one step.
pub(crate) async fn run(args: EzklArgs, output: Output) -> Result<Outcome> {
    let mut config = args.ezkl.config();
    config.srs.clone_from(&args.srs);
    let name = args.step.name();
    args.step.check_inputs()?;
    let done = job::run(&format!("ezkl {name}"), output, move |job| args.step.run(&config, job)).await?;
    output.data(&done, Done::render)?;
    Ok(done.outcome.unwrap_or(Outcome::Success))
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Settings { .. } => "settings",
            Self::Calibrate { .. } => "calibrate",
            Self::Compile { .. } => "compile",
            Self::Srs { .. } => "srs",
            Self::Setup { .. } => "setup",
            Self::Witness { .. } => "witness",
            Self::Mock { .. } => "mock",
            Self::Prove { .. } => "prove",
            Self::Verify { .. } => "verify",
        }
    }

    /// Files that must be there, so that a missing one is named before ezkl starts.
    fn inputs(&self) -> Vec<&Path> {
        match self {
            Self::Install => vec![],
            Self::Settings { model, .. } => vec![&model.model],
            Self::Calibrate { model, settings, data, .. } => vec![&model.model, &settings.settings_path, data],
            Self::Compile { model, settings, .. } => vec![&model.model, &settings.settings_path],
            Self::Srs { settings, .. } => vec![&settings.settings_path],
            Self::Setup { compiled, srs, .. } => vec![&compiled.compiled_circuit, &srs.srs_path],
            Self::Witness { data, compiled, .. } => vec![data, &compiled.compiled_circuit],
            Self::Mock { witness, compiled } => vec![&witness.witness, &compiled.compiled_circuit],
            Self::Prove { witness, compiled, pk, srs, .. } => {
                vec![&witness.witness, &compiled.compiled_circuit, &pk.pk_path, &srs.srs_path]
            }
            Self::Verify { proof, settings, vk, srs } => {
                vec![&proof.proof_path, &settings.settings_path, &vk.vk_path, &srs.srs_path]
            }
        }
    }

    fn check_inputs(&self) -> Result<()> {
        for path in self.inputs() {
            ensure!(path.is_file(), "{}: no such file, which `ezkl {}` needs", path.display(), self.name());
        }
        Ok(())
    }

    fn run(&self, config: &EzklConfig, job: &Job<'_>) -> Result<Done> {
        let steps = Steps::new(config.clone());
        let wrote = |paths: &[&PathBuf], found: Value| Done {
            step: self.name(),
            wrote: paths.iter().map(|&path| path.clone()).collect(),
            found,
            outcome: None,
        };
        Ok(match self {
            Self::Install => {
                let site = Installation::new(config).ensure(job)?;
                wrote(&[&site], Value::Null)
            }
            Self::Settings { model, settings, circuit } => {
                steps.settings(&model.model, &circuit.options(), &settings.settings_path, job)?;
                wrote(&[&settings.settings_path], summary_of(&settings.settings_path)?)
            }
            Self::Calibrate { model, settings, circuit, data } => {
                let path = &settings.settings_path;
                let fidelity = steps.calibrate(&model.model, data, &circuit.options(), path, job)?;
                let mut found = summary_of(path)?;
                found["fidelity"] = serde_json::to_value(fidelity)?;
                wrote(&[path], found)
            }
            Self::Compile { model, settings, compiled } => {
                steps.compile(&model.model, &settings.settings_path, &compiled.compiled_circuit, job)?;
                wrote(&[&compiled.compiled_circuit], Value::Null)
            }
            Self::Srs { settings, srs } => {
                let logrows = steps.srs(&settings.settings_path, &srs.srs_path, job)?;
                wrote(&[&srs.srs_path], json!({ "logrows": logrows, "insecure_test": config.srs.is_none() }))
            }
            Self::Setup { compiled, srs, vk, pk } => {
                steps.setup(&compiled.compiled_circuit, &srs.srs_path, &vk.vk_path, &pk.pk_path, job)?;
                wrote(&[&vk.vk_path, &pk.pk_path], Value::Null)
            }
            Self::Witness { data, compiled, witness, commit_vk, commit_srs } => {
                let commit = commit_vk.as_deref().zip(commit_srs.as_deref());
                let made = steps.witness(data, &compiled.compiled_circuit, &witness.witness, commit, job)?;
                wrote(&[&witness.witness], serde_json::to_value(made)?)
            }
            Self::Mock { witness, compiled } => {
                steps.mock(&witness.witness, &compiled.compiled_circuit, job)?;
                wrote(&[], json!({ "satisfied": true }))
            }
            Self::Prove { witness, compiled, pk, srs, proof } => {
                let circuit = &compiled.compiled_circuit;
                steps.prove(&witness.witness, circuit, &pk.pk_path, &srs.srs_path, &proof.proof_path, job)?;
                wrote(&[&proof.proof_path], Value::Null)
            }
            Self::Verify { proof, settings, vk, srs } => {
                let holds =
                    steps.verify(&proof.proof_path, &settings.settings_path, &vk.vk_path, &srs.srs_path, job)?;
                let outcome = if holds { Outcome::Success } else { Outcome::Rejected };
                Done { outcome: Some(outcome), ..wrote(&[], json!({ "verified": holds })) }
            }
        })
    }
}

/// What a user of ezkl looks for in settings.
fn summary_of(settings: &Path) -> Result<Value> {
    let text = std::fs::read(settings).with_context(|| format!("{}: cannot read the settings", settings.display()))?;
    let value: Value = serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", settings.display()))?;
    let of_run = |name: &str| value["run_args"][name].clone();
    Ok(json!({
        "logrows": of_run("logrows"),
        "input_scale": of_run("input_scale"),
        "param_scale": of_run("param_scale"),
        "lookup_range": of_run("lookup_range"),
        "num_rows": value["num_rows"],
        "model_output_scales": value["model_output_scales"],
    }))
}

impl Done {
    fn render(&self) -> String {
        let mut out = String::new();
        for path in &self.wrote {
            out.push_str(&format!("wrote {}\n", path.display()));
        }
        for (name, value) in self.found.as_object().into_iter().flatten() {
            out.push_str(&format!("{name}  {value}\n"));
        }
        if out.is_empty() { format!("{}: done\n", self.step) } else { out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_ranges_are_read_in_both_spellings() {
        assert_eq!(parse_range("-5,7"), Ok((-5, 7)));
        assert_eq!(parse_range("-5->7"), Ok((-5, 7)));
        assert!(parse_range("7,-5").is_err() && parse_range("7").is_err());
    }
}
