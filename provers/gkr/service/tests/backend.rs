//! The backend as the service uses it: set up, loaded from its files, run, proven, verified, and lied to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod support;

use shardproof_common::backend::{Backend, BackendError, ProofVerifier, Registered, VerifyError};
use shardproof_common::card::ShardKeys;
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, GkrOptions, WeightVisibility};
use shardproof_common::statement::{Binding, Statement};
use shardproof_common::tensor::{Tensor, TensorSpec};
use shardproof_gkr_service::{GkrBackend, GkrVerifier, KeyFile, KeyFileError, TIMINGS_FILE};

use BoundaryMode::{Committed, Public};
use support::{Shard, assert_rejected, options, try_setup, with_job};

#[test]
fn every_kind_of_weights_and_boundaries_is_proven_and_verified() {
    for weights in [WeightVisibility::Committed, WeightVisibility::Public] {
        for modes in [[Public, Public], [Public, Committed], [Committed, Public], [Committed, Committed]] {
            let shard = Shard::new("mlp", weights, modes);
            let ShardKeys::Gkr(keys) = &shard.setup.card.keys else { panic!("other keys") };
            assert_eq!(keys.weights, Some(weights));
            let key = shard.key();
            assert_eq!(keys.verifying_key, Digest::of(&key));
            GkrVerifier::default().check_settings(&shard.files.card, &shard.registered()).unwrap();
            GkrVerifier::default().check_verifying_key(&shard.files.card, &key).unwrap();
            let inference = shard.infer();
            let statement = shard.statement(&inference);
            let proof = shard.prove(&statement).unwrap();
            shard.verify(&statement, &inference.output, &key, &proof).unwrap();
            let committed = |binding: &Binding| matches!(binding, Binding::Committed(_));
            assert_eq!(committed(&statement.input.binding), modes[0] == Committed);
            assert_eq!(committed(&statement.output.binding), modes[1] == Committed);
            let timings = std::fs::read_to_string(shard.directory.path().join(TIMINGS_FILE)).unwrap();
            assert!(timings.starts_with("step,layer,ms\n") && timings.lines().count() > 10, "{timings}");
        }
    }
}

#[test]
fn commitments_of_neighbours_are_equal_and_bind() {
    let (left, right) = (
        Shard::new("mlp", WeightVisibility::Committed, [Committed, Committed]),
        Shard::new("mlp", WeightVisibility::Public, [Committed, Public]),
    );
    let input = |shard: &Shard| shard.infer().input_boundary;
    assert_eq!(input(&left), input(&right), "a commitment depends on the tensor alone");
    let mut other = Shard::new("mlp", WeightVisibility::Committed, [Committed, Committed]);
    other.sample[0].values[3] += 0.25;
    assert_ne!(input(&left).binding, input(&other).binding);
}

#[test]
fn a_proof_is_of_its_statement_alone() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Committed, Committed]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let (key, proof) = (shard.key(), shard.prove(&statement).unwrap());
    type Change = fn(&mut Statement);
    let changes: [Change; 7] = [
        |statement| statement.run = RunId::from_bytes([8; 16]),
        |statement| statement.shard = ShardIndex(1),
        |statement| statement.shards = 2,
        |statement| statement.plan = Digest::of(b"another plan"),
        |statement| statement.model = Digest::of(b"another model"),
        |statement| statement.keys = Digest::of(b"other keys"),
        |statement| std::mem::swap(&mut statement.input.tensors[0].scale, &mut statement.output.tensors[0].scale),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut other = statement.clone();
        change(&mut other);
        assert_ne!(other, statement, "change {index}");
        let verdict = shard.verify(&other, &inference.output, &key, &proof);
        assert!(matches!(verdict, Err(VerifyError::Rejected(_))), "change {index}: {verdict:?}");
    }
    let mut version = statement.clone();
    version.backend.version = "0".to_owned();
    assert_rejected(shard.verify(&version, &inference.output, &key, &proof), "expected a statement of gkr 2");
}

#[test]
fn another_answer_is_rejected_and_not_proven() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Public, Public]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let (key, proof) = (shard.key(), shard.prove(&statement).unwrap());
    let mut answer = inference.output.clone();
    let Tensor::Integer(tensor) = &mut answer[0] else { panic!("floats") };
    tensor.values[0] += 1;
    let lie = Statement { output: shardproof_common::statement::Boundary::public(&answer), ..statement.clone() };
    assert!(matches!(shard.verify(&lie, &answer, &key, &proof), Err(VerifyError::Rejected(_))));
    // The statement's own digest is bound, and so are the tensors that the verifier is handed.
    assert!(matches!(shard.verify(&statement, &answer, &key, &proof), Err(VerifyError::Rejected(_))));
    let refused = shard.prove(&lie).unwrap_err();
    assert!(matches!(&refused, BackendError::Input(reason) if reason.contains("output boundary")), "{refused}");
    let mut short = statement.clone();
    short.input.tensors.clear();
    assert!(
        matches!(shard.prove(&short).unwrap_err(), BackendError::Input(reason) if reason.contains("input boundary"))
    );
}

#[test]
fn every_flipped_byte_of_a_proof_is_rejected() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Public, Committed]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let (key, proof) = (shard.key(), shard.prove(&statement).unwrap());
    let verify = |proof: &[u8]| shard.verify(&statement, &inference.output, &key, proof);
    verify(&proof).unwrap();
    // Every byte of a proof is the protocol's own test; here a spread of them reaches each part of the file.
    for position in (0..proof.len()).step_by(61).chain([proof.len() - 1]) {
        let mut forged = proof.clone();
        forged[position] ^= 1;
        assert!(verify(&forged).is_err(), "byte {position}");
    }
    assert_rejected(verify(&[]), "not a proof");
    assert_rejected(verify(&proof[..proof.len() - 1]), "not a proof");
    assert_rejected(verify(&[proof.as_slice(), &[0]].concat()), "not a proof");
}

#[test]
fn commitments_that_are_none_are_refused_as_instances() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Public, Committed]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let (key, proof) = (shard.key(), shard.prove(&statement).unwrap());
    let Binding::Committed(commitments) = &statement.output.binding else { panic!("a public output") };
    let whole = commitments[0].clone();
    let cut = whole[..whole.len() - 1].to_vec();
    let extended = [whole.as_slice(), &[0]].concat();
    for forged in [cut, extended, Vec::new(), vec![0xff; whole.len()]] {
        let mut lie = statement.clone();
        lie.output.binding = Binding::Committed(vec![forged.clone()]);
        let verdict = shard.verify(&lie, &inference.output, &key, &proof);
        assert!(matches!(verdict, Err(VerifyError::Instances(_))), "{forged:?}: {verdict:?}");
    }
    let mut shaped = statement.clone();
    shaped.output.tensors[0].shape = vec![1, 1000];
    let verdict = shard.verify(&shaped, &inference.output, &key, &proof);
    assert!(matches!(&verdict, Err(VerifyError::Instances(reason)) if reason.contains("2^10 are due")), "{verdict:?}");
    let mut flipped = whole;
    flipped[0] ^= 1;
    let mut lie = statement;
    lie.output.binding = Binding::Committed(vec![flipped]);
    assert_rejected(shard.verify(&lie, &inference.output, &key, &proof), "");
}

#[test]
fn integers_beyond_the_protocols_bound_are_refused_as_instances() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Committed, Public]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let (key, proof) = (shard.key(), shard.prove(&statement).unwrap());
    let mut answer = inference.output.clone();
    let Tensor::Integer(tensor) = &mut answer[0] else { panic!("floats") };
    tensor.values[0] = (1 << 24) + 1;
    let verdict = shard.verify(&statement, &answer, &key, &proof);
    assert!(matches!(&verdict, Err(VerifyError::Instances(reason)) if reason.contains("beyond 2^24")), "{verdict:?}");
}

#[test]
fn keys_that_are_not_the_cards_are_refused() {
    let mut shard = Shard::new("mlp", WeightVisibility::Public, [Public, Public]);
    let other = Shard::new("testing", WeightVisibility::Public, [Public, Public]);
    let committed = Shard::new("mlp", WeightVisibility::Committed, [Public, Public]);
    let check =
        |shard: &Shard, key: &[u8]| GkrVerifier::default().check_verifying_key(&shard.files.card, key).unwrap_err();
    assert!(check(&shard, &other.key()).contains("the card registers"), "{}", check(&shard, &other.key()));
    let reason = check(&shard, &committed.key());
    assert_eq!(reason, "the card registers public weights, the key has committed ones");
    shard.files.card.output[0].scale += 1;
    assert!(check(&shard, &shard.key()).starts_with("output `"), "{}", check(&shard, &shard.key()));
    shard.files.card.output[0].scale -= 1;
    shard.files.card.input[0].shape[1] += 1;
    assert!(check(&shard, &shard.key()).starts_with("input `"), "{}", check(&shard, &shard.key()));

    let modes = Registered { input_mode: BoundaryMode::Hashed, ..other.registered() };
    assert!(GkrVerifier::default().check_settings(&other.files.card, &modes).unwrap_err().contains("hashed"));
    let ezkl = BackendOptions::Ezkl(EzklOptions::default());
    let options = Registered { options: &ezkl, ..other.registered() };
    assert!(GkrVerifier::default().check_settings(&other.files.card, &options).unwrap_err().contains("ezkl"));
}

#[test]
fn key_files_have_one_form() {
    let (public, committed) = (
        Shard::new("mlp", WeightVisibility::Public, [Public, Public]).key(),
        Shard::new("mlp", WeightVisibility::Committed, [Public, Public]).key(),
    );
    assert!(public.len() > committed.len() + 700, "public weights travel with the key");
    assert!(KeyFile::decode(&public).unwrap().weights.is_some());
    assert!(KeyFile::decode(&committed).unwrap().weights.is_none());
    let refused = |bytes: &[u8]| KeyFile::decode(bytes).unwrap_err();
    assert!(matches!(refused(&[]), KeyFileError::Header));
    assert!(matches!(refused(&public[1..]), KeyFileError::Header));
    assert!(matches!(refused(&committed[..committed.len() - 1]), KeyFileError::Truncated { .. }));
    assert!(matches!(refused(&[committed.as_slice(), &[0]].concat()), KeyFileError::Leftover { found: 1 }));
    assert!(matches!(refused(&public[..public.len() - 1]), KeyFileError::Weights(_)));
    assert!(matches!(refused(&[public.as_slice(), &[0]].concat()), KeyFileError::Weights(_)));
    let flip = |bytes: &[u8], position: usize| {
        let mut bytes = bytes.to_vec();
        bytes[position] ^= 1;
        bytes
    };
    assert!(matches!(refused(&flip(&public, public.len() - 1)), KeyFileError::Weights(_)));
    let mut huge = committed.clone();
    huge[4..12].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(refused(&huge), KeyFileError::Truncated { expected: u64::MAX, .. }));
    for position in 0..committed.len() {
        if let Ok(file) = KeyFile::decode(&flip(&committed, position)) {
            assert_ne!(file.key.to_bytes(), KeyFile::decode(&committed).unwrap().key.to_bytes(), "byte {position}");
        }
    }
}

#[test]
fn public_weights_of_another_model_are_refused_as_weights() {
    let shard = Shard::new("mlp", WeightVisibility::Public, [Public, Public]);
    let inference = shard.infer();
    let statement = shard.statement(&inference);
    let proof = shard.prove(&statement).unwrap();
    let mut key = shard.key();
    *key.last_mut().unwrap() ^= 1;
    let verdict = shard.verify(&statement, &inference.output, &key, &proof);
    assert!(matches!(verdict, Err(VerifyError::Weights(_))), "{verdict:?}");
}

#[test]
fn damaged_files_are_found_when_the_shard_is_loaded() {
    let shard = Shard::new("mlp", WeightVisibility::Committed, [Public, Public]);
    GkrBackend::new().load(&shard.files).unwrap();
    for (name, path) in &shard.files.files {
        let whole = std::fs::read(path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(path, &damaged).unwrap();
        let error = GkrBackend::new().load(&shard.files).unwrap_err();
        assert!(matches!(error, BackendError::Failed { .. }), "{name}: {error}");
        std::fs::write(path, &whole).unwrap();
    }
    let mut missing = shard.files.clone();
    missing.files.clear();
    assert!(GkrBackend::new().load(&missing).unwrap_err().to_string().contains("is missing"));
}

#[test]
fn values_out_of_range_end_the_run_and_name_the_place() {
    let mut shard = Shard::new("mlp", WeightVisibility::Committed, [Public, Public]);
    shard.sample[0].values[0] = 1e6;
    let infer = |input: &[Tensor]| {
        with_job(shard.directory.path(), |job| GkrBackend::new().infer(&shard.files, input, job)).unwrap_err()
    };
    let refused = infer(&shard.input());
    let BackendError::Input(reason) = &refused else { panic!("{refused}") };
    assert!(reason.starts_with("shard 0: ") && reason.contains("input"), "{reason}");

    let floats: Vec<Tensor> = shard.sample.iter().cloned().map(Tensor::Float).collect();
    assert!(matches!(infer(&floats), BackendError::Input(reason) if reason.contains("floats")));
    let mut scaled = shard.input();
    let Tensor::Integer(tensor) = &mut scaled[0] else { panic!("floats") };
    tensor.scale += 1;
    assert!(matches!(infer(&scaled), BackendError::Input(reason) if reason.contains("scale")));
    assert!(matches!(infer(&[]), BackendError::Input(_)));
}

#[test]
fn setups_follow_the_plan_or_say_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let try_with = |options: &BackendOptions, modes, given: Option<&[TensorSpec]>| {
        try_setup("mlp", directory.path(), options, modes, given).map(|(setup, _)| setup.card)
    };
    let committed = options(WeightVisibility::Committed);
    let hashed = try_with(&committed, [BoundaryMode::Hashed, Public], None).unwrap_err();
    assert!(matches!(hashed, BackendError::Unsupported { .. }), "{hashed}");
    let ezkl = try_with(&BackendOptions::Ezkl(EzklOptions::default()), [Public, Public], None).unwrap_err();
    assert!(matches!(ezkl, BackendError::Unsupported { .. }), "{ezkl}");
    let bits = BackendOptions::Gkr(GkrOptions { weight_bits: Some(99), ..GkrOptions::default() });
    assert!(matches!(try_with(&bits, [Public, Public], None).unwrap_err(), BackendError::Input(_)));

    let calibrated = try_with(&committed, [Public, Public], None).unwrap();
    let scaled = GkrOptions { input_scale: Some(5), ..GkrOptions::default() };
    let wished = try_with(&BackendOptions::Gkr(scaled), [Public, Public], None).unwrap();
    assert_eq!(wished.input[0].scale, 5);
    let mut previous = calibrated.input.clone();
    previous[0].scale = 3;
    assert_eq!(try_with(&committed, [Public, Public], Some(&previous)).unwrap().input[0].scale, 3);
}
