//! The rows of the three tables.
//!
//! Errors without a unit are in the unit of the model's output (or of the boundary). An empty cell means that there is no
//! such figure, for example because every run failed; it never stands for 0.

use serde::Serialize;
use shardproof_common::plan::{BoundaryPlan, Plan};
use shardproof_models::quantise::class;

use super::chain::{BoundaryErrors, ChainAnswer, ChainErrors, ChainFailure};
use super::inputs::Input;
use crate::stats::Summary;

/// Float values below this part of the output's range have no percentage error: it would only say how near 0 they are.
pub const NEAR_ZERO: f64 = 0.01;

/// What was run.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The model's name.
    pub model: String,
    /// The proof system.
    pub backend: &'static str,
    /// What calibration optimised.
    pub target: &'static str,
    /// Shards of the chain.
    pub shards: usize,
}

/// One row of `accuracy.csv`. The first five columns are those of an earlier benchmark: goal, shards, the sum over the
/// shards of each one's own root mean square error, that sum's reference (floats, so 0), and the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccuracyRow {
    /// `resources` or `accuracy`.
    pub ezkl_optimization_goal: &'static str,
    /// Shards.
    pub num_nodes: usize,
    /// Sum over the shards of the root mean square error that each one makes of float inputs.
    pub accuracy_loss: Option<f64>,
    /// The same for floats.
    pub reference_accuracy_loss: f64,
    /// The model's name.
    pub model: String,
    /// The proof system.
    pub backend: &'static str,
    /// Inputs that were run, failed ones included.
    pub inputs: usize,
    /// Inputs whose run ended with an error instead of an answer. All figures of errors are over the others.
    pub failed_runs: usize,
    /// The nodes where they ended, with how many each.
    pub failed_nodes: String,
    /// Elements of all outputs over all inputs that were answered.
    pub output_values: usize,
    /// Largest float value of the output less the least one.
    pub float_output_range: Option<f64>,
    /// Root mean square error.
    pub rmse: Option<f64>,
    /// The same over the range.
    pub relative_rmse_percent: Option<f64>,
    /// Of the magnitudes of errors.
    pub mean_absolute_error: Option<f64>,
    /// Of the magnitudes of errors.
    pub median_absolute_error: Option<f64>,
    /// Of the magnitudes of errors.
    pub min_absolute_error: Option<f64>,
    /// Of the magnitudes of errors.
    pub max_absolute_error: Option<f64>,
    /// Values that have no percentage error, being below [`NEAR_ZERO`] of the range.
    pub values_near_zero: usize,
    /// Of the magnitudes of errors over that of the float value.
    pub mean_error_percent: Option<f64>,
    /// The same.
    pub median_error_percent: Option<f64>,
    /// The same.
    pub min_error_percent: Option<f64>,
    /// The same.
    pub max_error_percent: Option<f64>,
    /// Answered inputs that get the float model's class; nothing where the output is no class.
    pub classes_agreeing: Option<usize>,
    /// The same over the answered inputs.
    pub class_agreement_percent: Option<f64>,
    /// Inputs that the float model gives their label's class.
    pub float_task_accuracy_percent: Option<f64>,
    /// The same in integers; a failed run is not right.
    pub quantised_task_accuracy_percent: Option<f64>,
    /// The root mean square error less that of one shard, over the inputs that both answered.
    pub rmse_added_by_cuts: Option<f64>,
}

/// One row of `errors.csv`: one input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorRow {
    /// The model's name.
    pub model: String,
    /// What calibration optimised.
    pub target: &'static str,
    /// Shards.
    pub shards: usize,
    /// Place in its source, from 0.
    pub input: usize,
    /// Largest magnitude of an error of the output.
    pub max_absolute_error: Option<f64>,
    /// Root mean square error of the output.
    pub rmse: Option<f64>,
    /// The class that it should get.
    pub label: Option<usize>,
    /// The class that the float model gives it.
    pub class_float: Option<usize>,
    /// The class that the integers give it.
    pub class_quantised: Option<usize>,
    /// The shard in which a failed run ended.
    pub failed_shard: Option<usize>,
    /// Why it failed; empty for one that did not.
    pub failed: String,
}

/// One row of `boundaries.csv`: the end of one shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoundaryRow {
    /// The model's name.
    pub model: String,
    /// What calibration optimised.
    pub target: &'static str,
    /// Shards.
    pub shards: usize,
    /// From 1; the last one is the model's output.
    pub boundary: usize,
    /// Names of its tensors, with spaces between.
    pub tensors: String,
    /// Elements of all of them.
    pub elements: u64,
    /// Scales of the tensors in bits: an integer `q` stands for `q / 2^scale`.
    pub scales: String,
    /// Inputs that came this far.
    pub chain_runs: usize,
    /// Of what came through all shards so far.
    pub chain_rmse: Option<f64>,
    /// The same over the range of the floats there.
    pub chain_relative_rmse_percent: Option<f64>,
    /// Largest error of what came through all shards so far.
    pub chain_max_absolute_error: Option<f64>,
    /// Inputs whose floats this shard alone could take.
    pub own_runs: usize,
    /// Of what this shard alone makes of the floats before it.
    pub own_rmse: Option<f64>,
    /// The same over the range of the floats there.
    pub own_relative_rmse_percent: Option<f64>,
    /// Largest error of this shard alone.
    pub own_max_absolute_error: Option<f64>,
}

/// What all configurations are compared with.
#[derive(Clone, Debug)]
pub struct Reference<'a> {
    /// The inputs.
    pub inputs: &'a [Input],
    /// For every input, the float model's outputs one after another.
    pub outputs: &'a [Vec<f64>],
    /// Elements of the first output, if it stands for a class.
    pub class_elements: Option<usize>,
}

impl Reference<'_> {
    fn class(&self, outputs: &[f64]) -> Option<usize> {
        outputs.get(..self.class_elements?).map(class)
    }

    /// Answered inputs: the float values and the integers', dequantised.
    fn answered<'b>(&'b self, errors: &'b ChainErrors) -> impl Iterator<Item = (&'b [f64], &'b [f64])> {
        let pairs = self.outputs.iter().zip(&errors.answers);
        pairs.filter_map(|(float, answer)| Some((float.as_slice(), answer.as_ref().ok()?.as_slice())))
    }

    /// Signed errors of all output values: integers less floats.
    pub fn differences(&self, errors: &ChainErrors) -> Vec<f64> {
        self.answered(errors).flat_map(|(float, integer)| integer.iter().zip(float).map(|(y, x)| y - x)).collect()
    }

    /// For every answered input, the sum of its squared errors.
    pub fn squares(&self, errors: &ChainErrors) -> Vec<Option<f64>> {
        let pairs = self.outputs.iter().zip(&errors.answers);
        pairs.map(|(float, answer)| answer.as_ref().ok().map(|integer| sum_of_squares(float, integer))).collect()
    }
}

fn sum_of_squares(float: &[f64], integer: &[f64]) -> f64 {
    float.iter().zip(integer).map(|(x, y)| (y - x).powi(2)).sum()
}

/// The row of one configuration. `uncut` has the squared errors of one shard, by input.
pub fn accuracy_row(
    configuration: &Configuration,
    reference: &Reference<'_>,
    errors: &ChainErrors,
    uncut: Option<&[Option<f64>]>,
) -> AccuracyRow {
    let floats: Vec<f64> = reference.answered(errors).flat_map(|(float, _)| float.iter().copied()).collect();
    let magnitudes: Vec<f64> = reference.differences(errors).into_iter().map(f64::abs).collect();
    let range = Summary::of(floats.iter().copied()).map(|summary| summary.max - summary.min);
    let least = NEAR_ZERO * range.unwrap_or(0.0);
    let percentages: Vec<f64> = floats
        .iter()
        .zip(&magnitudes)
        .filter(|(float, _)| float.abs() >= least && **float != 0.0)
        .map(|(float, error)| 100.0 * error / float.abs())
        .collect();
    let rmse = mean(magnitudes.iter().map(|error| error * error)).map(f64::sqrt);
    let absolute = Summary::of(magnitudes.iter().copied());
    let percent = Summary::of(percentages.iter().copied());
    let answered = errors.answers.iter().filter(|answer| answer.is_ok()).count();
    let agreeing = reference.class_elements.map(|_| {
        let pairs = reference.answered(errors);
        pairs.filter(|(float, integer)| reference.class(float) == reference.class(integer)).count()
    });
    let own: Option<Vec<f64>> = errors.boundaries.iter().map(|boundary| boundary.own.rmse()).collect();
    AccuracyRow {
        ezkl_optimization_goal: configuration.target,
        num_nodes: configuration.shards,
        accuracy_loss: own.map(|shards| shards.iter().sum()),
        reference_accuracy_loss: 0.0,
        model: configuration.model.clone(),
        backend: configuration.backend,
        inputs: errors.answers.len(),
        failed_runs: errors.answers.len() - answered,
        failed_nodes: failed_nodes(errors),
        output_values: floats.len(),
        float_output_range: range,
        rmse,
        relative_rmse_percent: rmse.zip(range.filter(|&range| range > 0.0)).map(|(rmse, range)| 100.0 * rmse / range),
        mean_absolute_error: mean(magnitudes.iter().copied()),
        median_absolute_error: absolute.map(|summary| summary.median),
        min_absolute_error: absolute.map(|summary| summary.min),
        max_absolute_error: absolute.map(|summary| summary.max),
        values_near_zero: floats.len() - percentages.len(),
        mean_error_percent: mean(percentages.iter().copied()),
        median_error_percent: percent.map(|summary| summary.median),
        min_error_percent: percent.map(|summary| summary.min),
        max_error_percent: percent.map(|summary| summary.max),
        classes_agreeing: agreeing,
        class_agreement_percent: agreeing.and_then(|agreeing| share(agreeing, answered)),
        float_task_accuracy_percent: task_accuracy(reference, reference.outputs.iter().map(|x| Some(x.as_slice()))),
        quantised_task_accuracy_percent: task_accuracy(
            reference,
            errors.answers.iter().map(|answer| answer.as_ref().ok().map(Vec::as_slice)),
        ),
        rmse_added_by_cuts: uncut.and_then(|uncut| added_by_cuts(reference, errors, uncut)),
    }
}

/// Share of all inputs whose outputs are of their label's class; nothing where there are no labels.
fn task_accuracy<'a>(reference: &Reference<'_>, outputs: impl Iterator<Item = Option<&'a [f64]>>) -> Option<f64> {
    reference.class_elements?;
    let labels: Option<Vec<usize>> = reference.inputs.iter().map(|input| input.label).collect();
    let labels = labels?;
    let right = labels
        .iter()
        .zip(outputs)
        .filter(|&(&label, outputs)| outputs.and_then(|outputs| reference.class(outputs)) == Some(label));
    share(right.count(), labels.len())
}

fn added_by_cuts(reference: &Reference<'_>, errors: &ChainErrors, uncut: &[Option<f64>]) -> Option<f64> {
    let cut = reference.squares(errors);
    let both: Vec<(f64, f64)> = cut.iter().zip(uncut).filter_map(|(cut, uncut)| cut.zip(*uncut)).collect();
    let elements = reference.outputs.first()?.len() as f64;
    let rmse = |part: fn(&(f64, f64)) -> f64| mean(both.iter().map(part)).map(|mean| (mean / elements).sqrt());
    Some(rmse(|pair| pair.0)? - rmse(|pair| pair.1)?)
}

fn failed_nodes(errors: &ChainErrors) -> String {
    let mut nodes = std::collections::BTreeMap::<(usize, &str), usize>::new();
    for ChainFailure { shard, failure } in errors.answers.iter().filter_map(|answer| answer.as_ref().err()) {
        *nodes.entry((*shard, failure.node.as_str())).or_default() += 1;
    }
    let listed = nodes.iter().map(|((shard, node), runs)| format!("shard {shard} `{node}`: {runs}"));
    listed.collect::<Vec<_>>().join("; ")
}

/// One row for each input.
pub fn error_rows(configuration: &Configuration, reference: &Reference<'_>, errors: &ChainErrors) -> Vec<ErrorRow> {
    let pairs = reference.inputs.iter().zip(reference.outputs).zip(&errors.answers);
    pairs.map(|((input, float), answer)| error_row(configuration, reference, input, float, answer)).collect()
}

fn error_row(
    configuration: &Configuration,
    reference: &Reference<'_>,
    input: &Input,
    float: &[f64],
    answer: &ChainAnswer,
) -> ErrorRow {
    let integer = answer.as_ref().ok();
    let failure = answer.as_ref().err();
    let largest = |integer: &Vec<f64>| integer.iter().zip(float).map(|(y, x)| (y - x).abs()).fold(0.0, f64::max);
    ErrorRow {
        model: configuration.model.clone(),
        target: configuration.target,
        shards: configuration.shards,
        input: input.position,
        max_absolute_error: integer.map(largest),
        rmse: integer.map(|integer| (sum_of_squares(float, integer) / float.len() as f64).sqrt()),
        label: input.label,
        class_float: reference.class(float),
        class_quantised: integer.and_then(|integer| reference.class(integer)),
        failed_shard: failure.map(|failure| failure.shard),
        failed: failure.map(|failure| failure.failure.reason.clone()).unwrap_or_default(),
    }
}

/// One row for each boundary but the model's input. `scales` are those of each shard's outputs.
pub fn boundary_rows(
    configuration: &Configuration,
    plan: &Plan,
    scales: &[Vec<i32>],
    errors: &ChainErrors,
) -> Vec<BoundaryRow> {
    let ends = plan.boundaries.iter().skip(1).zip(scales).zip(&errors.boundaries).enumerate();
    let row = |(index, ((boundary, scales), errors)): (usize, ((&BoundaryPlan, &Vec<i32>), &BoundaryErrors))| {
        let names: Vec<&str> = boundary.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let scales: Vec<String> = scales.iter().map(i32::to_string).collect();
        BoundaryRow {
            model: configuration.model.clone(),
            target: configuration.target,
            shards: configuration.shards,
            boundary: index + 1,
            tensors: names.join(" "),
            elements: boundary.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum(),
            scales: scales.join(" "),
            chain_runs: errors.chain_runs,
            chain_rmse: errors.chain.rmse(),
            chain_relative_rmse_percent: errors.chain.relative_percent(),
            chain_max_absolute_error: errors.chain.max(),
            own_runs: errors.own_runs,
            own_rmse: errors.own.rmse(),
            own_relative_rmse_percent: errors.own.relative_percent(),
            own_max_absolute_error: errors.own.max(),
        }
    };
    ends.map(row).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// In percent.
fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}
