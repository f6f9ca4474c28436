//! Provers that lie in one place and go on honestly, so that only the check in question can catch them.
//!
//! A lie is told in the trace (an operator's result is another, and everything behind follows from it) or in the witness (a
//! digit, a sign, a table's result, a multiplicity). The prover proves whatever it is given.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod forms;
mod messages;
mod tensors;

use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::testing::{Size, random_graph};
use shardproof_integer::{
    CheckedGraph, Executor, Graph, Input, Node, Op, Table, TableId, TensorId, Trace, Weight, WeightId, Weights,
    reference,
};

use crate::channel::ChannelError;
use crate::error::{Committed, VerifyError};
use crate::field::{Base, Ext};
use crate::layout::{Columns, Layout, TableKind};
use crate::lookup::LookupError;
use crate::prover::{CommittedBoundaries, ProveError, ProvingKey, witness};
use crate::soundness;
use crate::timings::Timings;
use crate::{Boundary, Proof, Statement, Visibility, commit_tensor, verify};

/// A graph with its keys, and a run.
struct Scene {
    graph: CheckedGraph,
    key: ProvingKey,
    trace: Trace,
    layout: Layout,
}

impl Scene {
    fn new(graph: Graph, weights: Weights, inputs: &[Vec<i64>]) -> Self {
        let graph = graph.check().unwrap();
        let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
        let trace = executor.run(inputs, 1).unwrap();
        let key = ProvingKey::new(graph.clone(), weights, Visibility::Committed).unwrap();
        let layout = Layout::new(&graph, 1);
        Self { graph, key, trace, layout }
    }

    /// Two dense layers with a ReLU between, a table and a residual sum behind.
    fn network() -> Self {
        let (graph, weights, input) = network();
        Self::new(graph, weights, &[input])
    }

    fn stack(&self, trace: &Trace) -> Vec<Base> {
        witness::stack(&self.graph, &self.layout, trace)
    }

    fn tensors(&self, trace: &Trace, ids: impl IntoIterator<Item = TensorId>) -> Vec<Vec<i64>> {
        ids.into_iter().map(|tensor| trace.tensor(tensor).to_vec()).collect()
    }

    /// What the verifier says of a proof that `stack` and `trace` are right.
    fn verdict(&self, trace: &Trace, stack: Vec<Base>) -> Result<(), VerifyError> {
        let inputs = self.tensors(trace, (0..self.graph.graph().inputs.len() as u32).map(TensorId));
        let outputs = self.tensors(trace, self.graph.graph().outputs.iter().copied());
        let statement = Statement {
            context: b"adversary",
            runs: 1,
            input: Boundary::Public(&inputs),
            output: Boundary::Public(&outputs),
        };
        let boundaries = CommittedBoundaries::default();
        let timings = &mut Timings::default();
        let proof = self.key.prove_witness(&statement, &self.layout, trace, stack, boundaries, timings).unwrap();
        verify(self.key.verifying(), None, &statement, &proof)
    }

    /// The trace with tensor `at` changed by `change` and everything behind computed from it; nothing when that fails.
    fn lie(&self, at: TensorId, change: impl FnOnce(&mut [i64])) -> Option<Trace> {
        let mut trace = Trace { runs: 1, tensors: self.trace.tensors.clone() };
        change(&mut trace.tensors[at.0 as usize]);
        let first = at.0 as usize + 1;
        for tensor in first.max(self.graph.graph().inputs.len())..trace.tensors.len() {
            let node = tensor - self.graph.graph().inputs.len();
            trace.tensors[tensor] = self.apply(node, &trace)?;
        }
        Some(trace)
    }

    fn apply(&self, node: usize, trace: &Trace) -> Option<Vec<i64>> {
        let graph = self.graph.graph();
        let tensors: Vec<reference::Tensor> = (0..graph.result(node).0)
            .map(|tensor| {
                reference::Tensor::new(self.graph.shape(TensorId(tensor)), trace.tensor(TensorId(tensor)).to_vec())
            })
            .collect();
        let result = reference::apply(graph, self.key.weights(), &graph.nodes[node].op, &tensors)?;
        result.values.into_iter().map(|value| i64::try_from(value).ok()).collect()
    }

    fn columns(&self, operator: &str) -> Columns {
        let nodes = self.graph.graph().nodes.iter().zip(&self.layout.nodes);
        let mut found = nodes.filter(|(node, _)| node.name == operator).filter_map(|(_, columns)| columns.clone());
        found.next().unwrap()
    }
}

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
    let weights = Weights(vec![values(30, 37), values(25, 29)]);
    (graph, weights, vec![90, -70, 55, 120, -33, 8])
}

#[test]
fn the_honest_prover_is_accepted() {
    let scene = Scene::network();
    scene.verdict(&scene.trace, scene.stack(&scene.trace)).unwrap();
    assert!(scene.trace.tensor(TensorId(2)).contains(&0), "some ReLU is closed");
    assert!(scene.trace.tensor(TensorId(2)).iter().any(|&value| value > 0), "some ReLU is open");
}

/// Index of an accumulator of the ReLU whose sign is negative.
fn negative(scene: &Scene) -> usize {
    scene.trace.tensor(TensorId(1)).iter().position(|&value| value < -64).unwrap()
}

#[test]
fn a_wrong_sign_needs_a_digit_out_of_range() {
    let scene = Scene::network();
    let Columns::Requant { high, sign: Some(sign), .. } = scene.columns("relu") else { panic!("digits") };
    let i = negative(&scene);
    let mut stack = scene.stack(&scene.trace);
    // The accumulator stays what it is: 2^(shift+bits) moves from the upper digits to the sign.
    let top = high.last().unwrap();
    stack[sign.offset + i] = Base::ONE;
    stack[top.offset + i] -= Base::from_u64(1 << (9 - top.position));
    // The result follows from the lie: q itself instead of zero.
    let q = (scene.trace.tensor(TensorId(1))[i] + 32) >> 6;
    let trace = scene.lie(TensorId(2), |values| values[i] = q).unwrap();
    let mut lied = scene.stack(&trace);
    for digit in high.iter().chain([&sign]) {
        lied[digit.offset + i] = stack[digit.offset + i];
    }
    let verdict = scene.verdict(&trace, lied);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
}

#[test]
fn a_sign_that_is_no_bit_is_no_row_of_its_table() {
    let scene = Scene::network();
    let Columns::Requant { sign: Some(sign), .. } = scene.columns("relu") else { panic!("digits") };
    let mut stack = scene.stack(&scene.trace);
    stack[sign.offset + negative(&scene)] = Base::TWO;
    let verdict = scene.verdict(&scene.trace, stack);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
}

#[test]
fn a_wrong_remainder_contradicts_the_product() {
    let scene = Scene::network();
    let Columns::Requant { low, .. } = scene.columns("relu") else { panic!("digits") };
    let mut trace = scene.lie(TensorId(1), |values| values[0] ^= 1).unwrap();
    let stack = scene.stack(&trace);
    assert_ne!(stack[low[0].offset], scene.stack(&scene.trace)[low[0].offset]);
    trace.tensors[1] = scene.trace.tensors[1].clone();
    let verdict = scene.verdict(&trace, stack);
    assert!(matches!(&verdict, Err(VerifyError::Reduction { node, .. }) if node == "product"), "{verdict:?}");
}

#[test]
fn an_accumulator_cannot_wrap_around_the_modulus() {
    let scene = Scene::network();
    let Columns::Requant { low, .. } = scene.columns("relu") else { panic!("digits") };
    let mut stack = scene.stack(&scene.trace);
    // The same element of the field, written with a lowest digit that is the modulus too large.
    let digit = low[0];
    let above = &low.get(1).copied().unwrap_or(digit);
    stack[digit.offset] += Base::from_u64(1 << (above.position - digit.position).max(1));
    if above != &digit {
        stack[above.offset] -= Base::ONE;
    }
    let verdict = scene.verdict(&scene.trace, stack);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
}

#[test]
fn multiplicities_off_by_one_do_not_balance() {
    let scene = Scene::network();
    for table in &scene.layout.tables {
        let mut stack = scene.stack(&scene.trace);
        stack[table.cells.start] += Base::ONE;
        let verdict = scene.verdict(&scene.trace, stack);
        assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
    }
}

#[test]
fn a_wrong_table_result_is_no_row() {
    let scene = Scene::network();
    let Columns::Table { result, .. } = scene.columns("square") else { panic!("a table") };
    let trace = scene.lie(TensorId(5), |values| values[2] += 1).unwrap();
    let mut stack = scene.stack(&trace);
    stack[result + 2] += Base::ONE;
    let verdict = scene.verdict(&trace, stack);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
}

#[test]
fn a_row_for_another_argument_is_no_row_for_the_inputs() {
    let scene = Scene::network();
    let Columns::Table { argument, result } = scene.columns("square") else { panic!("a table") };
    let arguments = scene.trace.tensor(TensorId(4));
    let (i, j) = (0, arguments.iter().position(|x| x * x != arguments[0] * arguments[0]).unwrap());
    // Argument and result of j in place of those of i: a row of the table, and counted as such.
    let trace = scene.lie(TensorId(5), |values| values[i] = values[j]).unwrap();
    let mut stack = scene.stack(&trace);
    stack[argument + i] = stack[argument + j];
    stack[result + i] = stack[result + j];
    let table = scene.layout.tables.iter().find(|table| matches!(table.kind, TableKind::Function(_))).unwrap();
    let row = |x: i64| table.cells.start + (x + 32) as usize;
    let mut rows = scene.stack(&scene.trace)[table.cells.clone()].to_vec();
    rows[row(arguments[i]) - table.cells.start] -= Base::ONE;
    rows[row(arguments[j]) - table.cells.start] += Base::ONE;
    stack[table.cells.clone()].copy_from_slice(&rows);
    let verdict = scene.verdict(&trace, stack);
    assert!(
        matches!(verdict, Err(VerifyError::Opening { what: Committed::Witness, .. } | VerifyError::Batch(_))),
        "{verdict:?}"
    );
}

#[test]
fn a_row_of_another_table_is_refused() {
    // The digit 3 is a row of every range of 2 bits or more; a sign of 3 is none of the range of 1 bit.
    let scene = Scene::network();
    let Columns::Requant { sign: Some(sign), .. } = scene.columns("relu") else { panic!("digits") };
    let mut stack = scene.stack(&scene.trace);
    stack[sign.offset] = Base::from_u64(3);
    let wide = scene.layout.tables.iter().max_by_key(|table| table.cells.len()).unwrap();
    stack[wide.cells.start + 3] += Base::ONE;
    let verdict = scene.verdict(&scene.trace, stack);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced))), "{verdict:?}");
}

#[test]
fn another_result_of_any_operator_is_refused() {
    let mut lies = std::collections::BTreeMap::new();
    for seed in 0..150 {
        let (graph, weights, inputs) = random_graph(seed, Size { nodes: 10, elements: 40 });
        let scene = Scene::new(graph, weights, &inputs);
        for node in 0..scene.graph.graph().nodes.len() {
            let tensor = scene.graph.graph().result(node);
            let Some(trace) = scene.lie(tensor, |values| values[0] += 1) else { continue };
            let outputs = |trace| scene.tensors(trace, scene.graph.graph().outputs.iter().copied());
            if outputs(&trace) == outputs(&scene.trace) {
                // A change that does not reach the outputs makes no false statement.
                continue;
            }
            let operator = scene.graph.graph().nodes[node].op.name();
            // Digits that the lie cannot be written with have no witness to try.
            let Ok(stack) = std::panic::catch_unwind(|| scene.stack(&trace)) else { continue };
            let verdict = scene.verdict(&trace, stack);
            assert!(verdict.is_err(), "seed {seed}: a false result of node {node}, {operator}, is accepted");
            *lies.entry(operator).or_insert(0) += 1;
        }
    }
    let operators = [
        "MatMul",
        "Conv",
        "MulWeight",
        "AddWeight",
        "Combine",
        "WindowSum",
        "Reshape",
        "Transpose",
        "Slice",
        "Pad",
        "Concat",
        "Requant",
        "Table",
        "MatMulTensors",
        "MulTensors",
        "ReduceSum",
        "Expand",
        "Gather",
        "Max",
        "Divide",
        "Sqrt",
    ];
    for operator in operators {
        assert!(lies.get(operator).is_some_and(|&count| count >= 3), "{operator}: {lies:?}");
    }
}

#[test]
fn weights_count_under_the_key_that_they_were_registered_under() {
    // The same values, and so the same digest, as one matrix and as its two halves.
    let graph = |shapes: &[usize]| {
        let weight = |&rows: &usize| Weight { name: String::new(), shape: vec![rows, 1], bits: 0 };
        let count = shapes.len() as u32;
        let product = |weight| Op::MatMul { input: TensorId(0), weight: WeightId(weight) };
        Graph {
            inputs: vec![Input { name: "x".to_owned(), shape: vec![1, 1], scale: 0 }],
            weights: shapes.iter().map(weight).collect(),
            tables: vec![],
            nodes: (0..count).map(|i| Node { name: format!("product {i}"), op: product(i), scale: 0 }).collect(),
            outputs: (1..=count).map(TensorId).collect(),
        }
    };
    let key = |shapes: &[usize], weights: Vec<Vec<i32>>| {
        ProvingKey::new(graph(shapes).check().unwrap(), Weights(weights), Visibility::Public).unwrap()
    };
    let whole = key(&[4], vec![vec![1, 0, -1, 1]]);
    let halves = key(&[2, 2], vec![vec![1, 0], vec![-1, 1]]);
    assert_eq!(whole.verifying().weights(), halves.verifying().weights());
    let registered = |key: &ProvingKey| key.verifying().register(key.weights().clone()).unwrap();
    let (input, output) = (vec![vec![3]], vec![vec![3, 0, -3, 3]]);
    let statement =
        Statement { context: b"", runs: 1, input: Boundary::Public(&input), output: Boundary::Public(&output) };
    let executor = Executor::new(Arc::new(whole.verifying().graph().clone()), whole.weights()).unwrap();
    let trace = executor.run(&input, 1).unwrap();
    let proof = whole.prove(&statement, &trace, CommittedBoundaries::default(), &mut Timings::default()).unwrap();
    verify(whole.verifying(), Some(&registered(&whole)), &statement, &proof).unwrap();
    for (weights, reason) in
        [(Some(registered(&halves)), "registered under another key"), (None, "the model is needed")]
    {
        let verdict = verify(whole.verifying(), weights.as_ref(), &statement, &proof);
        assert!(matches!(&verdict, Err(VerifyError::Weights(why)) if why.contains(reason)), "{verdict:?}");
    }
}

#[test]
fn other_weights_are_refused() {
    let (graph, weights, input) = network();
    let scene = Scene::network();
    let mut others = weights.clone();
    others.0[1][7] += 1;
    let executor = Executor::new(Arc::new(scene.graph.clone()), &others).unwrap();
    let trace = executor.run(&[input], 1).unwrap();
    for visibility in [Visibility::Committed, Visibility::Public] {
        let honest = ProvingKey::new(graph.clone().check().unwrap(), weights.clone(), visibility).unwrap();
        let registered =
            (visibility == Visibility::Public).then(|| honest.verifying().register(weights.clone()).unwrap());
        // The thief runs and proves with its own weights under the owner's key.
        let key = honest.verifying().clone();
        let thief = honest.with_weights(others.clone());
        let inputs = scene.tensors(&trace, [TensorId(0)]);
        let outputs = scene.tensors(&trace, [TensorId(6)]);
        let statement =
            Statement { context: b"", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
        let proof = thief.prove(&statement, &trace, CommittedBoundaries::default(), &mut Timings::default()).unwrap();
        let verdict = verify(&key, registered.as_ref(), &statement, &proof);
        match visibility {
            Visibility::Committed => {
                assert!(matches!(verdict, Err(VerifyError::Opening { what: Committed::Weights, .. })), "{verdict:?}");
            }
            Visibility::Public => {
                assert!(
                    matches!(&verdict, Err(VerifyError::WeightValue { weight }) if weight == "second"),
                    "{verdict:?}"
                );
            }
        }
    }
}

/// An honest proof with its statement's tensors.
fn honest(scene: &Scene) -> (Vec<Vec<i64>>, Vec<Vec<i64>>, Proof) {
    let inputs = scene.tensors(&scene.trace, [TensorId(0)]);
    let outputs = scene.tensors(&scene.trace, scene.graph.graph().outputs.iter().copied());
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let boundaries = CommittedBoundaries::default();
    let proof = scene.key.prove(&statement, &scene.trace, boundaries, &mut Timings::default()).unwrap();
    (inputs, outputs, proof)
}

#[test]
fn a_proof_is_of_its_statement_alone() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let verdict = |context, inputs: &[Vec<i64>], outputs: &[Vec<i64>]| {
        let statement =
            Statement { context, runs: 1, input: Boundary::Public(inputs), output: Boundary::Public(outputs) };
        verify(scene.key.verifying(), None, &statement, &proof)
    };
    verdict(b"a", &inputs, &outputs).unwrap();
    assert!(verdict(b"b", &inputs, &outputs).is_err(), "another context");
    for element in 0..inputs[0].len() {
        let mut others = inputs.clone();
        others[0][element] += 1;
        assert!(verdict(b"a", &others, &outputs).is_err(), "another input");
    }
    for element in 0..outputs[0].len() {
        let mut others = outputs.clone();
        others[0][element] -= 1;
        assert!(verdict(b"a", &inputs, &others).is_err(), "another output");
    }
}

#[test]
fn boundaries_of_another_form_are_refused_before_the_proof_is_read() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let verdict = |runs, inputs: &[Vec<i64>]| {
        let statement =
            Statement { context: b"a", runs, input: Boundary::Public(inputs), output: Boundary::Public(&outputs) };
        verify(scene.key.verifying(), None, &statement, &proof)
    };
    let mut out_of_range = inputs.clone();
    out_of_range[0][0] = (1 << 24) + 1;
    let mut short = inputs.clone();
    short[0].pop();
    for (runs, inputs) in [(0, &inputs), (2, &inputs), (1, &vec![]), (1, &short), (1, &out_of_range)] {
        let verdict = verdict(runs, inputs);
        assert!(matches!(verdict, Err(VerifyError::Boundary(_))), "{verdict:?}");
    }
}

#[test]
fn a_committed_boundary_is_the_tensor_that_was_committed_to() {
    let scene = Scene::network();
    let inputs = scene.tensors(&scene.trace, [TensorId(0)]);
    let outputs = scene.tensors(&scene.trace, scene.graph.graph().outputs.iter().copied());
    let mut another = inputs[0].clone();
    another[3] += 1;
    for (tensor, accepted) in [(&inputs[0], true), (&another, false)] {
        let committed = vec![vec![commit_tensor(tensor).unwrap()]];
        let commitments = vec![vec![committed[0][0].commitment().clone()]];
        let statement = Statement {
            context: b"",
            runs: 1,
            input: Boundary::Committed(&commitments),
            output: Boundary::Public(&outputs),
        };
        let boundaries = CommittedBoundaries { input: &committed, output: &[] };
        let stack = scene.stack(&scene.trace);
        let timings = &mut Timings::default();
        let proof =
            scene.key.prove_witness(&statement, &scene.layout, &scene.trace, stack, boundaries, timings).unwrap();
        let verdict = verify(scene.key.verifying(), None, &statement, &proof);
        assert_eq!(verdict.is_ok(), accepted, "{verdict:?}");
        if !accepted {
            let what = Committed::Input { tensor: 0, run: 0 };
            assert!(matches!(&verdict, Err(VerifyError::Batch(found)) if *found == what), "{verdict:?}");
        }
    }
}

#[test]
fn truncated_extended_and_reordered_proofs_are_refused() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let verdict = |proof: &Proof| {
        let statement =
            Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
        verify(scene.key.verifying(), None, &statement, proof)
    };
    let change = |change: &dyn Fn(&mut Proof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        verdict(&changed).unwrap_err()
    };
    let short = |error: &VerifyError| {
        matches!(
            error,
            VerifyError::Channel(_) | VerifyError::Lookup(LookupError::Channel(ChannelError::Exhausted { .. }))
        )
    };
    assert!(short(&change(&|proof| proof.values.truncate(3))));
    assert!(short(&change(&|proof| proof.values.truncate(proof.values.len() - 1))));
    assert!(matches!(change(&|proof| proof.values.push(Ext::ZERO)), VerifyError::Channel(_)));
    let openings = |found| move |error: &VerifyError| matches!(error, VerifyError::Openings { expected: 2, found: f } if *f == found);
    assert!(openings(1)(&change(&|proof| drop(proof.openings.pop()))));
    assert!(openings(3)(&change(&|proof| proof.openings.push(proof.openings[0].clone()))));
    assert!(matches!(change(&|proof| proof.openings.swap(0, 1)), VerifyError::Opening { .. }));
    assert!(matches!(change(&|proof| proof.witness.as_mut().unwrap().num_vars += 1), VerifyError::Boundary(_)));
    for (first, second) in [(0, 1), (4, 9), (20, 21)] {
        change(&|proof| proof.values.swap(first, second));
    }
}

#[test]
fn every_byte_of_a_proof_counts() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let bytes = proof.to_bytes();
    let accepted = |bytes: &[u8]| {
        Proof::from_bytes(bytes).is_ok_and(|proof| verify(scene.key.verifying(), None, &statement, &proof).is_ok())
    };
    assert!(accepted(&bytes));
    // All of the values in the clear, and a sample of the openings, whose own tests flip every byte.
    let openings = bytes.len() - proof.openings.iter().map(|opening| opening.as_bytes().len()).sum::<usize>();
    for place in (0..openings).chain((openings..bytes.len()).step_by(97)) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        assert!(!accepted(&flipped), "byte {place} may be flipped");
    }
    for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(!accepted(&bytes[..length]), "{length} bytes are enough");
    }
    assert!(!accepted(&[&bytes[..], &[0]].concat()), "a byte may follow");
}

#[test]
fn too_many_openings_in_one_proof_are_refused_by_both_sides() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let bits = |runs: usize| {
        let boundary = Boundary::Committed(&[]);
        let statement = Statement { context: b"", runs, input: boundary, output: boundary };
        soundness::proof(scene.key.verifying(), &statement).unwrap().total_bits()
    };
    assert!(bits(1) > soundness::MIN_BITS + 1.0 && bits(64) < soundness::MIN_BITS, "{} {}", bits(1), bits(64));
    let runs = 64;
    let repeated: Vec<Vec<i64>> = inputs.iter().map(|values| values.repeat(runs)).collect();
    let executor = Executor::new(Arc::new(scene.graph.clone()), scene.key.weights()).unwrap();
    let trace = executor.run(&repeated, runs).unwrap();
    let committed = |values: &Vec<i64>| (0..runs).map(|_| commit_tensor(values).unwrap()).collect::<Vec<_>>();
    let sides = [vec![committed(&inputs[0])], vec![committed(&outputs[0])]];
    let commitments = |side: &Vec<Vec<crate::pcs::Committed>>| -> Vec<Vec<_>> {
        side.iter().map(|runs| runs.iter().map(|tensor| tensor.commitment().clone()).collect()).collect()
    };
    let (input, output) = (commitments(&sides[0]), commitments(&sides[1]));
    let statement =
        Statement { context: b"", runs, input: Boundary::Committed(&input), output: Boundary::Committed(&output) };
    let boundaries = CommittedBoundaries { input: &sides[0], output: &sides[1] };
    let refused = scene.key.prove(&statement, &trace, boundaries, &mut Timings::default());
    assert!(matches!(refused, Err(ProveError::Soundness { runs: 64, .. })));
    let verdict = verify(scene.key.verifying(), None, &statement, &proof);
    assert!(matches!(verdict, Err(VerifyError::Soundness { .. })), "{verdict:?}");
}
