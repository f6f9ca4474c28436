//! A model with the inputs that every system gets, and the float answers that theirs are compared with.

use serde_json::{Value, json};
use shardproof_common::plan::{BackendOptions, CalibrationTarget};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, SampleOrigin, SplitRequest, Strategy, input,
};

use super::builtin::Builtin;
use super::error::ComparisonError;

/// Samples that calibration sees, and the seed of made-up ones: the coordinator's.
const CALIBRATION: usize = 8;
const SEED: u64 = 0;
/// How far from zero the inputs of models are kept that take positive values only.
const LEAST_POSITIVE: f32 = 0.25;

/// What is proven by all systems.
#[derive(Debug)]
pub struct Subject {
    /// The model's name.
    pub name: String,
    /// Its trained values.
    pub parameters: u64,
    /// Where its inputs come from.
    pub origin: SampleOrigin,
    /// The bytes of [`super::contract::file::MODEL`].
    pub onnx: Vec<u8>,
    /// For each input to prove, the model's answer in floats: outputs in order, row-major.
    pub expected: Vec<Vec<f64>>,
    calibration: Vec<Vec<FloatTensor>>,
    inputs: Vec<Vec<FloatTensor>>,
    model: OnnxModel,
}

impl Subject {
    /// The model from `source` with at most `inputs` inputs to prove, as many as it has samples.
    ///
    /// # Errors
    /// When it is no model, or gives no finite answer.
    pub fn load(source: &ModelSource, inputs: usize) -> Result<Self, ComparisonError> {
        let model = OnnxModel::load(source, &LoadOptions::default())?;
        let samples = input::samples(source, &model, inputs.max(CALIBRATION), SEED)?;
        Self::new(model, samples.origin, samples.inputs, inputs)
    }

    /// A model on inputs above zero.
    ///
    /// # Errors
    /// As [`Subject::load`].
    pub fn on_positive_inputs(source: &ModelSource, inputs: usize) -> Result<Self, ComparisonError> {
        let model = OnnxModel::load(source, &LoadOptions::default())?;
        let mut samples = input::samples(source, &model, inputs.max(CALIBRATION), SEED)?;
        let values = samples.inputs.iter_mut().flatten().flat_map(|tensor| &mut tensor.values);
        values.for_each(|value| *value = value.abs() + LEAST_POSITIVE);
        Self::new(model, samples.origin, samples.inputs, inputs)
    }

    fn new(
        model: OnnxModel,
        origin: SampleOrigin,
        samples: Vec<Vec<FloatTensor>>,
        inputs: usize,
    ) -> Result<Self, ComparisonError> {
        let onnx = model.to_onnx();
        let reference = FloatShard::load(&onnx)?;
        let proven = samples[..inputs.min(samples.len())].to_vec();
        let answer = |input: &Vec<FloatTensor>| {
            let output = reference.run(input)?;
            Ok(output.iter().flat_map(|tensor| tensor.values.iter().map(|&value| f64::from(value))).collect())
        };
        Ok(Self {
            name: model.name().to_owned(),
            parameters: model.parameters(),
            origin,
            onnx,
            expected: proven.iter().map(answer).collect::<Result<_, ComparisonError>>()?,
            calibration: samples.into_iter().take(CALIBRATION).collect(),
            inputs: proven,
            model,
        })
    }

    /// How many inputs are proven.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The content of [`super::contract::file::SAMPLES`].
    pub fn samples_json(&self) -> Value {
        json!({ "samples": self.calibration.iter().map(|sample| input_json(sample)).collect::<Vec<_>>() })
    }

    /// The content of [`super::contract::file::INPUT`] for one of the inputs.
    pub fn input_json(&self, index: usize) -> Value {
        input_json(&self.inputs[index])
    }

    /// Peak memory that the planner predicts for an ezkl system, bytes; nothing for others.
    ///
    /// # Errors
    /// When the model cannot be planned.
    pub fn predicted_memory(&self, system: Option<Builtin>) -> Result<Option<u64>, ComparisonError> {
        let Some(system) = system.filter(|system| system.is_ezkl()) else { return Ok(None) };
        // The target decides how large tables get, which the prediction doesn't know of.
        let backend = |_| -> BackendOptions { system.options(CalibrationTarget::Resources) };
        let request = SplitRequest {
            shards: 1,
            strategy: Strategy::Balanced,
            backend: &backend,
            modes: BoundaryModes::default(),
        };
        Ok(self.model.split(&request)?.report.shards[0].prediction.peak_memory_bytes())
    }
}

fn input_json(tensors: &[FloatTensor]) -> Value {
    json!({ "input_data": tensors.iter().map(|tensor| &tensor.values).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_inputs_with_answers() {
        let subject = Subject::load(&ModelSource::resolve("mlp").unwrap(), 2).unwrap();
        assert_eq!((subject.inputs(), subject.expected.len(), subject.parameters), (2, 2, 711));
        assert_eq!(subject.samples_json()["samples"].as_array().unwrap().len(), CALIBRATION);
        assert_eq!(subject.input_json(1)["input_data"][0].as_array().unwrap().len(), 25);
        assert!(subject.predicted_memory(Some(Builtin::Ezkl)).unwrap().unwrap() > 40_000_000);
        assert_eq!(subject.predicted_memory(Some(Builtin::GkrPublic)).unwrap(), None);
        assert_eq!(subject.predicted_memory(None).unwrap(), None);
    }

    #[test]
    fn positive_inputs_are_positive() {
        let subject = Subject::on_positive_inputs(&ModelSource::resolve("mlp:1,4").unwrap(), 1).unwrap();
        let values = subject.inputs[0][0].values.iter().chain(&subject.calibration[3][0].values);
        assert!(values.into_iter().all(|&value| value >= LEAST_POSITIVE));
    }
}
