//! Proofs for other statements, weights or boundaries than their own, and proofs that are not whole.

use super::*;

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

#[test]
fn proofs_of_another_version_are_not_decoded() {
    let (_, _, proof) = honest(&Scene::network());
    for version in [crate::VERSION - 1, crate::VERSION + 1] {
        let error = Proof::from_bytes(&Proof { version, ..proof.clone() }.to_bytes()).unwrap_err();
        assert!(error.to_string().contains("version"), "{error}");
    }
}
