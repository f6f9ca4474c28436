//! Proofs are the same bytes as ever: any change of transcript, protocol or encoding shows here, and needs a new version.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::path::PathBuf;
use std::sync::Arc;

use shardproof_gkr::{
    Boundary, CommittedBoundaries, Proof, ProvingKey, Statement, Timings, VERSION, VerifyingKey, Visibility,
    commit_tensor, verify,
};
use shardproof_integer::{Executor, Graph, Input, Node, Op, Table, TableId, TensorId, Weight, WeightId, Weights};

/// Two dense layers, a ReLU, a table and a residual sum.
fn network() -> (Graph, Weights, Vec<i64>) {
    let weight = |name: &str, shape: &[usize]| Weight { name: name.to_owned(), shape: shape.to_vec(), bits: 7 };
    let node = |name: &str, op: Op, scale: i32| Node { name: name.to_owned(), op, scale };
    let graph = Graph {
        inputs: vec![Input { name: "x".to_owned(), shape: vec![1, 6], scale: 8 }],
        weights: vec![weight("first", &[5, 6]), weight("second", &[5, 5])],
        tables: vec![Table { name: "square".to_owned(), bits: 6, values: (-32..32).map(|x| x * x).collect() }],
        nodes: vec![
            node("product", Op::MatMul { input: TensorId(0), weight: WeightId(0) }, 14),
            node("relu", Op::Requant { input: TensorId(1), shift: 6, bits: 9, relu: true }, 8),
            node("second product", Op::MatMul { input: TensorId(2), weight: WeightId(1) }, 14),
            node("shrink", Op::Requant { input: TensorId(3), shift: 11, bits: 5, relu: false }, 3),
            node("square", Op::Table { input: TensorId(4), table: TableId(0) }, 6),
            node("sum", Op::Combine { terms: vec![(TensorId(5), 4), (TensorId(2), 1)], constant: 3 }, 8),
        ],
        outputs: vec![TensorId(6)],
    };
    let values = |n: i32, step: i32| (0..n).map(|i| (i * step + 11) % 101 - 50).collect();
    (graph, Weights(vec![values(30, 37), values(25, 29)]), vec![90, -70, 55, 120, -33, 8])
}

/// Reads a golden file; with `UPDATE_GOLDEN` set writes it first.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}-v{VERSION}.bin"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap()
}

#[test]
fn keys_and_proofs_are_the_same_bytes_as_ever() {
    let (graph, weights, input) = network();
    let graph = graph.check().unwrap();
    let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
    let inputs = vec![input];
    let trace = executor.run(&inputs, 1).unwrap();
    let committed = vec![vec![commit_tensor(trace.tensor(TensorId(6))).unwrap()]];
    let output = vec![vec![committed[0][0].commitment().clone()]];
    let statement = Statement {
        context: b"golden",
        runs: 1,
        input: Boundary::Public(&inputs),
        output: Boundary::Committed(&output),
    };
    let boundaries = CommittedBoundaries { input: &[], output: &committed };

    let key = ProvingKey::new(graph, weights, Visibility::Committed).unwrap();
    let key_bytes = key.verifying().to_bytes();
    let kept_key = golden("key", &key_bytes);
    assert!(kept_key == key_bytes, "the verifying key's bytes changed");
    let proof = key.prove(&statement, &trace, boundaries, &mut Timings::default()).unwrap().to_bytes();
    let kept_proof = golden("proof", &proof);
    let difference = kept_proof.iter().zip(&proof).position(|(a, b)| a != b);
    assert!(kept_proof == proof, "the proof's bytes changed, first at {difference:?} of {}", proof.len());

    let kept_key = VerifyingKey::from_bytes(&kept_key).unwrap();
    verify(&kept_key, None, &statement, &Proof::from_bytes(&kept_proof).unwrap()).unwrap();
}
