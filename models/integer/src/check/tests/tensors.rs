//! Operators that join tensors with each other, or whole axes of one.

use super::*;

const Y: TensorId = TensorId(1);

/// One node over two inputs.
fn two(first: &[usize], second: &[usize], op: Op, scale: i32) -> Graph {
    let mut graph = graph(first, &[1], vec![op]);
    graph.inputs.push(input(second));
    graph.nodes[0].scale = scale;
    graph
}

/// One node over values from `low` to `high`, which must be 2^25 apart.
fn between(low: i64, ops: Vec<(Op, i32)>) -> Graph {
    let mut graph = graph(&[2, 3], &[1], vec![combine(&[(0, 1)], low + (1 << 24))]);
    graph.nodes.extend(ops.into_iter().map(|(op, scale)| Node { name: "n".into(), op, scale }));
    graph
}

#[test]
fn shapes_of_tensor_products() {
    let product = || Op::MatMulTensors { left: X, right: Y };
    let checked = accepted(two(&[2, 5, 4, 7], &[2, 5, 3, 7], product(), 10));
    assert_eq!(checked.shape(TensorId(2)), [2, 5, 4, 3]);
    assert_eq!(checked.bounds(TensorId(2)), Bounds { low: -7 << 48, high: 7 << 48 });
    for (left, right) in
        [(&[4, 7][..], &[7, 3][..]), (&[2, 4, 7], &[3, 3, 7]), (&[2, 4, 7], &[3, 7]), (&[7], &[7]), (&[], &[])]
    {
        let error = refused(two(left, right, product(), 10));
        let (left, right) = (left.to_vec(), right.to_vec());
        assert_eq!(error, GraphError::TensorProduct { site: site("MatMulTensors"), left, right });
    }
}

#[test]
fn shapes_of_elementwise_operands() {
    let divide = Op::Divide { numerator: X, denominator: Y, bits: 20 };
    for (op, scale) in [(Op::MulTensors { left: X, right: Y }, 10), (divide, 0)] {
        let name = op.name();
        assert_eq!(accepted(two(&[2, 3], &[2, 3], op.clone(), scale)).shape(TensorId(2)), [2, 3]);
        let (left, right) = (vec![2, 3], vec![2, 1]);
        let error = refused(two(&left, &right, op, scale));
        assert_eq!(error, GraphError::ElementShapes { site: site(name), left, right });
    }
}

#[test]
fn axes_of_sums() {
    let sum = |axes: &[usize]| one(&[1], Op::ReduceSum { input: X, axes: axes.to_vec() });
    let checked = accepted(sum(&[0, 2]));
    assert_eq!(checked.shape(TensorId(1)), [1, 6, 1, 7]);
    assert_eq!(checked.bounds(TensorId(1)), Bounds { low: -10 << 24, high: 10 << 24 });
    for axes in [vec![], vec![4], vec![1, 1], vec![2, 0]] {
        assert_eq!(refused(sum(&axes)), GraphError::ReduceAxes { site: site("ReduceSum"), axes, rank: 4 });
    }
}

#[test]
fn repeated_axes() {
    let expand = |shape: &[usize]| graph(&[1, 3], &[1], vec![Op::Expand { input: X, shape: shape.to_vec() }]);
    assert_eq!(accepted(expand(&[5, 3])).shape(TensorId(1)), [5, 3]);
    for shape in [vec![5, 1], vec![3], vec![1, 1, 3], vec![1, 6]] {
        let (input, error) = (vec![1, 3], refused(expand(&shape)));
        assert_eq!(error, GraphError::ExpandShape { site: site("Expand"), input, shape });
    }
    let error = refused(expand(&[0, 3]));
    assert_eq!(error, GraphError::EmptyAxis { site: site("Expand"), axis: 0 });
    let error = refused(expand(&[usize::MAX, 3]));
    assert_eq!(error, GraphError::Elements { site: site("Expand") });
}

#[test]
fn gathered_indices() {
    let gather = |axis, indices: &[u32]| one(&[1], Op::Gather { input: X, axis, indices: indices.to_vec() });
    assert_eq!(accepted(gather(2, &[4, 0, 4])).shape(TensorId(1)), [2, 6, 3, 7]);
    assert_eq!(refused(gather(4, &[0])), GraphError::GatherAxis { site: site("Gather"), axis: 4, rank: 4 });
    let error = refused(gather(2, &[0, 5]));
    assert_eq!(error, GraphError::GatherIndex { site: site("Gather"), index: 5, extent: 5 });
    assert_eq!(refused(gather(2, &[])), GraphError::EmptyAxis { site: site("Gather"), axis: 2 });
}

#[test]
fn maxima() {
    let max = |input| Op::Max { input };
    let checked = accepted(one(&[1], max(X)));
    assert_eq!(checked.shape(TensorId(1)), [2, 6, 5, 1]);
    assert_eq!(checked.bounds(TensorId(1)), Bounds::BOUNDARY);
    assert_eq!(refused(graph(&[], &[1], vec![max(X)])), GraphError::MaxRank { site: site("Max") });
    // The values fit 62 bits, their differences don't.
    let error = refused(wide(64, vec![(max(TensorId(1)), 5)]));
    let site = Box::new(Site::Node { index: 1, name: "after".into(), op: "Max" });
    assert_eq!(error, GraphError::Magnitude { site, magnitude: 1 << 62 });
    accepted(wide(63, vec![(max(TensorId(1)), 5)]));
}

#[test]
fn bounds_of_products_of_tensors() {
    let (low, high) = (-3, (1 << 25) - 3);
    let bounds = |op| accepted(between(low, vec![(op, 10)])).bounds(TensorId(2));
    let (x, y) = (TensorId(1), X);
    assert_eq!(bounds(Op::MulTensors { left: x, right: x }), Bounds { low: 0, high: high * high });
    let other = Bounds { low: -high << 24, high: high << 24 };
    assert_eq!(bounds(Op::MulTensors { left: x, right: y }), other);
    let rows = Bounds { low: 9 * -(1 << 25) + 27, high: 3 * high * high };
    assert_eq!(bounds(Op::MatMulTensors { left: x, right: x }), rows);
}

#[test]
fn quotients() {
    let divide =
        |low: i64, bits| between(low, vec![(Op::Divide { numerator: X, denominator: TensorId(1), bits }, 0)]).check();
    let bounds = |low, bits| divide(low, bits).map(|checked| checked.bounds(TensorId(2)));
    let site = || Box::new(Site::Node { index: 1, name: "n".into(), op: "Divide" });
    // By 5 at least, where a denominator of zero is not among the bounds; by 1, where it is.
    let fifth = (1 << 24) / 5;
    assert_eq!(bounds(5, 25), Ok(Bounds { low: -fifth, high: fifth }));
    assert_eq!(bounds(-9, 25), Ok(Bounds { low: -(1 << 24), high: 1 << 24 }));
    assert_eq!(bounds(-9, 7), Ok(Bounds { low: -128, high: 127 }));
    for bits in [0, 32] {
        assert_eq!(bounds(5, bits), Err(GraphError::QuotientBits { site: site(), bits }));
    }
    let input = Bounds { low: -(1 << 25), high: 0 };
    assert_eq!(bounds(-(1 << 25), 7), Err(GraphError::NeverInRange { site: site(), input }));
    // No quotient of 3 bits: numerators are beyond 8 times the denominators.
    let terms = vec![(X, 1)];
    let far = |constant| {
        let mut graph = between(1, vec![]);
        let ops = [
            Op::Combine { terms: terms.clone(), constant },
            Op::Divide { numerator: TensorId(2), denominator: TensorId(1), bits: 3 },
        ];
        graph.nodes.extend(ops.into_iter().zip([5, 0]).map(|(op, scale)| Node { name: "n".into(), op, scale }));
        graph.check()
    };
    assert!(matches!(far(1 << 40), Err(GraphError::NeverInRange { .. })));
    assert!(far(1 << 20).is_ok());
}

#[test]
fn quotients_need_room() {
    // Denominators of magnitude 2^55 `depth`.
    let by = |depth, bits| {
        let divide = Op::Divide { numerator: TensorId(1), denominator: TensorId(1), bits };
        wide(depth, vec![(divide, 0)]).check()
    };
    assert!(by(2, 4).is_ok());
    let site = || Box::new(Site::Node { index: 1, name: "after".into(), op: "Divide" });
    let bounds = Bounds { low: -(1 << 56), high: 1 << 56 };
    let error = GraphError::QuotientRoom { site: site(), numerator: bounds, denominator: bounds, bits: 5 };
    assert_eq!(by(2, 5), Err(error));
    // Numerators alone can leave no room.
    let far = |depth| {
        let one = Op::Combine { terms: vec![(TensorId(1), 0)], constant: 1 };
        let divide = Op::Divide { numerator: TensorId(1), denominator: TensorId(2), bits: 1 };
        wide(depth, vec![(one, 0), (divide, 5)]).check()
    };
    assert!(far(63).is_ok());
    assert!(matches!(far(64), Err(GraphError::QuotientRoom { bits: 1, .. })));
}

#[test]
fn roots() {
    let root = |low: i64, bits| {
        let mut graph = between(low, vec![(Op::Sqrt { input: TensorId(1), bits }, 2)]);
        graph.nodes[0].scale = 4;
        graph
    };
    let bounds = |low, bits| accepted(root(low, bits)).bounds(TensorId(2));
    assert_eq!(bounds(10, 30), Bounds { low: 3, high: 5792 });
    assert_eq!(bounds(-10, 9), Bounds { low: 0, high: 511 });
    let site = || Box::new(Site::Node { index: 1, name: "n".into(), op: "Sqrt" });
    for bits in [0, 31] {
        assert_eq!(refused(root(0, bits)), GraphError::RootBits { site: site(), bits });
    }
    for low in [-(1 << 25) - 1, 1 << 18] {
        let input = Bounds { low, high: low + (1 << 25) };
        assert_eq!(refused(root(low, 9)), GraphError::NeverInRange { site: site(), input });
    }
    accepted(root((1 << 18) - 1, 9));
    let mut odd = root(0, 30);
    odd.nodes[0].scale = 3;
    assert_eq!(refused(odd), GraphError::RootScale { site: site(), scale: 3 });
}

#[test]
fn scales_of_tensors() {
    for (op, expected) in [
        (Op::MatMulTensors { left: X, right: X }, 10),
        (Op::MulTensors { left: X, right: X }, 10),
        (Op::Divide { numerator: X, denominator: X, bits: 20 }, 0),
        (Op::ReduceSum { input: X, axes: vec![1] }, 5),
        (Op::Expand { input: X, shape: vec![2, 3] }, 5),
        (Op::Gather { input: X, axis: 0, indices: vec![1] }, 5),
        (Op::Max { input: X }, 5),
    ] {
        let name = op.name();
        let mut graph = graph(&[2, 3], &[1], vec![op]);
        graph.nodes[0].scale = expected;
        accepted(graph.clone());
        graph.nodes[0].scale += 1;
        let found = graph.nodes[0].scale;
        assert_eq!(refused(graph), GraphError::Scale { site: site(name), expected: expected.into(), found });
    }
}
