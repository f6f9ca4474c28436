//! Lies that the claim on one column alone can catch: the prover commits to columns that pass every other check, and says
//! of one of them, where its node is proven or in the lookup argument, what a false result takes.

use p3_field::{Field, PrimeCharacteristicRing};

use super::tensors::{is_witness, maxima, one, quotients, roots, write};
use super::*;
use crate::layout::Digit;

/// Numbers to write to element 0 of groups of digits.
type Numbers<'a> = [(&'a [Digit], i64)];

impl Scene {
    /// The verdict where `results` leave, `committed` is written to the witness, and `said` takes its place where the node
    /// is proven.
    fn verdict_saying(
        &self,
        results: &[i64],
        committed: impl FnOnce(&mut [Base]),
        said: impl FnOnce(&mut [Base]),
    ) -> Result<(), VerifyError> {
        let left = self.leaving(results);
        let mut stack = self.stack(&self.trace);
        committed(&mut stack);
        self.recount(&mut stack);
        let mut columns = stack.clone();
        said(&mut columns);
        self.verdict_of(&Told { left: &left, trace: &self.trace, columns: &columns, ..Told::new(&self.trace, &stack) })
    }

    /// [`Self::verdict_saying`] of numbers.
    fn verdict_on_numbers(
        &self,
        results: &[i64],
        committed: &Numbers<'_>,
        said: &Numbers<'_>,
    ) -> Result<(), VerifyError> {
        let set = |stack: &mut [Base], numbers: &Numbers<'_>| {
            numbers.iter().for_each(|&(digits, number)| write(stack, digits, 0, number));
        };
        self.verdict_saying(results, |stack| set(stack, committed), |stack| set(stack, said))
    }
}

/// 45 and -90, divided by 8.
fn requantised(relu: bool) -> (Scene, Vec<Digit>, Vec<Digit>, Option<Digit>) {
    let op = Op::Requant { input: TensorId(0), shift: 3, bits: 4, relu };
    let scene = one(op, &[(&[2], &[45, -90])]);
    assert_eq!(scene.results(), if relu { [6, 0] } else { [6, -11] });
    let Columns::Requant { low, high, sign } = scene.columns("node") else { panic!("digits") };
    (scene, low, high, sign)
}

#[test]
fn each_column_of_a_requantisation_has_its_claims() {
    let (scene, low, high, _) = requantised(false);
    let verdict = |committed: &Numbers<'_>, said: &Numbers<'_>| scene.verdict_on_numbers(&[7, -11], committed, said);
    // 45 + 4 is 6 * 8 + 1.
    for (committed, said) in [
        // The result is not what the upper digits write.
        (vec![], vec![]),
        // 45 + 4 as 7 * 8 - 7.
        (vec![(&high[..], 7 + 16)], vec![(&low[..], -7)]),
        // Upper digits of the result, and others in the accumulator.
        (vec![(&high[..], 7 + 16)], vec![(&high[..], 6 + 16)]),
    ] {
        let verdict = verdict(&committed, &said);
        assert!(is_witness(&verdict), "{committed:?} {said:?}: {verdict:?}");
    }
    scene.verdict_on_numbers(&[6, -11], &[(&low, 1), (&high, 6 + 16)], &[]).unwrap();
}

#[test]
fn each_column_of_a_rectification_has_its_claim() {
    let (scene, low, high, sign) = requantised(true);
    let sign = [sign.unwrap()];
    scene.verdict_on_numbers(&[6, 0], &[(&low, 1), (&high, 6), (&sign, 1)], &[]).unwrap();
    let verdict = scene.verdict_on_numbers(&[7, 0], &[(&high, 7)], &[(&low, -7)]);
    assert!(is_witness(&verdict), "the lower digits: {verdict:?}");
    // With 8 in place of 6 above, 7/8 in place of one is what the accumulator needs; and 7/8 of 8 is 7.
    let part = Base::from_u64(7) * Base::from_u64(8).inverse();
    let verdict =
        scene.verdict_saying(&[7, 0], |stack| write(stack, &high, 0, 8), |stack| stack[sign[0].offset] = part);
    assert!(is_witness(&verdict), "the sign: {verdict:?}");
    // The sign's power of two among the upper digits.
    let verdict = scene.verdict_on_numbers(&[0, 0], &[(&sign, 0)], &[(&high, 6 + 16)]);
    assert!(is_witness(&verdict), "the upper digits: {verdict:?}");
}

/// Squares of 3 and -2.
fn squares() -> (Scene, usize, usize) {
    let graph = Graph {
        inputs: vec![Input { name: "x".to_owned(), shape: vec![2], scale: 0 }],
        weights: vec![],
        tables: vec![Table { name: "square".to_owned(), bits: 4, values: (-8..8).map(|x| x * x).collect() }],
        nodes: vec![
            Node {
                name: "narrow".to_owned(),
                op: Op::Requant { input: TensorId(0), shift: 0, bits: 3, relu: false },
                scale: 0,
            },
            Node { name: "node".to_owned(), op: Op::Table { input: TensorId(1), table: TableId(0) }, scale: 0 },
        ],
        outputs: vec![TensorId(2)],
    };
    let scene = Scene::new(graph, Weights(vec![]), &[vec![3, -2]]);
    assert_eq!(scene.results(), [9, 4]);
    let Columns::Table { argument, result } = scene.columns("node") else { panic!("a table") };
    (scene, argument, result)
}

#[test]
fn each_column_of_a_table_has_its_claim() {
    let (scene, argument, result) = squares();
    let verdict = scene.verdict_saying(&[10, 4], |_| {}, |_| {});
    assert!(is_witness(&verdict), "the result: {verdict:?}");
    // The row of 4, which is said to be that of 3.
    let row = |stack: &mut [Base]| (stack[argument], stack[result]) = (Base::from_u64(4), Base::from_u64(16));
    let verdict = scene.verdict_saying(&[16, 4], row, |stack| stack[argument] = Base::from_u64(3));
    assert!(is_witness(&verdict), "the argument: {verdict:?}");
}

#[test]
fn each_column_of_a_maximum_has_its_claims() {
    let (scene, difference, chosen) = maxima();
    let set = |stack: &mut [Base], choice: [i64; 3], differences: [i64; 3]| {
        for i in 0..3 {
            stack[chosen + i] = Base::from_i64(choice[i]);
            write(stack, &difference, i, differences[i]);
        }
    };
    // Of 3, 9 and 5: the results, what is committed to, and what is said.
    for (results, committed, said) in [
        ([5, -2], ([0, 0, 1], [2, 0, 0]), ([0, 0, 1], [2, -4, 0])),
        ([13, -2], ([0, 1, 0], [10, 4, 8]), ([0, 2, -1], [10, 4, 8])),
        ([14, -2], ([0, 1, 1], [11, 5, 9]), ([0, 1, 1], [11, 5, 9])),
    ] {
        let verdict = scene.verdict_saying(
            &results,
            |stack| set(stack, committed.0, committed.1),
            |stack| set(stack, said.0, said.1),
        );
        assert!(is_witness(&verdict), "{results:?}: {verdict:?}");
    }
}

#[test]
fn each_column_of_a_quotient_has_its_claims() {
    let (scene, [quotient, remainder, rest]) = quotients();
    // 2 * 100 + 7 is 14 * 14 + 11, or 13 * 14 + 25.
    for (committed, said) in [
        (vec![], vec![]),
        (vec![(&quotient[..], 13 + 64)], vec![(&remainder[..], 25)]),
        (vec![(&quotient[..], 13 + 64), (&remainder[..], 25), (&rest[..], 0)], vec![]),
        (vec![(&quotient[..], 13 + 64)], vec![(&quotient[..], 14 + 64)]),
    ] {
        let verdict = scene.verdict_on_numbers(&[13, -6], &committed, &said);
        assert!(is_witness(&verdict), "{committed:?} {said:?}: {verdict:?}");
    }
}

#[test]
fn each_column_of_a_root_has_its_claims() {
    let (scene, [root, remainder, rest]) = roots();
    // 40 is 6 * 6 + 4, or 5 * 5 + 15.
    for (committed, said) in [
        (vec![], vec![]),
        (vec![(&root[..], 5), (&remainder[..], 4), (&rest[..], 6)], vec![(&remainder[..], 15)]),
        (vec![(&root[..], 5), (&remainder[..], 15), (&rest[..], 0)], vec![]),
        (vec![(&root[..], 5), (&remainder[..], 4), (&rest[..], 6)], vec![(&root[..], 6)]),
    ] {
        let verdict = scene.verdict_on_numbers(&[5, 7], &committed, &said);
        assert!(is_witness(&verdict), "{committed:?} {said:?}: {verdict:?}");
    }
}

/// The verdict where the lookup argument is about the honest witness and `results` and the commitment are about another.
fn verdict_looking_up_others(
    scene: &Scene,
    results: &[i64],
    committed: impl FnOnce(&mut [Base]),
) -> Result<(), VerifyError> {
    let (left, honest) = (scene.leaving(results), scene.stack(&scene.trace));
    let mut stack = honest.clone();
    committed(&mut stack);
    scene.verdict_of(&Told { left: &left, trace: &scene.trace, looked_up: &honest, ..Told::new(&scene.trace, &stack) })
}

#[test]
fn cells_multiplicities_and_results_that_are_looked_up_are_the_committed_ones() {
    let (scene, difference, chosen) = maxima();
    // 2 * 9 - 5 = 13, with choices that add up to one and are no bits.
    let verdict = verdict_looking_up_others(&scene, &[13, -2], |stack| {
        (stack[chosen + 1], stack[chosen + 2]) = (Base::TWO, -Base::ONE);
        [10, 4, 8].iter().enumerate().for_each(|(i, &number)| write(stack, &difference, i, number));
    });
    assert!(is_witness(&verdict), "cells: {verdict:?}");
    for table in &scene.layout.tables {
        let verdict =
            verdict_looking_up_others(&scene, &scene.results(), |stack| stack[table.cells.start] += Base::ONE);
        assert!(is_witness(&verdict), "multiplicities: {verdict:?}");
    }
    let (scene, _, result) = squares();
    let verdict = verdict_looking_up_others(&scene, &[10, 4], |stack| stack[result] += Base::ONE);
    assert!(is_witness(&verdict), "results: {verdict:?}");
}
