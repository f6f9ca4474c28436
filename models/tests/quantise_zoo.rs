//! Quantised zoo models against the float ones.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
#![allow(clippy::print_stdout, reason = "the figures are what people read this test's output for")]

use std::sync::Arc;

use shardproof_common::plan::{BackendOptions, CalibrationTarget, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;
use shardproof_models::quantise::{OutputError, QuantisationReport, QuantiseOptions, quantise, quantise_chain};
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy, input,
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
            let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &samples).unwrap();
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

/// Half of the samples calibrate, the other half is measured: whole and in shards.
#[test]
fn attention_keeps_to_half_a_percent_of_its_range() {
    let (model, samples) = load("attention");
    for (target, limit) in [(CalibrationTarget::Resources, 5e-3), (CalibrationTarget::Accuracy, 5e-4)] {
        let quantised = quantise(&model.to_onnx(), &QuantiseOptions::new(target), &samples[..1]).unwrap();
        let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &samples[1..]).unwrap();
        let output = &error.outputs[0];
        println!("attention {target:?}: rmse/range {:.2e}, max {:.2e}", output.relative(), output.max);
        assert!(output.relative() <= limit, "{target:?}: {output:?}");
    }
}

#[test]
fn benchmark_models_are_quantised() {
    for name in ["mlp784", "cnn264k", "mlp:4,64"] {
        let (model, samples) = load(name);
        let quantised =
            quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &samples).unwrap();
        let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &samples).unwrap();
        println!("{name}: rmse/range {:.2e}", error.outputs[0].relative());
        assert!(error.outputs[0].relative() <= ACCURACY, "{name}: {error:?}");
    }
}

#[test]
fn shards_in_sequence_take_the_scales_and_integers_of_the_one_before() {
    for name in ["mlp", "cnn", "mlp2", "testing"] {
        let (model, samples) = load(name);
        let whole = FloatShard::load(&model.to_onnx()).unwrap();
        for shards in [1, 2, 3, 4, 5, 6, 12] {
            let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
            let request =
                SplitRequest { shards, strategy: Strategy::Layers, backend: &backend, modes: BoundaryModes::default() };
            let split = model.split(&request).unwrap();
            let files: Vec<_> = split.shards.iter().map(|shard| &shard.onnx).collect();
            let chain = quantise_chain(&files, &QuantiseOptions::new(CalibrationTarget::Accuracy), &samples).unwrap();
            for pair in chain.windows(2) {
                assert_eq!(pair[0].output_scales(), pair[1].input_scales());
            }
            let executors: Vec<Executor> = chain
                .iter()
                .map(|shard| Executor::new(Arc::new(shard.graph.clone()), &shard.weights).unwrap())
                .collect();
            let first = chain[0].input_scales();
            let unit = (-f64::from(chain[shards - 1].output_scales()[0])).exp2();
            let mut found = Vec::new();
            for sample in &samples {
                let pairs = sample.iter().zip(&first);
                let mut integers: Vec<Vec<i64>> =
                    pairs.map(|(tensor, &scale)| tensor.quantise(scale).unwrap().values).collect();
                for executor in &executors {
                    let trace = executor.run(&integers, 1).unwrap();
                    let outputs = &executor.graph().graph().outputs;
                    integers = outputs.iter().map(|&output| trace.tensor(output).to_vec()).collect();
                }
                found.extend(integers[0].iter().map(|&q| q as f64 * unit));
            }
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
