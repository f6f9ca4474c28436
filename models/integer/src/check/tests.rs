//! Every cause to refuse a graph, alone.

mod tensors;

use super::{Bounds, CheckedGraph, MAX_ELEMENTS, MAX_ITEMS};
use crate::error::{GraphError, Site};
use crate::graph::{Conv, Graph, Input, Node, Op, Table, TableId, TensorId, Weight, WeightId, Window};

const X: TensorId = TensorId(0);
const W: WeightId = WeightId(0);
const WINDOW: Window =
    Window { kernel: [3, 2], stride: [1, 1], dilation: [1, 1], pad_height: [0, 0], pad_width: [0, 0] };

fn input(shape: &[usize]) -> Input {
    Input { name: "x".into(), shape: shape.to_vec(), scale: 5 }
}

/// One input, one weight of 4 bits, one table of 2, and the operators; what enters leaves.
fn graph(shape: &[usize], weight: &[usize], ops: Vec<Op>) -> Graph {
    let node = |op| Node { name: "n".into(), op, scale: 5 };
    Graph {
        inputs: vec![input(shape)],
        weights: vec![Weight { name: "w".into(), shape: weight.to_vec(), bits: 4 }],
        tables: vec![Table { name: "t".into(), bits: 2, values: vec![-7, 0, 3, 9] }],
        nodes: ops.into_iter().map(node).collect(),
        outputs: vec![X],
    }
}

/// With one node, over an input `[2, 6, 5, 7]`.
fn one(weight: &[usize], op: Op) -> Graph {
    graph(&[2, 6, 5, 7], weight, vec![op])
}

fn accepted(graph: Graph) -> CheckedGraph {
    graph.check().expect("a legal graph")
}

fn refused(graph: Graph) -> GraphError {
    graph.check().expect_err("an illegal graph")
}

fn site(op: &'static str) -> Box<Site> {
    Box::new(Site::Node { index: 0, name: "n".into(), op })
}

fn slice(start: &[usize], step: &[usize], count: &[usize]) -> Op {
    Op::Slice { input: X, start: start.to_vec(), step: step.to_vec(), count: count.to_vec() }
}

fn pad(before: &[usize], after: &[usize]) -> Op {
    Op::Pad { input: X, before: before.to_vec(), after: after.to_vec(), value: 0 }
}

fn conv(groups: usize, window: Window) -> Op {
    Op::Conv(Conv { input: X, weight: W, groups, window })
}

fn combine(terms: &[(u32, i64)], constant: i64) -> Op {
    Op::Combine { terms: terms.iter().map(|&(tensor, factor)| (TensorId(tensor), factor)).collect(), constant }
}

fn requant(shift: u32, bits: u32) -> Op {
    Op::Requant { input: X, shift, bits, relu: false }
}

#[test]
fn shapes_and_bounds_of_a_legal_graph() {
    let mut legal = one(&[4, 3, 3, 2], conv(2, WINDOW));
    legal.nodes.push(Node {
        name: "q".into(),
        op: Op::Requant { input: TensorId(1), shift: 10, bits: 20, relu: true },
        scale: -5,
    });
    legal.outputs = vec![TensorId(2)];
    let checked = accepted(legal);
    assert_eq!(checked.tensors(), 3);
    assert_eq!(checked.shape(TensorId(1)), [2, 4, 3, 6]);
    assert_eq!(checked.elements(TensorId(1)), 144);
    let largest = (1 << 24) * 18 * 16;
    assert_eq!(checked.bounds(TensorId(1)), Bounds { low: -largest, high: largest });
    assert_eq!(checked.bounds(TensorId(2)), Bounds { low: 0, high: (1 << 20) - 1 });
    assert_eq!(checked.max_accumulator_bits(), 33);
}

#[test]
fn requant_bounds_are_the_tighter_of_bits_and_interval() {
    let bounds = |shift, bits| {
        let mut graph = one(&[1], requant(shift, bits));
        graph.nodes[0].scale = 5 - shift as i32;
        accepted(graph).bounds(TensorId(1))
    };
    assert_eq!(bounds(0, 24), Bounds { low: -(1 << 24), high: (1 << 24) - 1 });
    assert_eq!(bounds(4, 24), Bounds { low: -(1 << 20), high: 1 << 20 });
    assert_eq!(bounds(4, 7), Bounds { low: -128, high: 127 });
}

/// What operators make of `1 ..= 2^25 + 1`.
#[test]
fn bounds_of_operators() {
    let x = TensorId(1);
    let high = (1 << 25) + 1;
    let window = |pad_width| Op::WindowSum { input: x, window: Window { pad_width, ..WINDOW } };
    let pad = |after| Op::Pad { input: x, before: vec![0; 4], after: vec![0, 0, 0, after], value: -3 };
    let cases = [
        (window([0, 0]), 6, 6 * high),
        (window([0, 1]), 0, 6 * high),
        (Op::MulWeight { input: x, weight: W }, -16 * high, 16 * high),
        (Op::AddWeight { input: x, weight: W, multiplier: -2 }, -31, high + 32),
        (combine(&[(1, -2), (0, 1)], 7), -2 * high + 7 - (1 << 24), 5 + (1 << 24)),
        (pad(0), 1, high),
        (pad(1), -3, high),
        (Op::Concat { inputs: vec![x, X], axis: 0 }, -(1 << 24), high),
        (Op::Transpose { input: x, axes: vec![3, 1, 2, 0] }, 1, high),
    ];
    for (op, low, high) in cases {
        let name = op.name();
        let graph = graph(&[2, 6, 5, 7], &[1; 4], vec![combine(&[(0, 1)], (1 << 24) + 1), op]);
        assert_eq!(accepted(graph).bounds(TensorId(2)), Bounds { low, high }, "{name}");
    }
}

#[test]
fn too_many() {
    let full = one(&[1], Op::Reshape { input: X, shape: vec![420] });
    let count = MAX_ITEMS + 1;
    let graphs = [
        ("inputs", Graph { inputs: vec![input(&[1]); count], nodes: vec![], ..full.clone() }),
        ("weights", Graph { weights: vec![full.weights[0].clone(); count], ..full.clone() }),
        ("tables", Graph { tables: vec![full.tables[0].clone(); count], ..full.clone() }),
        ("nodes", Graph { nodes: vec![full.nodes[0].clone(); count], ..full.clone() }),
        ("outputs", Graph { outputs: vec![X; count], ..full.clone() }),
    ];
    for (items, graph) in graphs {
        assert_eq!(refused(graph), GraphError::TooMany { items, count });
    }
    accepted(Graph { outputs: vec![X; MAX_ITEMS], ..full });
}

#[test]
fn too_many_operands() {
    let concat = |count| graph(&[1], &[1], vec![Op::Concat { inputs: vec![X; count], axis: 0 }]);
    accepted(concat(MAX_ITEMS));
    let error = refused(concat(MAX_ITEMS + 1));
    assert_eq!(error, GraphError::TooManyOperands { site: site("Concat"), count: MAX_ITEMS + 1 });
}

#[test]
fn no_outputs() {
    assert_eq!(refused(Graph { outputs: vec![], ..graph(&[1], &[1], vec![]) }), GraphError::NoOutputs);
}

#[test]
fn rank() {
    accepted(graph(&[1; 8], &[1; 8], vec![]));
    let site = Box::new(Site::Input { index: 0, name: "x".into() });
    assert_eq!(refused(graph(&[1; 9], &[1], vec![])), GraphError::Rank { site, rank: 9 });
    let site = Box::new(Site::Weight { index: 0, name: "w".into() });
    assert_eq!(refused(graph(&[1], &[1; 9], vec![])), GraphError::Rank { site, rank: 9 });
    let error = refused(graph(&[1], &[1], vec![Op::Reshape { input: X, shape: vec![1; 9] }]));
    assert_eq!(error, GraphError::Rank { site: self::site("Reshape"), rank: 9 });
}

#[test]
fn empty_axis() {
    let site = Box::new(Site::Input { index: 0, name: "x".into() });
    assert_eq!(refused(graph(&[2, 0], &[1], vec![])), GraphError::EmptyAxis { site, axis: 1 });
    let error = refused(graph(&[3], &[1], vec![slice(&[0], &[1], &[0])]));
    assert_eq!(error, GraphError::EmptyAxis { site: self::site("Slice"), axis: 0 });
}

#[test]
fn elements() {
    accepted(graph(&[MAX_ELEMENTS], &[MAX_ELEMENTS], vec![]));
    let site = Box::new(Site::Weight { index: 0, name: "w".into() });
    assert_eq!(refused(graph(&[1], &[2, MAX_ELEMENTS], vec![])), GraphError::Elements { site });
    let site = Box::new(Site::Input { index: 0, name: "x".into() });
    assert_eq!(refused(graph(&[usize::MAX, 3], &[1], vec![])), GraphError::Elements { site });
    for after in [MAX_ELEMENTS, usize::MAX] {
        let error = refused(graph(&[1], &[1], vec![pad(&[0], &[after])]));
        assert_eq!(error, GraphError::Elements { site: self::site("Pad") });
        let window = Window { pad_width: [0, after], stride: [1, usize::MAX], ..WINDOW };
        let error = refused(one(&[1], Op::WindowSum { input: X, window }));
        assert_eq!(error, GraphError::Elements { site: self::site("WindowSum") });
    }
    let error = refused(graph(&[MAX_ELEMENTS], &[1], vec![Op::Concat { inputs: vec![X, X], axis: 0 }]));
    assert_eq!(error, GraphError::Elements { site: self::site("Concat") });
}

#[test]
fn weight_bits() {
    let mut graph = graph(&[1], &[1], vec![]);
    graph.weights[0].bits = 31;
    accepted(graph.clone());
    graph.weights[0].bits = 32;
    let site = Box::new(Site::Weight { index: 0, name: "w".into() });
    assert_eq!(refused(graph), GraphError::WeightBits { site, bits: 32 });
}

fn table(bits: u32, values: Vec<i32>) -> Graph {
    Graph { tables: vec![Table { name: "t".into(), bits, values }], ..graph(&[1], &[1], vec![]) }
}

#[test]
fn tables() {
    accepted(table(18, vec![1; 1 << 18]));
    let site = || Box::new(Site::Table { index: 0, name: "t".into() });
    assert_eq!(refused(table(0, vec![1])), GraphError::TableBits { site: site(), bits: 0 });
    assert_eq!(refused(table(19, vec![1; 1 << 19])), GraphError::TableBits { site: site(), bits: 19 });
    let error = refused(table(3, vec![1; 7]));
    assert_eq!(error, GraphError::TableLength { site: site(), expected: 8, found: 7 });
    accepted(table(1, vec![-(1 << 24), 1 << 24]));
    let value = -(1 << 24) - 1;
    assert_eq!(refused(table(1, vec![0, value])), GraphError::TableValue { site: site(), entry: 1, value });
}

#[test]
fn unknown_tensor() {
    let later = graph(&[1], &[1], vec![combine(&[(1, 1)], 0)]);
    let tensor = TensorId(1);
    assert_eq!(refused(later), GraphError::UnknownTensor { site: site("Combine"), tensor, known: 1 });
    let output = Graph { outputs: vec![X, tensor], ..graph(&[1], &[1], vec![]) };
    let site = Box::new(Site::Output { index: 1 });
    assert_eq!(refused(output), GraphError::UnknownTensor { site, tensor, known: 1 });
}

#[test]
fn unknown_weight() {
    let weight = WeightId(1);
    for op in [
        Op::MatMul { input: X, weight },
        Op::Conv(Conv { input: X, weight, groups: 1, window: WINDOW }),
        Op::MulWeight { input: X, weight },
        Op::AddWeight { input: X, weight, multiplier: 1 },
    ] {
        let name = op.name();
        assert_eq!(refused(one(&[1], op)), GraphError::UnknownWeight { site: site(name), weight, known: 1 });
    }
}

#[test]
fn unknown_table() {
    let table = TableId(1);
    let error = refused(one(&[1], Op::Table { input: X, table }));
    assert_eq!(error, GraphError::UnknownTable { site: site("Table"), table, known: 1 });
}

#[test]
fn no_operands() {
    assert_eq!(refused(one(&[1], combine(&[], 3))), GraphError::NoOperands { site: site("Combine") });
    let concat = Op::Concat { inputs: vec![], axis: 0 };
    assert_eq!(refused(one(&[1], concat)), GraphError::NoOperands { site: site("Concat") });
}

#[test]
fn matmul_shapes() {
    let matmul = || Op::MatMul { input: X, weight: W };
    assert_eq!(accepted(one(&[3, 7], matmul())).shape(TensorId(1)), [2, 6, 5, 3]);
    for weight in [&[7, 3][..], &[7], &[1, 3, 7]] {
        let (input, weight) = (vec![2, 6, 5, 7], weight.to_vec());
        let error = refused(one(&weight, matmul()));
        assert_eq!(error, GraphError::MatMulShapes { site: site("MatMul"), input, weight });
    }
    let error = refused(graph(&[], &[3, 1], vec![matmul()]));
    assert_eq!(error, GraphError::MatMulShapes { site: site("MatMul"), input: vec![], weight: vec![3, 1] });
}

#[test]
fn conv_shapes() {
    let site = || site("Conv");
    let window = WINDOW;
    let rank = refused(graph(&[6, 5, 7], &[4, 6, 3, 2], vec![conv(1, window.clone())]));
    assert_eq!(rank, GraphError::ConvRank { site: site(), input: vec![6, 5, 7], weight: vec![4, 6, 3, 2] });
    let rank = refused(one(&[4, 6, 6], conv(1, window.clone())));
    assert_eq!(rank, GraphError::ConvRank { site: site(), input: vec![2, 6, 5, 7], weight: vec![4, 6, 6] });
    for (groups, output) in [(0, 4), (4, 4), (3, 4)] {
        let weight = [output, 6 / groups.clamp(1, 6), 3, 2];
        let error = refused(one(&weight, conv(groups, window.clone())));
        assert_eq!(error, GraphError::ConvGroups { site: site(), groups, input: 6, output });
    }
    for found in [[3, 3, 2], [6, 2, 2], [6, 3, 3]] {
        let error = refused(one(&[4, found[0], found[1], found[2]], conv(1, window.clone())));
        assert_eq!(error, GraphError::ConvWeight { site: site(), expected: [6, 3, 2], found });
    }
}

#[test]
fn windows() {
    let sum = |window| one(&[1], Op::WindowSum { input: X, window });
    let site = || site("WindowSum");
    assert_eq!(accepted(sum(WINDOW)).shape(TensorId(1)), [2, 6, 3, 6]);
    let flat = graph(&[5], &[1], vec![Op::WindowSum { input: X, window: WINDOW }]);
    assert_eq!(refused(flat), GraphError::WindowRank { site: site(), input: vec![5] });
    for zero in [
        Window { kernel: [0, 2], ..WINDOW },
        Window { stride: [1, 0], ..WINDOW },
        Window { dilation: [0, 1], ..WINDOW },
    ] {
        assert_eq!(refused(sum(zero)), GraphError::WindowZero { site: site() });
    }
    let long = Window { dilation: [3, 1], ..WINDOW };
    assert_eq!(refused(sum(long.clone())), GraphError::WindowFit { site: site(), height: 5, width: 7 });
    assert_eq!(accepted(sum(Window { pad_height: [1, 1], ..long })).shape(TensorId(1)), [2, 6, 1, 6]);
    let endless = Window { dilation: [usize::MAX, 1], ..WINDOW };
    assert_eq!(refused(sum(endless)), GraphError::WindowFit { site: site(), height: 5, width: 7 });
    // Padding makes room for windows that cover 2^30 elements between them.
    let overlapping = Window { kernel: [1, 1 << 15], pad_width: [0, (1 << 16) - 8], ..WINDOW };
    let error = refused(graph(&[1, 7], &[1], vec![Op::WindowSum { input: X, window: overlapping }]));
    assert_eq!(error, GraphError::WindowOverlap { site: site(), extent: 1 << 15, kernel: 1 << 15 });
}

#[test]
fn broadcast() {
    accepted(one(&[1, 6, 1, 7], Op::MulWeight { input: X, weight: W }));
    for weight in [&[6, 1, 1][..], &[1, 5, 1, 1], &[4, 6, 5, 7]] {
        let (input, weight) = (vec![2, 6, 5, 7], weight.to_vec());
        let error = refused(one(&weight, Op::AddWeight { input: X, weight: W, multiplier: 2 }));
        assert_eq!(error, GraphError::Broadcast { site: site("AddWeight"), input, weight });
    }
}

#[test]
fn zero_multiplier() {
    let add = |multiplier| one(&[1; 4], Op::AddWeight { input: X, weight: W, multiplier });
    accepted(add(-1));
    assert_eq!(refused(add(0)), GraphError::ZeroMultiplier { site: site("AddWeight") });
}

#[test]
fn combine_shapes() {
    let mut graph = graph(&[6], &[1], vec![Op::Combine { terms: vec![(X, 1), (TensorId(1), 1)], constant: 0 }]);
    graph.inputs.push(input(&[2, 3]));
    let error = refused(graph);
    let (expected, found) = (vec![6], vec![2, 3]);
    assert_eq!(error, GraphError::CombineShapes { site: site("Combine"), term: 1, expected, found });
}

#[test]
fn reshape_elements() {
    let site = || site("Reshape");
    for shape in [vec![4, 4], vec![0, 15], vec![usize::MAX, usize::MAX]] {
        let error = refused(graph(&[3, 5], &[1], vec![Op::Reshape { input: X, shape: shape.clone() }]));
        assert_eq!(error, GraphError::ReshapeElements { site: site(), input: vec![3, 5], shape });
    }
}

#[test]
fn transpose_axes() {
    for axes in [vec![0, 1, 2], vec![0, 1, 2, 2], vec![0, 1, 2, 4], vec![0, 1, 2, 3, 4]] {
        let error = refused(one(&[1], Op::Transpose { input: X, axes: axes.clone() }));
        assert_eq!(error, GraphError::TransposeAxes { site: site("Transpose"), axes, rank: 4 });
    }
}

#[test]
fn slices() {
    let site = || site("Slice");
    let slice =
        |start: &[usize], step: &[usize], count: &[usize]| graph(&[7, 4], &[1], vec![slice(start, step, count)]);
    accepted(slice(&[0, 3], &[3, usize::MAX], &[3, 1]));
    for graph in [slice(&[0], &[1, 1], &[1, 1]), slice(&[0, 0], &[1; 3], &[1, 1]), slice(&[0, 0], &[1, 1], &[1])] {
        assert_eq!(refused(graph), GraphError::SliceRank { site: site(), rank: 2 });
    }
    let step = refused(slice(&[0, 0], &[1, 0], &[1, 1]));
    assert_eq!(step, GraphError::SliceStep { site: site(), axis: 1 });
    for (start, step, count) in [(1, 3, 3), (7, 1, 1), (usize::MAX, 1, 2), (0, usize::MAX, 3)] {
        let error = refused(slice(&[start, 0], &[step, 1], &[count, 4]));
        assert_eq!(error, GraphError::SliceRange { site: site(), axis: 0, extent: 7 });
    }
}

#[test]
fn pad_rank() {
    for op in [pad(&[1, 1], &[0; 4]), pad(&[0; 4], &[1; 5])] {
        assert_eq!(refused(one(&[1], op)), GraphError::PadRank { site: site("Pad"), rank: 4 });
    }
}

#[test]
fn concats() {
    let concat = |second: &[usize], axis| {
        let mut graph = graph(&[2, 3], &[1], vec![Op::Concat { inputs: vec![X, TensorId(1)], axis }]);
        graph.inputs.push(input(second));
        graph
    };
    assert_eq!(accepted(concat(&[2, 4], 1)).shape(TensorId(2)), [2, 7]);
    let site = || site("Concat");
    assert_eq!(refused(concat(&[2, 3], 2)), GraphError::ConcatAxis { site: site(), axis: 2, rank: 2 });
    for found in [vec![3, 4], vec![2], vec![2, 3, 1]] {
        let error = refused(concat(&found, 1));
        assert_eq!(error, GraphError::ConcatShapes { site: site(), index: 1, expected: vec![2, 3], found });
    }
    let mut scales = concat(&[2, 3], 0);
    scales.inputs[1].scale = 6;
    assert_eq!(refused(scales), GraphError::ConcatScale { site: site(), index: 1, expected: 5, found: 6 });
}

#[test]
fn requants() {
    let site = || site("Requant");
    let scaled = |op, scale| {
        let mut graph = one(&[1], op);
        graph.nodes[0].scale = scale;
        graph
    };
    accepted(scaled(requant(36, 24), -31));
    assert_eq!(refused(scaled(requant(37, 1), -32)), GraphError::RequantShift { site: site(), shift: 37 });
    for bits in [0, 25] {
        assert_eq!(refused(scaled(requant(0, bits), 5)), GraphError::RequantBits { site: site(), bits });
    }
}

/// A matrix product of magnitude 2^55 `depth`, and what follows it.
fn wide(depth: usize, after: Vec<(Op, i32)>) -> Graph {
    let mut graph = graph(&[depth], &[1, depth], vec![Op::MatMul { input: X, weight: W }]);
    graph.weights[0].bits = 31;
    graph.nodes.extend(after.into_iter().map(|(op, scale)| Node { name: "after".into(), op, scale }));
    graph
}

#[test]
fn requant_room() {
    let requant =
        |depth| wide(depth, vec![(Op::Requant { input: TensorId(1), shift: 36, bits: 24, relu: false }, -31)]);
    accepted(requant(63));
    let input = Bounds { low: -(1 << 61), high: 1 << 61 };
    let site = Box::new(Site::Node { index: 1, name: "after".into(), op: "Requant" });
    assert_eq!(refused(requant(64)), GraphError::RequantRoom { site, input, shift: 36, bits: 24 });
}

#[test]
fn magnitude() {
    accepted(wide(127, vec![]));
    let error = refused(wide(128, vec![]));
    assert_eq!(error, GraphError::Magnitude { site: site("MatMul"), magnitude: 1 << 62 });
    let largest = |graph| match refused(graph) {
        GraphError::Magnitude { magnitude, .. } => magnitude,
        other => panic!("{other}"),
    };
    // Products and partial sums count, even where the whole sum would be small.
    assert_eq!(largest(one(&[1], combine(&[(0, 1 << 38), (0, -(1 << 38))], 0))), 1 << 62);
    assert_eq!(largest(one(&[1], combine(&[(0, 1 << 37), (0, -(1 << 37))], 0))), 1 << 62);
    assert_eq!(largest(one(&[1], combine(&[(0, 1)], i64::MIN))), 1 << 63);
    let add = Op::AddWeight { input: X, weight: W, multiplier: i64::MIN };
    assert_eq!(largest(one(&[1; 4], add)), 1 << 67);
    let value = 1 << 62;
    assert_eq!(largest(graph(&[1], &[1], vec![Op::Pad { input: X, before: vec![1], after: vec![0], value }])), 1 << 62);
    let window = Window { kernel: [1 << 13, 1 << 12], pad_height: [1 << 13, 0], pad_width: [1 << 12, 0], ..WINDOW };
    let after = |op| (op, 5);
    let square = after(Op::Reshape { input: TensorId(1), shape: vec![1, 1] });
    let sum = after(Op::WindowSum { input: TensorId(2), window });
    assert_eq!(largest(wide(1, vec![square, sum])), 1 << 80);
}

#[test]
fn never_in_range() {
    let shifted = |constant, op| {
        let checked = graph(&[1], &[1], vec![combine(&[(0, 1)], constant), op]).check();
        checked.map(|checked| checked.bounds(TensorId(2)))
    };
    let requant = || Op::Requant { input: TensorId(1), shift: 0, bits: 3, relu: true };
    let look_up = || Op::Table { input: TensorId(1), table: TableId(0) };
    let inner = 1 << 24;
    for constant in [inner + 8, -inner - 9] {
        let input = Bounds { low: constant - inner, high: constant + inner };
        let site = Box::new(Site::Node { index: 1, name: "n".into(), op: "Requant" });
        assert_eq!(shifted(constant, requant()), Err(GraphError::NeverInRange { site, input }));
    }
    assert_eq!(shifted(inner + 7, requant()), Ok(Bounds { low: 7, high: 7 }));
    assert_eq!(shifted(-inner - 8, requant()), Ok(Bounds { low: 0, high: 0 }));
    for constant in [inner + 2, -inner - 3] {
        let input = Bounds { low: constant - inner, high: constant + inner };
        let site = Box::new(Site::Node { index: 1, name: "n".into(), op: "Table" });
        assert_eq!(shifted(constant, look_up()), Err(GraphError::NeverInRange { site, input }));
    }
    for constant in [inner + 1, -inner - 2] {
        assert_eq!(shifted(constant, look_up()), Ok(Bounds { low: -7, high: 9 }));
    }
}

#[test]
fn output_range() {
    let outputs = vec![X, TensorId(1)];
    accepted(Graph { outputs: outputs.clone(), ..graph(&[1], &[1], vec![combine(&[(0, -1)], 0)]) });
    let error = refused(Graph { outputs, ..graph(&[1], &[1], vec![combine(&[(0, 1)], 1)]) });
    let bounds = Bounds { low: -(1 << 24) + 1, high: (1 << 24) + 1 };
    assert_eq!(error, GraphError::OutputRange { site: Box::new(Site::Output { index: 1 }), bounds });
}

#[test]
fn scales() {
    let shape = vec![420];
    for op in [
        Op::AddWeight { input: X, weight: W, multiplier: 1 },
        Op::WindowSum { input: X, window: WINDOW },
        Op::Reshape { input: X, shape },
        Op::Transpose { input: X, axes: vec![3, 2, 1, 0] },
        slice(&[0; 4], &[1; 4], &[1; 4]),
        pad(&[0; 4], &[1; 4]),
        Op::Concat { inputs: vec![X], axis: 1 },
        requant(0, 24),
    ] {
        let name = op.name();
        let mut graph = one(&[1; 4], op);
        accepted(graph.clone());
        graph.nodes[0].scale = 4;
        assert_eq!(refused(graph), GraphError::Scale { site: site(name), expected: 5, found: 4 });
    }
    let mut least = one(&[1], requant(1, 24));
    least.inputs[0].scale = i32::MIN;
    let expected = i64::from(i32::MIN) - 1;
    assert_eq!(refused(least), GraphError::Scale { site: site("Requant"), expected, found: 5 });
}

#[test]
fn messages_name_node_and_operator() {
    let message = refused(one(&[7, 3], Op::MatMul { input: X, weight: W })).to_string();
    let expected =
        "node 0 (\"n\", MatMul): a matrix product needs input [.., K] and weight [N, K], not [2, 6, 5, 7] and [7, 3]";
    assert_eq!(message, expected);
}
