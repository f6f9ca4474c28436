//! What normalisation makes of a model: explicit attributes, folded constants, fixed shapes, unique names.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod support;

use prost::Message;
use shardproof_common::plan::{BackendOptions, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{BoundaryModes, FloatShard, LoadOptions, OnnxModel, SplitRequest, Strategy, run_chain};
use support::{Builder, Dim, FLOAT, attributes_of, int, ints, nodes_of, text};
use tract_onnx::pb::{AttributeProto, ModelProto};

fn load(builder: &Builder) -> OnnxModel {
    OnnxModel::parse("test", &builder.bytes(), &LoadOptions::default()).unwrap()
}

fn int_lists(attributes: &[AttributeProto]) -> Vec<(&str, &[i64])> {
    attributes.iter().filter(|a| !a.ints.is_empty()).map(|a| (a.name.as_str(), a.ints.as_slice())).collect()
}

fn image(operator: &str, attributes: Vec<AttributeProto>) -> Builder {
    let builder = Builder::new().input("x", &[1, 1, 7, 6]).weights("w", &[2, 1, 3, 2], &[0.25; 12]);
    let inputs: &[&str] = if operator == "Conv" { &["x", "w"] } else { &["x"] };
    builder.node_with("n", operator, inputs, &["y"], attributes).output("y")
}

#[test]
fn convolutions_and_poolings_say_everything() {
    let onnx = load(&image("Conv", vec![])).to_onnx();
    let attributes = attributes_of(&onnx, "n");
    let expected: [(&str, &[i64]); 4] =
        [("dilations", &[1, 1]), ("kernel_shape", &[3, 2]), ("pads", &[0, 0, 0, 0]), ("strides", &[1, 1])];
    assert_eq!(int_lists(&attributes), expected);
    let group = attributes.iter().find(|a| a.name == "group").unwrap();
    assert_eq!(group.i, 1);
    let pool = attributes_of(&load(&image("MaxPool", vec![ints("kernel_shape", &[2, 3])])).to_onnx(), "n");
    let expected: [(&str, &[i64]); 4] =
        [("dilations", &[1, 1]), ("kernel_shape", &[2, 3]), ("pads", &[0, 0, 0, 0]), ("strides", &[1, 1])];
    assert_eq!(int_lists(&pool), expected);
    assert!(pool.iter().any(|a| a.name == "ceil_mode" && a.i == 0));
}

#[test]
fn automatic_padding_becomes_numbers() {
    // 7 x 6 with kernel 3 x 2 and strides 2 x 1: the rows need 2 more, the columns 1.
    let cases = [("SAME_UPPER", [1, 0, 1, 1]), ("SAME_LOWER", [1, 1, 1, 0]), ("VALID", [0, 0, 0, 0])];
    for (mode, pads) in cases {
        let builder = image("Conv", vec![text("auto_pad", mode), ints("strides", &[2, 1])]);
        let model = load(&builder);
        let attributes = attributes_of(&model.to_onnx(), "n");
        assert_eq!(int_lists(&attributes).iter().find(|(name, _)| *name == "pads").unwrap().1, pads, "{mode}");
        assert!(attributes.iter().any(|a| a.name == "auto_pad" && a.s == b"NOTSET"));
        let shape = &model.outputs()[0].shape;
        assert_eq!(shape, if mode == "VALID" { &[1, 2, 3, 5] } else { &[1, 2, 4, 6] }, "{mode}");
    }
}

#[test]
fn matrix_products_and_norms_say_everything() {
    let gemm =
        Builder::new().input("x", &[1, 2]).weights("w", &[2, 3], &[1.0; 6]).node("g", "Gemm", &["x", "w"], &["t"]);
    let model = load(&gemm.node("s", "Softmax", &["t"], &["y"]).output("y"));
    let names = |node| attributes_of(&model.to_onnx(), node).iter().map(|a| a.name.clone()).collect::<Vec<_>>();
    assert_eq!(names("g"), ["alpha", "beta", "transA", "transB"]);
    assert_eq!(names("s"), ["axis"]);
    let softmax = |opset| {
        let builder = Builder::new().opset(opset).input("x", &[2, 3]).node("s", "Softmax", &["x"], &["y"]).output("y");
        attributes_of(&load(&builder).to_onnx(), "s")[0].i
    };
    assert_eq!((softmax(12), softmax(13)), (1, -1));
}

#[test]
fn what_is_written_stays() {
    let builder =
        image("Conv", vec![ints("pads", &[1, 0, 2, 1]), ints("strides", &[2, 2]), ints("dilations", &[2, 1])]);
    let attributes = attributes_of(&load(&builder).to_onnx(), "n");
    let lists = int_lists(&attributes);
    assert!(lists.contains(&("pads", &[1, 0, 2, 1])) && lists.contains(&("strides", &[2, 2])), "{lists:?}");
    assert!(lists.contains(&("dilations", &[2, 1])));
}

#[test]
fn shapes_that_are_computed_are_folded() {
    // The exporter's way to flatten: Shape, Gather, Unsqueeze, Concat, Reshape.
    let builder = Builder::new()
        .input_dims("x", FLOAT, &[Dim::Named("batch"), Dim::Fixed(3), Dim::Fixed(4)])
        .indices("zero", &[0])
        .indices("rest", &[-1])
        .node("shape", "Shape", &["x"], &["s"])
        .node("first", "Gather", &["s", "zero"], &["batch"])
        .node_with("target", "Concat", &["batch", "rest"], &["to"], vec![int("axis", 0)])
        .node("flat", "Reshape", &["x", "to"], &["t"])
        .node("r", "Relu", &["t"], &["y"])
        .output("y");
    let model = load(&builder);
    let operators: Vec<String> = nodes_of(&model.to_onnx()).into_iter().map(|(_, operator)| operator).collect();
    assert_eq!(operators, ["Reshape", "Relu"]);
    assert_eq!(model.outputs()[0].shape, [1, 12]);
    assert_eq!(model.parameters(), 0);
}

#[test]
fn nodes_on_weights_alone_are_folded_and_stay_parameters() {
    let builder = Builder::new()
        .input("x", &[1, 2])
        .weights("w", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .weights("unused", &[7], &[0.0; 7])
        .node("t", "Transpose", &["w"], &["wt"])
        .node("m", "MatMul", &["x", "wt"], &["y"])
        .output("y");
    let model = load(&builder);
    assert_eq!(nodes_of(&model.to_onnx()), [("m".to_owned(), "MatMul".to_owned())]);
    assert_eq!(model.parameters(), 6);
    let graph = ModelProto::decode(model.to_onnx().as_slice()).unwrap().graph.unwrap();
    let weights: Vec<f32> =
        graph.initializer[0].raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(weights, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
}

#[test]
fn constants_are_no_parameters() {
    let value = tract_onnx::pb::TensorProto { data_type: 1, float_data: vec![0.5], ..Default::default() };
    let attribute = AttributeProto { name: "value".to_owned(), r#type: 4, t: Some(value), ..AttributeProto::default() };
    let builder = Builder::new().input("x", &[1, 2]).node_with("c", "Constant", &[], &["half"], vec![attribute]);
    let model = load(&builder.node("m", "Mul", &["x", "half"], &["y"]).output("y"));
    assert_eq!((model.parameters(), model.nodes()), (0, 1));
}

#[test]
fn dropout_becomes_an_identity() {
    let builder = Builder::new().input("x", &[1, 2]).weights("ratio", &[], &[0.5]);
    let builder =
        builder.node("d", "Dropout", &["x", "ratio"], &["t", "mask"]).node("r", "Relu", &["t"], &["y"]).output("y");
    assert_eq!(nodes_of(&load(&builder).to_onnx())[0], ("d".to_owned(), "Identity".to_owned()));
}

#[test]
fn names_become_unique_and_dead_nodes_go() {
    let builder = Builder::new()
        .input("x", &[1])
        .node("same", "Neg", &["x"], &["a"])
        .node("same", "Neg", &["a"], &["b"])
        .node("", "Neg", &["b"], &["y"])
        .node("dead", "Frobnicate", &["x"], &["nowhere"])
        .output("y");
    let names: Vec<String> = nodes_of(&load(&builder).to_onnx()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["same", "same_1", "Neg_2"]);
}

#[test]
fn nodes_out_of_order_are_sorted() {
    let builder = Builder::new()
        .input("x", &[1])
        .node("third", "Neg", &["b"], &["y"])
        .node("first", "Neg", &["x"], &["a"])
        .node("second", "Relu", &["a"], &["b"])
        .output("y");
    let names: Vec<String> = nodes_of(&load(&builder).to_onnx()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["first", "second", "third"]);
}

#[test]
fn the_architecture_is_independent_of_weights_and_of_nothing_else() {
    let gemm = |weight: f32, operator: &str, target: i64| {
        let builder =
            Builder::new().input("x", &[1, 2]).weights("w", &[2, 2], &[weight; 4]).indices("to", &[target, 2]);
        let builder = builder.node("m", "MatMul", &["x", "w"], &["a"]).node("r", operator, &["a"], &["b"]);
        load(&builder.node("s", "Reshape", &["b", "to"], &["y"]).output("y"))
    };
    let base = gemm(1.0, "Relu", 1);
    assert_eq!(gemm(2.0, "Relu", 1).architecture(), base.architecture());
    assert_ne!(gemm(2.0, "Relu", 1).digest(), base.digest());
    assert_ne!(gemm(1.0, "Tanh", 1).architecture(), base.architecture());
    assert_ne!(gemm(1.0, "Relu", -1).architecture(), base.architecture());
}

#[test]
fn several_inputs_and_outputs_cross_every_cut() {
    // `early` is an output that is ready long before the end, `late` an input that is needed only there.
    let builder = Builder::new()
        .input("x", &[1, 2])
        .input("late", &[1, 2])
        .input("unread", &[3])
        .node("a", "Relu", &["x"], &["early"])
        .node("b", "Exp", &["early"], &["t"])
        .node("c", "Neg", &["t"], &["u"])
        .node("d", "Add", &["u", "late"], &["y"])
        .output("y")
        .output("early");
    let model = load(&builder);
    assert_eq!(model.max_shards(), 4);
    let whole = FloatShard::load(&model.to_onnx()).unwrap();
    let tensor = |values: &[f32]| FloatTensor { shape: vec![1, values.len() as u64], values: values.to_vec() };
    let input = [tensor(&[-1.0, 2.0]), tensor(&[10.0, 20.0]), FloatTensor { shape: vec![3], values: vec![0.0; 3] }];
    let expected = whole.run(&input).unwrap();
    assert_eq!(expected[1].values, [0.0, 2.0]);
    for shards in 1..=4 {
        let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
        let request =
            SplitRequest { shards, strategy: Strategy::Balanced, backend: &backend, modes: BoundaryModes::default() };
        let split = model.split(&request).unwrap();
        let loaded: Vec<_> = split.shards.iter().map(|shard| FloatShard::load(&shard.onnx).unwrap()).collect();
        assert_eq!(run_chain(&loaded, &input).unwrap(), expected);
        let names: Vec<&str> = split.plan.boundaries.iter().flat_map(|b| &b.tensors).map(|t| t.name.as_str()).collect();
        let distinct: std::collections::BTreeSet<&&str> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "no two boundaries share a name: {names:?}");
        let last: Vec<&str> = split.plan.boundaries[shards].tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(last, ["y", "early"]);
    }
}

#[test]
fn integers_inside_a_model_are_never_cut() {
    let builder = Builder::new()
        .input("x", &[1, 4])
        .node_with("best", "ArgMax", &["x"], &["i"], vec![int("axis", 1)])
        .node_with("back", "Cast", &["i"], &["f"], vec![int("to", 1)])
        .node("r", "Relu", &["f"], &["y"])
        .output("y");
    let model = load(&builder);
    assert_eq!((model.nodes(), model.max_shards()), (3, 2));
}
