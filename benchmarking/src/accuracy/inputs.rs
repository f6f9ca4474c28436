//! What accuracy is measured on, and what scales are chosen on: never the same inputs where there are others.
//!
//! Inputs are of one origin, all real or all random. Real ones are not augmented and not filled up with random ones: when
//! fewer exist than were asked for, all of them are taken, and the report says how many.

use std::path::Path;

use serde::Serialize;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{ModelSource, OnnxModel, SampleOrigin, input, zoo};

use super::error::AccuracyError;
use crate::error::BenchError;

/// The coordinator's seed of calibration inputs for models that have none.
const CALIBRATION_SEED: u64 = 0;

/// What is asked of [`Inputs::gather`].
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Most inputs to measure on.
    pub inputs: usize,
    /// Most inputs to calibrate on.
    pub calibration: usize,
    /// The user's inputs: the first of them are calibrated on, as a coordinator does with this file.
    pub file: Option<&'a Path>,
    /// Of random inputs to measure on.
    pub seed: u64,
    /// Measure on inputs that calibration used as well, even where there are others.
    pub with_calibration: bool,
}

/// Where the measured inputs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Real: digits that the trained models of the zoo have not seen.
    HeldOutDigits,
    /// Real: the samples that ship with the model.
    ZooSamples,
    /// The user's file.
    File,
    /// Standard normal values from a seed.
    Random,
}

impl Origin {
    /// For people and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeldOutDigits => "held_out_digits",
            Self::ZooSamples => "zoo_samples",
            Self::File => "file",
            Self::Random => "random",
        }
    }
}

/// One input to measure on.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Place in its source, from 0.
    pub position: usize,
    /// The model's inputs, in order.
    pub tensors: Vec<FloatTensor>,
    /// The class that it should get, where that is known.
    pub label: Option<usize>,
}

/// Inputs to measure on and inputs to calibrate on.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Where the measured ones come from.
    pub origin: Origin,
    /// Measured on.
    pub measured: Vec<Input>,
    /// How many of them calibration used too.
    pub overlapping: usize,
    /// How many the source has, calibration's included; nothing of random ones, which do not end.
    pub available: Option<usize>,
    /// Calibrated on: those that a coordinator takes.
    pub calibration: Vec<Vec<FloatTensor>>,
    /// Where those come from.
    pub calibration_origin: SampleOrigin,
}

impl Inputs {
    /// Gathers the inputs of `model`, which was read from `source`.
    ///
    /// # Errors
    /// When the file cannot be read, does not fit the model or is empty.
    pub fn gather(source: &ModelSource, model: &OnnxModel, wanted: &Wanted<'_>) -> Result<Self, BenchError> {
        let calibration = match wanted.file {
            Some(path) => input::read_samples(path, model.inputs(), wanted.calibration)?,
            None => input::samples(source, model, wanted.calibration, CALIBRATION_SEED)?,
        };
        let (origin, all) = candidates(source, model, wanted, calibration.inputs.len())?;
        if let (Some(path), true) = (wanted.file, all.is_empty()) {
            return Err(AccuracyError::NoInputs { path: path.to_owned() }.into());
        }
        let available = (origin != Origin::Random).then_some(all.len());
        let used = |input: &Input| calibration.inputs.contains(&input.tensors);
        let (overlapping, others): (Vec<Input>, Vec<Input>) = all.iter().cloned().partition(used);
        // Where calibration took all that there is, measuring on it is better than not at all; it is said so.
        let keep_all = wanted.with_calibration || others.is_empty();
        drop(overlapping);
        let mut measured = if keep_all { all } else { others };
        measured.truncate(wanted.inputs);
        let overlapping = measured.iter().filter(|input| used(input)).count();
        Ok(Self {
            origin,
            measured,
            overlapping,
            available,
            calibration_origin: calibration.origin,
            calibration: calibration.inputs,
        })
    }
}

/// All inputs of the best source that the model has.
fn candidates(
    source: &ModelSource,
    model: &OnnxModel,
    wanted: &Wanted<'_>,
    calibrated: usize,
) -> Result<(Origin, Vec<Input>), BenchError> {
    if let Some(path) = wanted.file {
        let read = input::read_samples(path, model.inputs(), usize::MAX)?;
        return Ok((Origin::File, numbered(read.inputs, &[])));
    }
    if let ModelSource::Zoo(zoo_model) = source
        && let Some(digits) = zoo::held_out(zoo_model.name)?
    {
        let inputs = input::unstack(digits.inputs, model.inputs(), usize::MAX)?;
        return Ok((Origin::HeldOutDigits, numbered(inputs, &digits.odd)));
    }
    // Random inputs that happen to be calibration's are left out, so there must be more than are wanted.
    let samples = input::samples(source, model, wanted.inputs.saturating_add(calibrated), wanted.seed)?;
    let origin = if samples.origin == SampleOrigin::Random { Origin::Random } else { Origin::ZooSamples };
    Ok((origin, numbered(samples.inputs, &[])))
}

fn numbered(inputs: Vec<Vec<FloatTensor>>, odd: &[bool]) -> Vec<Input> {
    let labelled = |(position, tensors)| Input { position, tensors, label: odd.get(position).map(|&odd| odd.into()) };
    inputs.into_iter().enumerate().map(labelled).collect()
}

#[cfg(test)]
mod tests {
    use shardproof_models::LoadOptions;

    use super::*;

    fn gather(name: &str, wanted: &Wanted<'_>) -> Inputs {
        let source = ModelSource::resolve(name).unwrap();
        let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
        Inputs::gather(&source, &model, wanted).unwrap()
    }

    const WANTED: Wanted<'static> =
        Wanted { inputs: 1000, calibration: 8, file: None, seed: 1, with_calibration: false };

    #[test]
    fn trained_models_have_held_out_digits_beside_those_of_calibration() {
        let inputs = gather("mlp", &WANTED);
        assert_eq!((inputs.origin, inputs.available), (Origin::HeldOutDigits, Some(360)));
        assert_eq!((inputs.measured.len(), inputs.overlapping, inputs.calibration.len()), (352, 0, 8));
        assert!(inputs.measured.iter().all(|input| input.label.is_some()));
        let all = gather("mlp", &Wanted { with_calibration: true, ..WANTED });
        assert_eq!((all.measured.len(), all.overlapping), (360, 8));
        let fewer = gather("testing", &Wanted { inputs: 20, ..WANTED });
        assert_eq!((fewer.measured.len(), fewer.overlapping, fewer.calibration.len()), (20, 0, 4));
    }

    #[test]
    fn where_calibration_takes_all_there_is_it_is_measured_on_and_said() {
        let inputs = gather("attention", &WANTED);
        assert_eq!((inputs.origin, inputs.measured.len(), inputs.overlapping), (Origin::ZooSamples, 2, 2));
    }

    #[test]
    fn random_inputs_are_never_those_of_calibration() {
        // The seed is the coordinator's, so the first eight are calibration's.
        let inputs = gather("mlp:2,8", &Wanted { inputs: 20, seed: CALIBRATION_SEED, ..WANTED });
        assert_eq!((inputs.origin, inputs.available), (Origin::Random, None));
        assert_eq!((inputs.measured.len(), inputs.overlapping, inputs.measured[0].position), (20, 0, 8));
    }
}
