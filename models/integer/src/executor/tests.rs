//! The executor agrees with the reference, on graphs of every operator and on every kernel; every error of a run.

mod tensors;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::matmul::Matrix;
use super::{Executor, MAX_BATCH_ELEMENTS, Trace};
use crate::check::{Bounds, CheckedGraph};
use crate::error::{RunError, Site};
use crate::graph::{Conv, Graph, Input, Node, Op, Table, TableId, TensorId, Weight, WeightId, Weights, Window};
use crate::reference;
use crate::testing::{Random, Size, random_batch};

/// The trace's values of one run.
fn part(values: &[i64], runs: usize, run: usize) -> Vec<i64> {
    let elements = values.len() / runs;
    values[run * elements..][..elements].to_vec()
}

/// Compares every tensor of every run with the reference's, and with its bounds.
fn compare(checked: &CheckedGraph, weights: &Weights, trace: &Trace) {
    let Trace { runs, tensors } = trace;
    assert_eq!(tensors.len(), checked.tensors());
    for run in 0..*runs {
        let inputs = tensors[..checked.graph().inputs.len()].iter();
        let inputs: Vec<_> = inputs.map(|values| part(values, *runs, run)).collect();
        let expected = reference::run(checked.graph(), weights, &inputs).expect("the reference runs too");
        for (index, expected) in expected.iter().enumerate() {
            let tensor = TensorId(index as u32);
            let found = part(trace.tensor(tensor), *runs, run);
            assert!(&found == expected, "run {run}, tensor {index} of {:?}", checked.graph());
            assert_eq!(found.len(), checked.elements(tensor));
            assert!(found.iter().all(|&value| checked.bounds(tensor).contains(value)), "tensor {index}");
        }
    }
}

/// Runs a random graph, and gives the operators that it holds.
fn agrees(seed: u64, size: Size, runs: usize) -> BTreeSet<&'static str> {
    let (graph, weights, inputs) = random_batch(seed, size, runs);
    let names = graph.nodes.iter().map(|node| node.op.name()).collect();
    let checked = Arc::new(graph.check().expect("random graphs are legal"));
    let executor = Executor::new(checked.clone(), &weights).expect("random weights fit");
    let trace = executor.run(&inputs, runs).expect("random graphs run on their inputs");
    assert_eq!(trace.runs, runs);
    compare(&checked, &weights, &trace);
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
    assert_eq!(names.len(), 21, "{names:?}");
}

/// Graphs that an attacker changed, as far as they are legal and small, run or fail as the reference does.
#[test]
fn changed_graphs_agree() {
    let mut random = Random::new(5);
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..40 {
        let (graph, _, _) = random_batch(seed, Size::SMALL, 1);
        let bytes = graph.to_bytes();
        for _ in 0..150 {
            let mut changed = bytes.clone();
            let place = random.within(0, bytes.len() as i64 - 1) as usize;
            changed[place] = random.within(0, 12) as u8;
            let Ok(graph) = Graph::from_bytes(&changed) else { continue };
            let Ok(checked) = graph.check() else { continue };
            let elements = (0..checked.tensors()).map(|id| checked.elements(TensorId(id as u32))).sum::<usize>();
            let declared = &checked.graph().weights;
            let weighed = declared.iter().map(|weight| weight.shape.iter().product::<usize>()).sum::<usize>();
            if elements + weighed > 3000 {
                continue;
            }
            let mut values =
                |count: usize, most: i64| (0..count).map(|_| random.within(-most, most)).collect::<Vec<_>>();
            let weight = |weight: &Weight| {
                let values = values(weight.shape.iter().product(), (1 << weight.bits).min(i32::MAX.into()));
                values.into_iter().map(|value| value as i32).collect()
            };
            let weights = Weights(declared.iter().map(weight).collect());
            let inputs: Vec<_> =
                checked.graph().inputs.iter().map(|input| values(input.shape.iter().product(), 40)).collect();
            let checked = Arc::new(checked);
            let executor = Executor::new(checked.clone(), &weights).expect("weights fit");
            match executor.run(&inputs, 1) {
                Ok(trace) => {
                    answered += 1;
                    compare(&checked, &weights, &trace);
                }
                Err(_) => {
                    failed += 1;
                    assert_eq!(reference::run(checked.graph(), &weights, &inputs), None);
                }
            }
        }
    }
    assert!(answered > 100 && failed > 30, "{answered} answered, {failed} failed");
}

/// Products of every kernel, for few and for many rows.
#[test]
fn matrix_products() {
    let mut random = Random::new(3);
    let mut kinds = BTreeSet::new();
    for (weight_bits, value_bits) in [(4, 7), (9, 14), (15, 15), (10, 17), (31, 30), (31, 24), (8, 50), (0, 61)] {
        for (rows, columns, depth) in [(1, 1, 1), (1, 300, 260), (3, 301, 133), (70, 33, 150), (67, 5, 1000), (5, 1, 9)]
        {
            let weight_most = ((1_i64 << weight_bits) - 1).max(1);
            let most = (1_i64 << value_bits) - 1;
            // The largest magnitudes now and then, in a row, so that narrow sums come near their limits.
            let mut value = |most: i64| if random.within(0, 2) == 0 { random.within(-most, most) } else { most };
            let weight: Vec<i32> = (0..columns * depth).map(|_| value(weight_most) as i32).collect();
            let values: Vec<i64> = (0..rows * depth).map(|_| value(most)).collect();
            if i128::from(most) * i128::from(weight_most) * depth as i128 >= 1 << 62 {
                continue;
            }
            let matrix = Matrix::new(&weight, depth, Bounds { low: -most, high: most });
            kinds.insert(match matrix {
                Matrix::Short { span, .. } if span < depth => "16 bits in spans",
                Matrix::Short { .. } => "16 bits",
                Matrix::Medium { .. } => "32 bits",
                Matrix::Long { .. } => "64 bits",
            });
            let product = matrix.times_rows(&values);
            assert_eq!(product.len(), rows * columns);
            for row in 0..rows {
                for column in 0..columns {
                    let pairs = values[row * depth..][..depth].iter().zip(&weight[column * depth..]);
                    let expected: i64 = pairs.map(|(&x, &w)| x * i64::from(w)).sum();
                    assert_eq!(product[row * columns + column], expected, "{weight_bits} {value_bits} {row} {column}");
                }
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from(["16 bits", "16 bits in spans", "32 bits", "64 bits"]));
}

fn graph(shape: &[usize], weights: &[&[usize]], ops: Vec<(Op, i32)>) -> Graph {
    let node = |(op, scale): (Op, i32)| Node { name: "n".into(), op, scale };
    let weight = |shape: &&[usize]| Weight { name: "w".into(), shape: shape.to_vec(), bits: 8 };
    Graph {
        inputs: vec![Input { name: "x".into(), shape: shape.to_vec(), scale: 0 }],
        weights: weights.iter().map(weight).collect(),
        tables: vec![Table { name: "t".into(), bits: 3, values: (0..8).map(|value| value * value).collect() }],
        nodes: ops.into_iter().map(node).collect(),
        outputs: vec![TensorId(0)],
    }
}

/// Runs on random values of at most `most`.
fn run_random(graph: Graph, most: i64, runs: usize) -> (Arc<CheckedGraph>, Weights, Trace) {
    let mut random = Random::new(17);
    let checked = Arc::new(graph.check().expect("a legal graph"));
    let mut values = |count: usize, most: i64| (0..count).map(|_| random.within(-most, most)).collect::<Vec<_>>();
    let weights = checked.graph().weights.iter();
    let weights =
        weights.map(|weight| values(weight.shape.iter().product(), 256).into_iter().map(|w| w as i32).collect());
    let weights = Weights(weights.collect());
    let input = values(runs * checked.elements(TensorId(0)), most);
    let trace = Executor::new(checked.clone(), &weights).expect("weights fit").run(&[input], runs).expect("in range");
    (checked, weights, trace)
}

/// Sizes at which elementwise operators, convolutions and their unrolled windows are divided.
#[test]
fn large_tensors() {
    let x = TensorId(0);
    let window = Window { kernel: [3, 2], stride: [1, 2], dilation: [2, 1], pad_height: [1, 2], pad_width: [0, 1] };
    let conv =
        |input, weight, groups| Op::Conv(Conv { input, weight: WeightId(weight), groups, window: window.clone() });
    let ops = vec![
        (Op::Requant { input: x, shift: 2, bits: 14, relu: false }, -2),
        (conv(TensorId(1), 0, 3), -2),
        (conv(x, 0, 3), 0),
        (Op::MulWeight { input: x, weight: WeightId(1) }, 0),
        (Op::AddWeight { input: x, weight: WeightId(2), multiplier: -5 }, 0),
        (Op::Combine { terms: vec![(x, 3), (TensorId(4), -1)], constant: 9 }, 0),
        (Op::WindowSum { input: x, window: window.clone() }, 0),
        (Op::Transpose { input: x, axes: vec![3, 0, 2, 1] }, 0),
        (conv(x, 3, 6), 0),
        (conv(TensorId(1), 4, 1), -2),
    ];
    let weights: &[&[usize]] = &[&[6, 2, 3, 2], &[1, 6, 1, 1], &[1, 1, 61, 63], &[6, 1, 3, 2], &[1, 6, 3, 2]];
    let (checked, weights, trace) = run_random(graph(&[1, 6, 61, 63], weights, ops), 50_000, 2);
    compare(&checked, &weights, &trace);
}

#[test]
fn convolutions_in_several_parts() {
    let shape = [1, 40, 60, 60];
    let window = Window { kernel: [5, 5], stride: [1, 1], dilation: [1, 1], pad_height: [2, 2], pad_width: [2, 2] };
    let positions = 60 * 60;
    assert!(positions * 40 * 25 > 3 * super::conv::UNROLLED);
    let conv = Op::Conv(Conv { input: TensorId(1), weight: WeightId(0), groups: 1, window: window.clone() });
    let requant = Op::Requant { input: TensorId(0), shift: 0, bits: 12, relu: false };
    let (_, weights, trace) = run_random(graph(&shape, &[&[2, 40, 5, 5]], vec![(requant, 0), (conv, 0)]), 4000, 1);
    let (x, y) = (&trace.tensors[1], &trace.tensors[2]);
    let at = |c: usize, h: usize, w: usize| {
        let inside = (2..62).contains(&h) && (2..62).contains(&w);
        if inside { x[(c * 60 + h - 2) * 60 + w - 2] } else { 0 }
    };
    for (index, &found) in y.iter().enumerate() {
        let (m, h, w) = (index / positions, index / 60 % 60, index % 60);
        let taps = weights.0[0][m * 1000..][..1000].iter().enumerate();
        let expected: i64 = taps.map(|(k, &v)| i64::from(v) * at(k / 25, h + k / 5 % 5, w + k % 5)).sum();
        assert_eq!(found, expected, "element {index}");
    }
}

/// A run of `ops` on one input of `elements`, on `values`.
fn run(elements: usize, ops: Vec<(Op, i32)>, values: Vec<i64>, runs: usize) -> Result<Trace, RunError> {
    let checked = Arc::new(graph(&[elements], &[], ops).check().expect("a legal graph"));
    Executor::new(checked, &Weights(vec![])).expect("no weights").run(&[values], runs)
}

#[test]
fn no_runs() {
    assert_eq!(run(2, vec![], vec![], 0), Err(RunError::NoRuns));
}

#[test]
fn too_many_runs() {
    for runs in [MAX_BATCH_ELEMENTS / 2 + 1, usize::MAX] {
        let error = run(2, vec![], vec![], runs);
        assert_eq!(error, Err(RunError::TooManyRuns { runs, limit: MAX_BATCH_ELEMENTS }));
    }
}

#[test]
fn input_count() {
    let checked = Arc::new(graph(&[1], &[], vec![]).check().expect("a legal graph"));
    let executor = Executor::new(checked, &Weights(vec![])).expect("no weights");
    assert_eq!(executor.run(&[vec![0], vec![0]], 1), Err(RunError::InputCount { expected: 1, found: 2 }));
}

fn input() -> Box<Site> {
    Box::new(Site::Input { index: 0, name: "x".into() })
}

#[test]
fn input_length() {
    let error = run(3, vec![], vec![0; 5], 2);
    assert_eq!(error, Err(RunError::InputLength { site: input(), runs: 2, expected: 6, found: 5 }));
}

#[test]
fn input_range() {
    let end = 1 << 24;
    assert!(run(2, vec![], vec![end, -end], 1).is_ok());
    for value in [end + 1, -end - 1] {
        let error = run(2, vec![], vec![0, 0, 0, value], 2);
        let allowed = Bounds::BOUNDARY;
        assert_eq!(error, Err(RunError::InputRange { site: input(), run: 1, index: 1, value, allowed }));
    }
}

#[test]
fn requant_range() {
    let requant = |relu, values: [i64; 6]| {
        run(3, vec![(Op::Requant { input: TensorId(0), shift: 2, bits: 3, relu }, -2)], values.to_vec(), 2)
    };
    let site = || Box::new(Site::Node { index: 0, name: "n".into(), op: "Requant" });
    let allowed = Bounds { low: -8, high: 7 };
    for relu in [false, true] {
        // 29 / 4 rounds to 7 and -34 / 4 to -8; halves round up.
        let trace = requant(relu, [29, -34, 2, -2, 1, -3]).expect("in range");
        let expected = [7, -8, 1, 0, 0, -1].map(|value| if relu { value.max(0) } else { value });
        assert_eq!(trace.tensors[1], expected);
        for (value, rescaled) in [(30, 8), (-35, -9)] {
            let error = requant(relu, [0, 0, 0, 0, 0, value]);
            assert_eq!(error, Err(RunError::RequantRange { site: site(), run: 1, index: 2, value: rescaled, allowed }));
        }
    }
}

#[test]
fn table_domain() {
    let look_up = |values: Vec<i64>, runs| {
        let elements = values.len() / runs;
        run(elements, vec![(Op::Table { input: TensorId(0), table: TableId(0) }, 0)], values, runs)
    };
    let trace = look_up(vec![-4, 3, 0], 1).expect("in the domain");
    assert_eq!(trace.tensors[1], [0, 49, 16]);
    let site = || Box::new(Site::Node { index: 0, name: "n".into(), op: "Table" });
    let allowed = Bounds { low: -4, high: 3 };
    for value in [4, -5] {
        let error = look_up(vec![0, 0, value, value], 2);
        assert_eq!(error, Err(RunError::TableDomain { site: site(), run: 1, index: 0, value, allowed }));
        // The first one is named where blocks are looked up in parallel, too.
        let mut many = vec![0; 200_000];
        many[150_001] = value;
        many[199_999] = value;
        let error = look_up(many, 2);
        assert_eq!(error, Err(RunError::TableDomain { site: site(), run: 1, index: 50_001, value, allowed }));
    }
}
