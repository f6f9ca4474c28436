//! Quantised zoo models against the float ones.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
#![allow(clippy::print_stdout, reason = "the figures are what people read this test's output for")]

use std::sync::Arc;

use shardproof_common::plan::{BackendOptions, CalibrationTarget, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;
use shardproof_models::quantise::{OutputError, QuantisationError, QuantiseOptions, quantise};
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy, input, run_chain,
};

/// Root mean square error over the range of the outputs that `accuracy` keeps to on the zoo's samples.
const ACCURACY: f64 = 1e-3;

fn load(name: &str) -> (OnnxModel, Vec<Vec<FloatTensor>>) {
    let source = ModelSource::resolve(name).unwrap();
    let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    let samples = input::samples(&source, &model, 8, 1).unwrap().inputs;
    (model, samples)
}

#[test]
fn whole_models_keep_to_the_accuracy_of_their_target() {
    for name in ["mlp", "cnn", "mlp2", "testing"] {
        let (model, samples) = load(name);
        for target in [CalibrationTarget::Resources, CalibrationTarget::Accuracy] {
            let quantised = quantise(&model.to_onnx(), &QuantiseOptions::new(target), &samples).unwrap();
            let error = QuantisationError::measure(&model.to_onnx(), &quantised, &samples).unwrap();
            let output = &error.outputs[0];
            println!(
                "{name} {target:?}: rmse/range {:.2e}, max {:.2e}, range {:.3}, classes {}/{}, {} nodes, {} bits",
                output.relative(),
                output.max,
                output.range,
                error.classes.agreeing,
                error.classes.samples,
                quantised.graph.graph().nodes.len(),
                quantised.graph.max_accumulator_bits(),
            );
            let limit = if target == CalibrationTarget::Accuracy { ACCURACY } else { 0.1 };
            assert!(output.relative() <= limit, "{name} {target:?}: {}", output.relative());
            if target == CalibrationTarget::Accuracy {
                assert_eq!(error.classes.agreeing, samples.len(), "{name}");
            }
        }
    }
}

#[test]
fn benchmark_models_are_quantised() {
    for name in ["mlp784", "cnn264k", "mlp:4,64"] {
        let (model, samples) = load(name);
        let quantised =
            quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &samples).unwrap();
        let error = QuantisationError::measure(&model.to_onnx(), &quantised, &samples).unwrap();
        println!("{name}: rmse/range {:.2e}", error.outputs[0].relative());
        assert!(error.outputs[0].relative() <= ACCURACY, "{name}: {error:?}");
    }
}

#[test]
fn shards_in_sequence_take_the_scales_and_integers_of_the_one_before() {
    for name in ["mlp", "cnn", "mlp2", "testing"] {
        let (model, samples) = load(name);
        let whole = FloatShard::load(&model.to_onnx()).unwrap();
        for shards in 1..=6 {
            let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
            let request =
                SplitRequest { shards, strategy: Strategy::Layers, backend: &backend, modes: BoundaryModes::default() };
            let split = model.split(&request).unwrap();
            let floats: Vec<_> = split.shards.iter().map(|shard| FloatShard::load(&shard.onnx).unwrap()).collect();
            let mut options = QuantiseOptions::new(CalibrationTarget::Accuracy);
            let mut integers: Vec<Vec<Vec<i64>>> = Vec::new();
            for (index, shard) in split.shards.iter().enumerate() {
                let calibration: Vec<_> =
                    samples.iter().map(|sample| run_chain(&floats[..index], sample).unwrap()).collect();
                let quantised = quantise(&shard.onnx, &options, &calibration).unwrap();
                if index == 0 {
                    let scales = quantised.input_scales();
                    let of = |sample: &Vec<FloatTensor>| {
                        let pairs = sample.iter().zip(&scales);
                        pairs.map(|(tensor, &scale)| tensor.quantise(scale).unwrap().values).collect()
                    };
                    integers = samples.iter().map(of).collect();
                } else {
                    assert_eq!(options.input_scales.as_ref(), Some(&quantised.input_scales()));
                }
                let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).unwrap();
                for values in &mut integers {
                    let trace = executor.run(values, 1).unwrap();
                    *values = quantised.graph.graph().outputs.iter().map(|&o| trace.tensor(o).to_vec()).collect();
                }
                options.input_scales = Some(quantised.output_scales());
            }
            let unit = (-f64::from(options.input_scales.unwrap()[0])).exp2();
            let found: Vec<f64> =
                integers.iter().flat_map(|values| values[0].iter().map(|&q| q as f64 * unit)).collect();
            let expected: Vec<f64> = samples
                .iter()
                .flat_map(|sample| {
                    whole.run(sample).unwrap()[0].values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()
                })
                .collect();
            let error = OutputError::of(&expected, &found);
            println!("{name} in {shards} shards: rmse/range {:.2e}", error.relative());
            assert!(error.relative() <= ACCURACY, "{name} {shards}: {}", error.relative());
        }
    }
}
