//! The executor agrees with the reference on random graphs of every operator.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::testing::{Size, random_batch};
use crate::{Executor, TensorId, reference};

/// Compares every tensor of every run, and its bounds.
fn agrees(seed: u64, size: Size, runs: usize) -> BTreeSet<&'static str> {
    let (graph, weights, inputs) = random_batch(seed, size, runs);
    let names = graph.nodes.iter().map(|node| node.op.name()).collect();
    let checked = Arc::new(graph.check().expect("random graphs are legal"));
    let executor = Executor::new(checked.clone(), &weights).expect("random weights fit");
    let trace = executor.run(&inputs, runs).expect("random graphs run on their inputs");
    assert_eq!((trace.runs, trace.tensors.len()), (runs, checked.tensors()));
    for run in 0..runs {
        let part = |values: &Vec<i64>| {
            let elements = values.len() / runs;
            values[run * elements..][..elements].to_vec()
        };
        let inputs: Vec<_> = inputs.iter().map(part).collect();
        let expected = reference::run(checked.graph(), &weights, &inputs).expect("the reference runs too");
        for (index, expected) in expected.iter().enumerate() {
            let tensor = TensorId(index as u32);
            let found = part(&trace.tensors[index]);
            assert_eq!(&found, expected, "seed {seed}, run {run}, tensor {index}");
            assert_eq!(found.len(), checked.elements(tensor));
            assert!(found.iter().all(|&value| checked.bounds(tensor).contains(value)), "seed {seed}, tensor {index}");
        }
    }
    names
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_run_of_a_small_graph(seed: u64) {
        agrees(seed, Size::SMALL, 1);
    }

    #[test]
    fn three_runs_of_a_tiny_graph(seed: u64) {
        agrees(seed, Size::TINY, 3);
    }
}

#[test]
fn medium_graphs_hold_every_operator() {
    let mut names = BTreeSet::new();
    for seed in 0..12 {
        let found = agrees(seed, Size::MEDIUM, 3);
        assert!(found.len() >= 11, "seed {seed} has only {found:?}");
        names.extend(found);
    }
    assert_eq!(names.len(), 13, "{names:?}");
}
