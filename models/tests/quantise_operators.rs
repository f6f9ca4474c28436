//! Each operator in integers against the float engine, inside small models; and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

#[path = "support/calibrated.rs"]
mod calibrated;
mod support;

use std::sync::Arc;

use calibrated::{ACCURACY, agrees, count, load, ramp, refused, samples};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use shardproof_common::plan::{BackendOptions, CalibrationTarget, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::{Executor, Op, RunError};
use shardproof_models::quantise::{
    HEADROOM_BITS, OutputError, QuantisationReport, QuantiseError, QuantiseOptions, Quantised, quantise, quantise_chain,
};
use shardproof_models::{BoundaryModes, FloatShard, SplitRequest, Strategy as SplitStrategy};
use support::{Builder, float, int, ints, text};
use tract_onnx::pb::AttributeProto;

/// A model of one node on `[1, 4, 6, 6]`, behind a multiplication by 1.5 so that it reads a computed tensor.
fn one_node(operator: &str, constants: &[(&str, &[i64], Vec<f32>)], attributes: Vec<AttributeProto>) -> Builder {
    let mut builder = Builder::new().input("x", &[1, 4, 6, 6]).weights("factor", &[], &[1.5]);
    for (name, shape, values) in constants {
        builder = builder.weights(name, shape, values);
    }
    let inputs: Vec<&str> = std::iter::once("scaled").chain(constants.iter().map(|(name, ..)| *name)).collect();
    builder
        .node("scale", "Mul", &["x", "factor"], &["scaled"])
        .node_with("tested", operator, &inputs, &["y"], attributes)
        .output("y")
}

#[test]
fn functions_of_one_variable() {
    for operator in [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Abs",
        "Neg",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Elu",
        "Selu",
        "Softplus",
        "Softsign",
        "Erf",
        "Exp",
        "Mish",
        "Sin",
        "Cos",
        "Atan",
        "Asinh",
        "Sinh",
        "Cosh",
        "Identity",
    ] {
        for reach in [0.3, 2.0] {
            agrees(&format!("{operator} {reach}"), &one_node(operator, &[], vec![]), reach);
        }
    }
    let builder = one_node("Gelu", &[], vec![text("approximate", "tanh")]).opset(20);
    agrees("Gelu by tanh", &builder, 2.0);
    agrees("Gelu", &one_node("Gelu", &[], vec![]).opset(20), 2.0);
    agrees("PRelu", &one_node("PRelu", &[("slope", &[4, 1, 1], vec![0.1, 0.3, -0.2, 1.5])], vec![]), 1.0);
    agrees("Clip", &one_node("Clip", &[("low", &[], vec![-0.4]), ("high", &[], vec![0.7])], vec![]), 1.0);
    agrees("ReLU6", &one_node("Clip", &[("low", &[], vec![0.0]), ("high", &[], vec![6.0])], vec![]), 8.0);
    agrees("Pow", &one_node("Pow", &[("three", &[], vec![3.0])], vec![]), 1.0);
}

#[test]
fn saturated_functions_take_any_value() {
    for operator in ["Sigmoid", "Tanh", "Erf"] {
        let builder = one_node(operator, &[], vec![]);
        let model = load(&builder);
        let calibration = samples(&model, 2, 1, 30.0);
        let options = QuantiseOptions::new(CalibrationTarget::Accuracy);
        let quantised = quantise(&model.to_onnx(), &options, &calibration).unwrap();
        // 3.9 times the calibrated range, which is itself far beyond where these functions are level.
        let wide = samples(&model, 2, 2, 30.0 * 3.9);
        let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &wide).unwrap();
        assert!(error.outputs[0].relative() <= ACCURACY, "{operator}: {error:?}");
    }
}

#[test]
fn arithmetic_with_constants() {
    let per_channel = || vec![0.5, -1.25, 2.0, 0.1];
    let shape: &[i64] = &[1, 4, 1, 1];
    for operator in ["Add", "Sub", "Mul", "Div", "Max", "Min"] {
        // ONNX's Max and Min broadcast like the others.
        agrees(operator, &one_node(operator, &[("c", shape, per_channel())], vec![]), 1.0);
        agrees(operator, &one_node(operator, &[("c", &[], vec![0.37])], vec![]), 1.0);
    }
    let builder = Builder::new().input("x", &[1, 5]).weights("c", &[5], &ramp(5));
    agrees("constant less x", &builder.node("s", "Sub", &["c", "x"], &["y"]).output("y"), 1.0);
}

#[test]
fn sums_of_tensors() {
    for operator in ["Add", "Sub", "Max", "Min", "Mean"] {
        // The two have scales of their own: one comes from a product, the other from the input.
        let builder = Builder::new()
            .input("x", &[2, 6])
            .input("z", &[2, 6])
            .weights("w", &[6, 6], &ramp(36))
            .node("p", "MatMul", &["x", "w"], &["product"])
            .node("s", operator, &["product", "z"], &["y"])
            .output("y");
        agrees(operator, &builder, 1.0);
        let builder = Builder::new().input("x", &[3, 1, 4]).input("z", &[5, 1]);
        agrees(operator, &builder.node("s", operator, &["x", "z"], &["y"]).output("y"), 1.0);
    }
}

#[test]
fn matrix_products() {
    let cases: [(&str, &[i64], Vec<AttributeProto>); 5] = [
        ("plain", &[6, 3], vec![]),
        ("second turned", &[3, 6], vec![int("transB", 1)]),
        ("scaled", &[6, 3], vec![float("alpha", 0.3), float("beta", -1.7)]),
        ("first turned", &[2, 3], vec![int("transA", 1)]),
        ("both turned", &[3, 2], vec![int("transA", 1), int("transB", 1)]),
    ];
    for (name, shape, attributes) in cases {
        let length = shape.iter().product::<i64>() as usize;
        let builder =
            Builder::new().input("x", &[2, 6]).weights("w", shape, &ramp(length)).weights("b", &[3], &ramp(3));
        let builder = builder.node_with("g", "Gemm", &["x", "w", "b"], &["y"], attributes).output("y");
        agrees(name, &builder, 1.0);
    }
    let constant_left = Builder::new().input("x", &[4, 5]).weights("w", &[3, 4], &ramp(12));
    agrees("Gemm, constant first", &constant_left.node("g", "Gemm", &["w", "x"], &["y"]).output("y"), 1.0);
    for (input, weight, first) in [
        ([2, 3, 4], vec![4, 5], false),
        ([2, 3, 4], vec![2, 4, 5], false),
        ([2, 3, 4], vec![7, 3], true),
        ([2, 3, 4], vec![4], false),
    ] {
        let length = weight.iter().product::<i64>() as usize;
        let builder = Builder::new().input("x", &input).weights("w", &weight, &ramp(length));
        let inputs = if first { ["w", "x"] } else { ["x", "w"] };
        agrees(&format!("MatMul {weight:?}"), &builder.node("m", "MatMul", &inputs, &["y"]).output("y"), 1.0);
    }
}

#[test]
fn convolutions() {
    let cases: [(&str, &[i64], Vec<AttributeProto>); 6] = [
        ("plain", &[3, 4, 3, 3], vec![]),
        ("strided and padded", &[3, 4, 3, 2], vec![ints("strides", &[2, 1]), ints("pads", &[1, 0, 2, 1])]),
        ("dilated", &[3, 4, 2, 2], vec![ints("dilations", &[3, 2])]),
        ("grouped", &[6, 2, 3, 3], vec![int("group", 2)]),
        ("depthwise", &[4, 1, 3, 3], vec![int("group", 4), text("auto_pad", "SAME_UPPER")]),
        ("pointwise", &[5, 4, 1, 1], vec![]),
    ];
    for (name, shape, attributes) in cases {
        let weights = ("w", shape, ramp(shape.iter().product::<i64>() as usize));
        let bias_shape = [shape[0]];
        let bias = ("b", &bias_shape[..], ramp(shape[0] as usize));
        agrees(name, &one_node("Conv", &[weights, bias], attributes), 1.0);
    }
    let builder =
        Builder::new().input("x", &[2, 3, 9]).weights("w", &[4, 3, 3], &ramp(36)).weights("b", &[4], &ramp(4));
    let attributes = vec![ints("pads", &[1, 2]), ints("strides", &[2])];
    agrees("one axis", &builder.node_with("c", "Conv", &["x", "w", "b"], &["y"], attributes).output("y"), 1.0);
}

fn normalised(builder: Builder, input: &str, output: &str) -> Builder {
    builder
        .weights("scale", &[4], &[1.1, 0.4, -0.7, 2.0])
        .weights("shift", &[4], &[0.2, -0.1, 0.0, 0.5])
        .weights("mean", &[4], &[0.1, -0.3, 0.2, 0.0])
        .weights("variance", &[4], &[0.5, 1.5, 0.9, 0.2])
        .node("norm", "BatchNormalization", &[input, "scale", "shift", "mean", "variance"], &[output])
}

#[test]
fn normalisations_fold_into_the_product_before_them() {
    let conv = || {
        Builder::new().input("x", &[1, 3, 6, 6]).weights("w", &[4, 3, 3, 3], &ramp(108)).weights("b", &[4], &ramp(4))
    };
    let folded = normalised(conv().node("c", "Conv", &["x", "w", "b"], &["t"]), "t", "y").output("y");
    let quantised = agrees("folded", &folded, 1.0);
    assert_eq!((count(&quantised, "MulWeight"), count(&quantised, "AddWeight")), (0, 1));
    let shared = normalised(conv().node("c", "Conv", &["x", "w", "b"], &["t"]), "t", "u");
    let quantised = agrees("used twice", &shared.node("a", "Add", &["t", "u"], &["y"]).output("y"), 1.0);
    assert_eq!(count(&quantised, "MulWeight"), 1);
    let after = conv().node("c", "Conv", &["x", "w", "b"], &["t"]).node("r", "Relu", &["t"], &["u"]);
    let quantised = agrees("behind a ReLU", &normalised(after, "u", "y").output("y"), 1.0);
    assert_eq!(count(&quantised, "MulWeight"), 1);
    let line = Builder::new().input("x", &[2, 3, 9]).weights("w", &[4, 3, 3], &ramp(36));
    let quantised =
        agrees("one axis", &normalised(line.node("c", "Conv", &["x", "w"], &["t"]), "t", "y").output("y"), 1.0);
    assert_eq!(count(&quantised, "MulWeight"), 0);
}

#[test]
fn pooling() {
    let kernel = |height, width| ints("kernel_shape", &[height, width]);
    let cases = [
        ("MaxPool", vec![kernel(2, 2), ints("strides", &[2, 2])]),
        ("MaxPool", vec![kernel(3, 3), ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])]),
        ("MaxPool", vec![kernel(5, 1), ints("pads", &[2, 0, 2, 0])]),
        ("MaxPool", vec![kernel(2, 3), ints("dilations", &[2, 1]), ints("strides", &[3, 2])]),
        ("MaxPool", vec![kernel(3, 3), ints("strides", &[2, 2]), int("ceil_mode", 1)]),
        ("AveragePool", vec![kernel(2, 2), ints("strides", &[2, 2])]),
        ("AveragePool", vec![kernel(3, 3), ints("pads", &[1, 1, 1, 1])]),
        ("AveragePool", vec![kernel(3, 3), ints("pads", &[1, 1, 1, 1]), int("count_include_pad", 1)]),
        ("AveragePool", vec![kernel(3, 2), ints("strides", &[2, 2]), int("ceil_mode", 1)]),
        ("GlobalAveragePool", vec![]),
        ("GlobalMaxPool", vec![]),
        ("ReduceMean", vec![ints("axes", &[1, 3]), int("keepdims", 0)]),
        ("ReduceSum", vec![]),
    ];
    for (operator, attributes) in cases {
        let name = format!("{operator} {attributes:?}");
        agrees(&name, &one_node(operator, &[], attributes.clone()), 1.0);
        // Behind a convolution it reads wide sums.
        let builder = Builder::new()
            .input("x", &[1, 3, 8, 8])
            .weights("w", &[4, 3, 3, 3], &ramp(108))
            .node("c", "Conv", &["x", "w"], &["t"])
            .node_with("p", operator, &["t"], &["u"], attributes)
            .node("r", "Relu", &["u"], &["y"])
            .output("y");
        agrees(&name, &builder, 1.0);
    }
}

#[test]
fn a_relu_behind_a_maximum_costs_nothing() {
    let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), ints("pads", &[0, 1, 0, 1])];
    let builder = Builder::new()
        .input("x", &[1, 3, 8, 8])
        .weights("w", &[4, 3, 3, 3], &ramp(108))
        .node("c", "Conv", &["x", "w"], &["t"])
        .node_with("p", "MaxPool", &["t"], &["u"], attributes)
        .node("r", "Relu", &["u"], &["y"])
        .output("y");
    let quantised = agrees("ReLU behind MaxPool", &builder, 1.0);
    assert_eq!(count(&quantised, "Requant"), 3, "one for the convolution and one for each axis");
}

#[test]
fn a_maximum_is_exact() {
    let attributes = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
    let builder =
        Builder::new().input("x", &[1, 2, 7, 7]).node_with("p", "MaxPool", &["x"], &["y"], attributes).output("y");
    let model = load(&builder);
    let mut options = QuantiseOptions::new(CalibrationTarget::Resources);
    options.input_scales = Some(vec![8]);
    let quantised = quantise(&model.to_onnx(), &options, &samples(&model, 1, 1, 1.0)).unwrap();
    let graph = Arc::new(quantised.graph.clone());
    let executor = Executor::new(graph.clone(), &quantised.weights).unwrap();
    let input: Vec<i64> = (0..98).map(|i| i * 53 % 257 - 128).collect();
    let trace = executor.run(std::slice::from_ref(&input), 1).unwrap();
    let expected = |channel: i64, row: i64, column: i64| {
        let window = (2 * row - 1..2 * row + 2).flat_map(|y| (2 * column - 1..2 * column + 2).map(move |x| (y, x)));
        let inside = window.filter(|(y, x)| (0..7).contains(y) && (0..7).contains(x));
        inside.map(|(y, x)| input[(channel * 49 + y * 7 + x) as usize]).max().unwrap()
    };
    let expected: Vec<i64> = (0..2)
        .flat_map(|c| (0..4).flat_map(move |y| (0..4).map(move |x| (c, y, x))))
        .map(|(c, y, x)| expected(c, y, x))
        .collect();
    assert_eq!(trace.tensor(graph.graph().outputs[0]), expected);
}

#[test]
fn shape_operators() {
    agrees("Flatten", &one_node("Flatten", &[], vec![int("axis", 2)]), 1.0);
    agrees("Transpose", &one_node("Transpose", &[], vec![ints("perm", &[2, 0, 3, 1])]), 1.0);
    let builder = || Builder::new().input("x", &[1, 4, 6]).weights("c", &[1, 2, 6], &ramp(12));
    let quantised = agrees(
        "Concat",
        &builder().node_with("a", "Concat", &["c", "x", "c", "x"], &["y"], vec![int("axis", 1)]).output("y"),
        1.0,
    );
    assert_eq!(quantised.output_shape(0), [1, 12, 6]);
    let branches = builder()
        .weights("w", &[6, 6], &ramp(36))
        .node("m", "MatMul", &["x", "w"], &["t"])
        .node("r", "Relu", &["t"], &["u"])
        .node_with("a", "Concat", &["u", "t", "x"], &["y"], vec![int("axis", 2)])
        .output("y");
    agrees("Concat of different scales", &branches, 1.0);
    let sliced = builder()
        .indices("starts", &[-5, 1])
        .indices("ends", &[i64::MAX, -1])
        .indices("axes", &[2, 1])
        .indices("steps", &[2, 1]);
    agrees("Slice", &sliced.node("s", "Slice", &["x", "starts", "ends", "axes", "steps"], &["y"]).output("y"), 1.0);
    let padded = builder().indices("pads", &[0, 1, 0, 0, 2, 3]).weights("v", &[], &[0.3]);
    agrees("Pad", &padded.node("p", "Pad", &["x", "pads", "v"], &["y"]).output("y"), 1.0);
    let split = builder().indices("sizes", &[1, 3]);
    let split = split.node_with("s", "Split", &["x", "sizes"], &["a", "b"], vec![int("axis", 1)]);
    agrees("Split", &split.output("b").output("a"), 1.0);
    let squeezed =
        builder().indices("axes", &[0]).node("s", "Squeeze", &["x", "axes"], &["t"]).indices("behind", &[2, 0]);
    agrees("Squeeze", &squeezed.node("u", "Unsqueeze", &["t", "behind"], &["y"]).output("y"), 1.0);
}

/// Two blocks with shortcuts, one through a projection.
fn residual() -> Builder {
    let pad = || vec![ints("pads", &[1, 1, 1, 1])];
    Builder::new()
        .input("x", &[1, 3, 8, 8])
        .weights("w0", &[4, 3, 3, 3], &ramp(108))
        .weights("w1", &[4, 4, 3, 3], &ramp(144))
        .weights("w2", &[4, 4, 3, 3], &ramp(150)[6..])
        .weights("w3", &[6, 4, 3, 3], &ramp(216))
        .weights("w4", &[6, 4, 1, 1], &ramp(24))
        .weights("w5", &[6, 5], &ramp(30))
        .node_with("stem", "Conv", &["x", "w0"], &["a0"], pad())
        .node("stem_relu", "Relu", &["a0"], &["a"])
        .node_with("conv1", "Conv", &["a", "w1"], &["b0"], pad())
        .node("relu1", "Relu", &["b0"], &["b1"])
        .node_with("conv2", "Conv", &["b1", "w2"], &["b2"], pad())
        .node("add1", "Add", &["b2", "a"], &["b3"])
        .node("relu2", "Relu", &["b3"], &["b"])
        .node_with("conv3", "Conv", &["b", "w3"], &["c0"], vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])])
        .node_with("project", "Conv", &["b", "w4"], &["c1"], vec![ints("strides", &[2, 2])])
        .node("add2", "Add", &["c0", "c1"], &["c2"])
        .node("relu3", "Relu", &["c2"], &["c"])
        .node("pool", "GlobalAveragePool", &["c"], &["d"])
        .node("flat", "Flatten", &["d"], &["e"])
        .node("out", "Gemm", &["e", "w5"], &["y"])
        .output("y")
}

#[test]
fn residual_networks_with_boundaries_of_two_tensors() {
    let builder = residual();
    agrees("residual", &builder, 1.0);
    let model = load(&builder);
    let (calibration, fresh) = (samples(&model, 4, 1, 1.0), samples(&model, 4, 2, 1.0));
    let whole = FloatShard::load(&model.to_onnx()).unwrap();
    let mut pairs = 0;
    for shards in [2, 4, 8, model.max_shards()] {
        let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
        let strategy = SplitStrategy::Layers;
        let split = model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() });
        let split = split.unwrap();
        pairs += split.plan.boundaries.iter().filter(|boundary| boundary.tensors.len() == 2).count();
        let files: Vec<_> = split.shards.iter().map(|shard| &shard.onnx).collect();
        let chain = quantise_chain(&files, &QuantiseOptions::new(CalibrationTarget::Accuracy), &calibration).unwrap();
        let unit = (-f64::from(chain[shards - 1].output_scales()[0])).exp2();
        let executor = |shard: &Quantised| Executor::new(Arc::new(shard.graph.clone()), &shard.weights).unwrap();
        let chain: Vec<Executor> = chain.iter().map(executor).collect();
        let scale = |executor: &Executor| executor.graph().graph().inputs[0].scale;
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        for sample in &fresh {
            let mut tensors = vec![sample[0].quantise(scale(&chain[0])).unwrap().values];
            for executor in &chain {
                let trace = executor.run(&tensors, 1).unwrap();
                tensors =
                    executor.graph().graph().outputs.iter().map(|&output| trace.tensor(output).to_vec()).collect();
            }
            found.extend(tensors[0].iter().map(|&q| q as f64 * unit));
            expected.extend(whole.run(sample).unwrap()[0].values.iter().map(|&x| f64::from(x)));
        }
        let error = OutputError::of(&expected, &found);
        assert!(error.relative() <= ACCURACY, "{shards} shards: {:.1e}", error.relative());
    }
    assert!(pairs >= 3, "the shortcuts cross {pairs} boundaries");
}

#[test]
fn values_beyond_the_headroom_end_the_run() {
    let builder = Builder::new().input("x", &[1, 2]).weights("w", &[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let model = load(&builder.node("m", "MatMul", &["x", "w"], &["t"]).node("r", "Relu", &["t"], &["y"]).output("y"));
    let calibration = vec![vec![FloatTensor { shape: vec![1, 2], values: vec![1.0, -1.0] }]];
    let quantised =
        quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &calibration).unwrap();
    let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).unwrap();
    let unit = 1_i64 << quantised.input_scales()[0];
    let most = 1 << HEADROOM_BITS;
    assert!(executor.run(&[vec![most * unit - unit / 8, -most * unit]], 1).is_ok());
    for outside in [vec![most * unit + 1, 0], vec![0, -most * unit - unit]] {
        assert!(matches!(executor.run(&[outside], 1), Err(RunError::RequantRange { .. })));
    }
}

#[test]
fn what_has_no_integers_is_refused_by_name() {
    let one = |operator: &str| one_node(operator, &[], vec![]);
    let reversed =
        Builder::new().input("x", &[4]).indices("s", &[3]).indices("e", &[-9]).indices("a", &[0]).indices("t", &[-1]);
    let reversed = reversed.node("tested", "Slice", &["x", "s", "e", "a", "t"], &["y"]).output("y");
    let cases = [
        (one("Floor"), "Floor", "no counterpart in integers"),
        (reversed, "Slice", "must be positive"),
        (one_node("Pow", &[("third", &[], vec![0.33])], vec![]), "Pow", "whole numbers"),
    ];
    for (builder, operator, expected) in cases {
        let error = refused(&builder);
        let QuantiseError::Unsupported { node, operator: found, reason } = &error else {
            panic!("{operator}: {error}")
        };
        assert_eq!((node.as_str(), found.as_str()), ("tested", operator));
        assert!(reason.contains(expected), "{error}");
    }
}

#[test]
fn options_and_samples_that_do_not_fit_are_refused() {
    let model = load(&one_node("Relu", &[], vec![]));
    let (onnx, good) = (model.to_onnx(), samples(&model, 1, 1, 1.0));
    let base = QuantiseOptions::new(CalibrationTarget::Accuracy);
    let with = |change: fn(&mut QuantiseOptions)| {
        let mut options = base.clone();
        change(&mut options);
        quantise(&onnx, &options, &good).unwrap_err()
    };
    assert!(matches!(with(|o| o.weight_bits = Some(1)), QuantiseError::Bits { option: "weight bits", .. }));
    assert!(matches!(with(|o| o.activation_bits = Some(23)), QuantiseError::Bits { option: "activation bits", .. }));
    assert!(matches!(with(|o| o.table_bits = Some(19)), QuantiseError::Bits { option: "table bits", .. }));
    assert!(matches!(with(|o| o.input_scales = Some(vec![99])), QuantiseError::Bits { option: "input scale", .. }));
    assert!(matches!(with(|o| o.input_scales = Some(vec![])), QuantiseError::InputScales { inputs: 1, scales: 0 }));
    assert!(matches!(quantise(&onnx, &base, &[]), Err(QuantiseError::NoSamples)));
    assert!(matches!(quantise(&onnx, &base, &[good[0].clone(), vec![]]), Err(QuantiseError::Sample { sample: 1, .. })));
    assert!(matches!(quantise(b"no model", &base, &good), Err(QuantiseError::Model(_))));
    let overflowing = load(&one_node("Exp", &[], vec![]));
    let large = samples(&overflowing, 1, 1, 1e4);
    assert!(matches!(quantise(&overflowing.to_onnx(), &base, &large), Err(QuantiseError::NonFinite { sample: 0, .. })));
}

#[test]
fn overrides_are_kept() {
    let model = load(&residual());
    let mut options = QuantiseOptions::new(CalibrationTarget::Accuracy);
    (options.weight_bits, options.activation_bits) = (Some(9), Some(12));
    options.input_scales = Some(vec![11]);
    let quantised = quantise(&model.to_onnx(), &options, &samples(&model, 2, 1, 1.0)).unwrap();
    let graph = quantised.graph.graph();
    assert_eq!(quantised.input_scales(), [11]);
    for node in &graph.nodes {
        match &node.op {
            Op::Conv(conv) => assert!(graph.weights[conv.weight.0 as usize].bits <= 9),
            Op::Requant { bits, .. } => assert!(*bits <= 12, "{}: {bits}", node.name),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Networks of any depth and width with weights of any size: what is quantised runs on other samples and is close.
    #[test]
    fn random_networks(
        widths in proptest::collection::vec(1i64..9, 2..6),
        sizes in proptest::collection::vec(-6i32..6, 6),
        kinds in proptest::collection::vec(0usize..6, 6),
        seed in any::<u64>(),
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut builder = Builder::new().input("x", &[1, widths[0]]);
        let mut tensor = "x".to_owned();
        for (index, pair) in widths.windows(2).enumerate() {
            let size = (sizes[index] as f32).exp2();
            let weights: Vec<f32> = (0..pair[0] * pair[1]).map(|_| rng.gen_range(0.2..1.0_f32) * size).collect();
            let bias: Vec<f32> = (0..pair[1]).map(|_| rng.gen_range(-1.0..1.0_f32) * size).collect();
            let [w, b, t, u] = ["w", "b", "t", "u"].map(|name| format!("{name}{index}"));
            // A steep function of amplified values would amplify their rounding as well.
            let kinds_here: &[&str] = if size <= 2.0 && index == 0 { &["Tanh", "Sigmoid"] } else { &["Relu", "LeakyRelu", "Identity"] };
            let operator = kinds_here[kinds[index] % kinds_here.len()];
            builder = builder
                .weights(&w, &[pair[0], pair[1]], &weights)
                .weights(&b, &[pair[1]], &bias)
                .node(&format!("fc{index}"), "Gemm", &[&tensor, &w, &b], &[&t])
                .node(&format!("f{index}"), operator, &[&t], &[&u]);
            tensor = u;
        }
        let model = load(&builder.output(&tensor));
        let (calibration, fresh) = (samples(&model, 8, 1, 1.0), samples(&model, 8, 2, 1.0));
        let quantised = quantise(&model.to_onnx(), &QuantiseOptions::new(CalibrationTarget::Accuracy), &calibration).unwrap();
        let error = QuantisationReport::measure(&model.to_onnx(), &quantised, &fresh);
        // Eight samples may by chance miss the range of a narrow layer; then the run says so.
        prop_assume!(!matches!(error, Err(QuantiseError::Run { .. })));
        let error = error.unwrap();
        let output = &error.outputs[0];
        let float = FloatShard::load(&model.to_onnx()).unwrap();
        let answers = fresh.iter().flat_map(|sample| float.run(sample).unwrap().swap_remove(0).values);
        let largest = answers.fold(0.0_f64, |most, y| most.max(f64::from(y.abs())));
        // A ReLU may leave next to nothing of values that were rounded when they were large.
        let rounded: f64 = sizes.iter().take(widths.len() - 1).map(|&size| f64::from(size.max(0)).exp2()).product();
        prop_assert!(output.rmse <= 5e-3 * largest.max(1e-2 * rounded), "{output:?} {largest}");
    }
}
