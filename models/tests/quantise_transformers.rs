//! What transformers are made of, in integers against the float engine: each operator, the patterns of exporters, and whole
//! models as PyTorch exports them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

#[path = "support/calibrated.rs"]
mod calibrated;
mod support;

use calibrated::{agrees, count, load, ramp, refused, samples};
use std::sync::Arc;

use shardproof_common::plan::{BackendOptions, CalibrationTarget, GkrOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;
use shardproof_models::quantise::{
    OutputError, QuantisationReport, QuantiseError, QuantiseOptions, Quantised, quantise, quantise_chain,
};
use shardproof_models::{BoundaryModes, FloatShard, LoadOptions, OnnxModel, SplitRequest};
use support::{Builder, float, int, ints};

fn one(operator: &str, shape: &[i64]) -> Builder {
    Builder::new().input("x", shape).node("tested", operator, &["x"], &["y"]).output("y")
}

/// `x` moved to where the operator is defined, with a margin.
fn shifted(operator: &str) -> Builder {
    Builder::new()
        .input("x", &[3, 5])
        .weights("c", &[], &[1.5])
        .node("shift", "Add", &["x", "c"], &["t"])
        .node("tested", operator, &["t"], &["y"])
        .output("y")
}

#[test]
fn products_of_two_tensors() {
    for (name, left, right) in [
        ("matrices", vec![3, 4], vec![4, 5]),
        ("batches", vec![2, 3, 4], vec![2, 4, 5]),
        ("one matrix for all", vec![2, 3, 4], vec![4, 5]),
        ("broadcast batches", vec![2, 1, 3, 4], vec![1, 3, 4, 5]),
        ("matrix and vector", vec![2, 3, 4], vec![4]),
    ] {
        let builder = Builder::new().input("a", &left).input("b", &right);
        let quantised = agrees(name, &builder.node("m", "MatMul", &["a", "b"], &["y"]).output("y"), 1.0);
        assert_eq!(count(&quantised, "MatMulTensors"), 1, "{name}");
    }
    let builder = Builder::new().input("a", &[4, 3]).input("b", &[5, 4]).node_with(
        "g",
        "Gemm",
        &["a", "b"],
        &["y"],
        vec![int("transA", 1), int("transB", 1), float("alpha", 0.7)],
    );
    agrees("Gemm", &builder.output("y"), 1.0);
}

#[test]
fn arithmetic_of_two_tensors() {
    for (left, right) in [(vec![3, 5], vec![3, 5]), (vec![2, 3, 1], vec![1, 5])] {
        let builder = Builder::new().input("a", &left).input("b", &right);
        agrees("Mul", &builder.node("m", "Mul", &["a", "b"], &["y"]).output("y"), 1.0);
        let quotient = Builder::new()
            .input("a", &left)
            .input("b", &right)
            .weights("c", &[], &[-2.0])
            .node("shift", "Add", &["b", "c"], &["t"])
            .node("d", "Div", &["a", "t"], &["y"]);
        agrees("Div", &quotient.output("y"), 1.0);
    }
    for operator in ["Sqrt", "Reciprocal"] {
        agrees(operator, &shifted(operator), 1.0);
    }
    for exponent in [2.0, 0.5, -1.0, -0.5] {
        let builder = Builder::new()
            .input("x", &[3, 5])
            .weights("c", &[], &[1.5])
            .weights("e", &[], &[exponent])
            .node("shift", "Add", &["x", "c"], &["t"])
            .node("tested", "Pow", &["t", "e"], &["y"]);
        agrees(&format!("Pow {exponent}"), &builder.output("y"), 1.0);
    }
}

#[test]
fn softmax_over_any_axis() {
    for reach in [0.5, 2.0, 12.0] {
        for axis in [-1, 1, 0] {
            let builder = Builder::new().input("x", &[3, 5, 7]);
            let builder = builder.node_with("s", "Softmax", &["x"], &["y"], vec![int("axis", axis)]).output("y");
            agrees(&format!("Softmax {axis} of {reach}"), &builder, reach);
        }
    }
    // Before operator set 13, all axes from the first one count together.
    let flattened = Builder::new().opset(11).input("x", &[2, 3, 4]);
    agrees("Softmax 11", &flattened.node("s", "Softmax", &["x"], &["y"]).output("y"), 1.0);
}

/// Scores of `[2, 4, 4]`, masked by a node that makes `masked`, then a softmax.
fn masked(mask: impl FnOnce(Builder) -> Builder) -> Builder {
    let builder = Builder::new().input("q", &[2, 4, 6]).input("k", &[2, 6, 4]);
    let builder = mask(builder.node("scores", "MatMul", &["q", "k"], &["s"]));
    builder.node_with("softmax", "Softmax", &["masked"], &["y"], vec![int("axis", -1)]).output("y")
}

fn causal(hidden: f32, seen: f32) -> Vec<f32> {
    (0..16).map(|place| if place % 4 > place / 4 { hidden } else { seen }).collect()
}

#[test]
fn masked_positions_are_exactly_zero() {
    for hidden in [f32::NEG_INFINITY, f32::MIN, -1e9, -1e4] {
        let added = masked(|b| {
            b.weights("mask", &[1, 4, 4], &causal(hidden, 0.0)).node("m", "Add", &["s", "mask"], &["masked"])
        });
        let biased =
            masked(|b| b.weights("mask", &[4, 4], &causal(hidden, 0.3)).node("m", "Add", &["s", "mask"], &["masked"]));
        let chosen = masked(|b| {
            let hides: Vec<bool> = causal(1.0, 0.0).iter().map(|&hides| hides != 0.0).collect();
            let b = b.flags("hides", &[1, 4, 4], &hides).weights("low", &[], &[hidden]);
            b.node("m", "Where", &["hides", "low", "s"], &["masked"])
        });
        for (name, builder) in [("added", added), ("biased", biased), ("chosen", chosen)] {
            let quantised = agrees(&format!("{name} {hidden}"), &builder, 1.0);
            let model = load(&builder);
            for inputs in samples(&model, 3, 9, 1.0) {
                let shares = calibrated::run(&quantised, &inputs);
                let zero = causal(1.0, 0.0);
                for (place, &share) in shares.iter().enumerate() {
                    assert_eq!(share == 0, zero[place % 16] != 0.0, "{name} {hidden}: {shares:?}");
                }
            }
        }
    }
}

#[test]
fn masks_that_no_softmax_takes_are_refused() {
    let whole_row = masked(|b| {
        let mask: Vec<f32> = (0..16).map(|place| if place < 4 { f32::NEG_INFINITY } else { 0.0 }).collect();
        b.weights("mask", &[4, 4], &mask).node("m", "Add", &["s", "mask"], &["masked"])
    });
    let error = refused(&whole_row);
    assert!(
        error.to_string().contains("`softmax` (Softmax)") && error.to_string().contains("nothing of a row"),
        "{error}"
    );
    let elsewhere = Builder::new()
        .input("x", &[2, 2])
        .weights("mask", &[2, 2], &[0.0, f32::NEG_INFINITY, 0.0, 0.0])
        .node("m", "Add", &["x", "mask"], &["t"])
        .node("s", "Sigmoid", &["t"], &["y"]);
    let error = refused(&elsewhere.output("y"));
    assert!(error.to_string().contains("`m` (Add)") && error.to_string().contains("infinite constant"), "{error}");
}

#[test]
fn no_cut_lies_between_a_mask_and_its_softmax() {
    let builder = masked(|b| {
        b.weights("mask", &[4, 4], &causal(f32::NEG_INFINITY, 0.0)).node("m", "Add", &["s", "mask"], &["masked"])
    });
    // Between the product and the mask there is one; behind the mask there is none.
    assert_eq!(load(&builder).max_shards(), 2);
}

fn layer_norm(shape: &[i64]) -> Builder {
    let width = shape[shape.len() - 1];
    let scale: Vec<f32> = ramp(width as usize).iter().map(|x| 1.0 + 0.3 * x).collect();
    Builder::new().input("x", shape).weights("scale", &[width], &scale).weights("bias", &[width], &ramp(width as usize))
}

/// A layer norm as exporters write it before operator set 17.
fn decomposed(shape: &[i64], variant: usize) -> Builder {
    let builder = layer_norm(shape).weights("two", &[], &[2.0]).weights("eps", &[], &[1e-5]);
    let axes = || vec![ints("axes", &[-1])];
    let builder =
        builder.node_with("mean", "ReduceMean", &["x"], &["m"], axes()).node("centre", "Sub", &["x", "m"], &["c"]);
    let builder = match variant {
        0 => builder.node("square", "Pow", &["c", "two"], &["sq"]),
        _ => builder.node("square", "Mul", &["c", "c"], &["sq"]),
    };
    let builder = builder
        .node_with("variance", "ReduceMean", &["sq"], &["v"], axes())
        .node("shift", "Add", &["v", "eps"], &["w"])
        .node("root", "Sqrt", &["w"], &["r"]);
    let builder = match variant {
        0 => builder.node("divide", "Div", &["c", "r"], &["n"]),
        _ => builder.node("invert", "Reciprocal", &["r"], &["i"]).node("times", "Mul", &["i", "c"], &["n"]),
    };
    builder.node("stretch", "Mul", &["n", "scale"], &["t"]).node("move", "Add", &["t", "bias"], &["y"]).output("y")
}

#[test]
fn layer_norms_in_both_forms() {
    for shape in [vec![2, 5, 8], vec![3, 12], vec![4, 100]] {
        for reach in [0.05, 1.0, 300.0] {
            let builder = layer_norm(&shape)
                .node_with("norm", "LayerNormalization", &["x", "scale", "bias"], &["y"], vec![int("axis", -1)])
                .output("y");
            let quantised = agrees(&format!("{shape:?} {reach}"), &builder, reach);
            assert_eq!((count(&quantised, "Sqrt"), count(&quantised, "Divide")), (1, 1));
            for variant in 0..2 {
                let quantised =
                    agrees(&format!("{shape:?} {reach}, form {variant}"), &decomposed(&shape, variant), reach);
                assert_eq!(count(&quantised, "Requant"), count(&agrees("", &builder, reach), "Requant"));
            }
        }
    }
    let last_two = Builder::new().input("x", &[3, 4, 5]).weights("scale", &[4, 5], &ramp(20));
    let last_two = last_two.node_with("norm", "LayerNormalization", &["x", "scale"], &["y"], vec![int("axis", 1)]);
    agrees("two axes", &last_two.output("y"), 1.0);
}

#[test]
fn a_layer_norm_that_a_cut_divides_is_computed_step_by_step() {
    // What remains behind a cut at the centred tensor and its variance.
    let builder = Builder::new()
        .input("c", &[4, 12])
        .input("v", &[4, 1])
        .weights("one", &[], &[1.2])
        .node("shift", "Add", &["v", "one"], &["w"])
        .node("root", "Sqrt", &["w"], &["r"])
        .node("divide", "Div", &["c", "r"], &["y"]);
    agrees("the second half", &builder.output("y"), 1.0);
}

#[test]
fn rows_without_variance_are_normalised_as_well() {
    let builder = layer_norm(&[2, 3, 8])
        .node_with("norm", "LayerNormalization", &["x", "scale", "bias"], &["y"], vec![int("axis", -1)])
        .output("y");
    let model = load(&builder);
    let quantised =
        quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &samples(&model, 4, 1, 1.0));
    let flat = vec![FloatTensor { shape: vec![2, 3, 8], values: (0..48).map(|i| (i / 8) as f32 / 7.0).collect() }];
    let error = QuantisationReport::measure(&model.to_onnx(), &quantised.unwrap(), &[flat]).unwrap();
    assert!(error.outputs[0].max < 0.02, "{error:?}");
}

/// Rows of one element have no spread, and take all of a softmax; tensors of one axis are one row.
#[test]
fn rows_of_one_element_and_single_rows() {
    for shape in [vec![6], vec![3, 1], vec![1, 1, 4]] {
        let softmax = Builder::new().input("x", &shape).node("s", "Softmax", &["x"], &["y"]).output("y");
        let norm = layer_norm(&shape).node("n", "LayerNormalization", &["x", "scale", "bias"], &["y"]).output("y");
        for (name, builder) in [("Softmax", softmax), ("LayerNormalization", norm)] {
            let model = load(&builder);
            let inputs = samples(&model, 4, 1, 1.0);
            let quantised = quantised(&model, CalibrationTarget::Accuracy, &inputs);
            let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &inputs).unwrap();
            assert!(error.outputs[0].max <= 2e-3, "{name} {shape:?}: {error:?}");
        }
    }
}

#[test]
fn what_would_take_too_much_is_refused() {
    let wide = Builder::new().input("a", &[1 << 15, 1]).input("b", &[1, 1 << 15]).weights("one", &[1, 1], &[1.0]);
    let product = wide.node("m", "MatMul", &["a", "b"], &["t"]).node("s", "ReduceSum", &["t"], &["y"]).output("y");
    let error = OnnxModel::parse("wide", &product.bytes(), &LoadOptions::default())
        .map(|model| quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &[]).unwrap_err());
    assert!(error.unwrap().to_string().contains("too large"));
}

#[test]
fn rms_norm() {
    let builder = layer_norm(&[4, 16])
        .weights("two", &[], &[2.0])
        .weights("eps", &[], &[1e-6])
        .node("square", "Pow", &["x", "two"], &["sq"])
        .node_with("mean", "ReduceMean", &["sq"], &["v"], vec![ints("axes", &[-1])])
        .node("shift", "Add", &["v", "eps"], &["w"])
        .node("root", "Sqrt", &["w"], &["r"])
        .node("invert", "Reciprocal", &["r"], &["i"])
        .node("times", "Mul", &["x", "i"], &["n"])
        .node("stretch", "Mul", &["scale", "n"], &["y"])
        .output("y");
    let quantised = agrees("RMS norm", &builder, 1.0);
    assert_eq!(count(&quantised, "ReduceSum"), 1, "nothing is centred");
}

#[test]
fn activations_in_several_operators_are_one_table() {
    // Behind a linear layer, whose weights nothing of the pattern may be folded into.
    let start = || {
        let builder = Builder::new().input("in", &[4, 6]).weights("w", &[6, 9], &ramp(54)).weights("one", &[], &[1.0]);
        builder.weights("half", &[], &[0.5]).node("fc", "MatMul", &["in", "w"], &["x"])
    };
    let gelu = start()
        .weights("root", &[], &[std::f32::consts::SQRT_2])
        .node("d", "Div", &["x", "root"], &["a"])
        .node("e", "Erf", &["a"], &["b"])
        .node("p", "Add", &["b", "one"], &["c"])
        .node("m", "Mul", &["x", "c"], &["t"])
        .node("h", "Mul", &["t", "half"], &["y"]);
    let by_tanh = start()
        .weights("three", &[], &[3.0])
        .weights("cubic", &[], &[0.044_715])
        .weights("root", &[], &[0.797_884_6])
        .node("h", "Mul", &["x", "half"], &["hx"])
        .node("cube", "Pow", &["x", "three"], &["x3"])
        .node("a", "Mul", &["x3", "cubic"], &["a1"])
        .node("b", "Add", &["x", "a1"], &["a2"])
        .node("c", "Mul", &["a2", "root"], &["a3"])
        .node("t", "Tanh", &["a3"], &["a4"])
        .node("p", "Add", &["a4", "one"], &["a5"])
        .node("m", "Mul", &["hx", "a5"], &["y"]);
    let silu = start().node("s", "Sigmoid", &["x"], &["a"]).node("m", "Mul", &["x", "a"], &["y"]);
    for (name, builder) in [("GELU", gelu), ("GELU by tanh", by_tanh), ("SiLU", silu)] {
        let quantised = agrees(name, &builder.output("y"), 3.0);
        assert_eq!((count(&quantised, "Table"), count(&quantised, "MulTensors")), (1, 0), "{name}");
    }
    let gated = start().input("z", &[4, 9]).node("s", "Sigmoid", &["x"], &["a"]).node("m", "Mul", &["z", "a"], &["y"]);
    let quantised = agrees("a gate", &gated.output("y"), 3.0);
    assert_eq!((count(&quantised, "Table"), count(&quantised, "MulTensors")), (1, 1));
}

#[test]
fn selections() {
    let picked = |indices: &[i64], axis: i64| {
        let builder = Builder::new().input("x", &[4, 5]).indices("i", indices);
        builder.node_with("g", "Gather", &["x", "i"], &["y"], vec![int("axis", axis)]).output("y")
    };
    for (indices, axis, operator) in [(&[3, 0, 0, -1][..], 0, "Gather"), (&[0, 2, 4], 1, "Slice"), (&[-2], 1, "Slice")]
    {
        let quantised = agrees(&format!("{indices:?}"), &picked(indices, axis), 1.0);
        assert_eq!(count(&quantised, operator), 1, "{indices:?}");
    }
    let expanded = Builder::new().input("x", &[3, 1]).indices("shape", &[2, 3, 400]);
    agrees("Expand", &expanded.node("e", "Expand", &["x", "shape"], &["y"]).output("y"), 1.0);
    let flags: Vec<bool> = (0..10).map(|i| i % 3 == 0).collect();
    let chosen = || Builder::new().input("x", &[2, 5]).flags("c", &[2, 5], &flags);
    let second = chosen().input("z", &[1, 5]).node("w", "Where", &["c", "x", "z"], &["y"]);
    agrees("Where", &second.output("y"), 1.0);
    let constant = chosen().weights("z", &[], &[0.4]).node("w", "Where", &["c", "z", "x"], &["y"]);
    agrees("Where of a constant", &constant.output("y"), 1.0);
}

#[test]
fn what_divides_by_zero_or_takes_roots_of_negative_values_is_refused() {
    for operator in ["Reciprocal", "Sqrt"] {
        let model = load(&one(operator, &[1, 3]));
        let sample = vec![FloatTensor { shape: vec![1, 3], values: vec![1.0, -1.0, 0.0] }];
        let error =
            quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &[sample]).unwrap_err();
        assert!(matches!(&error, QuantiseError::NonFinite { node, .. } if node == "tested"), "{operator}: {error}");
    }
}

#[test]
fn divisors_of_either_sign() {
    let signs: Vec<f32> = (0..15).map(|place| if place % 2 == 0 { 1.0 } else { -1.0 }).collect();
    for (name, sign) in [("positive", vec![1.0]), ("negative", vec![-1.0]), ("of both signs", signs)] {
        let shape: &[i64] = if sign.len() == 1 { &[] } else { &[3, 5] };
        let away = || {
            let builder = Builder::new().input("x", &[3, 5]).weights("c", &[], &[1.7]).weights("s", shape, &sign);
            builder.node("shift", "Add", &["x", "c"], &["t"]).node("turn", "Mul", &["t", "s"], &["u"])
        };
        agrees(name, &away().node("r", "Reciprocal", &["u"], &["y"]).output("y"), 1.0);
        agrees(name, &away().node("d", "Div", &["x", "u"], &["y"]).output("y"), 1.0);
        let (builder, three) = (away().weights("three", &[], &[3.0]), "three");
        agrees(name, &builder.node("d", "Div", &[three, "u"], &["y"]).output("y"), 1.0);
    }
}

/// The transformer of `tests/exported`, by one of PyTorch's exporters.
fn exported(file: &str) -> (OnnxModel, Vec<Vec<FloatTensor>>) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exported");
    let model = OnnxModel::parse(file, &std::fs::read(folder.join(file)).unwrap(), &LoadOptions::default()).unwrap();
    let inputs =
        shardproof_models::input::read_samples(&folder.join("inputs.npy"), model.inputs(), usize::MAX).unwrap();
    (model, inputs.inputs)
}

fn quantised(model: &OnnxModel, target: CalibrationTarget, inputs: &[Vec<FloatTensor>]) -> Quantised {
    quantise(&model.to_onnx(), &QuantiseOptions::new(target), inputs).unwrap()
}

#[test]
fn transformers_of_both_exporters() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exported");
    let answers = shardproof_models::npy::read(&std::fs::read(folder.join("outputs.npy")).unwrap()).unwrap();
    for file in ["dynamo.onnx", "torchscript.onnx"] {
        let (model, inputs) = exported(file);
        for (target, limit) in [(CalibrationTarget::Accuracy, 1e-3), (CalibrationTarget::Resources, 2e-2)] {
            let quantised = quantised(&model, target, &inputs[..3]);
            let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &inputs[3..]).unwrap();
            assert!(error.outputs[0].relative() <= limit, "{file} {target:?}: {error:?}");
            // Two attentions with one softmax each, five layer norms, one GELU, one gate.
            assert_eq!((count(&quantised, "Max"), count(&quantised, "Sqrt")), (2, 5), "{file}");
            assert_eq!(count(&quantised, "MatMulTensors"), 4, "{file}");
            let unit = (-f64::from(quantised.output_scales()[0])).exp2();
            let shares = answers.values.len() / inputs.len();
            for (sample, expected) in inputs.iter().zip(answers.values.chunks_exact(shares)).skip(3) {
                let found = calibrated::run(&quantised, sample);
                for (&q, &y) in found.iter().zip(expected) {
                    let allowed = 6.0 * limit * error.outputs[0].range;
                    assert!((q as f64 * unit - f64::from(y)).abs() <= allowed, "{file}: PyTorch's answer {expected:?}");
                }
            }
        }
    }
}

/// The answers of a chain of shards, and how many tensors cross between them.
fn in_shards(model: &OnnxModel, shards: usize, inputs: &[Vec<FloatTensor>]) -> (Vec<f64>, Vec<usize>) {
    let backend = |_| BackendOptions::Gkr(GkrOptions::default());
    let strategy = shardproof_models::Strategy::Balanced;
    let split = model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() });
    let split = split.unwrap();
    let crossing = split.plan.boundaries.iter().map(|boundary| boundary.tensors.len()).collect();
    let files: Vec<_> = split.shards.iter().map(|shard| &shard.onnx).collect();
    let chain = quantise_chain(&files, &QuantiseOptions::new(CalibrationTarget::Accuracy), &inputs[..3]).unwrap();
    let unit = (-f64::from(chain[shards - 1].output_scales()[0])).exp2();
    let mut answers = Vec::new();
    for sample in &inputs[3..] {
        let scales = chain[0].input_scales();
        let mut tensors: Vec<Vec<i64>> =
            sample.iter().zip(scales).map(|(tensor, scale)| tensor.quantise(scale).unwrap().values).collect();
        for shard in &chain {
            let executor = Executor::new(Arc::new(shard.graph.clone()), &shard.weights).unwrap();
            let trace = executor.run(&tensors, 1).unwrap();
            tensors = shard.graph.graph().outputs.iter().map(|&output| trace.tensor(output).to_vec()).collect();
        }
        answers.extend(tensors[0].iter().map(|&q| q as f64 * unit));
    }
    (answers, crossing)
}

/// Between the blocks of a residual stream one tensor crosses, inside of them the stream and what is added to it.
#[test]
fn residual_streams_are_cut_anywhere() {
    for file in ["dynamo.onnx", "torchscript.onnx"] {
        let (model, inputs) = exported(file);
        let float = FloatShard::load(&model.to_onnx()).unwrap();
        let answer = |sample: &Vec<FloatTensor>| float.run(sample).unwrap().swap_remove(0).values;
        let expected: Vec<f64> = inputs[3..].iter().flat_map(answer).map(f64::from).collect();
        for shards in [2, 3, 5, 9, 16, model.max_shards()] {
            let (found, crossing) = in_shards(&model, shards, &inputs);
            if shards == model.max_shards() {
                let inner = &crossing[1..shards];
                assert!(inner.contains(&1) && inner.contains(&2), "{file}: {crossing:?}");
            }
            let error = OutputError::of(&expected, &found);
            assert!(error.relative() <= 1e-3, "{file} in {shards}: {:.1e}", error.relative());
        }
    }
}

#[test]
fn the_zoos_transformer_is_cut_between_its_blocks() {
    let model =
        OnnxModel::load(&shardproof_models::ModelSource::resolve("attention").unwrap(), &LoadOptions::default())
            .unwrap();
    let backend = |_| BackendOptions::Gkr(GkrOptions::default());
    for strategy in [shardproof_models::Strategy::Balanced, shardproof_models::Strategy::Layers] {
        for shards in [1, 2, 3, 4, 6, 12] {
            let request = SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() };
            let split = model.split(&request).unwrap();
            for boundary in &split.plan.boundaries {
                let shapes: Vec<_> = boundary.tensors.iter().map(|tensor| tensor.shape.clone()).collect();
                assert_eq!(shapes, [[10, 32, 128]], "{strategy:?} {shards}");
            }
        }
    }
}

/// Inside a block two tensors cross: the stream, and what is to be added to it. They are more where the attention holds query,
/// key and value at once, and within the operators of an activation.
#[test]
fn inside_a_block_the_stream_crosses_beside_what_is_added_to_it() {
    for (name, streams, alone, beside) in [
        ("gpt2block", ["input", "residual1_out"].as_slice(), 1, 14),
        ("attention", &["input", "Add_output_0", "norm1/LayerNormalization_output_0", "Add_1_output_0"], 35, 144),
    ] {
        let source = shardproof_models::ModelSource::resolve(name).unwrap();
        let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
        let (shards, strategy) = (model.max_shards(), shardproof_models::Strategy::Balanced);
        let backend = |_| BackendOptions::Gkr(GkrOptions::default());
        let request = SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() };
        let boundaries = model.split(&request).unwrap().plan.boundaries;
        let inner = &boundaries[1..shards];
        for boundary in inner {
            // A tensor that crosses several shards has the number of the cut behind its name.
            let first = boundary.tensors[0].name.split('@').next().unwrap();
            assert!(streams.iter().any(|stream| first.ends_with(stream)), "{name}: {:?}", boundary.tensors);
        }
        let crossing = |count| inner.iter().filter(|boundary| boundary.tensors.len() == count).count();
        assert_eq!((crossing(1), crossing(2)), (alone, beside), "{name}");
    }
}
