//! Small models in integers against the float engine.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use shardproof_common::plan::CalibrationTarget;
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;
use shardproof_models::quantise::{QuantisationReport, QuantiseError, QuantiseOptions, Quantised, quantise};
use shardproof_models::{LoadOptions, OnnxModel};

use crate::support::Builder;

/// Largest root mean square error over the range of the output, with the target `accuracy`.
pub(crate) const ACCURACY: f64 = 1e-3;
/// With the target `resources`.
pub(crate) const RESOURCES: f64 = 3e-2;

/// Values within -1 .. 1 that repeat nowhere near.
pub(crate) fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 53.0).collect()
}

pub(crate) fn load(builder: &Builder) -> OnnxModel {
    OnnxModel::parse("test", &builder.bytes(), &LoadOptions::default()).unwrap()
}

/// Uniform in `-reach .. reach`.
pub(crate) fn samples(model: &OnnxModel, count: usize, seed: u64, reach: f32) -> Vec<Vec<FloatTensor>> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut one = |shape: &Vec<u64>| FloatTensor {
        shape: shape.clone(),
        values: (0..shape.iter().product()).map(|_| rng.gen_range(-reach..reach)).collect(),
    };
    (0..count).map(|_| model.inputs().iter().map(|input| one(&input.shape)).collect()).collect()
}

/// Calibrates on some samples and compares on others.
pub(crate) fn agrees(name: &str, builder: &Builder, reach: f32) -> Quantised {
    let model = load(builder);
    let onnx = model.to_onnx();
    let (calibration, fresh) = (samples(&model, 4, 1, reach), samples(&model, 4, 2, reach));
    let measured = |target, limit: f64| {
        let quantised =
            quantise(&onnx, &QuantiseOptions::new(target), &calibration).unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = QuantisationReport::measure(&onnx, &quantised, &fresh).unwrap_or_else(|e| panic!("{name}: {e}"));
        for output in &error.outputs {
            assert!(output.relative() <= limit, "{name} {target:?}: {:.1e}", output.relative());
        }
        quantised
    };
    measured(CalibrationTarget::Resources, RESOURCES);
    measured(CalibrationTarget::Accuracy, ACCURACY)
}

pub(crate) fn count(quantised: &Quantised, kind: &str) -> usize {
    quantised.graph.graph().nodes.iter().filter(|node| node.op.name() == kind).count()
}

pub(crate) fn refused(builder: &Builder) -> QuantiseError {
    let model = load(builder);
    let calibration = samples(&model, 1, 1, 1.0);
    quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Resources), &calibration).unwrap_err()
}

/// The integers of the first output.
pub(crate) fn run(quantised: &Quantised, inputs: &[FloatTensor]) -> Vec<i64> {
    let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).unwrap();
    let scales = quantised.input_scales();
    let integers: Vec<Vec<i64>> =
        inputs.iter().zip(scales).map(|(tensor, scale)| tensor.quantise(scale).unwrap().values).collect();
    let trace = executor.run(&integers, 1).unwrap();
    trace.tensor(quantised.graph.graph().outputs[0]).to_vec()
}
