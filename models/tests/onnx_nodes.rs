//! The official ONNX node tests, quantised.
//!
//! Needs Python 3 and its package index once, as `onnx_conformance` does. Every test of the operators that can be quantised
//! runs in integers and must give ONNX's own expected output within quantisation's tolerance; those that cannot are
//! refused with an error that says why, never run with another result. Both are listed on standard output
//! (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
#![allow(clippy::print_stdout, reason = "the list of cases is what people read this test's output for")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde::Deserialize;
use shardproof_common::plan::CalibrationTarget;
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;
use shardproof_models::npy;
use shardproof_models::quantise::{QuantiseError, QuantiseOptions, quantise};
use support::python::{finished, packages};

/// Largest difference, over the largest magnitude of the expected output: what tables of 2^14 entries over four times the
/// calibrated range leave.
const TOLERANCE: f64 = 2e-3;
/// Every operator that can be quantised and that the tests cover; each must have at least one test that runs.
const OPERATORS: [&str; 61] = [
    "Abs",
    "Add",
    "Asinh",
    "Atan",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "Cos",
    "Cosh",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LayerNormalization",
    "LeakyRelu",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Selu",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Where",
];

#[derive(Deserialize)]
struct Case {
    name: String,
    operator: String,
    model: Option<String>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    outputs: Vec<String>,
    skipped: Option<String>,
}

enum Outcome {
    /// Largest difference over the largest magnitude.
    Run(f64),
    Skipped(String),
}

fn read(folder: &Path, names: &[String]) -> Vec<FloatTensor> {
    names.iter().map(|name| npy::read(&fs::read(folder.join(name)).unwrap()).unwrap()).collect()
}

fn outcome(case: &Case, folder: &Path) -> Outcome {
    let Some(model) = &case.model else { return Outcome::Skipped(case.skipped.clone().unwrap()) };
    let (inputs, expected) = (read(folder, &case.inputs), read(folder, &case.outputs));
    let onnx = fs::read(folder.join(model)).unwrap();
    let options = QuantiseOptions::new(CalibrationTarget::Accuracy);
    let quantised = match quantise(&onnx, &options, std::slice::from_ref(&inputs)) {
        Ok(quantised) => quantised,
        Err(cause @ (QuantiseError::Unsupported { .. } | QuantiseError::Model(_))) => {
            return Outcome::Skipped(cause.to_string());
        }
        Err(cause) => panic!("{}: {cause}", case.name),
    };
    let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).unwrap();
    let scales = quantised.input_scales();
    let integers: Vec<Vec<i64>> =
        inputs.iter().zip(&scales).map(|(tensor, &scale)| tensor.quantise(scale).unwrap().values).collect();
    let trace = executor.run(&integers, 1).unwrap_or_else(|cause| panic!("{}: {cause}", case.name));
    let graph = quantised.graph.graph();
    assert_eq!(graph.outputs.len(), expected.len(), "{}", case.name);
    let mut worst = 0.0_f64;
    for (index, (&output, expected)) in graph.outputs.iter().zip(&expected).enumerate() {
        let shape: Vec<u64> = quantised.output_shape(index).iter().map(|&extent| extent as u64).collect();
        assert_eq!(shape, expected.shape, "{}", case.name);
        let unit = (-f64::from(graph.scale(output))).exp2();
        let largest = expected.values.iter().fold(f64::MIN_POSITIVE, |most, &y| most.max(f64::from(y.abs())));
        for (&q, &y) in trace.tensor(output).iter().zip(&expected.values) {
            worst = worst.max((q as f64 * unit - f64::from(y)).abs() / largest);
        }
    }
    Outcome::Run(worst)
}

#[test]
fn official_node_tests() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_nodes.py");
    let mut command = Command::new("python3");
    finished(
        command
            .env("PYTHONPATH", packages(Path::new(env!("CARGO_TARGET_TMPDIR"))))
            .arg(script)
            .arg(folder.path())
            .args(OPERATORS),
    )
    .unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(folder.path().join("cases.json")).unwrap()).unwrap();
    let mut skipped: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut covered = BTreeSet::new();
    let (mut run, mut wrong) = (0, Vec::new());
    for case in &cases {
        match outcome(case, folder.path()) {
            Outcome::Run(error) => {
                println!("run      {:<20} {:<70} {error:.1e}", case.operator, case.name);
                run += 1;
                covered.insert(case.operator.as_str());
                if error > TOLERANCE {
                    wrong.push(format!("{}: {error:.1e}", case.name));
                }
            }
            Outcome::Skipped(reason) => {
                println!("skipped  {:<20} {:<70} {reason}", case.operator, case.name);
                skipped.entry(reason).or_default().push(&case.name);
            }
        }
    }
    println!("{run} run, {} skipped", skipped.values().map(Vec::len).sum::<usize>());
    let missing: Vec<&str> = OPERATORS.into_iter().filter(|operator| !covered.contains(operator)).collect();
    assert!(missing.is_empty(), "no test runs for {missing:?}");
    assert!(wrong.is_empty(), "beyond {TOLERANCE}: {wrong:#?}");
}
