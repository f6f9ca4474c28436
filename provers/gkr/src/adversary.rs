//! Provers that lie in one place and go on honestly, so that only the check in question can catch them.
//!
//! A lie is told in the trace (an operator's result is another, and everything behind follows from it) or in the witness (a
//! digit, a sign, a table's result, a multiplicity). The prover proves whatever it is given.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod columns;
mod forms;
mod messages;
mod operands;
mod runs;
mod statements;
mod tensors;

use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::testing::{Size, random_graph};
use shardproof_integer::{
    CheckedGraph, Executor, Graph, Input, Node, Op, Table, TableId, TensorId, Trace, Weight, WeightId, Weights,
    reference,
};

use crate::channel::ChannelError;
use crate::channel::lies::{Change, tell};
use crate::error::{Committed, VerifyError};
use crate::field::{Base, Ext};
use crate::layout::{Columns, Layout, TableKind};
use crate::lookup::LookupError;
use crate::pcs;
use crate::prover::{CommittedBoundaries, ProveError, ProvingKey, Witness, witness};
use crate::soundness;
use crate::timings::Timings;
use crate::{Boundary, Proof, Statement, Visibility, commit_tensor, verify};

/// A graph with its keys, and a run.
struct Scene {
    graph: CheckedGraph,
    key: ProvingKey,
    /// Those that the owner registered.
    weights: Weights,
    trace: Trace,
    layout: Layout,
}

/// What a prover tells: where it is honest, all of one execution.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// Its inputs are the statement's.
    entered: &'a Trace,
    /// Its outputs are the statement's.
    left: &'a Trace,
    /// What nodes are proven with.
    trace: &'a Trace,
    /// What is committed to.
    committed: &'a [Base],
    /// What the lookup argument is about.
    looked_up: &'a [Base],
    /// What nodes take their columns from.
    columns: &'a [Base],
    /// Values in the clear that are others than those computed.
    messages: &'a [(usize, Change)],
}

impl<'a> Told<'a> {
    fn new(trace: &'a Trace, stack: &'a [Base]) -> Self {
        Self { entered: trace, left: trace, trace, committed: stack, looked_up: stack, columns: stack, messages: &[] }
    }
}

impl Scene {
    fn new(graph: Graph, weights: Weights, inputs: &[Vec<i64>]) -> Self {
        Self::of_runs(graph, weights, inputs, 1, Visibility::Committed)
    }

    fn of_runs(graph: Graph, weights: Weights, inputs: &[Vec<i64>], runs: usize, visibility: Visibility) -> Self {
        let graph = graph.check().unwrap();
        let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
        let trace = executor.run(inputs, runs).unwrap();
        let key = ProvingKey::new(graph.clone(), weights.clone(), visibility).unwrap();
        let layout = Layout::new(&graph, runs);
        Self { graph, key, weights, trace, layout }
    }

    /// An honest execution of other inputs.
    fn run(&self, inputs: &[Vec<i64>]) -> Trace {
        let executor = Executor::new(Arc::new(self.graph.clone()), &self.weights).unwrap();
        executor.run(inputs, self.layout.runs).unwrap()
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
        self.verdict_of(&Told::new(trace, &stack))
    }

    /// What the verifier says of a proof of all that is told, each part of which may contradict the others.
    fn verdict_of(&self, told: &Told<'_>) -> Result<(), VerifyError> {
        let inputs = self.inputs(told.entered);
        let outputs = self.tensors(told.left, self.graph.graph().outputs.iter().copied());
        let statement = Statement {
            context: b"adversary",
            runs: self.layout.runs,
            input: Boundary::Public(&inputs),
            output: Boundary::Public(&outputs),
        };
        let committed = pcs::commit(told.committed.to_vec()).unwrap();
        let witness = Witness { committed: &committed, looked_up: told.looked_up, columns: told.columns };
        let (boundaries, timings) = (CommittedBoundaries::default(), &mut Timings::default());
        let prove = || self.key.prove_committed(&statement, &self.layout, told.trace, witness, boundaries, timings);
        let proof = tell(told.messages, prove).unwrap();
        verify(self.key.verifying(), self.registered().as_ref(), &statement, &proof)
    }

    /// The trace with these results of the last node.
    fn leaving(&self, results: &[i64]) -> Trace {
        let mut trace = self.trace.clone();
        *trace.tensors.last_mut().unwrap() = results.to_vec();
        trace
    }

    fn inputs(&self, trace: &Trace) -> Vec<Vec<i64>> {
        self.tensors(trace, (0..self.graph.graph().inputs.len() as u32).map(TensorId))
    }

    fn registered(&self) -> Option<crate::RegisteredWeights> {
        let public = matches!(self.key.verifying().weights(), crate::WeightsKey::Public(_));
        public.then(|| self.key.verifying().register(self.weights.clone()).unwrap())
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

/// An honest proof with its statement's tensors.
fn honest(scene: &Scene) -> (Vec<Vec<i64>>, Vec<Vec<i64>>, Proof) {
    let inputs = scene.inputs(&scene.trace);
    let outputs = scene.tensors(&scene.trace, scene.graph.graph().outputs.iter().copied());
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let boundaries = CommittedBoundaries::default();
    let proof = scene.key.prove(&statement, &scene.trace, boundaries, &mut Timings::default()).unwrap();
    (inputs, outputs, proof)
}
