//! The accuracy benchmark as a user runs it, on models whose errors are known.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::npy;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

type Row = BTreeMap<String, String>;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_accuracy_benchmark")).args(arguments).output().unwrap()
}

fn measured(arguments: &[&str], directory: &Path) -> serde_json::Value {
    let directory = directory.display().to_string();
    let output = run(&[&[arguments[0], &directory], &arguments[1..], &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn rows(directory: &Path, table: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(directory.join(table)).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}`", row[column]))
}

/// `Relu` after `Relu`, three numbers: what is lost is the rounding of the input, at each shard's beginning.
fn two_relus(directory: &Path) -> PathBuf {
    let value = |name: &str| {
        let dim = |size| Dimension { denotation: String::new(), value: Some(dimension::Value::DimValue(size)) };
        let shape = TensorShapeProto { dim: vec![dim(1), dim(3)] };
        let tensor = type_proto::Tensor { elem_type: 1, shape: Some(shape) };
        let r#type = TypeProto { denotation: String::new(), value: Some(type_proto::Value::TensorType(tensor)) };
        ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
    };
    let relu = |name: &str, input: &str, output: &str| NodeProto {
        name: name.to_owned(),
        op_type: "Relu".to_owned(),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: "relus".to_owned(),
        node: vec![relu("first", "input", "middle"), relu("second", "middle", "output")],
        input: vec![value("input")],
        output: vec![value("output")],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
    let model = ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() };
    let path = directory.join("relus.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// The first sample calibrates: its largest value is 1, so inputs have the scale 2^11 (`resources`).
fn samples(directory: &Path, others: &[[f32; 3]]) -> PathBuf {
    let all = [&[[1.0, 0.5, 0.25]], others].concat();
    let tensor = FloatTensor { shape: vec![all.len() as u64, 1, 3], values: all.concat() };
    let path = directory.join("samples.npy");
    fs::write(&path, npy::write(&tensor)).unwrap();
    path
}

const UNIT: f32 = 1.0 / 2048.0;

fn measure_relus(directory: &Path, others: &[[f32; 3]]) -> serde_json::Value {
    let (model, samples) = (two_relus(directory), samples(directory, others));
    let (model, samples) = (model.to_str().unwrap(), samples.to_str().unwrap());
    measured(
        &[model, "--samples", samples, "--calibration", "1", "--target", "resources", "--shards", "2,1"],
        directory,
    )
}

#[test]
fn errors_are_those_computed_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    // Rounded down by a quarter of a unit, up by a quarter, and not at all.
    let quarter = UNIT / 4.0;
    measure_relus(directory.path(), &[[0.5 + quarter, 0.25 - quarter, 1.0], [0.5, 0.25, 0.0]]);
    let accuracy = rows(directory.path(), "accuracy.csv");
    assert_eq!(accuracy.iter().map(|row| row["num_nodes"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let quarter = f64::from(quarter);
    for (row, shards) in accuracy.iter().zip([1.0, 2.0]) {
        // Two of six values are a quarter off.
        let rmse = quarter * (2.0_f64 / 6.0).sqrt();
        let close = |column: &str, expected: f64| {
            let found = number(row, column);
            assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{column}: {found} is not {expected}");
        };
        close("rmse", rmse);
        // Each shard alone rounds the same floats: the older measure counts the error once for each.
        close("accuracy_loss", shards * rmse);
        close("reference_accuracy_loss", 0.0);
        close("float_output_range", 1.0);
        close("relative_rmse_percent", 100.0 * rmse);
        close("mean_absolute_error", quarter * 2.0 / 6.0);
        close("median_absolute_error", 0.0);
        close("min_absolute_error", 0.0);
        close("max_absolute_error", quarter);
        // The one value that is 0 has no percentage.
        close("values_near_zero", 1.0);
        let percent = [quarter / (0.5 + quarter), quarter / (0.25 - quarter)].map(|part| 100.0 * part);
        close("mean_error_percent", (percent[0] + percent[1]) / 5.0);
        close("max_error_percent", percent[1]);
        close("rmse_added_by_cuts", 0.0);
        close("class_agreement_percent", 100.0);
        close("failed_runs", 0.0);
        assert!(row["float_task_accuracy_percent"].is_empty(), "there are no labels");
    }
    let boundaries = rows(directory.path(), "boundaries.csv");
    let ends = boundaries.iter().map(|row| (row["shards"].as_str(), row["boundary"].as_str(), row["tensors"].as_str()));
    assert_eq!(ends.collect::<Vec<_>>(), [("1", "1", "output"), ("2", "1", "middle"), ("2", "2", "output")]);
    for row in &boundaries {
        // Two of the eleven bits are room for values beyond calibration's.
        assert_eq!((row["scales"].as_str(), row["chain_runs"].as_str()), ("9", "2"));
        assert_eq!(
            (number(row, "chain_max_absolute_error"), number(row, "own_max_absolute_error")),
            (quarter, quarter)
        );
    }
    let errors = rows(directory.path(), "errors.csv");
    // The first sample is calibration's and not measured.
    assert_eq!(errors.iter().map(|row| row["input"].as_str()).collect::<Vec<_>>(), ["1", "2", "1", "2"]);
    assert_eq!(
        errors.iter().map(|row| number(row, "max_absolute_error")).collect::<Vec<_>>(),
        [quarter, 0.0, quarter, 0.0]
    );
    assert_eq!((errors[0]["class_float"].as_str(), errors[0]["class_quantised"].as_str()), ("2", "2"));
}

#[test]
fn runs_that_leave_the_calibrated_range_are_counted_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let said = measure_relus(directory.path(), &[[0.5, 0.25, 1.0], [100.0, 0.0, 0.0], [0.25, 0.5, 1.0]]);
    for row in &rows(directory.path(), "accuracy.csv") {
        assert_eq!((number(row, "inputs"), number(row, "failed_runs"), number(row, "output_values")), (3.0, 1.0, 6.0));
        assert!(row["failed_nodes"].contains("shard 0 `first"), "{}", row["failed_nodes"]);
        assert_eq!((number(row, "rmse"), number(row, "float_output_range")), (0.0, 0.75), "of the other two alone");
    }
    let errors = rows(directory.path(), "errors.csv");
    let failed: Vec<&Row> = errors.iter().filter(|row| !row["failed"].is_empty()).collect();
    assert_eq!(failed.len(), 2, "once for each number of shards");
    for row in failed {
        assert_eq!((row["input"].as_str(), row["failed_shard"].as_str()), ("2", "0"));
        assert!(row["max_absolute_error"].is_empty() && row["class_quantised"].is_empty(), "no figure of a failed run");
    }
    assert_eq!(said["accuracy"][0]["failed_runs"], 1);
}

#[test]
fn a_model_of_which_every_run_fails_has_no_figures() {
    let directory = tempfile::tempdir().unwrap();
    measure_relus(directory.path(), &[[1e6, 0.0, 0.0]]);
    for row in &rows(directory.path(), "accuracy.csv") {
        assert_eq!(number(row, "failed_runs"), 1.0);
        assert!(row["rmse"].is_empty() && row["class_agreement_percent"].is_empty() && row["accuracy_loss"].is_empty());
    }
    assert!(!directory.path().join("rmse-by-shards.svg").exists(), "nothing to draw");
}

#[test]
fn no_class_of_the_held_out_digits_changes_with_target_accuracy() {
    // Labels of 360 digits; right in floats: as the zoo's own measurements say.
    for (model, right) in [("mlp", 350.0), ("cnn", 355.0), ("mlp2", 350.0)] {
        let directory = tempfile::tempdir().unwrap();
        measured(&[model, "--target", "accuracy", "--with-calibration"], directory.path());
        let accuracy = rows(directory.path(), "accuracy.csv");
        assert_eq!(accuracy.len(), 6);
        for row in &accuracy {
            let counts = ["inputs", "failed_runs", "classes_agreeing"].map(|column| number(row, column));
            assert_eq!(counts, [360.0, 0.0, 360.0], "{model}, {} shards", row["num_nodes"]);
            let task = ["float_task_accuracy_percent", "quantised_task_accuracy_percent"];
            assert_eq!(task.map(|column| number(row, column)), [100.0 * right / 360.0; 2], "{model}");
            assert!(number(row, "relative_rmse_percent") < 0.1, "{model}: {row:?}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_tables_and_others_do_not() {
    let table = |seed: &str| {
        let directory = tempfile::tempdir().unwrap();
        measured(&["mlp:2,8", "--inputs", "20", "--shards", "1,2", "--seed", seed], directory.path());
        ["accuracy.csv", "errors.csv", "boundaries.csv"].map(|name| fs::read(directory.path().join(name)).unwrap())
    };
    let first = table("7");
    assert_eq!(first, table("7"));
    assert!(first.iter().zip(table("8")).all(|(a, b)| *a != b));
}

#[test]
fn tables_plots_and_conditions_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let said = measured(&["testing", "--shards", "1,3"], directory.path());
    let heading = fs::read_to_string(directory.path().join("accuracy.csv")).unwrap();
    assert!(heading.starts_with("ezkl_optimization_goal,num_nodes,accuracy_loss,reference_accuracy_loss,model,"));
    let written = rows(directory.path(), "accuracy.csv");
    let keys = |row: &Row| (row["ezkl_optimization_goal"].clone(), row["num_nodes"].clone());
    let expected = [("resources", "1"), ("resources", "3"), ("accuracy", "1"), ("accuracy", "3")];
    assert_eq!(written.iter().map(keys).collect::<Vec<_>>(), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    for name in ["errors-resources-1", "errors-resources-3", "errors-accuracy-1", "errors-accuracy-3", "rmse-by-shards"]
    {
        assert!(fs::read_to_string(directory.path().join(format!("{name}.svg"))).unwrap().contains("<svg"), "{name}");
        assert!(fs::read(directory.path().join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"), "{name}");
    }
    let conditions: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.path().join("conditions.json")).unwrap()).unwrap();
    assert_eq!(conditions["inputs_origin"], "held_out_digits");
    assert_eq!((conditions["inputs"].as_u64(), conditions["inputs_of_calibration"].as_u64()), (Some(356), Some(0)));
    assert!(conditions["conditions"]["cores"].as_u64() > Some(0));
    assert_eq!(said["settings"], conditions);
}

#[test]
fn what_cannot_be_measured_is_a_failure() {
    let cases: [(&[&str], &str); 5] = [
        (&["mlp", "--shards", "99"], "at most"),
        (&["mlp", "--backend", "float"], "does not quantise"),
        (&["mlp", "--backend", "ezkl", "--weight-bits", "8"], "--weight-bits"),
        (&["mlp", "--weight-bits", "99"], "weight bits is 99"),
        (&["mlp", "--samples", "/nowhere.npy"], "/nowhere.npy"),
    ];
    for (arguments, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().display().to_string();
        let output = run(&[&[arguments[0], &directory], &arguments[1..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said["failed"].as_str().unwrap().contains(expected), "{said}");
    }
    assert_eq!(run(&["mlp", "--shards", "0"]).status.code(), Some(2));
}
