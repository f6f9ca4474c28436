//! Every way in which a model can be refused, each by a model in which only that is wrong.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod support;

use prost::Message as _;
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, GkrOptions};
use shardproof_models::{
    BoundaryModes, LoadOptions, ModelError, ModelSource, OnnxModel, SplitRequest, Strategy, parse_dim, zoo,
};
use support::{Builder, Dim, FLOAT, INT64, int, text};
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, SparseTensorProto, StringStringEntryProto, TensorProto,
    attribute_proto::AttributeType,
};

fn relu() -> Builder {
    Builder::new().input("x", &[1, 4]).node("r", "Relu", &["x"], &["y"]).output("y")
}

fn parse(bytes: impl AsRef<[u8]>) -> Result<OnnxModel, ModelError> {
    OnnxModel::parse("test", bytes.as_ref(), &LoadOptions::default())
}

/// The error that refuses a model, after checking that it is of the expected variant and says what it should.
macro_rules! refused {
    ($bytes:expr, $variant:pat, $($says:literal),+) => {
        let error = parse(&$bytes).expect_err("the model should be refused");
        assert!(matches!(error, $variant), "{error:?}");
        let message = error.to_string();
        $(assert!(message.contains($says), "`{message}` should say `{}`", $says);)+
    };
}

#[test]
fn the_base_of_these_tests_is_fine() {
    assert_eq!(parse(relu().bytes()).unwrap().nodes(), 1);
}

#[test]
fn neither_a_zoo_name_nor_a_file() {
    let error = ModelSource::resolve("no-such-model").unwrap_err();
    assert!(matches!(error, ModelError::UnknownModel { .. }));
    let message = error.to_string();
    assert!(message.contains("no-such-model") && zoo::names().all(|name| message.contains(name)), "{message}");
}

#[test]
fn a_file_that_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, relu().bytes()).unwrap();
    let source = ModelSource::resolve(path.to_str().unwrap()).unwrap();
    assert_eq!(source.name(), "m");
    OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = OnnxModel::load(&source, &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, ModelError::Read { .. }) && error.to_string().contains("m.onnx"), "{error}");
}

#[test]
fn empty_and_foreign_files() {
    refused!(b"", ModelError::Empty, "empty");
    refused!(b"hello, this is a text file\n", ModelError::NotOnnx { .. }, "not an ONNX model");
    refused!(b"\x93NUMPY\x01\x00", ModelError::NotOnnx { .. }, "not an ONNX model");
    refused!(b"PK\x03\x04 an archive", ModelError::NotOnnx { .. }, "not an ONNX model");
    refused!([0; 64], ModelError::NotOnnx { .. }, "byte 0");
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = zoo::find("mlp").unwrap().onnx;
    for length in (0..whole.len()).step_by(97) {
        let error = parse(&whole[..length]).expect_err("a part of a file is no model");
        let told = matches!(
            error,
            ModelError::Empty | ModelError::NotOnnx { .. } | ModelError::Truncated { .. } | ModelError::Missing { .. }
        );
        assert!(told, "{length} bytes: {error:?}");
    }
    refused!(&whole[..whole.len() / 2], ModelError::Truncated { .. }, "truncated", "bytes are left");
}

#[test]
fn damage_inside() {
    let mut builder = relu();
    builder.graph().node[0].name = "unique name".to_owned();
    let mut bytes = builder.bytes();
    let at = bytes.windows(6).position(|window| window == b"unique").unwrap();
    bytes[at] = 0xff;
    refused!(bytes, ModelError::Malformed { .. }, "damaged");
}

#[test]
fn parts_that_are_missing() {
    let mut builder = relu();
    builder.model.graph = None;
    refused!(builder.bytes(), ModelError::Missing { what: "graph" }, "no graph");
    let mut builder = relu();
    builder.model.opset_import.clear();
    refused!(builder.bytes(), ModelError::Missing { what: "operator set" }, "operator set");
    refused!(Builder::new().input("x", &[1]).output("x").bytes(), ModelError::Missing { what: "node" }, "no node");
    let no_input = Builder::new().weights("w", &[1], &[1.0]).node("r", "Relu", &["w"], &["y"]).output("y");
    refused!(no_input.bytes(), ModelError::Missing { what: "input" }, "no input");
    let no_output = Builder::new().input("x", &[1]).node("r", "Relu", &["x"], &["y"]);
    refused!(no_output.bytes(), ModelError::Missing { what: "output" }, "no output");
}

#[test]
fn operator_sets_out_of_range() {
    refused!(relu().opset(8).bytes(), ModelError::Opset { found: 8, .. }, "9 to 21");
    refused!(relu().opset(22).bytes(), ModelError::Opset { found: 22, .. }, "22");
}

#[test]
fn features_of_the_format_that_are_not_supported() {
    let mut builder = relu();
    builder.model.functions.push(FunctionProto { name: Some("f".to_owned()), ..FunctionProto::default() });
    refused!(builder.bytes(), ModelError::Function { .. }, "function `f`");
    let mut builder = relu();
    let values = TensorProto { name: "s".to_owned(), ..TensorProto::default() };
    builder.graph().sparse_initializer.push(SparseTensorProto { values: Some(values), ..SparseTensorProto::default() });
    refused!(builder.bytes(), ModelError::Sparse { .. }, "`s`", "sparse");
    let mut builder = relu().weights("w", &[1], &[1.0]);
    let location = StringStringEntryProto { key: "location".to_owned(), value: "weights.bin".to_owned() };
    builder.graph().initializer[0].external_data.push(location);
    refused!(builder.bytes(), ModelError::ExternalData { .. }, "`w`", "external data");
    let branch = AttributeProto {
        name: "then_branch".to_owned(),
        r#type: AttributeType::Graph as i32,
        g: Some(GraphProto::default()),
        ..AttributeProto::default()
    };
    let control = Builder::new().input("x", &[1]).node_with("choose", "If", &["x"], &["y"], vec![branch]).output("y");
    refused!(control.bytes(), ModelError::Subgraph { .. }, "`choose`", "If", "then_branch");
}

#[test]
fn operators_that_are_unknown() {
    let unknown = Builder::new().input("x", &[1]).node("odd", "Frobnicate", &["x"], &["y"]).output("y");
    refused!(unknown.bytes(), ModelError::UnsupportedOperator { .. }, "`odd`", "Frobnicate");
    let mut foreign = relu();
    foreign.graph().node[0].domain = "com.example".to_owned();
    refused!(foreign.bytes(), ModelError::UnsupportedOperator { .. }, "`r`", "com.example.Relu");
    let miscomputed = Builder::new().input("x", &[1]).node("c", "Celu", &["x"], &["y"]).output("y");
    refused!(miscomputed.bytes(), ModelError::UnsupportedOperator { .. }, "`c`", "Celu");
    let nameless = Builder::new().input("x", &[1]).node("", "Frobnicate", &["x"], &["y"]).output("y");
    refused!(nameless.bytes(), ModelError::UnsupportedOperator { .. }, "`Frobnicate_0`");
}

#[test]
fn operators_that_do_not_fit_their_inputs() {
    let mismatch = Builder::new().input("x", &[1, 4]).weights("w", &[3, 2], &[0.0; 6]);
    let mismatch = mismatch.node("product", "MatMul", &["x", "w"], &["y"]).output("y");
    refused!(mismatch.bytes(), ModelError::Operator { .. }, "`product`", "MatMul");
}

#[test]
fn shapes_that_depend_on_data() {
    let dynamic = Builder::new().input("x", &[4]).node("where", "NonZero", &["x"], &["i"]);
    let dynamic = dynamic.node_with("f", "Cast", &["i"], &["y"], vec![int("to", 1)]).output("y");
    refused!(dynamic.bytes(), ModelError::UnknownShape { .. }, "`where`", "NonZero");
}

#[test]
fn randomness_and_training() {
    let random = Builder::new().input("x", &[4]).node("noise", "RandomNormalLike", &["x"], &["y"]).output("y");
    refused!(random.bytes(), ModelError::NotInference { .. }, "`noise`", "random");
    let norm = Builder::new().input("x", &[1, 1, 2, 2]).weights("one", &[1], &[1.0]);
    let inputs = ["x", "one", "one", "one", "one"];
    let norm = norm.node_with("bn", "BatchNormalization", &inputs, &["y"], vec![int("training_mode", 1)]).output("y");
    refused!(norm.bytes(), ModelError::NotInference { .. }, "`bn`", "training mode");
    let mask = Builder::new().input("x", &[4]).node("d", "Dropout", &["x"], &["y", "m"]);
    let mask = mask.node_with("c", "Cast", &["m"], &["z"], vec![int("to", 1)]).output("y").output("z");
    refused!(mask.bytes(), ModelError::NotInference { .. }, "`d`", "mask");
}

#[test]
fn dimensions_without_a_size() {
    let symbolic =
        |dims: &[Dim]| Builder::new().input_dims("x", FLOAT, dims).node("r", "Relu", &["x"], &["y"]).output("y");
    let sequence = symbolic(&[Dim::Named("batch"), Dim::Named("sequence")]);
    refused!(sequence.bytes(), ModelError::SymbolicDim { .. }, "`x`", "dimension 1", "--dim sequence=N");
    let nameless = symbolic(&[Dim::Unknown, Dim::Unknown]);
    refused!(nameless.bytes(), ModelError::SymbolicDim { .. }, "--dim x.1=N");
    let shape = |builder: &Builder, dims: &[(&str, u64)]| {
        let options = LoadOptions { dims: dims.iter().map(|&(name, size)| (name.to_owned(), size)).collect() };
        OnnxModel::parse("t", &builder.bytes(), &options).map(|m| m.inputs()[0].shape.clone())
    };
    assert_eq!(shape(&sequence, &[("sequence", 7)]).unwrap(), [1, 7]);
    assert_eq!(shape(&nameless, &[("x.1", 5)]).unwrap(), [1, 5]);
    let error = shape(&sequence, &[("sequnce", 7)]).unwrap_err();
    assert!(matches!(error, ModelError::UnknownDim { .. }) && error.to_string().contains("batch, sequence"), "{error}");
    assert!(matches!(shape(&sequence, &[("sequence", 0)]), Err(ModelError::DimSize { size: 0, .. })));
    let twice = shape(&sequence, &[("sequence", 7), ("sequence", 8)]);
    assert!(matches!(twice, Err(ModelError::DimTwice { dim }) if dim == "sequence"));
    assert_eq!(parse_dim("sequence=7"), Ok(("sequence".into(), 7)));
    assert_eq!(parse_dim("a=b=7"), Ok(("a=b".into(), 7)));
    for text in ["sequence", "=3", "sequence=many", "sequence=-1", "sequence=0"] {
        parse_dim(text).expect_err(text);
    }
}

#[test]
fn types_that_cannot_enter_or_leave() {
    let ints = Builder::new().input_dims("ids", INT64, &[Dim::Fixed(3)]);
    let ints = ints.node_with("c", "Cast", &["ids"], &["y"], vec![int("to", 1)]).output("y");
    refused!(ints.bytes(), ModelError::BoundaryType { what: "input", .. }, "`ids`", "INT64");
    let best = Builder::new().input("x", &[1, 3]).node("best", "ArgMax", &["x"], &["y"]).output("y");
    refused!(best.bytes(), ModelError::BoundaryType { what: "output", .. }, "`y`", "INT64");
    let mut shapeless = relu();
    let declared = shapeless.graph().input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
    let tract_onnx::pb::type_proto::Value::TensorType(tensor) = declared;
    tensor.shape = None;
    refused!(shapeless.bytes(), ModelError::NoShape { .. }, "`x`");
}

#[test]
fn outputs_that_no_run_changes() {
    let constant = relu().weights("w", &[2], &[1.0, 2.0]).node("n", "Neg", &["w"], &["z"]).output("z");
    refused!(constant.bytes(), ModelError::TrivialOutput { .. }, "`z`", "constant");
    refused!(relu().output("x").bytes(), ModelError::TrivialOutput { .. }, "`x`", "unchanged");
}

#[test]
fn weights_that_are_no_numbers() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let builder = relu().weights("w", &[3], &[0.0, 1.0, value]);
        let message = parse(builder.bytes()).unwrap_err().to_string();
        assert_eq!(message, format!("initializer `w`: element 2 is {name}"));
    }
    let factor =
        relu().weights("m", &[2, 1], &[1.0, f32::NEG_INFINITY]).node("n", "Mul", &["y", "m"], &["z"]).output("z");
    refused!(factor.bytes(), ModelError::NonFinite { index: 1, .. }, "`m`", "-inf");
    let mut half = relu().weights("w", &[2], &[]);
    half.graph().initializer[0].data_type = 10;
    half.graph().initializer[0].raw_data = vec![0, 0x3c, 0, 0x7e];
    refused!(half.bytes(), ModelError::NonFinite { index: 1, .. }, "`w`", "NaN");
}

#[test]
fn constants_whose_data_do_not_fit() {
    refused!(
        relu().weights("w", &[3], &[1.0]).bytes(),
        ModelError::BadConstant { .. },
        "`w`",
        "needs 12 bytes, found 4"
    );
    refused!(relu().weights("w", &[-3], &[1.0]).bytes(), ModelError::BadConstant { .. }, "negative extent");
    let mut strings = relu().weights("w", &[1], &[1.0]);
    strings.graph().initializer[0].data_type = 8;
    refused!(strings.bytes(), ModelError::BadConstant { .. }, "STRING");
    refused!(relu().weights("w", &[1 << 40, 1 << 40], &[]).bytes(), ModelError::TensorTooLarge { .. }, "`w`");
    let huge = Builder::new().input("x", &[1 << 40]).node("r", "Relu", &["x"], &["y"]).output("y");
    refused!(huge.bytes(), ModelError::TensorTooLarge { .. }, "`x`");
}

#[test]
fn graphs_that_are_no_graphs() {
    let cycle = Builder::new()
        .input("x", &[1])
        .node("a", "Add", &["x", "c"], &["b"])
        .node("n", "Neg", &["b"], &["c"])
        .output("c");
    refused!(cycle.bytes(), ModelError::Cycle { .. }, "cycle", "`a`", "Add");
    let twice = relu().node("again", "Neg", &["x"], &["y"]);
    refused!(twice.bytes(), ModelError::DuplicateTensor { .. }, "`y`", "`r`", "`again`");
    refused!(relu().output("y").bytes(), ModelError::DuplicateTensor { .. }, "`y`");
    let dangling = Builder::new().input("x", &[1]).node("a", "Add", &["x", "ghost"], &["y"]).output("y");
    refused!(dangling.bytes(), ModelError::UnknownTensor { .. }, "`ghost`", "`a`");
    refused!(relu().output("z").bytes(), ModelError::UnknownTensor { .. }, "`z`", "output");
    refused!(relu().input("", &[1]).bytes(), ModelError::UnnamedTensor { .. }, "an input of the model has no name");
}

#[test]
fn more_inputs_than_a_boundary_holds() {
    let mut builder = Builder::new();
    let names: Vec<String> = (0..65).map(|i| format!("x{i}")).collect();
    for name in &names {
        builder = builder.input(name, &[1]);
    }
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    refused!(
        builder.node("s", "Sum", &inputs, &["y"]).output("y").bytes(),
        ModelError::TooManyTensors { found: 65, .. },
        "64"
    );
}

#[test]
fn shard_counts_that_are_impossible() {
    let model = parse(zoo::find("mlp").unwrap().onnx).unwrap();
    let split = |shards, strategy| {
        let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
        let request = SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() };
        model.split(&request).map(|split| split.plan.shards.len())
    };
    for strategy in [Strategy::Balanced, Strategy::Layers] {
        assert_eq!(split(12, strategy).unwrap(), 12);
        for asked in [0, 13, usize::MAX] {
            let error = split(asked, strategy).unwrap_err();
            assert!(matches!(error, ModelError::ShardCount { possible: 12, .. }), "{error:?}");
            assert!(error.to_string().contains("1 to 12 are possible"), "{error}");
        }
    }
}

#[test]
fn boundary_modes_that_a_backend_cannot_keep() {
    let model = parse(zoo::find("mlp").unwrap().onnx).unwrap();
    let ezkl = || BackendOptions::Ezkl(EzklOptions::default());
    let gkr = || BackendOptions::Gkr(GkrOptions::default());
    let split = |backends: [BackendOptions; 3], modes| {
        let backend = |index: shardproof_common::ids::ShardIndex| backends[index.as_usize()].clone();
        let request = SplitRequest { shards: 3, strategy: Strategy::Layers, backend: &backend, modes };
        model.split(&request).map(|split| split.plan.boundaries.iter().map(|b| b.mode).collect::<Vec<_>>())
    };
    use BoundaryMode::{Committed, Hashed, Polycommit, Public};
    let with_inner = BoundaryModes::with_inner;
    let default = BoundaryModes::default();

    let error = split([ezkl(), BackendOptions::Float, BackendOptions::Float], with_inner(Public)).unwrap_err();
    assert!(matches!(error, ModelError::FloatMixed { shard: 0 }), "{error:?}");
    let error = split([gkr(), gkr(), gkr()], with_inner(Hashed)).unwrap_err();
    assert!(matches!(error, ModelError::BoundaryMode { boundary: 1, shard: 0, .. }), "{error:?}");
    let error = split([gkr(), ezkl(), ezkl()], BoundaryModes { input: Polycommit, ..default }).unwrap_err();
    assert!(matches!(error, ModelError::BoundaryMode { boundary: 0, shard: 0, .. }), "{error:?}");
    let error = split([gkr(), ezkl(), ezkl()], BoundaryModes { output: Committed, ..default }).unwrap_err();
    assert!(matches!(error, ModelError::BoundaryMode { boundary: 3, shard: 2, .. }), "{error:?}");

    let float = || BackendOptions::Float;
    let all_hashed = BoundaryModes { input: Hashed, inner: Some(Hashed), output: Hashed };
    assert_eq!(split([float(), float(), float()], all_hashed).unwrap(), [Public; 4]);
    assert_eq!(split([gkr(), gkr(), gkr()], default).unwrap(), [Public, Committed, Committed, Public]);
    assert_eq!(split([ezkl(), ezkl(), ezkl()], default).unwrap(), [Public, Hashed, Hashed, Public]);
    assert_eq!(split([ezkl(), ezkl(), ezkl()], with_inner(Committed)).unwrap(), [Public, Hashed, Hashed, Public]);
    assert_eq!(split([gkr(), ezkl(), ezkl()], with_inner(Polycommit)).unwrap(), [Public, Public, Polycommit, Public]);
    assert_eq!(split([gkr(), gkr(), ezkl()], default).unwrap(), [Public, Committed, Public, Public]);
}

#[test]
fn automatic_padding_of_an_odd_kind_is_refused_by_the_engine() {
    let conv = Builder::new().input("x", &[1, 1, 4, 4]).weights("w", &[1, 1, 3, 3], &[0.0; 9]);
    let conv = conv.node_with("c", "Conv", &["x", "w"], &["y"], vec![text("auto_pad", "SIDEWAYS")]).output("y");
    refused!(conv.bytes(), ModelError::Operator { .. }, "`c`", "Conv");
}

proptest::proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((proptest::prelude::any::<u16>(), proptest::prelude::any::<u8>()), 1..6)) {
        let builder = Builder::new().input("x", &[1, 1, 4, 4]).weights("w", &[1, 1, 3, 3], &[0.5; 9]);
        let builder = builder.node("c", "Conv", &["x", "w"], &["t"]).node("f", "Flatten", &["t"], &["y"]).output("y");
        let mut bytes = builder.model.encode_to_vec();
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        let _ = parse(&bytes);
    }
}

#[test]
fn as_many_nodes_of_one_name_as_a_file_holds_are_named_in_one_pass() {
    let mut model = Builder::new().input("x", &[1, 4]).node("same", "Relu", &["nowhere"], &["y"]).output("y");
    for index in 0..100_000 {
        model = model.node("same", "Relu", &["x"], &[format!("y{index}").as_str()]);
    }
    refused!(model.bytes(), ModelError::UnknownTensor { .. }, "nowhere", "same");
}
