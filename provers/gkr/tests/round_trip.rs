//! Proofs of random graphs verify, and their outputs are the executor's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use std::sync::Arc;

use shardproof_gkr::{
    Boundary, CommittedBoundaries, Proof, ProvingKey, Statement, Timings, Visibility, commit_tensor, verify,
};
use shardproof_integer::Executor;
use shardproof_integer::testing::{Size, random_batch};

fn round_trip(seed: u64, runs: usize, visibility: Visibility, committed: bool) {
    let (graph, weights, inputs) = random_batch(seed, Size { nodes: 12, elements: 80 }, runs);
    let graph = graph.check().unwrap();
    let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
    let trace = executor.run(&inputs, runs).unwrap();
    let outputs: Vec<Vec<i64>> = graph.graph().outputs.iter().map(|&tensor| trace.tensor(tensor).to_vec()).collect();
    let key = ProvingKey::new(graph.clone(), weights.clone(), visibility).unwrap();

    let commit = |values: &Vec<i64>| {
        values.chunks_exact(values.len() / runs).map(|run| commit_tensor(run).unwrap()).collect::<Vec<_>>()
    };
    let both: [Vec<_>; 2] = if committed {
        [inputs.iter().map(commit).collect(), outputs.iter().map(commit).collect()]
    } else {
        [vec![], vec![]]
    };
    let commitments: [Vec<Vec<_>>; 2] = [0, 1].map(|side| {
        both[side].iter().map(|runs| runs.iter().map(|committed| committed.commitment().clone()).collect()).collect()
    });
    let boundary = |side: usize, values| {
        if committed { Boundary::Committed(&commitments[side]) } else { Boundary::Public(values) }
    };
    let statement = Statement { context: b"test", runs, input: boundary(0, &inputs), output: boundary(1, &outputs) };
    let boundaries = CommittedBoundaries { input: &both[0], output: &both[1] };
    let proof = key.prove(&statement, &trace, boundaries, &mut Timings::default()).unwrap();
    let proof = Proof::from_bytes(&proof.to_bytes()).unwrap();
    let registered =
        (visibility == Visibility::Public && !weights.0.is_empty()).then(|| key.verifying().register(weights).unwrap());
    let verdict = verify(key.verifying(), registered.as_ref(), &statement, &proof);
    assert!(verdict.is_ok(), "seed {seed}: {}\n{:#?}", verdict.unwrap_err(), graph.graph().nodes);
}

#[test]
fn random_graphs_verify() {
    for seed in 0..60 {
        let visibility = if seed % 2 == 0 { Visibility::Committed } else { Visibility::Public };
        round_trip(seed, 1 + (seed % 3) as usize, visibility, seed % 5 < 2);
    }
}
