//! Lies about one of several runs that are proven together.

use p3_field::PrimeCharacteristicRing;

use super::operands::{Operation, operations};
use super::tensors::is_witness;
use super::*;

const RUNS: usize = 3;

/// Exchanges two runs of a tensor.
fn exchange<T>(values: &mut [T], first: usize, second: usize) {
    let elements = values.len() / RUNS;
    (0..elements).for_each(|i| values.swap(first * elements + i, second * elements + i));
}

fn scenes() -> impl Iterator<Item = (Op, Scene)> {
    operations().into_iter().map(|operation: Operation| {
        let scene = operation.scene(RUNS, Visibility::Public);
        (operation.op, scene)
    })
}

#[test]
fn results_of_each_run_are_its_own() {
    for (op, scene) in scenes() {
        let stack = scene.stack(&scene.trace);
        let told = Told::new(&scene.trace, &stack);
        scene.verdict_of(&told).unwrap();
        let honest = scene.results();
        let mut lies: Vec<Vec<i64>> = Vec::new();
        for run in 0..RUNS {
            let mut results = honest.clone();
            results[run * honest.len() / RUNS] += 1;
            lies.push(results);
            let mut results = honest.clone();
            exchange(&mut results, run, (run + 1) % RUNS);
            lies.push(results);
        }
        for results in lies {
            if results == honest {
                // Runs whose maxima are the same may be exchanged.
                continue;
            }
            let left = scene.leaving(&results);
            let verdict = scene.verdict_of(&Told { left: &left, ..told });
            assert!(verdict.is_err(), "{op:?}: {results:?} leaves");
        }
    }
}

#[test]
fn inputs_of_each_run_are_its_own() {
    for (op, scene) in scenes() {
        for tensor in 0..scene.graph.graph().inputs.len() {
            let mut entered = scene.trace.clone();
            exchange(&mut entered.tensors[tensor], 0, 2);
            let stack = scene.stack(&scene.trace);
            let verdict = scene.verdict_of(&Told { entered: &entered, ..Told::new(&scene.trace, &stack) });
            assert!(
                matches!(verdict, Err(VerifyError::InputValue { tensor: found }) if found == tensor),
                "{op:?}: {verdict:?}"
            );
        }
    }
}

/// What is committed to is not what is looked up and proven with, in one cell of one run.
#[test]
fn columns_of_each_run_are_committed_to() {
    for (op, scene) in scenes() {
        let honest = scene.stack(&scene.trace);
        for lookup in &scene.layout.lookups {
            for first in [Some(lookup.cells.start), lookup.results].into_iter().flatten() {
                for run in 0..RUNS {
                    let mut stack = honest.clone();
                    stack[first + run * lookup.cells.len() / RUNS] += Base::ONE;
                    let told = Told { looked_up: &honest, columns: &honest, ..Told::new(&scene.trace, &stack) };
                    let verdict = scene.verdict_of(&told);
                    assert!(is_witness(&verdict), "{op:?}, run {run}: {verdict:?}");
                }
            }
        }
    }
}

/// A witness of one run that contradicts the run, counted as it is.
#[test]
fn a_digit_of_one_run_that_is_another_is_refused() {
    for (op, scene) in scenes() {
        for lookup in &scene.layout.lookups {
            for run in 0..RUNS {
                let mut stack = scene.stack(&scene.trace);
                let cell = lookup.cells.start + run * lookup.cells.len() / RUNS;
                stack[cell] = if stack[cell] == Base::ZERO { Base::ONE } else { stack[cell] - Base::ONE };
                scene.recount(&mut stack);
                let verdict = scene.verdict(&scene.trace, stack);
                assert!(verdict.is_err(), "{op:?}: cell {cell} of run {run} may be another");
            }
        }
    }
}

/// The commitments to all runs of one tensor.
fn commit(values: &[i64]) -> Vec<pcs::Committed> {
    values.chunks_exact(values.len() / RUNS).map(|run| commit_tensor(run).unwrap()).collect()
}

/// The verdict on a proof whose boundaries are the commitments to these tensors.
fn verdict_on_commitments(scene: &Scene, inputs: &[Vec<i64>], outputs: &[Vec<i64>]) -> Result<(), VerifyError> {
    let sides = [inputs, outputs].map(|tensors| tensors.iter().map(|values| commit(values)).collect::<Vec<_>>());
    let [input, output] = sides.each_ref().map(|side| -> Vec<Vec<pcs::Commitment>> {
        side.iter().map(|runs| runs.iter().map(|run| run.commitment().clone()).collect()).collect()
    });
    let statement = Statement {
        context: b"runs",
        runs: RUNS,
        input: Boundary::Committed(&input),
        output: Boundary::Committed(&output),
    };
    let boundaries = CommittedBoundaries { input: &sides[0], output: &sides[1] };
    let (stack, timings) = (scene.stack(&scene.trace), &mut Timings::default());
    let proof = scene.key.prove_witness(&statement, &scene.layout, &scene.trace, stack, boundaries, timings).unwrap();
    verify(scene.key.verifying(), scene.registered().as_ref(), &statement, &proof)
}

#[test]
fn each_run_has_its_own_commitments() {
    for (op, scene) in scenes() {
        let (inputs, outputs) = (scene.inputs(&scene.trace), vec![scene.results()]);
        verdict_on_commitments(&scene, &inputs, &outputs).unwrap();
        for run in 0..RUNS {
            for tensor in 0..inputs.len() {
                let mut others = inputs.clone();
                others[tensor][run * inputs[tensor].len() / RUNS] += 1;
                let verdict = verdict_on_commitments(&scene, &others, &outputs);
                let due = Committed::Input { tensor, run };
                assert!(matches!(&verdict, Err(VerifyError::Batch(found)) if *found == due), "{op:?}: {verdict:?}");
            }
            let mut others = outputs.clone();
            others[0][run * outputs[0].len() / RUNS] += 1;
            let verdict = verdict_on_commitments(&scene, &inputs, &others);
            let due = Committed::Output { tensor: 0, run };
            assert!(matches!(&verdict, Err(VerifyError::Batch(found)) if *found == due), "{op:?}: {verdict:?}");
        }
        let mut others = outputs.clone();
        exchange(&mut others[0], 1, 2);
        let verdict = verdict_on_commitments(&scene, &inputs, &others);
        let due = Committed::Output { tensor: 0, run: 1 };
        assert!(matches!(&verdict, Err(VerifyError::Batch(found)) if *found == due), "{op:?}: {verdict:?}");
    }
}
