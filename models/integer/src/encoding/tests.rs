//! Golden bytes, and every cause to refuse some.

use super::MAX_GRAPH_BYTES;
use crate::check::{CheckedGraph, MAX_ITEMS};
use crate::error::{EncodingError, Site, WeightsError};
use crate::graph::{Conv, Graph, Input, Node, Op, Table, TableId, TensorId, Weight, WeightId, Weights, Window};
use crate::testing::{Random, Size, random_graph};

/// One node of every operator.
fn every_operator() -> Graph {
    let x = TensorId(0);
    let weight = |index| WeightId(index);
    let window = Window { kernel: [2, 3], stride: [1, 2], dilation: [2, 1], pad_height: [1, 0], pad_width: [0, 1] };
    let node = |(index, (op, scale)): (usize, (Op, i32))| Node { name: format!("n{index}"), op, scale };
    let ops = [
        (Op::MatMul { input: x, weight: weight(0) }, 9),
        (Op::Conv(Conv { input: x, weight: weight(1), groups: 3, window: window.clone() }), -2),
        (Op::MulWeight { input: x, weight: weight(2) }, 4),
        (Op::AddWeight { input: x, weight: weight(2), multiplier: -300 }, 3),
        (Op::Combine { terms: vec![(x, 2), (TensorId(4), -1)], constant: 1 << 40 }, 3),
        (Op::WindowSum { input: x, window }, 3),
        (Op::Reshape { input: x, shape: vec![3, 20] }, 3),
        (Op::Transpose { input: x, axes: vec![0, 2, 3, 1] }, 3),
        (Op::Slice { input: x, start: vec![0; 4], step: vec![1, 2, 1, 3], count: vec![1, 2, 4, 2] }, 3),
        (Op::Pad { input: x, before: vec![0, 0, 1, 0], after: vec![0, 0, 0, 2], value: -5 }, 3),
        (Op::Concat { inputs: vec![x, x], axis: 1 }, 3),
        (Op::Requant { input: TensorId(5), shift: 17, bits: 24, relu: true }, -14),
        (Op::Table { input: x, table: TableId(0) }, 0),
        (Op::MatMulTensors { left: x, right: x }, 6),
        (Op::MulTensors { left: x, right: TensorId(12) }, -11),
        (Op::ReduceSum { input: x, axes: vec![1, 3] }, 3),
        (Op::Expand { input: x, shape: vec![2, 3, 4, 5] }, 3),
        (Op::Gather { input: x, axis: 3, indices: vec![4, 0, 4] }, 3),
        (Op::Max { input: x }, 3),
        (Op::Divide { numerator: x, denominator: TensorId(13), bits: 31 }, 3),
        (Op::Sqrt { input: TensorId(14), bits: 30 }, 3),
    ];
    Graph {
        inputs: vec![Input { name: "x".into(), shape: vec![1, 3, 4, 5], scale: 3 }],
        weights: vec![
            Weight { name: "dense".into(), shape: vec![2, 5], bits: 6 },
            Weight { name: "kernel".into(), shape: vec![3, 1, 2, 3], bits: 14 },
            Weight { name: "bias".into(), shape: vec![1, 3, 1, 1], bits: 31 },
        ],
        tables: vec![Table { name: "sign".into(), bits: 2, values: vec![-1, -1, 0, 1 << 24] }],
        nodes: ops.into_iter().enumerate().map(node).collect(),
        outputs: vec![TensorId(13), TensorId(0)],
    }
}

fn weights() -> Weights {
    let values = |count: i32, scale: i32| (0..count).map(|i| (i - count / 2) * scale).collect();
    Weights(vec![values(10, 12), values(18, 1820), vec![i32::MIN, 1, i32::MAX]])
}

fn checked() -> CheckedGraph {
    every_operator().check().expect("a legal graph")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without line breaks.
fn golden(lines: &str) -> String {
    lines.split_whitespace().collect()
}

#[test]
fn golden_graph() {
    let bytes = every_operator().to_bytes();
    assert_eq!(hex(&bytes), golden(include_str!("graph-v2.hex")));
    assert_eq!(hex(&every_operator().digest()), GRAPH_DIGEST);
    assert_eq!(Graph::from_bytes(&bytes), Ok(every_operator()));
}

#[test]
fn golden_weights() {
    let graph = checked();
    let bytes = weights().to_bytes(&graph).expect("weights of the graph");
    assert_eq!(hex(&bytes), golden(include_str!("weights-v2.hex")));
    assert_eq!(bytes.len(), 1 + 10 + 18 * 2 + 3 * 4);
    assert_eq!(weights().digest(&graph).map(|digest| hex(&digest)).as_deref(), Ok(WEIGHTS_DIGEST));
    assert_eq!(Weights::from_bytes(&bytes, &graph), Ok(weights()));
}

const GRAPH_DIGEST: &str = "585be93741d11743ea20f2199cd9965185a64c2eeccf681da6743064fe7f43ad";
const WEIGHTS_DIGEST: &str = "88cfa6bd0ae75f23d9ffe2ab7c161b16a8cbd43629aa0d2f09f1cf440851a6b3";

#[test]
fn digests_depend_on_the_architecture_alone() {
    let mut other = every_operator();
    other.nodes[0].scale += 1;
    assert_ne!(other.digest(), every_operator().digest());
}

#[test]
fn too_long() {
    let error = Graph::from_bytes(&vec![2; MAX_GRAPH_BYTES + 1]);
    assert_eq!(error, Err(EncodingError::TooLong { limit: MAX_GRAPH_BYTES, found: MAX_GRAPH_BYTES + 1 }));
}

#[test]
fn empty() {
    assert_eq!(Graph::from_bytes(&[]), Err(EncodingError::Empty));
    assert_eq!(Weights::from_bytes(&[], &checked()), Err(EncodingError::Empty));
}

#[test]
fn version() {
    let mut bytes = every_operator().to_bytes();
    bytes[0] = 1;
    assert_eq!(Graph::from_bytes(&bytes), Err(EncodingError::Version { expected: 2, found: 1 }));
    let mut bytes = weights().to_bytes(&checked()).expect("weights of the graph");
    bytes[0] = 0;
    assert_eq!(Weights::from_bytes(&bytes, &checked()), Err(EncodingError::Version { expected: 2, found: 0 }));
}

#[test]
fn malformed() {
    let bytes = every_operator().to_bytes();
    for length in 1..bytes.len() {
        assert!(matches!(Graph::from_bytes(&bytes[..length]), Err(EncodingError::Malformed(_))), "{length} bytes");
    }
}

#[test]
fn lists_are_not_decoded_beyond_their_cap() {
    let decode = |count| {
        let outputs = vec![TensorId(0); count];
        Graph::from_bytes(&Graph { outputs, ..every_operator() }.to_bytes())
    };
    assert!(decode(MAX_ITEMS).is_ok());
    assert!(matches!(decode(MAX_ITEMS + 1), Err(EncodingError::Malformed(_))));
}

#[test]
fn trailing() {
    let bytes = [every_operator().to_bytes(), vec![0, 0]].concat();
    assert_eq!(Graph::from_bytes(&bytes), Err(EncodingError::Trailing { count: 2 }));
}

#[test]
fn not_canonical() {
    let bytes = every_operator().to_bytes();
    assert_eq!(bytes[1], 1, "one input");
    let padded = [&[bytes[0], 0x81, 0], &bytes[2..]].concat();
    assert_eq!(Graph::from_bytes(&padded), Err(EncodingError::NotCanonical));
}

#[test]
fn weights_length() {
    let bytes = weights().to_bytes(&checked()).expect("weights of the graph");
    for found in [bytes.len() - 1, bytes.len() + 1] {
        let mut other = bytes.clone();
        other.resize(found, 0);
        let expected = bytes.len();
        assert_eq!(Weights::from_bytes(&other, &checked()), Err(EncodingError::WeightsLength { expected, found }));
    }
}

#[test]
fn weights_beyond_their_bits() {
    let mut bytes = weights().to_bytes(&checked()).expect("weights of the graph");
    bytes[2] = 65;
    let site = Box::new(Site::Weight { index: 0, name: "dense".into() });
    let expected = WeightsError::Bound { site, index: 1, value: 65, bits: 6 };
    assert_eq!(Weights::from_bytes(&bytes, &checked()), Err(EncodingError::Weights(expected)));
}

#[test]
fn changed_bytes_are_refused_or_another_graph() {
    let mut random = Random::new(11);
    let mut legal = 0;
    for seed in 0..12 {
        let (graph, weights, _) = random_graph(seed, Size::SMALL);
        let bytes = graph.to_bytes();
        assert_eq!(Graph::from_bytes(&bytes).as_ref(), Ok(&graph));
        let checked = graph.check().expect("random graphs are legal");
        let encoded = weights.to_bytes(&checked).expect("random weights fit");
        assert_eq!(Weights::from_bytes(&encoded, &checked), Ok(weights));
        for _ in 0..2000 {
            let mut changed = bytes.clone();
            for _ in 0..random.within(1, 3) {
                let place = random.within(0, bytes.len() as i64 - 1) as usize;
                changed[place] = random.next_u64() as u8;
            }
            if let Ok(graph) = Graph::from_bytes(&changed) {
                assert_eq!(graph.to_bytes(), changed);
                legal += u32::from(graph.check().is_ok());
            }
        }
    }
    assert!(legal > 100, "only {legal} changes were harmless");
}
