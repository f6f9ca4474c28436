//! The error bounds that softmax and normalisation are documented with, on random rows.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

#[path = "support/calibrated.rs"]
mod calibrated;
mod support;

use std::sync::Arc;

use calibrated::{load, ramp};
use proptest::prelude::*;
use shardproof_common::plan::CalibrationTarget;
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::{Executor, Graph, Op, TensorId, Trace};
use shardproof_models::quantise::{QuantiseOptions, Quantised, quantise};
use support::{Builder, int};

/// What the formulas leave out: products of two of their terms, and the rounding of the floats here.
const SECOND_ORDER: f64 = 1.01;

/// A quantised model, calibrated on `rows`, with a run of them: the integers that it read as reals, and all that it computed.
fn run(builder: &Builder, shape: &[u64], rows: &[f32], target: CalibrationTarget) -> (Quantised, Vec<f64>, Trace) {
    let sample = vec![FloatTensor { shape: shape.to_vec(), values: rows.to_vec() }];
    let quantised =
        quantise(&load(builder).to_onnx(), &QuantiseOptions::new(target), std::slice::from_ref(&sample)).unwrap();
    let scale = quantised.input_scales()[0];
    let input = sample[0].quantise(scale).unwrap().values;
    let reals = input.iter().map(|&q| q as f64 * unit(scale)).collect();
    let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).unwrap();
    let trace = executor.run(&[input], 1).unwrap();
    (quantised, reals, trace)
}

fn unit(scale: i32) -> f64 {
    (-f64::from(scale)).exp2()
}

/// The first tensor that an operator of this name makes, and the operator.
fn made_by<'a>(graph: &'a Graph, operator: &str) -> (TensorId, &'a Op) {
    let node = graph.nodes.iter().position(|node| node.op.name() == operator).unwrap();
    (graph.result(node), &graph.nodes[node].op)
}

fn softmax_keeps_to_its_bound(rows: &[f32], width: usize, target: CalibrationTarget) {
    let shape = [(rows.len() / width) as i64, width as i64];
    let builder = Builder::new().input("x", &shape);
    let builder = builder.node_with("s", "Softmax", &["x"], &["y"], vec![int("axis", -1)]).output("y");
    let (quantised, reals, trace) = run(&builder, &shape.map(|extent| extent as u64), rows, target);
    let graph = quantised.graph.graph();
    let (powers, Op::Table { input, .. }) = made_by(graph, "Table") else { panic!("exponentials are looked up") };
    let (exponent, half) = (unit(graph.scale(*input)), unit(graph.scale(powers)));
    let (shares, _) = made_by(graph, "MulTensors");
    let found = trace.tensor(shares).iter().map(|&p| p as f64 * unit(graph.scale(shares)));
    let found: Vec<f64> = found.collect();
    for (row, found) in reals.chunks(width).zip(found.chunks(width)) {
        let largest = row.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        for (x, share) in row.iter().zip(found) {
            let expected = (x - largest).exp() / sum;
            let bound = expected * exponent.exp_m1() + half * (1.0 + width as f64 * expected) + 2.0 * half;
            assert!((share - expected).abs() <= bound * SECOND_ORDER, "{share} for {expected}, {bound:e} allowed");
        }
    }
}

fn normalisation_keeps_to_its_bound(rows: &[f32], width: usize, target: CalibrationTarget) {
    const EPSILON: f64 = 1e-5;
    let shape = [(rows.len() / width) as i64, width as i64];
    let builder = Builder::new().input("x", &shape).weights("scale", &[width as i64], &ramp(width));
    let builder = builder.node_with("n", "LayerNormalization", &["x", "scale"], &["y"], vec![int("axis", -1)]);
    let (quantised, reals, trace) = run(&builder.output("y"), &shape.map(|extent| extent as u64), rows, target);
    let graph = quantised.graph.graph();
    let (root, _) = made_by(graph, "Sqrt");
    let (reciprocal, Op::Divide { numerator, .. }) = made_by(graph, "Divide") else { panic!("a row's reciprocal") };
    // The first product of two tensors is the square of the spread, the second the result.
    let products = graph.nodes.iter().enumerate().filter(|(_, node)| node.op.name() == "MulTensors");
    let products: Vec<TensorId> = products.map(|(index, _)| graph.result(index)).collect();
    let Op::MulTensors { left: spread, .. } = graph.nodes[graph.producer(products[0]).unwrap()].op else {
        panic!("the spread is squared")
    };
    let factor = width as f64 / f64::from(width.ilog2()).exp2();
    let rounding = unit(graph.scale(spread)) / factor;
    let of_numerator = unit(graph.scale(*numerator));
    for (index, row) in reals.chunks(width).enumerate() {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let rounded = &trace.tensor(spread)[index * width..][..width];
        let squares: f64 = rounded.iter().map(|&c| (c as f64 * rounding).powi(2)).sum();
        let deviation = (squares / width as f64 + EPSILON).sqrt();
        let (root, reciprocal) = (trace.tensor(root)[index] as f64, trace.tensor(reciprocal)[index] as f64);
        for (place, x) in row.iter().enumerate() {
            let expected = (x - mean) / (variance + EPSILON).sqrt();
            let found = trace.tensor(products[1])[index * width + place] as f64 * unit(graph.scale(products[1]));
            let of_spread = rounding / deviation * (1.0 + expected.abs()) / 2.0;
            let bound = of_spread + expected.abs() * (1.0 / root + 0.5 / reciprocal + of_numerator);
            assert!((found - expected).abs() <= bound * SECOND_ORDER, "{found} for {expected}, {bound:e} allowed");
        }
    }
}

/// Rows of a width, of values as large as `2^size`.
fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (2usize..40, 1usize..4, -4i32..6).prop_flat_map(|(width, count, size)| {
        let reach = (size as f32).exp2();
        (Just(width), proptest::collection::vec(-reach..reach, width * count))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares((width, rows) in rows()) {
        for target in [CalibrationTarget::Resources, CalibrationTarget::Accuracy] {
            softmax_keeps_to_its_bound(&rows, width, target);
        }
    }

    #[test]
    fn normalised_rows((width, rows) in rows()) {
        for target in [CalibrationTarget::Resources, CalibrationTarget::Accuracy] {
            normalisation_keeps_to_its_bound(&rows, width, target);
        }
    }
}
