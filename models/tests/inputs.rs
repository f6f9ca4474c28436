//! Input files: what is read, and what each defect is answered with.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod support;

use std::path::PathBuf;

use shardproof_common::tensor::FloatTensor;
use shardproof_models::input::{self, SampleOrigin};
use shardproof_models::{InputError, LoadOptions, ModelSource, OnnxModel, npy};
use support::Builder;

fn two_inputs() -> OnnxModel {
    let builder =
        Builder::new().input("a", &[1, 2]).input("b", &[2, 2]).node("s", "Add", &["a", "b"], &["y"]).output("y");
    OnnxModel::parse("two", &builder.bytes(), &LoadOptions::default()).unwrap()
}

fn mlp() -> (ModelSource, OnnxModel) {
    let source = ModelSource::resolve("mlp").unwrap();
    let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    (source, model)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn array(shape: &[u64]) -> FloatTensor {
    FloatTensor { shape: shape.to_vec(), values: (0..shape.iter().product()).map(|i| i as f32).collect() }
}

#[test]
fn npy_with_and_without_the_batch_axis() {
    let (folder, (_, model)) = (Folder::new(), mlp());
    for shape in [&[1, 1, 5, 5][..], &[1, 5, 5], &[1, 1, 1, 5, 5]] {
        let path = folder.file("x.npy", &npy::write(&array(shape)));
        assert_eq!(input::read_input(&path, model.inputs()).unwrap(), [array(&[1, 1, 5, 5])], "{shape:?}");
    }
}

#[test]
fn json_gives_one_list_per_input() {
    let (folder, model) = (Folder::new(), two_inputs());
    let path = folder.file("x.json", br#" {"input_data": [[1, 2.5], [1, 2, 3, -4e0]], "output_data": [[0]]}"#);
    let tensors = input::read_input(&path, model.inputs()).unwrap();
    assert_eq!(tensors[0], FloatTensor { shape: vec![1, 2], values: vec![1.0, 2.5] });
    assert_eq!(tensors[1], FloatTensor { shape: vec![2, 2], values: vec![1.0, 2.0, 3.0, -4.0] });
}

#[test]
fn each_defect_of_a_file_is_named() {
    let (folder, (_, model)) = (Folder::new(), mlp());
    let read = |name: &str, bytes: &[u8]| input::read_input(&folder.file(name, bytes), model.inputs()).unwrap_err();
    let error = input::read_input(&folder.0.path().join("none.npy"), model.inputs()).unwrap_err();
    assert!(matches!(error, InputError::Io { .. }) && error.to_string().contains("none.npy"), "{error}");
    let error = read("x.png", b"\x89PNG");
    assert!(matches!(error, InputError::UnknownFormat { .. }) && error.to_string().contains("x.png"), "{error}");
    let error = read("x.npy", &npy::write(&array(&[5, 5])));
    assert!(matches!(error, InputError::Shape { .. }));
    assert_eq!(error.to_string(), "input `input`: expected shape [1, 1, 5, 5], found [5, 5]");
    let mut bad = array(&[1, 1, 5, 5]);
    bad.values[7] = f32::NAN;
    let error = read("x.npy", &npy::write(&bad));
    assert!(
        matches!(error, InputError::NonFinite { index: 7, .. }) && error.to_string().ends_with("element 7 is NaN"),
        "{error}"
    );
    let error = read("x.npy", &npy::write(&bad)[..90]);
    assert!(matches!(error, InputError::Npy { .. }), "{error}");
}

#[test]
fn each_defect_of_json_is_named() {
    let model = two_inputs();
    let parse = |text: &str| input::parse_json(text.as_bytes(), model.inputs()).unwrap_err();
    let cases = [
        (r#"{"input_data": [[1, 2]"#, "EOF"),
        (r#"{"data": [[1, 2]]}"#, "input_data"),
        (r#"{"input_data": [[1, 2], [1, 2, 3, "4"]]}"#, "input `b`: element 3 is \"4\", not a number"),
        (r#"{"input_data": [[1, 2], [1, 2, 3, 1e999]]}"#, "number out of range"),
    ];
    for (text, expected) in cases {
        let error = parse(text);
        assert!(matches!(error, InputError::Json { .. }) && error.to_string().contains(expected), "{error}");
    }
    let error = parse(r#"{"input_data": [[1, 2]]}"#);
    assert_eq!(error.to_string(), "the model has 2 inputs (a, b), the input gives 1");
    let error = parse(r#"{"input_data": [[1, 2], [1, 2, 3]]}"#);
    assert_eq!(error.to_string(), "input `b`: expected 4 values (shape [2, 2]), found 3");
    let error = parse(r#"{"input_data": [[1, 1e39], [1, 2, 3, 4]]}"#);
    assert!(matches!(error, InputError::NonFinite { index: 1, .. }), "{error}");
}

#[test]
fn zoo_samples_are_real_and_random_ones_are_seeded() {
    let (source, model) = mlp();
    let zoo = input::samples(&source, &model, 3, 0).unwrap();
    assert_eq!((zoo.origin, zoo.inputs.len()), (SampleOrigin::Zoo, 3));
    assert_eq!(zoo.inputs[0][0].shape, [1, 1, 5, 5]);
    assert_ne!(zoo.inputs[0], zoo.inputs[1]);

    let folder = Folder::new();
    let path = folder.file("copy.onnx", shardproof_models::zoo::find("mlp").unwrap().onnx);
    let source = ModelSource::resolve(path.to_str().unwrap()).unwrap();
    let random = |seed| input::samples(&source, &model, 400, seed).unwrap();
    assert_eq!(random(7), random(7));
    assert_ne!(random(7), random(8));
    assert_eq!(random(7).origin, SampleOrigin::Random);
    let values: Vec<f64> =
        random(7).inputs.iter().flat_map(|sample| &sample[0].values).map(|&value| f64::from(value)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    // 10000 values: five standard errors are 0.05 for the mean and 0.07 for the variance.
    assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.07, "mean {mean}, variance {variance}");
}

#[test]
fn stacked_samples_are_taken_apart() {
    let (folder, (_, model)) = (Folder::new(), mlp());
    let path = folder.file("stack.npy", &npy::write(&array(&[3, 1, 1, 5, 5])));
    let samples = input::read_samples(&path, model.inputs(), 2).unwrap();
    assert_eq!((samples.origin, samples.inputs.len()), (SampleOrigin::File, 2));
    assert_eq!(samples.inputs[1][0].values[0], 25.0);
    let path = folder.file("flat.npy", &npy::write(&array(&[3, 25])));
    let error = input::read_samples(&path, model.inputs(), 2).unwrap_err();
    let expected = "input `input`: expected shape [samples, 1, 1, 5, 5], found [3, 25]";
    assert_eq!(error.to_string(), format!("{}: {expected}", path.display()));
}

#[test]
fn samples_in_json_follow_one_another_in_the_list_of_their_input() {
    let (folder, model) = (Folder::new(), two_inputs());
    let read = |text: &str, count| {
        let read = input::read_samples(&folder.file("samples.json", text.as_bytes()), model.inputs(), count);
        read.map_err(|error| error.to_string())
    };
    let text = r#"{"input_data": [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]]}"#;
    let both = read(text, 8).unwrap();
    assert_eq!((both.origin, both.inputs.len()), (SampleOrigin::File, 2));
    assert_eq!(both.inputs[1][0], FloatTensor { shape: vec![1, 2], values: vec![3.0, 4.0] });
    assert_eq!(both.inputs[1][1], FloatTensor { shape: vec![2, 2], values: vec![5.0, 6.0, 7.0, 8.0] });
    assert_eq!(read(text, 1).unwrap().inputs, both.inputs[..1]);
    let whole = "expected the values of whole samples";
    for (text, expected) in [
        (r#"{"input_data": [[1, 2, 3], [1, 2, 3, 4]]}"#, ["samples.json: input `a`", whole, "[samples, 1, 2]"]),
        (r#"{"input_data": [[1, 2, 3, 4], [1, 2, 3, 4]]}"#, ["samples.json: input `b`", whole, "[samples, 2, 2]"]),
        (r#"{"input_data": [[1, 2]]}"#, ["samples.json", "2 inputs (a, b)", "gives 1"]),
        ("25 numbers", ["samples.json", "neither a .npy file", "input_data"]),
    ] {
        let error = read(text, 8).unwrap_err();
        assert!(expected.iter().all(|expected| error.contains(expected)), "{error}");
    }
}
