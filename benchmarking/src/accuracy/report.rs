//! What the program says at its end.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use shardproof_common::ids::Digest;
use shardproof_common::plan::BackendKind;
use shardproof_models::{OnnxModel, SampleOrigin, Strategy};

use super::inputs::{Inputs, Origin};
use super::rows::{AccuracyRow, BoundaryRow, NEAR_ZERO};
use super::{AccuracyOptions, SHARDS};
use crate::conditions::Conditions;
use crate::report::table;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct AccuracyReport {
    pub(super) benchmark: &'static str,
    pub(super) profile: &'static str,
    pub(super) directory: PathBuf,
    pub(super) settings: Settings,
    /// The rows of `accuracy.csv`.
    pub accuracy: Vec<AccuracyRow>,
    /// The rows of `boundaries.csv`.
    pub boundaries: Vec<BoundaryRow>,
}

/// What the figures depend on; `conditions.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    model: String,
    model_digest: Digest,
    parameters: u64,
    backend: &'static str,
    strategy: Strategy,
    targets: Vec<&'static str>,
    shards: Vec<usize>,
    /// Of the usual numbers, those that the model has too few places for.
    shards_left_out: Vec<usize>,
    /// Bits of the weights' magnitudes; the target's if none.
    weight_bits: Option<u32>,
    /// Bits of the activations' magnitudes; the target's if none.
    activation_bits: Option<u32>,
    inputs_origin: Origin,
    inputs: usize,
    /// How many the source has; none of random ones.
    inputs_available: Option<usize>,
    /// How many of `inputs` calibration used too.
    inputs_of_calibration: usize,
    /// Of random inputs.
    seed: Option<u64>,
    calibration_origin: SampleOrigin,
    calibration_inputs: usize,
    /// Float values below this part of the output's range have no percentage error.
    near_zero_percent: f64,
    /// Machine and program.
    conditions: Conditions,
}

impl Settings {
    pub(super) fn new(
        options: &AccuracyOptions,
        model: &OnnxModel,
        inputs: &Inputs,
        shards: Vec<usize>,
        conditions: Conditions,
    ) -> Self {
        let usual = if options.shards.is_none() { SHARDS.to_vec() } else { Vec::new() };
        Self {
            model: model.name().to_owned(),
            model_digest: model.digest(),
            parameters: model.parameters(),
            backend: options.backend.as_str(),
            strategy: options.strategy,
            targets: options.targets.iter().map(|target| target.as_str()).collect(),
            shards_left_out: usual.into_iter().filter(|count| !shards.contains(count)).collect(),
            shards,
            weight_bits: options.weight_bits,
            activation_bits: options.activation_bits,
            inputs_origin: inputs.origin,
            inputs: inputs.measured.len(),
            inputs_available: inputs.available,
            inputs_of_calibration: inputs.overlapping,
            seed: (inputs.origin == Origin::Random).then_some(options.seed),
            calibration_origin: inputs.calibration_origin,
            calibration_inputs: inputs.calibration.len(),
            near_zero_percent: 100.0 * NEAR_ZERO,
            conditions,
        }
    }

    /// What was measured on, in words.
    fn inputs_line(&self) -> String {
        let real = match self.inputs_origin {
            Origin::HeldOutDigits => "real: held-out digits",
            Origin::ZooSamples => "real: the zoo's samples",
            Origin::File => "from the file",
            Origin::Random => "random, from a seed",
        };
        let of = self.inputs_available.map_or(String::new(), |available| format!(" of {available}"));
        let overlap = match self.inputs_of_calibration {
            0 => "none of them".to_owned(),
            count => format!("{count} of them"),
        };
        let calibration = match self.calibration_origin {
            SampleOrigin::Zoo => "the zoo's samples",
            SampleOrigin::File => "from the file",
            SampleOrigin::Random => "random",
        };
        format!(
            "{}{of} inputs ({real}); calibrated on {} ({calibration}), {overlap} among the inputs",
            self.inputs, self.calibration_inputs
        )
    }
}

const HEADING: [&str; 12] = [
    "target",
    "shards",
    "failed",
    "RMSE",
    "% of range",
    "mean",
    "max",
    "median %",
    "same class %",
    "task % float",
    "task % integers",
    "by cuts",
];

impl fmt::Display for AccuracyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        let what = if settings.backend == BackendKind::Ezkl.as_str() { "ezkl's witnesses" } else { "gkr's integers" };
        writeln!(f, "{}, {} parameters: {what} against floats", settings.model, settings.parameters)?;
        writeln!(f, "{}", settings.inputs_line())?;
        writeln!(f, "{}\n", settings.conditions.line())?;
        let rows: Vec<Vec<String>> = self.accuracy.iter().map(cells).collect();
        writeln!(f, "{}", table(&HEADING, &rows))?;
        for row in self.accuracy.iter().filter(|row| row.failed_runs > 0) {
            let AccuracyRow { ezkl_optimization_goal: target, num_nodes, failed_runs, inputs, failed_nodes, .. } = row;
            writeln!(f, "{target}, {num_nodes} shards: {failed_runs} of {inputs} runs failed at {failed_nodes}")?;
        }
        if !settings.shards_left_out.is_empty() {
            writeln!(f, "the model cannot be cut into {:?} shards", settings.shards_left_out)?;
        }
        writeln!(f, "tables, plots and conditions: {}", self.directory.display())
    }
}

fn cells(row: &AccuracyRow) -> Vec<String> {
    let small = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) => format!("{value:.2e}"),
    };
    let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    vec![
        row.ezkl_optimization_goal.to_owned(),
        row.num_nodes.to_string(),
        row.failed_runs.to_string(),
        small(row.rmse),
        value_or_small(row.relative_rmse_percent),
        small(row.mean_absolute_error),
        small(row.max_absolute_error),
        value_or_small(row.median_error_percent),
        percent(row.class_agreement_percent),
        percent(row.float_task_accuracy_percent),
        percent(row.quantised_task_accuracy_percent),
        small(row.rmse_added_by_cuts),
    ]
}

/// Three decimals, or a power of ten where they would all be 0.
fn value_or_small(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value != 0.0 && value.abs() < 1e-3 => format!("{value:.1e}"),
        Some(value) => format!("{value:.3}"),
    }
}
