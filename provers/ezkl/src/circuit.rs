//! From an ONNX file to a circuit with keys: settings, calibration, compilation, keys.
//!
//! Two choices are made here that ezkl leaves to its user. The digits in which range checks split a value are small for
//! small circuits: ezkl's default of two digits of 14 bits takes a table of 2^14 rows, which makes 2^15 rows the smallest
//! circuit; four digits of 7 bits cover the same range with a table of 2^7, and prove several times faster where the
//! model itself is small. And a scale of the weights other than the input's, which ezkl's calibration cannot be held to,
//! is calibrated here, from witnesses of the samples.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shardproof_common::backend::BackendError;
use shardproof_common::plan::{BoundaryMode, CalibrationTarget, EzklOptions, ParameterVisibility};

use crate::fidelity::Fidelity;
use crate::frame::{Frame, failed};
use crate::runner::{CallError, Op, RunArgs, Runner};
use crate::settings::{self, Settings, canonical};
use crate::srs::MAX_LOGROWS;
use crate::witness::Witness;

/// How much wider than the samples need the lookup tables are made.
pub(crate) const LOOKUP_SAFETY_MARGIN: f64 = 2.0;
/// Rows of a column that no tensor may take when it is committed to: ezkl's blinding, generously.
pub(crate) const RESERVED_ROWS: u64 = 64;

const SMALL_DIGITS: (u64, u64) = (1 << 7, 4);
const LARGE_DIGITS: (u64, u64) = (1 << 14, 2);
/// Circuits with more rows than this need 2^15 of them anyway, where large digits cost fewer rows.
const ROWS_FOR_SMALL_DIGITS: u64 = (1 << 14) - (1 << 10);

/// What fixes a circuit besides the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) options: &'a EzklOptions,
    pub(crate) input_mode: BoundaryMode,
    pub(crate) output_mode: BoundaryMode,
    /// Scale of the inputs where it is fixed.
    pub(crate) input_scale: Option<i32>,
}

/// Calibration samples as ezkl's data files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleFiles<'a> {
    /// All in one.
    pub(crate) together: &'a Path,
    /// One each: witnesses are made of one sample only.
    pub(crate) each: &'a [PathBuf],
}

/// ezkl, one model, and the settings file that the steps hand on.
pub(crate) struct Workbench<'a> {
    pub(crate) runner: &'a mut dyn Runner,
    pub(crate) frame: &'a Frame<'a>,
    pub(crate) model: &'a Path,
    pub(crate) settings: PathBuf,
}

impl Workbench<'_> {
    /// Writes uncalibrated settings.
    pub(crate) fn draft(&mut self, wishes: &Wishes<'_>) -> Result<(), BackendError> {
        self.frame.at("settings");
        self.draft_with(wishes, SMALL_DIGITS)?;
        let settings = self.read()?;
        if settings.num_rows.max(settings.module_sizes.poseidon.0) > ROWS_FOR_SMALL_DIGITS {
            self.draft_with(wishes, LARGE_DIGITS)?;
        }
        Ok(())
    }

    fn draft_with(&mut self, wishes: &Wishes<'_>, (decomp_base, decomp_legs): (u64, u64)) -> Result<(), BackendError> {
        let run_args = run_args(wishes, decomp_base, decomp_legs);
        self.call(&Op::GenSettings { model: self.model, settings: &self.settings.clone(), run_args: &run_args })?;
        Ok(())
    }

    /// Writes the settings that the model has under what a calibration chose; what `wishes` fix prevails.
    pub(crate) fn redraft(&mut self, wishes: &Wishes<'_>, chosen: &settings::RunArgs) -> Result<(), CallError> {
        self.frame.at("settings");
        let run_args = RunArgs {
            input_scale: wishes.input_scale.or(Some(chosen.input_scale)),
            param_scale: wishes.options.parameter_scale.or(Some(chosen.param_scale)),
            lookup_range: Some(wishes.options.lookup_range.unwrap_or(chosen.lookup_range)),
            logrows: Some(chosen.logrows),
            ..run_args(wishes, chosen.decomp_base, chosen.decomp_legs)
        };
        let settings = self.settings.clone();
        let call = Op::GenSettings { model: self.model, settings: &settings, run_args: &run_args };
        self.runner.call(&call, self.frame).map(drop)
    }

    /// Chooses scales, lookup range and logrows by the samples, whose witnesses may be left in `directory`.
    /// Returns ezkl's account of the quantisation error where it gives one.
    pub(crate) fn calibrate(
        &mut self,
        wishes: &Wishes<'_>,
        samples: SampleFiles<'_>,
        directory: &Path,
    ) -> Result<Option<Fidelity>, BackendError> {
        self.frame.at("calibrate");
        let parameter_scale = wishes.options.parameter_scale;
        let fidelity = match (wishes.input_scale.or(parameter_scale), parameter_scale) {
            (Some(input), Some(parameter)) if input != parameter => {
                self.calibrate_by_witness(samples.each, directory)?;
                None
            }
            (scale, _) => self.calibrate_by_ezkl(wishes.options.target, scale, samples.together)?,
        };
        self.edit(|run_args| {
            if let Some((lowest, highest)) = wishes.options.lookup_range {
                run_args["lookup_range"] = json!([lowest, highest]);
            }
            if let Some(logrows) = wishes.options.logrows {
                run_args["logrows"] = json!(logrows);
            }
        })?;
        Ok(fidelity)
    }

    fn calibrate_by_ezkl(
        &mut self,
        target: CalibrationTarget,
        scale: Option<i32>,
        data: &Path,
    ) -> Result<Option<Fidelity>, BackendError> {
        let scales = scale.map(|scale| [scale]);
        let text = self.call(&Op::Calibrate {
            data,
            model: self.model,
            settings: &self.settings.clone(),
            target: match target {
                CalibrationTarget::Resources => "resources",
                CalibrationTarget::Accuracy => "accuracy",
            },
            scales: scales.as_ref().map(<[i32; 1]>::as_slice),
            lookup_safety_margin: LOOKUP_SAFETY_MARGIN,
            max_logrows: None,
        })?;
        Ok(Fidelity::parse(&text))
    }

    /// Calibrates at the scales that the settings name.
    fn calibrate_by_witness(&mut self, samples: &[PathBuf], directory: &Path) -> Result<(), BackendError> {
        let (circuit, output) = (directory.join("calibration.ezkl"), directory.join("calibration-witness.json"));
        self.compile(&circuit)?;
        let (mut lowest, mut highest) = (0i64, 0i64);
        for data in samples {
            self.call(&Op::Witness { data, circuit: &circuit, output: &output, vk: None, srs: None })?;
            let witness = Witness::read(&output)?;
            lowest = lowest.min(witness.min_lookup_inputs);
            highest = highest.max(witness.max_lookup_inputs);
        }
        let widen = |bound: i64| bound.saturating_mul(LOOKUP_SAFETY_MARGIN as i64);
        let (lowest, highest) = (widen(lowest), widen(highest));
        let settings = self.read()?;
        let table = if settings.has_lookups() { highest.abs_diff(lowest) } else { 0 };
        let digits = settings.run_args.decomp_base;
        let rows = [settings.num_rows, settings.module_sizes.poseidon.0, table, digits];
        let most = rows.into_iter().max().unwrap_or(0).saturating_add(RESERVED_ROWS);
        self.edit(|run_args| {
            if settings.has_lookups() {
                run_args["lookup_range"] = json!([lowest, highest]);
            }
            run_args["logrows"] = json!(logrows_for(most));
        })
    }

    /// Makes room for the rows that the neighbours' circuit has, and for `committed` elements in one column.
    pub(crate) fn make_room(&mut self, min_logrows: Option<u32>, committed: Option<u64>) -> Result<(), BackendError> {
        let committed = committed.map_or(0, |elements| logrows_for(elements.saturating_add(RESERVED_ROWS)));
        let logrows = self.read()?.run_args.logrows.max(min_logrows.unwrap_or(0)).max(committed);
        if logrows > MAX_LOGROWS {
            return Err(BackendError::Input(format!(
                "the shard needs logrows {logrows}, more than the {MAX_LOGROWS} of any SRS"
            )));
        }
        self.edit(|run_args| run_args["logrows"] = json!(logrows))
    }

    /// Compiles the model under the settings.
    pub(crate) fn compile(&mut self, circuit: &Path) -> Result<(), BackendError> {
        self.frame.at("compile");
        self.call(&Op::Compile { model: self.model, circuit, settings: &self.settings.clone() })?;
        Ok(())
    }

    /// Makes both keys.
    pub(crate) fn keys(&mut self, circuit: &Path, srs: &Path, vk: &Path, pk: &Path) -> Result<(), BackendError> {
        self.frame.at("keys");
        self.call(&Op::Setup { circuit, vk, pk, srs })?;
        Ok(())
    }

    /// The settings as they are now.
    pub(crate) fn read(&self) -> Result<Settings, BackendError> {
        Settings::parse(&self.text()?).map_err(|error| failed("settings", error.to_string()))
    }

    /// The settings file's text.
    pub(crate) fn text(&self) -> Result<String, BackendError> {
        fs::read_to_string(&self.settings).map_err(BackendError::io(&self.settings))
    }

    /// Changes run arguments and leaves the settings in their canonical text.
    fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<(), BackendError> {
        let mut settings: Value =
            serde_json::from_str(&self.text()?).map_err(|error| failed("settings", error.to_string()))?;
        match settings.get_mut("run_args") {
            Some(run_args) if run_args.is_object() => change(run_args),
            _ => return Err(failed("settings", "ezkl's settings have no run_args")),
        }
        fs::write(&self.settings, canonical(settings)).map_err(BackendError::io(&self.settings))
    }

    fn call(&mut self, op: &Op<'_>) -> Result<String, BackendError> {
        self.runner.call(op, self.frame).map_err(|error| error.at(op.step()))
    }
}

fn run_args(wishes: &Wishes<'_>, decomp_base: u64, decomp_legs: u64) -> RunArgs {
    RunArgs {
        input_visibility: spelling(wishes.input_mode),
        output_visibility: spelling(wishes.output_mode),
        param_visibility: spelling_of_parameters(wishes.options.parameters),
        input_scale: wishes.input_scale,
        param_scale: wishes.options.parameter_scale,
        decomp_base,
        decomp_legs,
        check_mode: "safe",
        lookup_range: None,
        logrows: None,
    }
}

/// Smallest log2 that holds this many rows.
fn logrows_for(rows: u64) -> u32 {
    rows.max(2).checked_next_power_of_two().map_or(u64::BITS, u64::ilog2)
}

fn spelling(mode: BoundaryMode) -> &'static str {
    match mode {
        BoundaryMode::Public => "public",
        BoundaryMode::Hashed | BoundaryMode::Committed => "hashed",
        BoundaryMode::Polycommit => "polycommit",
    }
}

fn spelling_of_parameters(visibility: ParameterVisibility) -> &'static str {
    match visibility {
        ParameterVisibility::Fixed => "fixed",
        ParameterVisibility::Hashed => "hashed",
        ParameterVisibility::Private => "private",
    }
}
