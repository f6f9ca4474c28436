//! Lies about one operand of one node, which the claim on that operand alone can catch: all else that is proven follows from
//! the lie.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{Conv, Window};

use super::tensors::{one, scale_of, write};
use super::*;

const NARROW: u32 = 6;

/// A node over inputs of these shapes and values, each brought to a few bits, and over one weight where it takes one.
pub(super) struct Operation {
    /// Reads tensors `inputs.len()` and following.
    pub op: Op,
    /// Shape and values in one run.
    pub inputs: Vec<(Vec<usize>, Vec<i64>)>,
    /// Shape and values.
    pub weight: Option<(Vec<usize>, Vec<i32>)>,
}

impl Operation {
    /// In `runs` runs, each of whose inputs are those of the one before, turned by one element.
    pub(super) fn scene(&self, runs: usize, visibility: Visibility) -> Scene {
        let count = self.inputs.len() as u32;
        let input =
            |(shape, _): &(Vec<usize>, Vec<i64>)| Input { name: "input".to_owned(), shape: shape.clone(), scale: 0 };
        let narrow = |input: u32| Op::Requant { input: TensorId(input), shift: 0, bits: NARROW, relu: false };
        let ops = (0..count).map(|input| ("narrow", narrow(input))).chain([("node", self.op.clone())]);
        let weight =
            |(shape, _): &(Vec<usize>, Vec<i32>)| Weight { name: "weight".to_owned(), shape: shape.clone(), bits: 4 };
        let graph = Graph {
            inputs: self.inputs.iter().map(input).collect(),
            weights: self.weight.iter().map(weight).collect(),
            tables: vec![Table {
                name: "cube".to_owned(),
                bits: NARROW + 1,
                values: (-64..64).map(|x| x * x * x).collect(),
            }],
            nodes: ops.map(|(name, op)| Node { name: name.to_owned(), scale: scale_of(&op), op }).collect(),
            outputs: vec![TensorId(2 * count)],
        };
        let turned = |values: &Vec<i64>, run: usize| {
            let mut values = values.clone();
            let first = run % values.len();
            values.rotate_left(first);
            values
        };
        let inputs: Vec<Vec<i64>> =
            self.inputs.iter().map(|(_, values)| (0..runs).flat_map(|run| turned(values, run)).collect()).collect();
        let weights = Weights(self.weight.iter().map(|(_, values)| values.clone()).collect());
        Scene::of_runs(graph, weights, &inputs, runs, visibility)
    }
}

/// Every operator; of those that multiply, with both operands.
pub(super) fn operations() -> Vec<Operation> {
    let six = || (vec![2, 3], vec![3, 11, 4, 1, 5, 9]);
    let other = || (vec![2, 3], vec![2, 6, 5, 3, 15, 8]);
    let image = || (vec![1, 2, 2, 3], vec![3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]);
    let window = Window { kernel: [2, 2], stride: [1, 1], dilation: [1, 1], pad_height: [0, 0], pad_width: [0, 1] };
    let one = |op| Operation { op, inputs: vec![six()], weight: None };
    let two = |op| Operation { op, inputs: vec![six(), other()], weight: None };
    let weighted = |op, shape: &[usize], values: &[i32]| Operation {
        op,
        inputs: vec![six()],
        weight: Some((shape.to_vec(), values.to_vec())),
    };
    let (input, left, right, weight) = (TensorId(1), TensorId(2), TensorId(3), WeightId(0));
    vec![
        two(Op::MatMulTensors { left, right }),
        two(Op::MulTensors { left, right }),
        one(Op::MulTensors { left: input, right: input }),
        two(Op::Combine { terms: vec![(left, 3), (right, -2)], constant: 5 }),
        two(Op::Concat { inputs: vec![left, right], axis: 1 }),
        two(Op::Divide { numerator: left, denominator: right, bits: 8 }),
        one(Op::Max { input }),
        one(Op::Sqrt { input, bits: 5 }),
        one(Op::Requant { input, shift: 2, bits: 5, relu: false }),
        one(Op::Requant { input, shift: 2, bits: 5, relu: true }),
        one(Op::Table { input, table: TableId(0) }),
        one(Op::Reshape { input, shape: vec![6] }),
        one(Op::Transpose { input, axes: vec![1, 0] }),
        one(Op::Slice { input, start: vec![0, 0], step: vec![1, 2], count: vec![2, 2] }),
        one(Op::Pad { input, before: vec![0, 1], after: vec![1, 0], value: 7 }),
        one(Op::ReduceSum { input, axes: vec![1] }),
        one(Op::Gather { input, axis: 1, indices: vec![2, 0, 2] }),
        Operation {
            op: Op::Expand { input, shape: vec![2, 3, 2] },
            inputs: vec![(vec![2, 3, 1], six().1)],
            weight: None,
        },
        Operation { op: Op::WindowSum { input, window: window.clone() }, inputs: vec![image()], weight: None },
        weighted(Op::MatMul { input, weight }, &[2, 3], &[1, -2, 3, 4, 5, -6]),
        weighted(Op::MulWeight { input, weight }, &[1, 3], &[1, -2, 3]),
        weighted(Op::AddWeight { input, weight, multiplier: 3 }, &[1, 3], &[1, -2, 3]),
        Operation {
            op: Op::Conv(Conv { input, weight, groups: 1, window }),
            inputs: vec![image()],
            weight: Some((vec![1, 2, 2, 2], vec![1, -2, 3, 4, 5, -6, 7, 2])),
        },
    ]
}

#[test]
fn every_operand_is_what_entered_in_every_run() {
    for operation in operations() {
        for runs in [1, 3] {
            let scene = operation.scene(runs, Visibility::Committed);
            let honest = scene.inputs(&scene.trace);
            for (tensor, run) in (0..honest.len()).flat_map(|tensor| (0..runs).map(move |run| (tensor, run))) {
                let element = run * honest[tensor].len() / runs;
                let others = (1..40).map(|step| {
                    let mut inputs = honest.clone();
                    inputs[tensor][element] += step;
                    scene.run(&inputs)
                });
                let left = |trace: &Trace| trace.tensors.last().unwrap().clone();
                let other = others.into_iter().find(|trace| left(trace) != left(&scene.trace)).unwrap();
                let verdict =
                    scene.verdict_of(&Told { entered: &scene.trace, ..Told::new(&other, &scene.stack(&other)) });
                assert!(
                    matches!(verdict, Err(VerifyError::InputValue { tensor: found }) if found == tensor),
                    "{:?}, run {run}: {verdict:?}",
                    operation.op
                );
            }
        }
    }
}

#[test]
fn every_weight_is_the_registered_one() {
    for operation in operations() {
        let Some((_, values)) = &operation.weight else { continue };
        for (visibility, element) in [Visibility::Committed, Visibility::Public]
            .into_iter()
            .flat_map(|visibility| (0..values.len()).map(move |element| (visibility, element)))
        {
            let mut scene = operation.scene(2, visibility);
            let mut others = scene.weights.clone();
            others.0[0][element] += 1;
            let executor = Executor::new(Arc::new(scene.graph.clone()), &others).unwrap();
            let trace = executor.run(&scene.inputs(&scene.trace), 2).unwrap();
            scene.key = scene.key.with_weights(others);
            let verdict = scene.verdict(&trace, scene.stack(&trace));
            let refused = match visibility {
                Visibility::Committed => {
                    matches!(verdict, Err(VerifyError::Opening { what: Committed::Weights, .. }))
                }
                Visibility::Public => {
                    matches!(&verdict, Err(VerifyError::WeightValue { weight }) if weight == "weight")
                }
            };
            assert!(refused, "{:?}, {visibility:?}, {element}: {verdict:?}", operation.op);
        }
    }
}

/// Index of the first of the `count` values that are sent right before the batch of the claims on the witness.
fn last_of_node(scene: &Scene, count: usize) -> usize {
    let (_, _, proof) = honest(scene);
    let batch = 2 * scene.layout.variables + 1;
    proof.values.len() - batch - count
}

/// Both values of the divisor of 100 / 7, where remainder and rest are taken and where the quotient is multiplied.
#[test]
fn a_divisor_is_one_number_throughout() {
    let op = Op::Divide { numerator: TensorId(0), denominator: TensorId(1), bits: 6 };
    let scene = one(op, &[(&[1], &[100]), (&[1], &[7])]);
    let Columns::Divide { quotient, remainder, rest } = scene.columns("node") else { panic!("a quotient") };
    // x, d, r, then q, d.
    let first = last_of_node(&scene, 5);
    let number = |number: u64| Change::Be(Ext::from_u64(number));
    for (numbers, place, divisor) in [
        // 2 * 100 + 19 = 2 * 13 * 7 + 37, and 37 is the largest remainder of a divisor of 19.
        ([13, 37, 0], first + 1, 19),
        // 2 * 100 + 7 = 2 * 7 * 14 + 11.
        ([7, 11, 2], first + 4, 14),
    ] {
        let mut stack = scene.stack(&scene.trace);
        let [q, r, lack] = numbers;
        for (digits, number) in [(&quotient, q + 64), (&remainder, r), (&rest, lack)] {
            write(&mut stack, digits, 0, number);
        }
        scene.recount(&mut stack);
        let left = scene.leaving(&[q]);
        let messages = &[(place, number(divisor))];
        let verdict =
            scene.verdict_of(&Told { left: &left, trace: &scene.trace, messages, ..Told::new(&scene.trace, &stack) });
        assert!(matches!(verdict, Err(VerifyError::InputValue { tensor: 1 })), "{divisor}: {verdict:?}");
    }
}

/// Both values of what a maximum is of: where differences are taken from it and where one is chosen.
#[test]
fn a_maximum_is_of_the_same_values_throughout() {
    let of = |values: &[i64]| one(Op::Max { input: TensorId(0) }, &[(&[1, 2], values)]);
    let number = |number: u64| Change::Be(Ext::from_u64(number));
    for (entered, chosen_from, choice, differences, largest, said) in [
        // The differences of 3 and 3 to 3, which is chosen from 3 and 9.
        ([3, 9], [3, 9], [1, 0], [0, 0], 3, 3),
        // The differences of 9 and 9 to 10, which is chosen from 9 and 10.
        ([9, 9], [9, 10], [0, 1], [1, 1], 10, 9),
    ] {
        let scene = of(&entered);
        let Columns::Max { difference, chosen } = scene.columns("node") else { panic!("a maximum") };
        // The value and its lack, one round of three numbers, bit and value.
        let first = last_of_node(&scene, 7);
        let mut stack = scene.stack(&scene.trace);
        for i in 0..2 {
            stack[chosen.offset + i] = Base::from_i64(choice[i]);
            write(&mut stack, &difference, i, differences[i]);
        }
        scene.recount(&mut stack);
        let mut trace = scene.leaving(&[largest]);
        let left = trace.clone();
        trace.tensors[0] = chosen_from.to_vec();
        let messages = &[(first, number(said))];
        let verdict =
            scene.verdict_of(&Told { entered: &scene.trace, left: &left, messages, ..Told::new(&trace, &stack) });
        assert!(matches!(verdict, Err(VerifyError::InputValue { tensor: 0 })), "{entered:?}: {verdict:?}");
    }
}

/// Two claims on a product come together before it is reduced; what they become must be what both say.
#[test]
fn claims_on_one_product_become_one_that_they_follow_from() {
    let node = |name: &str, op: Op| Node { name: name.to_owned(), op, scale: 0 };
    let graph = Graph {
        inputs: vec![Input { name: "x".to_owned(), shape: vec![1, 2], scale: 0 }],
        weights: vec![Weight { name: "w".to_owned(), shape: vec![2, 2], bits: 4 }],
        tables: vec![],
        nodes: vec![
            node("narrow", Op::Requant { input: TensorId(0), shift: 0, bits: NARROW, relu: false }),
            node("product", Op::MatMul { input: TensorId(1), weight: WeightId(0) }),
            node("double", Op::Combine { terms: vec![(TensorId(2), 2)], constant: 0 }),
        ],
        outputs: vec![TensorId(2), TensorId(3)],
    };
    let scene = Scene::new(graph, Weights(vec![vec![1, -2, 3, 4]]), &[vec![5, 7]]);
    let stack = scene.stack(&scene.trace);
    scene.verdict_of(&Told::new(&scene.trace, &stack)).unwrap();
    let left = scene.lie(TensorId(2), |values| values[1] += 1).unwrap();
    let verdict = scene.verdict_of(&Told { left: &left, ..Told::new(&scene.trace, &stack) });
    assert!(matches!(&verdict, Err(VerifyError::Reduction { node, .. }) if node == "product"), "{verdict:?}");
}
