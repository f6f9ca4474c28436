//! Every cause to refuse weights, alone.

use crate::check::CheckedGraph;
use crate::error::{Site, WeightsError};
use crate::graph::{Graph, Input, TensorId, Weight, Weights};

fn graph() -> CheckedGraph {
    let weight = |name: &str, shape: &[usize], bits| Weight { name: name.into(), shape: shape.to_vec(), bits };
    Graph {
        inputs: vec![Input { name: "x".into(), shape: vec![1], scale: 0 }],
        weights: vec![weight("a", &[2, 2], 3), weight("b", &[], 31)],
        tables: vec![],
        nodes: vec![],
        outputs: vec![TensorId(0)],
    }
    .check()
    .expect("a legal graph")
}

#[test]
fn both_ends_of_the_bounds_are_legal() {
    let weights = Weights(vec![vec![-8, 8, 0, 1], vec![i32::MIN]]);
    assert_eq!(weights.check(&graph()), Ok(()));
}

#[test]
fn count() {
    let weights = Weights(vec![vec![0; 4]]);
    assert_eq!(weights.check(&graph()), Err(WeightsError::Count { expected: 2, found: 1 }));
}

#[test]
fn length() {
    let site = Box::new(Site::Weight { index: 1, name: "b".into() });
    let weights = Weights(vec![vec![0; 4], vec![0; 2]]);
    assert_eq!(weights.check(&graph()), Err(WeightsError::Length { site, expected: 1, found: 2 }));
}

#[test]
fn bound() {
    for value in [9, -9] {
        let site = Box::new(Site::Weight { index: 0, name: "a".into() });
        let weights = Weights(vec![vec![0, 0, value, 0], vec![0]]);
        assert_eq!(weights.check(&graph()), Err(WeightsError::Bound { site, index: 2, value, bits: 3 }));
    }
}
