//! Lies about products of tensors, maxima, quotients and roots: each is told so that one check alone can catch it.

use p3_field::{PrimeCharacteristicRing, PrimeField64};

use super::*;
use crate::layout::{Digit, TableKind};

/// The scale of what an operator makes of tensors of scale zero.
pub(super) fn scale_of(op: &Op) -> i32 {
    match *op {
        Op::Requant { shift, .. } => -(shift as i32),
        _ => 0,
    }
}

/// One node over inputs of these shapes and values, whose result is what leaves.
pub(super) fn one(op: Op, inputs: &[(&[usize], &[i64])]) -> Scene {
    let input = |(index, (shape, _)): (usize, &(&[usize], &[i64]))| Input {
        name: format!("input {index}"),
        shape: shape.to_vec(),
        scale: 0,
    };
    let graph = Graph {
        inputs: inputs.iter().enumerate().map(input).collect(),
        weights: vec![],
        tables: vec![],
        nodes: vec![Node { name: "node".to_owned(), scale: scale_of(&op), op }],
        outputs: vec![TensorId(inputs.len() as u32)],
    };
    let values: Vec<Vec<i64>> = inputs.iter().map(|(_, values)| values.to_vec()).collect();
    Scene::new(graph, Weights(vec![]), &values)
}

/// One node over inputs that are brought to 9 bits first, so that whatever it makes may leave. It reads tensors `inputs.len()`
/// and following.
pub(super) fn one_of_few_bits(op: Op, inputs: &[(&[usize], &[i64])]) -> Scene {
    let input = |&(shape, _): &(&[usize], &[i64])| Input { name: "input".to_owned(), shape: shape.to_vec(), scale: 0 };
    let narrow = |input: u32| Op::Requant { input: TensorId(input), shift: 0, bits: 8, relu: false };
    let ops = (0..inputs.len() as u32).map(|input| ("narrow", narrow(input))).chain([("node", op)]);
    let graph = Graph {
        inputs: inputs.iter().map(input).collect(),
        weights: vec![],
        tables: vec![],
        nodes: ops.map(|(name, op)| Node { name: name.to_owned(), op, scale: 0 }).collect(),
        outputs: vec![TensorId(2 * inputs.len() as u32)],
    };
    let values: Vec<Vec<i64>> = inputs.iter().map(|(_, values)| values.to_vec()).collect();
    Scene::new(graph, Weights(vec![]), &values)
}

impl Scene {
    /// The verdict where the node's results are `results`, and `change` is made to the witness of the honest ones; the
    /// multiplicities are those of the changed witness.
    fn verdict_on(&self, results: &[i64], change: impl FnOnce(&mut [Base])) -> Result<(), VerifyError> {
        let trace = self.leaving(results);
        let mut stack = self.stack(&self.trace);
        change(&mut stack);
        self.recount(&mut stack);
        self.verdict(&trace, stack)
    }

    pub(super) fn results(&self) -> Vec<i64> {
        self.trace.tensors.last().unwrap().clone()
    }

    /// Counts the rows of all tables that cells are looked up in; cells that are in no row have none to be counted for.
    pub(super) fn recount(&self, stack: &mut [Base]) {
        for table in &self.layout.tables {
            stack[table.cells.clone()].fill(Base::ZERO);
        }
        for lookup in &self.layout.lookups {
            let table = &self.layout.tables[lookup.table];
            let lowest = match table.kind {
                TableKind::Range { .. } => Base::ZERO,
                TableKind::Function(_) => -Base::from_usize(table.cells.len() / 2),
            };
            for cell in lookup.cells.clone() {
                let row = (stack[cell] - lowest).as_canonical_u64();
                if row < table.cells.len() as u64 {
                    stack[table.cells.start + row as usize] += Base::ONE;
                }
            }
        }
    }
}

/// Writes element `i` of a group of digits; what is below zero or too large for them goes to the topmost.
pub(super) fn write(stack: &mut [Base], digits: &[Digit], i: usize, number: i64) {
    for digit in digits {
        let above = number >> digit.position;
        let top = digit.position == digits.last().unwrap().position;
        let value = if top { above } else { above & ((1 << digit.width) - 1) };
        stack[digit.offset + i] = Base::from_i64(value);
    }
}

pub(super) fn is_unbalanced(verdict: &Result<(), VerifyError>) -> bool {
    matches!(verdict, Err(VerifyError::Lookup(LookupError::Unbalanced)))
}

pub(super) fn is_reduction(verdict: &Result<(), VerifyError>) -> bool {
    matches!(verdict, Err(VerifyError::Reduction { node, .. }) if node == "node")
}

pub(super) fn is_witness(verdict: &Result<(), VerifyError>) -> bool {
    matches!(verdict, Err(VerifyError::Batch(Committed::Witness)))
}

/// Rows `[3, 9, 5]` and `[-4, -7, -2]`.
pub(super) fn maxima() -> (Scene, Vec<Digit>, usize) {
    let scene = one(Op::Max { input: TensorId(0) }, &[(&[2, 3], &[3, 9, 5, -4, -7, -2])]);
    assert_eq!(scene.results(), [9, -2]);
    let Columns::Max { difference, chosen } = scene.columns("node") else { panic!("a maximum") };
    (scene, difference, chosen.offset)
}

#[test]
fn a_value_that_is_not_the_largest_leaves_a_difference_below_zero() {
    let (scene, difference, chosen) = maxima();
    let verdict = scene.verdict_on(&[5, -2], |stack| {
        (stack[chosen + 1], stack[chosen + 2]) = (Base::ZERO, Base::ONE);
        [2, -4, 0].iter().enumerate().for_each(|(i, &number)| write(stack, &difference, i, number));
    });
    assert!(is_unbalanced(&verdict), "{verdict:?}");
}

#[test]
fn a_maximum_above_all_values_is_none_of_them() {
    let (scene, difference, _) = maxima();
    let verdict = scene.verdict_on(&[10, -2], |stack| {
        [7, 1, 5].iter().enumerate().for_each(|(i, &number)| write(stack, &difference, i, number));
    });
    assert!(is_reduction(&verdict), "{verdict:?}");
}

#[test]
fn a_maximum_is_one_value_and_not_the_sum_of_two_or_of_none() {
    let (scene, difference, chosen) = maxima();
    for (results, row, choice, differences) in [([14, -2], 0, [0, 1, 1], [11, 5, 9]), ([9, 0], 3, [0, 0, 0], [4, 7, 2])]
    {
        let verdict = scene.verdict_on(&results, |stack| {
            for j in 0..3 {
                stack[chosen + row + j] = Base::from_i64(choice[j]);
                write(stack, &difference, row + j, differences[j]);
            }
        });
        assert!(is_witness(&verdict), "{verdict:?}");
    }
}

#[test]
fn a_choice_is_made_by_bits() {
    let (scene, difference, chosen) = maxima();
    // 2 * 9 - 5 = 13, with choices that add up to one.
    let verdict = scene.verdict_on(&[13, -2], |stack| {
        (stack[chosen + 1], stack[chosen + 2]) = (Base::TWO, -Base::ONE);
        [10, 4, 8].iter().enumerate().for_each(|(i, &number)| write(stack, &difference, i, number));
    });
    assert!(is_unbalanced(&verdict), "{verdict:?}");
}

#[test]
fn differences_are_those_of_the_values() {
    let (scene, difference, _) = maxima();
    let verdict = scene.verdict_on(&scene.results(), |stack| write(stack, &difference, 0, 7));
    assert!(is_reduction(&verdict), "{verdict:?}");
}

/// 100 / 7 and -50 / 8.
pub(super) fn quotients() -> (Scene, [Vec<Digit>; 3]) {
    let op = Op::Divide { numerator: TensorId(0), denominator: TensorId(1), bits: 6 };
    let scene = one(op, &[(&[2], &[100, -50]), (&[2], &[7, 8])]);
    assert_eq!(scene.results(), [14, -6]);
    let Columns::Divide { quotient, remainder, rest } = scene.columns("node") else { panic!("a quotient") };
    (scene, [quotient, remainder, rest])
}

/// Quotient with its offset, remainder, and what that lacks to 13: 2 * 100 + 7 = 14 * 14 + 11.
const QUOTIENT: [i64; 3] = [14 + 64, 11, 2];

#[test]
fn the_honest_quotient_is_what_the_tests_take_it_for() {
    let (scene, columns) = quotients();
    let honest = scene.stack(&scene.trace);
    let mut stack = honest.clone();
    columns.iter().zip(QUOTIENT).for_each(|(digits, number)| write(&mut stack, digits, 0, number));
    assert_eq!(stack, honest);
    scene.verdict_on(&scene.results(), |_| {}).unwrap();
}

#[test]
fn other_quotients_leave_remainders_out_of_range() {
    let (scene, columns) = quotients();
    for off in [-2, -1, 1, 2] {
        let verdict = scene.verdict_on(&[14 + off, -6], |stack| {
            let numbers = [QUOTIENT[0] + off, QUOTIENT[1] - 14 * off, QUOTIENT[2] + 14 * off];
            columns.iter().zip(numbers).for_each(|(digits, number)| write(stack, digits, 0, number));
        });
        assert!(is_unbalanced(&verdict), "{off}: {verdict:?}");
    }
}

#[test]
fn remainder_and_rest_add_up_to_the_denominator() {
    let (scene, columns) = quotients();
    let verdict = scene.verdict_on(&[13, -6], |stack| {
        let numbers = [QUOTIENT[0] - 1, QUOTIENT[1] + 14, 0];
        columns.iter().zip(numbers).for_each(|(digits, number)| write(stack, digits, 0, number));
    });
    assert!(is_witness(&verdict), "{verdict:?}");
}

#[test]
fn quotient_and_remainder_are_of_the_numerator() {
    let (scene, columns) = quotients();
    let verdict = scene.verdict_on(&[13, -6], |stack| write(stack, &columns[0], 0, QUOTIENT[0] - 1));
    assert!(is_reduction(&verdict), "{verdict:?}");
    let verdict = scene.verdict_on(&scene.results(), |stack| {
        write(stack, &columns[1], 0, QUOTIENT[1] - 1);
        write(stack, &columns[2], 0, QUOTIENT[2] + 1);
    });
    assert!(is_reduction(&verdict), "{verdict:?}");
}

#[test]
fn a_result_is_its_quotient() {
    let (scene, _) = quotients();
    let verdict = scene.verdict_on(&[15, -6], |_| {});
    assert!(is_witness(&verdict), "{verdict:?}");
}

#[test]
fn denominators_that_are_not_positive_have_no_quotient() {
    let (scene, columns) = quotients();
    // 2 x + d = 2 q d + r with a remainder in range: only what that lacks to 2 d - 1 is not.
    for (denominator, quotient, numerator) in [(0, 3, 4), (-7, 2, -10)] {
        let mut trace = scene.trace.clone();
        (trace.tensors[0][0], trace.tensors[1][0], trace.tensors[2][0]) = (numerator, denominator, quotient);
        let remainder = 2 * numerator + denominator - 2 * quotient * denominator;
        assert!((0..16).contains(&remainder));
        for (rest, caught) in [(2 * denominator - 1 - remainder, is_unbalanced as fn(&_) -> bool), (0, is_witness)] {
            let mut stack = scene.stack(&scene.trace);
            let numbers = [quotient + 64, remainder, rest];
            columns.iter().zip(numbers).for_each(|(digits, number)| write(&mut stack, digits, 0, number));
            scene.recount(&mut stack);
            let verdict = scene.verdict(&trace, stack);
            assert!(caught(&verdict), "{denominator}, {rest}: {verdict:?}");
        }
    }
}

/// Roots of 40 and 49.
pub(super) fn roots() -> (Scene, [Vec<Digit>; 3]) {
    let scene = one(Op::Sqrt { input: TensorId(0), bits: 5 }, &[(&[2], &[40, 49])]);
    assert_eq!(scene.results(), [6, 7]);
    let Columns::Sqrt { root, remainder, rest } = scene.columns("node") else { panic!("a root") };
    (scene, [root, remainder, rest])
}

/// Root, remainder, and what that lacks to 12: 40 = 36 + 4.
const ROOT: [i64; 3] = [6, 4, 8];

#[test]
fn other_roots_leave_remainders_out_of_range() {
    let (scene, columns) = roots();
    scene.verdict_on(&scene.results(), |_| {}).unwrap();
    for root in [4, 5, 7, 8] {
        let verdict = scene.verdict_on(&[root, 7], |stack| {
            let remainder = 40 - root * root;
            let numbers = [root, remainder, 2 * root - remainder];
            columns.iter().zip(numbers).for_each(|(digits, number)| write(stack, digits, 0, number));
        });
        assert!(is_unbalanced(&verdict), "{root}: {verdict:?}");
    }
}

#[test]
fn remainder_and_rest_add_up_to_the_root_twice() {
    let (scene, columns) = roots();
    let verdict = scene.verdict_on(&[5, 7], |stack| {
        columns.iter().zip([5, 15, 0]).for_each(|(digits, number)| write(stack, digits, 0, number));
    });
    assert!(is_witness(&verdict), "{verdict:?}");
}

#[test]
fn root_and_remainder_are_of_the_value() {
    let (scene, columns) = roots();
    let verdict = scene.verdict_on(&[5, 7], |stack| {
        columns.iter().zip([5, ROOT[1], 6]).for_each(|(digits, number)| write(stack, digits, 0, number));
    });
    assert!(is_reduction(&verdict), "{verdict:?}");
}

#[test]
fn a_negative_root_is_out_of_range() {
    let (scene, columns) = roots();
    let verdict = scene.verdict_on(&[-6, 7], |stack| {
        columns.iter().zip([-6, 4, -16]).for_each(|(digits, number)| write(stack, digits, 0, number));
    });
    assert!(is_unbalanced(&verdict), "{verdict:?}");
}

#[test]
fn a_result_is_its_root() {
    let (scene, _) = roots();
    let verdict = scene.verdict_on(&[7, 7], |_| {});
    assert!(is_witness(&verdict), "{verdict:?}");
}

#[test]
fn other_products_of_tensors_are_refused() {
    let x: (&[usize], &[i64]) = (&[2, 3], &[3, -1, 4, 1, -5, 9]);
    let y: (&[usize], &[i64]) = (&[2, 3], &[2, 6, 5, -3, 5, 8]);
    let (left, right) = (TensorId(2), TensorId(3));
    for op in [Op::MatMulTensors { left, right }, Op::MulTensors { left, right }, Op::MulTensors { left, right: left }]
    {
        let scene = one_of_few_bits(op, &[x, y]);
        let honest = scene.results();
        scene.verdict_on(&honest, |_| {}).unwrap();
        for place in 0..honest.len() {
            let mut results = honest.clone();
            results[place] += 1;
            let verdict = scene.verdict_on(&results, |_| {});
            assert!(is_reduction(&verdict), "{verdict:?}");
        }
    }
}

#[test]
fn other_sums_repetitions_and_selections_are_refused() {
    let input = TensorId(1);
    for op in [
        Op::ReduceSum { input, axes: vec![1] },
        Op::Expand { input, shape: vec![2, 3, 4] },
        Op::Gather { input, axis: 1, indices: vec![2, 0, 2] },
    ] {
        let scene = one_of_few_bits(op, &[(&[2, 3, 1], &[3, -1, 4, 1, -5, 9])]);
        let honest = scene.results();
        scene.verdict_on(&honest, |_| {}).unwrap();
        for place in 0..honest.len() {
            let mut results = honest.clone();
            results[place] -= 1;
            let verdict = scene.verdict_on(&results, |_| {});
            assert!(is_witness(&verdict), "{verdict:?}");
        }
    }
}
