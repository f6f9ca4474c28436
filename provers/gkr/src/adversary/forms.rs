//! Keys, statements and proofs of the wrong form: refused with an error, without a panic and without much memory or time.

use shardproof_integer::testing::random_batch;

use super::*;
use crate::pcs::{Commitment, Opening};
use crate::{VerifyingKey, WeightsKey};

/// The encoding of a proof with so many openings of no bytes, without making the proof.
fn hollow(openings: usize) -> Vec<u8> {
    let witness = Some(Commitment { root: [0; 32], ood: Ext::ZERO, num_vars: 6 });
    let head = postcard::to_allocvec(&(crate::VERSION, witness, Vec::<Ext>::new(), openings)).unwrap();
    [head, vec![0; openings], vec![0; 32]].concat()
}

#[test]
fn openings_without_bytes_are_not_decoded_without_end() {
    assert_eq!(Proof::from_bytes(&hollow(1 << 14)).unwrap().openings.len(), 1 << 14);
    for openings in [(1 << 14) + 1, 60 << 20] {
        let error = Proof::from_bytes(&hollow(openings)).unwrap_err();
        assert!(matches!(error, VerifyError::Encoding { what: "proof", .. }), "{error:?}");
    }
}

#[test]
fn proofs_longer_than_any_are_not_decoded() {
    let error = Proof::from_bytes(&vec![0; crate::MAX_PROOF_BYTES + 1]).unwrap_err();
    assert!(error.to_string().ends_with("67108864 is the most"), "{error}");
}

#[test]
fn every_run_has_a_commitment_to_each_tensor() {
    let scene = Scene::network();
    let (_, _, proof) = honest(&scene);
    let commitment = |num_vars| Commitment { root: [0; 32], ood: Ext::ZERO, num_vars };
    let verdict = |runs, commitments: Vec<Vec<Commitment>>| {
        let boundary = Boundary::Committed(&commitments);
        verify(
            scene.key.verifying(),
            None,
            &Statement { context: b"a", runs, input: boundary, output: boundary },
            &proof,
        )
    };
    for (runs, commitments, reason) in [
        (2, vec![vec![commitment(6)]], "1 commitments, 2 are due"),
        (1, vec![vec![commitment(6); 2]], "2 commitments, 1 are due"),
        (1, vec![vec![commitment(7)]], "2^7 values, 2^6 are due"),
        (1, vec![vec![commitment(6)]; 2], "2 tensors in 1 runs, 1 are due"),
    ] {
        let verdict = verdict(runs, commitments);
        assert!(matches!(&verdict, Err(VerifyError::Boundary(why)) if why.contains(reason)), "{reason}: {verdict:?}");
    }
}

#[test]
fn no_runs_and_runs_whose_elements_overflow_are_refused() {
    let scene = Scene::network();
    let (_, _, proof) = honest(&scene);
    // Of 2^63 runs the six elements of the input and the five of the output make none, or 2^63, modulo 2^64.
    for runs in [0, 1 << 63, usize::MAX] {
        let statement =
            Statement { context: b"a", runs, input: Boundary::Public(&[vec![]]), output: Boundary::Public(&[vec![]]) };
        let verdict = verify(scene.key.verifying(), None, &statement, &proof);
        assert!(matches!(verdict, Err(VerifyError::Boundary(_))), "{verdict:?}");
    }
}

#[test]
fn a_witness_beyond_every_commitment_is_refused_at_once() {
    let scene = Scene::network();
    let (_, _, mut proof) = honest(&scene);
    let commitment = Commitment { root: [0; 32], ood: Ext::ZERO, num_vars: 6 };
    let many = vec![vec![commitment; 1 << 22]];
    let layout = Layout::new(&scene.graph, 1 << 22);
    proof.witness.as_mut().unwrap().num_vars = layout.variables;
    let statement = Statement {
        context: b"",
        runs: 1 << 22,
        input: Boundary::Committed(&many),
        output: Boundary::Committed(&many),
    };
    let verdict = verify(scene.key.verifying(), None, &statement, &proof);
    assert!(matches!(verdict, Err(VerifyError::Account(soundness::NoAccount::Size(_)))), "{verdict:?}");
    // Sizes that no machine can count neither panic nor come out small.
    assert!(Layout::new(&scene.graph, usize::MAX).variables > 58);
}

#[test]
fn a_key_without_weights_for_a_graph_that_has_some_is_refused() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let key = VerifyingKey::new(scene.graph.clone(), WeightsKey::None);
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let verdict = verify(&key, None, &statement, &proof);
    assert!(matches!(verdict, Err(VerifyError::Weights(_))), "{verdict:?}");
    assert!(VerifyingKey::from_bytes(&key.to_bytes()).is_err());
}

/// A key that decodes is one that proofs can be checked under, however little they fit.
#[test]
fn altered_keys_never_panic() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) as usize % below
    };
    let mut decoded = 0;
    for seed in 0..40 {
        let (graph, weights, inputs) = random_batch(seed, Size { nodes: 10, elements: 40 }, 1);
        let scene = Scene::new(graph, weights, &inputs);
        let graph = scene.graph.graph();
        let outputs = scene.tensors(&scene.trace, graph.outputs.iter().copied());
        let statement =
            Statement { context: b"", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
        let proof =
            scene.key.prove(&statement, &scene.trace, CommittedBoundaries::default(), &mut Timings::default()).unwrap();
        let bytes = scene.key.verifying().to_bytes();
        for _ in 0..100 {
            let mut altered = bytes.clone();
            for _ in 0..1 + next(2) {
                altered[next(bytes.len())] = next(256) as u8;
            }
            let Ok(key) = VerifyingKey::from_bytes(&altered) else { continue };
            let graph = key.graph();
            let elements = |tensor| graph.elements(TensorId(tensor as u32));
            if altered == bytes || (0..graph.tensors()).map(elements).sum::<usize>() > 1 << 20 {
                continue;
            }
            decoded += 1;
            assert!(verify(&key, None, &statement, &proof).is_err(), "seed {seed}");
            // Values that are all zero get past sums and products.
            let zero = Proof { values: vec![Ext::ZERO; proof.values.len() * 2], ..proof.clone() };
            assert!(verify(&key, None, &statement, &zero).is_err(), "seed {seed}");
        }
    }
    assert!(decoded > 300, "{decoded}");
}

#[test]
fn openings_of_any_bytes_are_refused() {
    let scene = Scene::network();
    let (inputs, outputs, proof) = honest(&scene);
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    for bytes in [vec![], vec![0; 1 << 16], vec![0xff; 1 << 16]] {
        let mut changed = proof.clone();
        changed.openings[1] = Opening::from_bytes(bytes);
        let verdict = verify(scene.key.verifying(), None, &statement, &changed);
        assert!(matches!(verdict, Err(VerifyError::Opening { what: Committed::Witness, .. })), "{verdict:?}");
    }
}

/// What [`Boundary::Committed`] says: a proof alone does not show that a committed input is within bounds. Half of the
/// field's one, doubled, is one.
#[test]
fn bounds_of_a_committed_input_are_shown_by_the_proof_that_it_is_an_output_of() {
    let node = |name: &str, op: Op| Node { name: name.to_owned(), op, scale: 0 };
    let graph = Graph {
        inputs: vec![Input { name: "x".to_owned(), shape: vec![1], scale: 0 }],
        weights: vec![Weight { name: "two".to_owned(), shape: vec![1], bits: 1 }],
        tables: vec![],
        nodes: vec![
            node("double", Op::MulWeight { input: TensorId(0), weight: WeightId(0) }),
            node("range", Op::Requant { input: TensorId(1), shift: 0, bits: 5, relu: false }),
        ],
        outputs: vec![TensorId(2)],
    };
    let scene = Scene::new(graph, Weights(vec![vec![2]]), &[vec![3]]);
    let half = i64::MAX - (1 << 31) + 2;
    let trace = Trace { runs: 1, tensors: vec![vec![half], vec![1], vec![1]] };
    let committed = vec![vec![commit_tensor(&[half]).unwrap()]];
    let commitments = vec![vec![committed[0][0].commitment().clone()]];
    let (inputs, outputs) = (vec![vec![half]], vec![vec![1]]);
    for (input, boundaries) in [
        (Boundary::Committed(&commitments), CommittedBoundaries { input: &committed, output: &[] }),
        (Boundary::Public(&inputs), CommittedBoundaries::default()),
    ] {
        let statement = Statement { context: b"", runs: 1, input, output: Boundary::Public(&outputs) };
        let proof = scene.key.prove(&statement, &trace, boundaries, &mut Timings::default()).unwrap();
        let verdict = verify(scene.key.verifying(), None, &statement, &proof);
        match input {
            Boundary::Committed(_) => assert!(verdict.is_ok(), "{verdict:?}"),
            Boundary::Public(_) => assert!(matches!(verdict, Err(VerifyError::Boundary(_))), "{verdict:?}"),
        }
    }
}

/// A graph that only moves values: no lookup, no weight, and with public boundaries no value in the clear.
fn mover() -> Scene {
    let node = |name: &str, op: Op| Node { name: name.to_owned(), op, scale: 0 };
    let graph = Graph {
        inputs: vec![Input { name: "x".to_owned(), shape: vec![2, 3], scale: 0 }],
        weights: vec![],
        tables: vec![],
        nodes: vec![
            node("turn", Op::Transpose { input: TensorId(0), axes: vec![1, 0] }),
            node("flatten", Op::Reshape { input: TensorId(1), shape: vec![6] }),
        ],
        outputs: vec![TensorId(2)],
    };
    Scene::new(graph, Weights(vec![]), &[vec![1, 2, 3, 4, 5, 6]])
}

#[test]
fn a_proof_that_only_moves_values_is_of_one_statement() {
    let scene = mover();
    let (inputs, outputs, proof) = honest(&scene);
    assert!(proof.values.is_empty() && proof.openings.is_empty(), "nothing but the seal depends on a challenge");
    let verdict = |context: &[u8], proof: &Proof| {
        let statement =
            Statement { context, runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
        verify(scene.key.verifying(), None, &statement, proof)
    };
    verdict(b"a", &proof).unwrap();
    assert!(matches!(verdict(b"b", &proof), Err(VerifyError::Seal)));
    let mut other = proof.clone();
    other.seal[31] ^= 1;
    assert!(matches!(verdict(b"a", &other), Err(VerifyError::Seal)));
}

#[test]
fn a_witness_is_committed_to_where_there_is_one_and_nowhere_else() {
    let scene = mover();
    let (inputs, outputs, mut proof) = honest(&scene);
    proof.witness = Some(Commitment { root: [0; 32], ood: Ext::ZERO, num_vars: scene.layout.variables });
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let verdict = verify(scene.key.verifying(), None, &statement, &proof);
    assert!(matches!(verdict, Err(VerifyError::Witness { due: false })), "{verdict:?}");

    let scene = Scene::network();
    let (inputs, outputs, mut proof) = honest(&scene);
    proof.witness = None;
    let statement =
        Statement { context: b"a", runs: 1, input: Boundary::Public(&inputs), output: Boundary::Public(&outputs) };
    let verdict = verify(scene.key.verifying(), None, &statement, &proof);
    assert!(matches!(verdict, Err(VerifyError::Witness { due: true })), "{verdict:?}");
}
