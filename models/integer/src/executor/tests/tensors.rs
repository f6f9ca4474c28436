//! Operators that join tensors with each other, or whole axes of one: sizes at which they are divided, and their errors.

use super::*;

const X: TensorId = TensorId(0);

fn site(op: &'static str) -> Box<Site> {
    Box::new(Site::Node { index: 0, name: "n".into(), op })
}

#[test]
fn large_operands() {
    let ops = vec![
        (Op::Requant { input: X, shift: 8, bits: 14, relu: false }, -8),
        (Op::MatMulTensors { left: TensorId(1), right: TensorId(1) }, -16),
        (Op::MatMulTensors { left: X, right: X }, 0),
        (Op::Transpose { input: X, axes: vec![0, 2, 1] }, 0),
        (Op::MatMulTensors { left: TensorId(4), right: TensorId(4) }, 0),
        (Op::MulTensors { left: X, right: X }, 0),
        (Op::ReduceSum { input: X, axes: vec![1] }, 0),
        (Op::Expand { input: TensorId(7), shape: vec![3, 70, 150] }, 0),
        (Op::Max { input: X }, 0),
        (Op::Gather { input: X, axis: 1, indices: (0..70).rev().chain([3, 3]).collect() }, 0),
        (Op::Sqrt { input: TensorId(6), bits: 22 }, 0),
        (Op::Combine { terms: vec![(X, 1)], constant: 2_000_001 }, 0),
        (Op::Divide { numerator: X, denominator: TensorId(12), bits: 22 }, 0),
    ];
    for runs in [1, 3] {
        let (checked, weights, trace) = run_random(graph(&[3, 70, 150], &[], ops.clone()), 2_000_000, runs);
        compare(&checked, &weights, &trace);
    }
}

/// Products of every kernel: of 16 bits, of 32 and of 64.
#[test]
fn products_of_narrow_and_wide_tensors() {
    for (bits, factor) in [(7, 1), (15, 1), (21, 1), (21, 1 << 12)] {
        let ops = vec![
            (Op::Requant { input: X, shift: 0, bits, relu: false }, 0),
            (Op::Combine { terms: vec![(TensorId(1), factor)], constant: 0 }, 0),
            (Op::MatMulTensors { left: TensorId(2), right: TensorId(1) }, 0),
            (Op::MatMulTensors { left: TensorId(1), right: TensorId(1) }, 0),
        ];
        let (checked, weights, trace) = run_random(graph(&[2, 9, 130], &[], ops), (1 << bits) - 1, 1);
        compare(&checked, &weights, &trace);
    }
}

fn divided(values: Vec<i64>, bits: u32) -> Result<Vec<i64>, RunError> {
    let ops = vec![
        (Op::Slice { input: X, start: vec![0], step: vec![2], count: vec![2] }, 0),
        (Op::Slice { input: X, start: vec![1], step: vec![2], count: vec![2] }, 0),
        (Op::Divide { numerator: TensorId(1), denominator: TensorId(2), bits }, 0),
    ];
    Ok(run(4, ops, values, 2)?.tensors[3].clone())
}

#[test]
fn quotients_are_rounded_halves_up() {
    assert_eq!(divided(vec![7, 2, -7, 2, 5, 3, -5, 3], 5), Ok(vec![4, -3, 2, -2]));
    assert_eq!(divided(vec![0, 9, 1, 9, 4, 9, 5, 9], 5), Ok(vec![0, 0, 0, 1]));
    assert_eq!(divided(vec![31, 1, -32, 1, 0, 1, 0, 1], 5), Ok(vec![31, -32, 0, 0]));
}

#[test]
fn quotient_range() {
    let allowed = Bounds { low: -32, high: 31 };
    let site = || Box::new(Site::Node { index: 2, name: "n".into(), op: "Divide" });
    for (numerator, value) in [(63, 32), (-65, -32)] {
        let found = divided(vec![0, 1, 0, 1, 0, 1, numerator, 2], 5);
        let inside = value == -32;
        let error = RunError::QuotientRange { site: site(), run: 1, index: 1, value, allowed };
        assert_eq!(found.is_ok(), inside);
        assert!(inside || found == Err(error));
    }
    let error = divided(vec![0, 1, 0, 1, 0, 1, -66, 2], 5);
    assert_eq!(error, Err(RunError::QuotientRange { site: site(), run: 1, index: 1, value: -33, allowed }));
    for value in [0, -1] {
        let error = divided(vec![0, 1, 0, 1, 5, value, 0, 1], 5);
        assert_eq!(error, Err(RunError::Denominator { site: site(), run: 1, index: 0, value }));
    }
}

#[test]
fn root_range() {
    let roots = |values: Vec<i64>| run(3, vec![(Op::Sqrt { input: X, bits: 3 }, 0)], values, 1);
    assert_eq!(roots(vec![0, 35, 63]).map(|trace| trace.tensors[1].clone()), Ok(vec![0, 5, 7]));
    let allowed = Bounds { low: 0, high: 7 };
    for value in [64, -1] {
        let error = roots(vec![0, value, 1]);
        assert_eq!(error, Err(RunError::RootRange { site: site("Sqrt"), run: 0, index: 1, value, allowed }));
    }
}
