//! Shards before the official ONNX checker and onnxruntime.
//!
//! Needs Python 3 and its package index once: the packages of `zoo/requirements-check.txt` are installed into the build
//! folder. Every shard file must pass the checker, and the shards run one after another must give the whole model's
//! outputs to 1e-5; so must the float executor.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shardproof_common::plan::{BackendOptions, EzklOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, Split, SplitRequest, Strategy, input, npy,
    run_chain,
};
use support::python::{finished, packages, zoo_folder};
use support::{Builder, Dim, FLOAT, info, int, ints, text};

const SHARD_COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 12];
const TOLERANCE: f64 = 1e-5;
/// Samples on which the float executor is compared; the shards are compared on all of them.
const COMPARED_SAMPLES: usize = 2;

/// Runs `check_shards.py` and gives the largest error that it reports.
fn check(arguments: &[&Path]) -> f64 {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", packages(Path::new(env!("CARGO_TARGET_TMPDIR"))))
        .arg(zoo_folder().join("check_shards.py"))
        .args(arguments);
    let output = finished(&mut command).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let error = report["max_abs_error"].as_f64().unwrap();
    assert!(error <= TOLERANCE, "{report}");
    error
}

fn split(model: &OnnxModel, shards: usize, strategy: Strategy) -> Split {
    let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
    model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() }).unwrap()
}

fn write_shards(split: &Split, folder: &Path) -> Vec<PathBuf> {
    let write = |shard: &shardproof_models::Shard| {
        let path = folder.join(format!("{}-{}.onnx", split.shards.len(), shard.index));
        fs::write(&path, &shard.onnx).unwrap();
        path
    };
    split.shards.iter().map(write).collect()
}

/// All shard counts in both strategies against the whole model in onnxruntime; then the float executor's answers.
fn conforms(model_file: &Path, samples_file: &Path, model: &OnnxModel, counts: &[usize]) {
    let mut seen = HashSet::new();
    for strategy in [Strategy::Balanced, Strategy::Layers] {
        for &count in counts {
            let split = split(model, count, strategy);
            // Where both strategies agree, one look at their common plan is enough.
            if !seen.insert(split.plan.digest()) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let paths = write_shards(&split, folder.path());
            let files = paths.iter().map(PathBuf::as_path);
            let arguments: Vec<&Path> = [model_file, samples_file].into_iter().chain(files).collect();
            check(&arguments);
        }
    }
    let samples = input::read_samples(samples_file, model.inputs(), COMPARED_SAMPLES).unwrap();
    let most = counts.iter().copied().max().unwrap();
    let shards: Vec<_> =
        split(model, most, Strategy::Layers).shards.iter().map(|s| FloatShard::load(&s.onnx).unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    for (index, sample) in samples.inputs.iter().enumerate() {
        let outputs: Vec<f32> =
            run_chain(&shards, sample).unwrap().into_iter().flat_map(|tensor| tensor.values).collect();
        let answer = folder.path().join("answer.json");
        fs::write(&answer, serde_json::json!({ "outputs": outputs, "input_index": index }).to_string()).unwrap();
        check(&[model_file, samples_file, Path::new("--compare"), &answer]);
    }
}

fn zoo_conforms(name: &str) {
    let model = OnnxModel::load(&ModelSource::resolve(name).unwrap(), &LoadOptions::default()).unwrap();
    let samples = zoo_folder().join("samples").join(format!("{name}.npy"));
    conforms(&zoo_folder().join(format!("{name}.onnx")), &samples, &model, &SHARD_COUNTS);
}

#[test]
fn mlp() {
    zoo_conforms("mlp");
}

#[test]
fn cnn() {
    zoo_conforms("cnn");
}

#[test]
fn mlp2() {
    zoo_conforms("mlp2");
}

#[test]
fn testing() {
    zoo_conforms("testing");
}

#[test]
fn attention() {
    zoo_conforms("attention");
}

/// A model written by hand, with two random samples, cut into each of `counts`.
fn written_conforms(mut builder: Builder, input_shape: &[i64], outputs: &[(&str, &[i64])], counts: &[usize]) {
    declare(&mut builder, outputs);
    bytes_conform(&builder.bytes(), input_shape, counts);
}

fn declare(builder: &mut Builder, outputs: &[(&str, &[i64])]) {
    let fixed = |shape: &[i64]| shape.iter().map(|&d| Dim::Fixed(d)).collect::<Vec<_>>();
    for (name, shape) in outputs {
        builder.graph().output.push(info(name, FLOAT, &fixed(shape)));
    }
}

fn bytes_conform(onnx: &[u8], input_shape: &[i64], counts: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let model_file = folder.path().join("written.onnx");
    fs::write(&model_file, onnx).unwrap();
    let source = ModelSource::resolve(model_file.to_str().unwrap()).unwrap();
    let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    let samples = input::samples(&source, &model, 2, 1).unwrap();
    let shape = [2].into_iter().chain(input_shape.iter().map(|&d| d as u64)).collect();
    let values = samples.inputs.iter().flat_map(|sample| sample[0].values.clone()).collect();
    let samples_file = folder.path().join("samples.npy");
    fs::write(&samples_file, npy::write(&FloatTensor { shape, values })).unwrap();
    conforms(&model_file, &samples_file, &model, counts);
}

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) / 23.0).collect()
}

#[test]
fn tensors_that_pass_through_shards() {
    let builder = Builder::new()
        .input("x", &[1, 4])
        .weights("w", &[4, 4], &ramp(16))
        .node("a", "MatMul", &["x", "w"], &["early"])
        .node("b", "Relu", &["early"], &["t"])
        .node("c", "Tanh", &["t"], &["u"])
        .node("d", "Add", &["u", "x"], &["v"])
        .node("e", "Mul", &["v", "early"], &["y"]);
    written_conforms(builder, &[1, 4], &[("y", &[1, 4]), ("early", &[1, 4])], &[1, 2, 3, 5]);
}

#[test]
fn defaults_and_automatic_padding_mean_the_same_when_written_out() {
    let builder = Builder::new()
        .input("x", &[1, 2, 9, 8])
        .weights("w1", &[4, 1, 3, 2], &ramp(24))
        .weights("w2", &[4, 3, 3, 3], &ramp(108))
        .weights("four", &[3], &[0.9, 1.1, 1.3])
        .weights("w3", &[5, 12], &ramp(60))
        .node_with(
            "conv",
            "Conv",
            &["x", "w1"],
            &["a"],
            vec![int("group", 2), text("auto_pad", "SAME_LOWER"), ints("strides", &[2, 1])],
        )
        .node_with(
            "up",
            "ConvTranspose",
            &["a", "w2"],
            &["b"],
            vec![text("auto_pad", "SAME_UPPER"), ints("strides", &[2, 2])],
        )
        .node("norm", "BatchNormalization", &["b", "four", "four", "four", "four"], &["c"])
        .node_with(
            "average",
            "AveragePool",
            &["c"],
            &["d"],
            vec![text("auto_pad", "SAME_UPPER"), ints("kernel_shape", &[3, 3]), ints("strides", &[3, 4])],
        )
        .node_with(
            "largest",
            "MaxPool",
            &["d"],
            &["e"],
            vec![text("auto_pad", "VALID"), ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])],
        )
        .node("leaky", "LeakyRelu", &["e"], &["f"])
        .node("flat", "Flatten", &["f"], &["g"])
        .node_with("full", "Gemm", &["g", "w3"], &["h"], vec![int("transB", 1)])
        .node("soft", "Softmax", &["h"], &["y"]);
    written_conforms(builder, &[1, 2, 9, 8], &[("y", &[1, 5])], &[1, 4, 9]);
}

#[test]
fn attributes_of_value_zero_are_written() {
    // Left out, they would stand for the operators' defaults: 1 for Flatten, -1 for Softmax, none for Concat.
    let axis = || vec![int("axis", 1)];
    let mut builder = Builder::new()
        .input("x", &[3, 4])
        .weights("w", &[3, 4], &ramp(12))
        .node_with("soft", "Softmax", &["x"], &["a"], axis())
        .node_with("both", "Concat", &["a", "w"], &["b"], axis())
        .node_with("flat", "Flatten", &["b"], &["y"], axis());
    declare(&mut builder, &[("y", &[1, 24])]);
    // The test's own writer leaves zeros out as well, so the bytes of each `axis = 1` are changed: field 3, value 1.
    let mut bytes = builder.bytes();
    let found: Vec<usize> = (0..bytes.len() - 6).filter(|&at| &bytes[at..at + 6] == b"axis\x18\x01").collect();
    assert_eq!(found.len(), 3);
    found.iter().for_each(|at| bytes[at + 5] = 0);
    bytes_conform(&bytes, &[3, 4], &[1, 3]);
}

#[test]
fn resizing_by_scales() {
    let builder = Builder::new().input("x", &[1, 2, 3, 3]).weights("by", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let builder = builder.node_with("up", "Resize", &["x", "", "by"], &["a"], vec![text("mode", "linear")]);
    written_conforms(builder.node("r", "Relu", &["a"], &["y"]), &[1, 2, 3, 3], &[("y", &[1, 2, 6, 6])], &[1, 2]);
}

#[test]
fn every_operator_set_keeps_its_own_defaults() {
    for opset in [9, 11, 12, 13, 18, 21] {
        let builder = Builder::new()
            .opset(opset)
            .input("x", &[2, 3, 4])
            .node("soft", "Softmax", &["x"], &["a"])
            .node("turn", "Transpose", &["a"], &["b"])
            .node("mean", "ReduceMean", &["b"], &["c"])
            .node("sum", "Add", &["b", "c"], &["d"])
            .node("elu", "Elu", &["d"], &["y"]);
        written_conforms(builder, &[2, 3, 4], &[("y", &[4, 3, 2])], &[1, 2]);
    }
}
