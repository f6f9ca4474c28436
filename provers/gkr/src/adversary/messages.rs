//! Lies in the values that are sent in the clear. All challenges are drawn from what was said, so that nothing but the
//! check on the value itself, or on what follows from it, can catch the prover.

use std::collections::BTreeSet;

use p3_field::Field;
use shardproof_integer::testing::random_batch;

use super::*;

/// Everything that it takes to prove a statement again and again.
struct Stage {
    key: ProvingKey,
    trace: Trace,
    inputs: Vec<Vec<i64>>,
    outputs: Vec<Vec<i64>>,
    /// Where the boundaries are committed: of each tensor and run.
    committed: Option<[Vec<Vec<pcs::Committed>>; 2]>,
    registered: Option<crate::RegisteredWeights>,
}

impl Stage {
    fn new(
        (graph, weights, inputs): (Graph, Weights, Vec<Vec<i64>>),
        runs: usize,
        visibility: Visibility,
        committed: bool,
    ) -> Self {
        let graph = graph.check().unwrap();
        let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
        let trace = executor.run(&inputs, runs).unwrap();
        let outputs: Vec<Vec<i64>> = graph.graph().outputs.iter().map(|&at| trace.tensor(at).to_vec()).collect();
        let key = ProvingKey::new(graph, weights.clone(), visibility).unwrap();
        let public = matches!(key.verifying().weights(), crate::WeightsKey::Public(_));
        let registered = public.then(|| key.verifying().register(weights).unwrap());
        let commit = |values: &Vec<i64>| -> Vec<pcs::Committed> {
            values.chunks_exact(values.len() / runs).map(|run| commit_tensor(run).unwrap()).collect()
        };
        let committed =
            committed.then(|| [&inputs, &outputs].map(|tensors| tensors.iter().map(commit).collect::<Vec<_>>()));
        Self { key, trace, inputs, outputs, committed, registered }
    }

    /// The proof of a prover who tells `lies`, and the verdict on it.
    fn verdict(&self, lies: &[(usize, Change)]) -> (Proof, Result<(), VerifyError>) {
        let commitments = self.committed.as_ref().map(|sides| {
            sides.each_ref().map(|side| -> Vec<Vec<_>> {
                side.iter().map(|runs| runs.iter().map(|run| run.commitment().clone()).collect()).collect()
            })
        });
        let [input, output] = match &commitments {
            Some([input, output]) => [Boundary::Committed(input), Boundary::Committed(output)],
            None => [Boundary::Public(&self.inputs), Boundary::Public(&self.outputs)],
        };
        let boundaries = match &self.committed {
            Some([input, output]) => CommittedBoundaries { input, output },
            None => CommittedBoundaries::default(),
        };
        let statement = Statement { context: b"messages", runs: self.trace.runs, input, output };
        let prove = || self.key.prove(&statement, &self.trace, boundaries, &mut Timings::default()).unwrap();
        let proof = tell(lies, prove);
        let verdict = verify(self.key.verifying(), self.registered.as_ref(), &statement, &proof);
        (proof, verdict)
    }

    /// Tells every lie about every `step`-th value, and gives the names of the checks that stopped them.
    fn lie_everywhere(&self, step: usize) -> BTreeSet<String> {
        let (honest, verdict) = self.verdict(&[]);
        verdict.unwrap();
        let mut stopped_by = BTreeSet::new();
        let (difference, factor) = (Ext::from_u64(5), Ext::from_u64(3));
        for index in (0..honest.values.len()).step_by(step) {
            // A value alone; two that leave their sum, and two that leave their product, as it is.
            let lies = [
                vec![(index, Change::Add(difference))],
                vec![(index, Change::Add(difference)), (index + 1, Change::Add(-difference))],
                vec![(index, Change::Times(factor)), (index + 1, Change::Times(factor.inverse()))],
                // Two fractions that leave their sum as it is, where the four values are n0, n1, d0, d1.
                vec![(index, Change::Times(factor)), (index + 2, Change::Times(factor))],
            ];
            for lie in lies {
                let (proof, verdict) = self.verdict(&lie);
                if proof.values == honest.values {
                    continue;
                }
                let error = verdict.expect_err(&format!("{lie:?} is accepted"));
                let name = format!("{error:?}");
                let end = name.find([' ', '{']).unwrap_or(name.len());
                stopped_by.insert(name[..end].to_owned());
            }
        }
        stopped_by
    }
}

#[test]
fn no_message_can_be_another() {
    let mut stopped_by = BTreeSet::new();
    for (visibility, committed) in [(Visibility::Committed, true), (Visibility::Public, false)] {
        let (graph, weights, mut input) = network();
        input.extend([3, 1, -4, 1, -5, 9]);
        stopped_by.extend(Stage::new((graph, weights, vec![input]), 2, visibility, committed).lie_everywhere(1));
    }
    let checks = [
        "Lookup(Unbalanced)",
        "Lookup(Layer",
        "Reduction",
        "Sum",
        "InputValue",
        "RunSum",
        "Batch(Witness)",
        "Batch(Weights)",
        "Batch(Input",
        "Batch(Output",
    ];
    for check in checks {
        assert!(stopped_by.contains(check), "no lie is stopped by {check}: {stopped_by:?}");
    }
}

#[test]
fn no_message_about_any_operator_can_be_another() {
    for seed in 0..12 {
        let visibility = if seed % 2 == 0 { Visibility::Committed } else { Visibility::Public };
        let runs = 1 + (seed % 3) as usize;
        let scene = random_batch(seed, Size { nodes: 10, elements: 40 }, runs);
        Stage::new(scene, runs, visibility, seed % 3 == 0).lie_everywhere(29);
    }
}

#[test]
fn a_lookup_argument_without_denominators_is_refused() {
    let (graph, weights, input) = network();
    let stage = Stage::new((graph, weights, vec![input]), 1, Visibility::Committed, false);
    let nothing: Vec<(usize, Change)> = (0..4).map(|index| (index, Change::Times(Ext::ZERO))).collect();
    let (_, verdict) = stage.verdict(&nothing);
    assert!(matches!(verdict, Err(VerifyError::Lookup(LookupError::ZeroDenominator))), "{verdict:?}");
}
