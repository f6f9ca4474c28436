//! Models of one operator each, small enough to be proven in seconds by any system.
//!
//! Every one uses the input value in the middle, which the control changes: with a value that a model ignores changed, the
//! claim would still be true, and a system whose proof of it is empty, because values only move, would rightly accept it.

use super::onnx::Value::{Float, Int, Ints, Text};
use super::onnx::{Value, Writer};

/// A model that asks one question: can this operator be proven?
#[derive(Clone, Debug)]
pub struct Probe {
    /// The operator.
    pub operator: &'static str,
    /// How it is used.
    pub detail: &'static str,
    /// Whether its inputs must be above zero.
    pub positive: bool,
    /// The bytes of the ONNX file.
    pub onnx: Vec<u8>,
}

/// Extents of an image, `[batch, channels, height, width]`, and of a vector, `[batch, features]`.
const IMAGE: [i64; 4] = [1, 4, 8, 8];
const VECTOR: [i64; 2] = [1, 8];

/// All probes.
pub fn probes() -> Vec<Probe> {
    [products(), convolutions(), pools(), functions(), normalisations(), pairs(), moves(), reductions()].concat()
}

fn probe(operator: &'static str, detail: &'static str, writer: Writer) -> Probe {
    Probe { operator, detail, positive: false, onnx: writer.bytes() }
}

/// `operator` on one input `x` and the initializers of `writer` that `more` names.
fn of_one(
    writer: Writer,
    operator: &str,
    shapes: (&[i64], &[i64]),
    more: &[&str],
    attributes: &[(&str, Value<'_>)],
) -> Writer {
    let inputs: Vec<&str> = std::iter::once("x").chain(more.iter().copied()).collect();
    writer.input("x", shapes.0).node(operator, &inputs, &["y"], attributes).output("y", shapes.1)
}

fn products() -> Vec<Probe> {
    let weights = || Writer::new().weights("w", &[8, 4]).weights("b", &[4]);
    let gemm = of_one(weights(), "Gemm", (&VECTOR, &[1, 4]), &["w", "b"], &[]);
    let product = weights().input("x", &VECTOR).node("MatMul", &["x", "w"], &["p"], &[]);
    let product = product.node("Add", &["p", "b"], &["y"], &[]).output("y", &[1, 4]);
    let activations = Writer::new().input("a", &[1, 4, 8]).input("b", &[1, 8, 4]);
    let activations = activations.node("MatMul", &["a", "b"], &["y"], &[]).output("y", &[1, 4, 4]);
    vec![
        probe("Gemm", "with bias", gemm),
        probe("MatMul", "by weights, then Add of a bias", product),
        probe("MatMul", "of two activations", activations),
    ]
}

fn convolutions() -> Vec<Probe> {
    let conv = |kernel: [i64; 4], output: [i64; 4], attributes: &[(&str, Value<'_>)]| {
        let writer = Writer::new().weights("w", &kernel).weights("b", &[output[1]]);
        let extents = [("kernel_shape", Ints(&kernel[2..]))];
        of_one(writer, "Conv", (&IMAGE, &output), &["w", "b"], &[&extents, attributes].concat())
    };
    let transposed = Writer::new().weights("w", &[4, 2, 2, 2]).weights("b", &[2]);
    let transposed_attributes = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    let shapes: (&[i64], &[i64]) = (&IMAGE, &[1, 2, 16, 16]);
    vec![
        probe("Conv", "padded", conv([2, 4, 3, 3], [1, 2, 8, 8], &[("pads", Ints(&[1, 1, 1, 1]))])),
        probe("Conv", "stride 2", conv([2, 4, 3, 3], [1, 2, 3, 3], &[("strides", Ints(&[2, 2]))])),
        probe("Conv", "2 groups", conv([4, 2, 3, 3], [1, 4, 6, 6], &[("group", Int(2))])),
        probe("Conv", "depthwise", conv([4, 1, 3, 3], [1, 4, 6, 6], &[("group", Int(4))])),
        probe("Conv", "dilation 2", conv([2, 4, 3, 3], [1, 2, 4, 4], &[("dilations", Ints(&[2, 2]))])),
        probe(
            "ConvTranspose",
            "stride 2",
            of_one(transposed, "ConvTranspose", shapes, &["w", "b"], &transposed_attributes),
        ),
    ]
}

fn pools() -> Vec<Probe> {
    let pool = |operator: &str, output: &[i64], attributes: &[(&str, Value<'_>)]| {
        of_one(Writer::new(), operator, (&IMAGE, output), &[], attributes)
    };
    let halves = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    let padded = [("kernel_shape", Ints(&[3, 3])), ("strides", Ints(&[2, 2])), ("pads", Ints(&[1, 1, 1, 1]))];
    vec![
        probe("MaxPool", "2 x 2", pool("MaxPool", &[1, 4, 4, 4], &halves)),
        probe("MaxPool", "3 x 3, padded", pool("MaxPool", &[1, 4, 4, 4], &padded)),
        probe("AveragePool", "2 x 2", pool("AveragePool", &[1, 4, 4, 4], &halves)),
        probe("GlobalAveragePool", "", pool("GlobalAveragePool", &[1, 4, 1, 1], &[])),
    ]
}

fn functions() -> Vec<Probe> {
    let function = |operator: &'static str, attributes: &[(&str, Value<'_>)]| {
        probe(operator, "", of_one(Writer::new(), operator, (&VECTOR, &VECTOR), &[], attributes))
    };
    let positive = |operator| Probe { positive: true, ..function(operator, &[]) };
    let clip = Writer::new().filled("low", &[], -0.5).filled("high", &[], 1.0);
    vec![
        function("Relu", &[]),
        function("LeakyRelu", &[("alpha", Float(0.1))]),
        probe("Clip", "", of_one(clip, "Clip", (&VECTOR, &VECTOR), &["low", "high"], &[])),
        function("Abs", &[]),
        function("Sigmoid", &[]),
        function("HardSigmoid", &[]),
        function("Tanh", &[]),
        function("Erf", &[]),
        probe("Gelu", "as Div, Erf, Add, Mul, Mul", gelu()),
        function("Softplus", &[]),
        function("Elu", &[]),
        function("Exp", &[]),
        positive("Sqrt"),
        positive("Log"),
        positive("Reciprocal"),
        function("Softmax", &[("axis", Int(-1))]),
    ]
}

fn gelu() -> Writer {
    Writer::new()
        .filled("root", &[], std::f32::consts::SQRT_2)
        .filled("one", &[], 1.0)
        .filled("half", &[], 0.5)
        .input("x", &VECTOR)
        .node("Div", &["x", "root"], &["scaled"], &[])
        .node("Erf", &["scaled"], &["erf"], &[])
        .node("Add", &["erf", "one"], &["shifted"], &[])
        .node("Mul", &["x", "shifted"], &["product"], &[])
        .node("Mul", &["product", "half"], &["y"], &[])
        .output("y", &VECTOR)
}

fn normalisations() -> Vec<Probe> {
    let layer = Writer::new().filled("scale", &[8], 1.5).weights("bias", &[8]);
    let batch = Writer::new().filled("scale", &[4], 1.5).weights("bias", &[4]);
    let batch = batch.weights("mean", &[4]).filled("variance", &[4], 0.75);
    let statistics = ["scale", "bias", "mean", "variance"];
    vec![
        probe(
            "LayerNormalization",
            "",
            of_one(layer, "LayerNormalization", (&VECTOR, &VECTOR), &["scale", "bias"], &[("axis", Int(-1))]),
        ),
        probe("BatchNormalization", "", of_one(batch, "BatchNormalization", (&IMAGE, &IMAGE), &statistics, &[])),
    ]
}

fn pairs() -> Vec<Probe> {
    let pair = |operator: &str, output: &[i64], attributes: &[(&str, Value<'_>)]| {
        let writer = Writer::new().input("a", &VECTOR).input("b", &VECTOR);
        writer.node(operator, &["a", "b"], &["y"], attributes).output("y", output)
    };
    vec![
        probe("Add", "of two activations", pair("Add", &VECTOR, &[])),
        probe("Sub", "of two activations", pair("Sub", &VECTOR, &[])),
        probe("Mul", "of two activations", pair("Mul", &VECTOR, &[])),
        Probe { positive: true, ..probe("Div", "of two activations", pair("Div", &VECTOR, &[])) },
        probe("Max", "of two activations", pair("Max", &VECTOR, &[])),
        probe("Concat", "of two activations", pair("Concat", &[1, 16], &[("axis", Int(1))])),
    ]
}

fn moves() -> Vec<Probe> {
    let split = Writer::new().input("x", &VECTOR).integers("parts", &[3, 5]);
    let split = split.node("Split", &["x", "parts"], &["a", "b"], &[("axis", Int(1))]);
    let slice = Writer::new().integers("starts", &[0]).integers("ends", &[8]).integers("axes", &[1]);
    let slice = slice.integers("steps", &[2]);
    let resize = Writer::new().reals("scales", &[1.0, 1.0, 2.0, 2.0]);
    let nearest = [
        ("mode", Text("nearest")),
        ("coordinate_transformation_mode", Text("asymmetric")),
        ("nearest_mode", Text("floor")),
    ];
    let bounds = ["starts", "ends", "axes", "steps"];
    let with = |name: &str, values: &[i64]| Writer::new().integers(name, values);
    vec![
        probe("Split", "in two", split.output("a", &[1, 3]).output("b", &[1, 5])),
        probe("Slice", "step 2", of_one(slice, "Slice", (&VECTOR, &[1, 4]), &bounds, &[])),
        probe(
            "Transpose",
            "",
            of_one(Writer::new(), "Transpose", (&IMAGE, &[1, 8, 4, 8]), &[], &[("perm", Ints(&[0, 2, 1, 3]))]),
        ),
        probe("Reshape", "", of_one(with("to", &[1, 16, 16]), "Reshape", (&IMAGE, &[1, 16, 16]), &["to"], &[])),
        probe("Flatten", "", of_one(Writer::new(), "Flatten", (&IMAGE, &[1, 256]), &[], &[])),
        probe("Pad", "zeros", of_one(with("by", &[0, 1, 0, 2]), "Pad", (&VECTOR, &[1, 11]), &["by"], &[])),
        probe(
            "Gather",
            "constant places",
            of_one(with("at", &[4, 0, 2]), "Gather", (&VECTOR, &[1, 3]), &["at"], &[("axis", Int(1))]),
        ),
        probe(
            "Resize",
            "nearest, twice",
            of_one(resize, "Resize", (&IMAGE, &[1, 4, 16, 16]), &["", "scales"], &nearest),
        ),
    ]
}

fn reductions() -> Vec<Probe> {
    let last = [("axes", Ints(&[-1])), ("keepdims", Int(1))];
    let reduce =
        |operator: &'static str| probe(operator, "", of_one(Writer::new(), operator, (&VECTOR, &[1, 1]), &[], &last));
    let sum = Writer::new().integers("axes", &[-1]);
    vec![
        reduce("ReduceMean"),
        reduce("ReduceMax"),
        probe("ReduceSum", "", of_one(sum, "ReduceSum", (&VECTOR, &[1, 1]), &["axes"], &[("keepdims", Int(1))])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::subject::Subject;
    use shardproof_models::ModelSource;

    #[test]
    fn every_probe_is_a_model_with_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.onnx");
        for probe in probes() {
            std::fs::write(&path, &probe.onnx).unwrap();
            let source = ModelSource::File(path.clone());
            let load = if probe.positive { Subject::on_positive_inputs } else { Subject::load };
            let subject = load(&source, 1);
            assert!(subject.is_ok(), "{} {}: {:?}", probe.operator, probe.detail, subject.err());
            assert!(!subject.unwrap().expected[0].is_empty());
        }
    }

    #[test]
    fn probes_have_names_of_their_own() {
        let probes = probes();
        let names: std::collections::HashSet<_> = probes.iter().map(|probe| (probe.operator, probe.detail)).collect();
        assert_eq!(names.len(), probes.len());
    }
}
