//! The model that a command is about: read, with an input to try it on and its answer in floats.

use std::path::Path;

use anyhow::{Context, Result};
use shardproof_common::files;
use shardproof_common::tensor::FloatTensor;
use shardproof_coordinator::CALIBRATION_SAMPLES;
use shardproof_models::{FloatShard, LoadOptions, ModelSource, OnnxModel, input};

/// Seed of the input that is drawn for a model without samples.
const SEED: u64 = 0;

/// A model that was read and checked.
#[derive(Debug)]
pub(crate) struct ChosenModel {
    /// Where it comes from.
    pub(crate) source: ModelSource,
    /// Its graph.
    pub(crate) model: OnnxModel,
}

/// An input of the model.
#[derive(Debug)]
pub(crate) struct ChosenInput {
    /// One tensor per input, in order.
    pub(crate) tensors: Vec<FloatTensor>,
    /// What it is, for people.
    pub(crate) described: String,
}

impl ChosenModel {
    /// Reads a zoo model or an ONNX file.
    ///
    /// # Errors
    /// Names what is wrong with it; for an unknown name the zoo's models.
    pub(crate) fn load(name_or_path: &str, options: &LoadOptions) -> Result<Self> {
        let source = ModelSource::resolve(name_or_path)?;
        let model = OnnxModel::load(&source, options).with_context(|| format!("model `{name_or_path}`"))?;
        Ok(Self { source, model })
    }

    /// The input in `file`, or else the model's first sample, or else a seeded random one.
    ///
    /// # Errors
    /// When the file does not fit the model.
    pub(crate) fn choose_input(&self, file: Option<&Path>) -> Result<ChosenInput> {
        if let Some(path) = file {
            let tensors =
                input::read_input(path, self.model.inputs()).with_context(|| format!("input {}", path.display()))?;
            return Ok(ChosenInput { tensors, described: path.display().to_string() });
        }
        let samples = input::samples(&self.source, &self.model, 1, SEED)?;
        let described = match samples.origin {
            input::SampleOrigin::Zoo => "a real sample that ships with the model",
            input::SampleOrigin::File | input::SampleOrigin::Random => {
                "a random input (seed 0); give a real one with --input FILE"
            }
        };
        let tensors = samples.inputs.into_iter().next().context("the model has no sample")?;
        Ok(ChosenInput { tensors, described: described.to_owned() })
    }

    /// Up to `count` samples: those in `file`, or else the model's own, or else seeded random ones.
    ///
    /// # Errors
    /// When the file does not fit the model.
    pub(crate) fn samples(&self, file: Option<&Path>, count: usize) -> Result<Vec<Vec<FloatTensor>>> {
        let samples = match file {
            Some(path) => input::read_samples(path, self.model.inputs(), count).context("--samples")?,
            None => input::samples(&self.source, &self.model, count, SEED)?,
        };
        Ok(samples.inputs)
    }

    /// Checks that a coordinator could calibrate on the samples in `file`, where one is named.
    ///
    /// # Errors
    /// When the file does not fit the model.
    pub(crate) fn check_samples(&self, file: Option<&Path>) -> Result<()> {
        file.map_or(Ok(()), |file| self.samples(Some(file), CALIBRATION_SAMPLES).map(drop))
    }

    /// The whole model's answer in floats, tensor after tensor. Proves nothing.
    ///
    /// # Errors
    /// When the model cannot be run on this input.
    pub(crate) fn float_answer(&self, input: &[FloatTensor]) -> Result<Vec<f64>> {
        let whole = FloatShard::load(&self.model.to_onnx()).context("the float reference")?;
        let outputs = whole.run(input).context("the float reference")?;
        Ok(outputs.iter().flat_map(|tensor| tensor.values.iter().map(|&value| f64::from(value))).collect())
    }
}

/// Writes an input in ezkl's JSON form, exactly.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_input(path: &Path, tensors: &[FloatTensor]) -> Result<()> {
    let data: Vec<&[f32]> = tensors.iter().map(|tensor| tensor.values.as_slice()).collect();
    let text =
        serde_json::to_string(&serde_json::json!({ "input_data": data })).context("the input has no JSON form")?;
    files::write_whole(path, (text + "\n").as_bytes())
        .with_context(|| format!("{}: cannot write the input", path.display()))
}
