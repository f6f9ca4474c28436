//! For every check a forgery that is sealed again, so that only that check fails.
//!
//! The forger of these tests colludes with everyone but the owner: it holds the workers' keys and the proof system's secret,
//! so signatures, digests and proofs of what it changed are always right.

#![allow(clippy::unwrap_used)]

mod support;

use shardproof_common::bundle::Bundle;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::{self, Check, Report, VerifyOptions};
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::{BackendKind, BoundaryMode, ParameterVisibility};
use shardproof_common::receipt::Admission;
use shardproof_common::statement::{Binding, Boundary, BoundaryShape, Statement};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec, encode_boundary};
use support::{MockProof, MockVerifier, Scenario, assert_only, commit, identity, integers, verify, with_job};

const MODES: [BoundaryMode; 3] = [BoundaryMode::Public, BoundaryMode::Hashed, BoundaryMode::Polycommit];

/// The reason expected, and what is changed.
type Forgery<'a, T> = (&'a str, &'a dyn Fn(&mut T));

fn hashed() -> Scenario {
    Scenario::new(3, BoundaryMode::Hashed)
}

/// Verifies `forged` with all that the user of the honest `scenario` can supply.
fn after(scenario: &Scenario, forge: impl FnOnce(&mut Bundle)) -> Report {
    let (mut bundle, card) = scenario.seal();
    forge(&mut bundle);
    scenario.report_on(&bundle, &card)
}

fn with_statement(scenario: &Scenario, shard: usize, forge: impl Fn(&mut Statement)) -> Report {
    let (bundle, card) = scenario.seal_with(|i, statement| {
        if i == shard {
            forge(statement);
        }
    });
    scenario.report_on(&bundle, &card)
}

fn bytes_report(scenario: &Scenario, forge: impl FnOnce(&mut Vec<u8>)) -> Report {
    let (bundle, card) = scenario.seal();
    let mut bytes = bundle.encode().unwrap();
    forge(&mut bytes);
    let verifier = MockVerifier::new();
    with_job(|job| chain::verify_bytes(&bytes, &card, &VerifyOptions::default(), &[&verifier], job)).unwrap()
}

#[test]
fn encoding_trailing_byte() {
    assert_only(&bytes_report(&hashed(), |bytes| bytes.push(0)), Check::Encoding, None, "1 bytes follow");
}

#[test]
fn encoding_truncated() {
    assert_only(&bytes_report(&hashed(), |bytes| bytes.truncate(bytes.len() - 1)), Check::Encoding, None, "truncated");
}

#[test]
fn encoding_another_version() {
    assert_only(&bytes_report(&hashed(), |bytes| bytes[8] += 1), Check::Encoding, None, "of version 3");
}

#[test]
fn card_another_one_of_the_same_owner() {
    let report = after(&hashed(), |bundle| bundle.card = Digest::of(b"another card"));
    assert_only(&report, Check::Card, None, "was made under card");
}

#[test]
fn card_changed_after_it_was_signed() {
    let scenario = hashed();
    let (bundle, mut card) = scenario.seal();
    card.body.name.push('!');
    assert_only(&scenario.report_on(&bundle, &card), Check::Card, None, "signature does not hold");
}

#[test]
fn card_signed_but_inconsistent() {
    let mut scenario = hashed();
    scenario.body.shards[1].input[0].scale += 1;
    assert_only(&scenario.report(), Check::Card, None, "its tensors differ from those of boundary 1");
}

#[test]
fn owner_key_of_somebody_else() {
    let scenario = hashed();
    let (bundle, card) = scenario.seal();
    let forged = ModelCard::sign(card.body.clone(), &identity(99));
    assert_only(&scenario.report_on(&bundle, &forged), Check::OwnerKey, None, &identity(99).public().to_string());
}

#[test]
fn model_file_of_another_model() {
    let (bundle, card) = hashed().seal();
    let options = VerifyOptions { model: Some(Digest::of(b"other")), ..VerifyOptions::default() };
    assert_only(&verify(&bundle, &card, &options).unwrap(), Check::ModelFile, None, "the card is for model");
}

#[test]
fn shard_list_omitted_first_last_and_inner() {
    for omitted in 0..3 {
        let report = after(&hashed(), |bundle| drop(bundle.shards.remove(omitted)));
        assert_only(&report, Check::ShardList, None, "the plan has 3 shards");
    }
}

#[test]
fn shard_list_repeated_and_extra() {
    let report = after(&hashed(), |bundle| bundle.shards.push(bundle.shards[2].clone()));
    assert_only(&report, Check::ShardList, None, "the bundle 4");
    let report = after(&hashed(), |bundle| bundle.boundaries.push(None));
    assert_only(&report, Check::ShardList, None, "4 boundaries");
    let report = after(&hashed(), |bundle| drop(bundle.boundaries.pop()));
    assert_only(&report, Check::ShardList, None, "4 boundaries");
}

#[test]
fn shard_list_empty() {
    let report = after(&hashed(), |bundle| bundle.shards.clear());
    assert_only(&report, Check::ShardList, None, "the bundle 0");
}

#[test]
fn shard_list_exchanged_order_is_named_first() {
    let report = after(&hashed(), |bundle| bundle.shards.swap(0, 1));
    let refusal = report.refusal().unwrap();
    assert_eq!((refusal.check, refusal.shard), (Check::ShardList, Some(ShardIndex(0))));
}

#[test]
fn shard_list_position_in_statement() {
    let report = with_statement(&hashed(), 1, |statement| statement.shard = ShardIndex(2));
    assert_only(&report, Check::ShardList, Some(1), "found a receipt for shard 2 of 3");
    let report = with_statement(&hashed(), 1, |statement| statement.shards = 2);
    assert_only(&report, Check::ShardList, Some(1), "found a receipt for shard 1 of 2");
}

#[test]
fn leftover_tensors_of_a_committed_boundary() {
    let scenario = hashed();
    let tensors = encode_boundary(&scenario.claims[1].input);
    let report = after(&scenario, |bundle| bundle.boundaries[1] = Some(tensors.into()));
    assert_only(&report, Check::Leftover, Some(0), "boundary 1");
}

#[test]
fn leftover_proof_in_float_mode() {
    let scenario = Scenario::float(2);
    let (honest, _) = Scenario::new(2, BoundaryMode::Public).seal();
    let report = after(&scenario, |bundle| bundle.shards[1].proof = honest.shards[1].proof.clone());
    assert_only(&report, Check::Leftover, Some(1), "float mode");
}

#[test]
fn run_id_of_another_run() {
    for shard in 0..3 {
        let report = with_statement(&hashed(), shard, |statement| statement.run = RunId::from_bytes([8; 16]));
        assert_only(&report, Check::RunId, Some(shard as u32), "expected run 07070707");
    }
    let report = after(&hashed(), |bundle| bundle.run = RunId::from_bytes([9; 16]));
    assert_only(&report, Check::RunId, Some(0), "expected run 09090909");
}

#[test]
fn statement_every_field() {
    let other = Digest::of(b"other");
    let forgeries: [Forgery<'_, Statement>; 7] = [
        ("expected protocol 2, found 3", &|statement| statement.protocol = 3),
        ("expected backend ezkl", &|statement| statement.backend.version.push('1')),
        ("expected backend ezkl", &|statement| statement.backend.kind = BackendKind::Float),
        ("expected model", &|statement| statement.model = other),
        ("expected architecture", &|statement| statement.architecture = other),
        ("expected plan", &|statement| statement.plan = other),
        ("expected keys", &|statement| statement.keys = other),
    ];
    for (reason, forge) in forgeries {
        assert_only(&with_statement(&hashed(), 2, forge), Check::Statement, Some(2), reason);
    }
}

#[test]
fn admission_by_nobody_in_particular() {
    let report = after(&hashed(), |bundle| {
        let admission = &mut bundle.shards[1].admission;
        *admission = Admission::sign(admission.worker, admission.plan, &identity(98));
    });
    assert_only(&report, Check::Admission, Some(1), "signature is not by");
}

#[test]
fn admission_of_another_worker() {
    let report = after(&hashed(), |bundle| bundle.shards[1].admission = bundle.shards[0].admission.clone());
    assert_only(&report, Check::Admission, Some(1), "the admission is for worker");
}

#[test]
fn admission_to_another_plan() {
    let scenario = hashed();
    let report = after(&scenario, |bundle| {
        let admission = &mut bundle.shards[2].admission;
        *admission = Admission::sign(admission.worker, Digest::of(b"other plan"), &scenario.authority);
    });
    assert_only(&report, Check::Admission, Some(2), "the admission is for plan");
}

#[test]
fn admission_signed_as_something_else() {
    let scenario = hashed();
    let report = after(&scenario, |bundle| {
        let admission = &mut bundle.shards[2].admission;
        admission.signature =
            scenario.authority.sign(Digest::derive("shardproof 2 card", &(admission.worker, admission.plan)));
    });
    assert_only(&report, Check::Admission, Some(2), "signature is not by");
}

#[test]
fn receipt_by_somebody_else() {
    let report = after(&hashed(), |bundle| {
        let receipt = &mut bundle.shards[1].receipt;
        receipt.signature = receipt.signed_by(&identity(98)).signature;
    });
    assert_only(&report, Check::Receipt, Some(1), "signature is not by");
}

#[test]
fn receipt_of_another_attempt() {
    let report = after(&hashed(), |bundle| bundle.shards[0].receipt.attempt = 1);
    assert_only(&report, Check::Receipt, Some(0), "signature is not by");
}

#[test]
fn receipt_that_promises_for_longer() {
    let report = after(&hashed(), |bundle| {
        let until = &mut bundle.shards[0].receipt.provable_until;
        *until = UnixMillis(until.0 + 1);
    });
    assert_only(&report, Check::Receipt, Some(0), "signature is not by");
}

/// Changes boundary 1 on both its sides, so that the link holds.
fn with_boundary(scenario: &Scenario, forge: impl Fn(&mut Boundary)) -> Report {
    let (bundle, card) = scenario.seal_with(|i, statement| match i {
        0 => forge(&mut statement.output),
        1 => forge(&mut statement.input),
        _ => {}
    });
    scenario.report_on(&bundle, &card)
}

fn commitments(boundary: &mut Boundary) -> &mut Vec<Vec<u8>> {
    match &mut boundary.binding {
        Binding::Committed(commitments) => commitments,
        Binding::Public(_) => panic!("the boundary is public"),
    }
}

#[test]
fn boundary_form_shape_scale_and_counts() {
    let forgeries: [Forgery<'_, Boundary>; 6] = [
        ("expected shape [1, 3], found [3, 1]", &|boundary| boundary.tensors[0].shape = vec![3, 1]),
        ("expected scale 9, found 8", &|boundary| boundary.tensors[1].scale = 8),
        ("expected 2 tensors, found 1", &|boundary| drop(boundary.tensors.pop())),
        ("expected 2 tensors, found 3", &|boundary| boundary.tensors.push(BoundaryShape { shape: vec![], scale: 0 })),
        ("expected 2 commitments, found 1", &|boundary| drop(commitments(boundary).pop())),
        ("a commitment is empty", &|boundary| commitments(boundary)[1].clear()),
    ];
    for (reason, forge) in forgeries {
        assert_only(&with_boundary(&hashed(), forge), Check::BoundaryForm, Some(0), reason);
    }
}

#[test]
fn boundary_form_mode() {
    let scenario = hashed();
    let tensors = scenario.claims[1].input.clone();
    let report = with_boundary(&scenario, |boundary| *boundary = Boundary::public(&tensors));
    assert_only(&report, Check::BoundaryForm, Some(0), "expected hashed commitments");

    let mut scenario = Scenario::new(3, BoundaryMode::Public);
    scenario.claims.iter_mut().for_each(|claim| claim.proven = false);
    let committed = Boundary::committed(&tensors, tensors.iter().map(commit).collect());
    let report = with_boundary(&scenario, |boundary| *boundary = committed.clone());
    let refusal = report.refusal().unwrap();
    assert_eq!(refusal.check, Check::BoundaryForm);
    assert!(refusal.reason.contains("expected public tensors, found commitments"));
}

#[test]
fn boundary_form_of_the_answer() {
    let mut scenario = hashed();
    let last = scenario.claims.last_mut().unwrap();
    let mut rescaled = last.output.clone();
    let Tensor::Integer(tensor) = &mut rescaled[0] else { panic!("integers") };
    tensor.scale -= 1;
    last.output = rescaled.clone();
    scenario.shown[3] = Some(rescaled);
    assert_only(&scenario.report(), Check::BoundaryForm, Some(2), "expected scale 10, found 9");
}

#[test]
fn boundary_link_broken_in_every_mode() {
    for mode in MODES {
        for shard in [1, 2] {
            let mut scenario = Scenario::new(3, mode);
            scenario.claims[shard].input[1] = integers(&[2], 8 + shard as i32, 77);
            let previous = scenario.claims[shard - 1].worker.public().to_string();
            assert_only(&scenario.report(), Check::BoundaryLink, Some(shard as u32), &previous);
        }
    }
}

#[test]
fn boundary_link_exchanged_tensors() {
    let scenario = hashed();
    let report = with_statement(&scenario, 1, |statement| commitments(&mut statement.input).swap(0, 1));
    assert_only(&report, Check::BoundaryLink, Some(1), "the commitments to tensor 0 differ");
}

#[test]
fn boundary_tensors_missing() {
    let scenario = Scenario::new(3, BoundaryMode::Public);
    for boundary in 0..4 {
        let report = after(&scenario, |bundle| bundle.boundaries[boundary] = None);
        assert_only(
            &report,
            Check::BoundaryTensors,
            Some(boundary.saturating_sub(1) as u32),
            "the tensors are missing",
        );
    }
}

#[test]
fn boundary_tensors_exchanged() {
    for boundary in 0..4 {
        let mut scenario = Scenario::new(3, BoundaryMode::Public);
        let Some(Tensor::Integer(tensor)) = scenario.shown[boundary].as_mut().map(|tensors| &mut tensors[0]) else {
            panic!("integers are shown")
        };
        tensor.values[2] += 1;
        let (bundle, card) = scenario.seal();
        let report = verify(&bundle, &card, &VerifyOptions::default()).unwrap();
        let shard = boundary.saturating_sub(1) as u32;
        assert_only(&report, Check::BoundaryTensors, Some(shard), "the digest of the tensors is not the one");
    }
}

#[test]
fn boundary_tensors_at_another_scale_than_stated() {
    let mut scenario = hashed();
    let last = scenario.claims.last_mut().unwrap();
    let honest = Boundary::public(&last.output).tensors;
    let Tensor::Integer(tensor) = &mut last.output[0] else { panic!("integers") };
    tensor.scale = -20;
    scenario.shown[3] = Some(last.output.clone());
    let report = with_statement(&scenario, 2, |statement| statement.output.tensors = honest.clone());
    assert_only(&report, Check::BoundaryTensors, Some(2), "shapes or scales of the tensors are not those");
}

#[test]
fn boundary_tensors_not_canonical() {
    let scenario = hashed();
    let report = after(&scenario, |bundle| {
        let mut bytes = bundle.boundaries[0].take().unwrap().into_vec();
        bytes.push(0);
        bundle.boundaries[0] = Some(bytes.into());
    });
    assert_only(&report, Check::BoundaryTensors, Some(0), "expected the end");
}

#[test]
fn boundary_tensors_of_floats() {
    let mut scenario = hashed();
    scenario.claims.iter_mut().for_each(|claim| claim.proven = false);
    let last = scenario.claims.last_mut().unwrap();
    let floats = vec![Tensor::Float(FloatTensor { shape: vec![1, 3], values: vec![1.0, 2.0, 3.0] })];
    last.output = floats.clone();
    scenario.shown[3] = Some(floats);
    scenario.body.shards[2].output[0].scale = 0;
    assert_only(&scenario.report(), Check::BoundaryTensors, Some(2), "expected integers, found floats");
}

#[test]
fn input_that_the_client_did_not_send() {
    let scenario = hashed();
    let (bundle, card) = scenario.seal();
    let report = |input: &[FloatTensor]| {
        let options = VerifyOptions { input: Some(input), ..VerifyOptions::default() };
        verify(&bundle, &card, &options).unwrap()
    };
    let mut input = scenario.input();
    input[0].values[1] += 1.0 / 128.0;
    assert_only(&report(&input), Check::Input, Some(0), "element 1 of the run's input is not the given one");
    input[0].values[1] = f32::NAN;
    assert_only(&report(&input), Check::Input, Some(0), "element 1 is NaN");
    assert_only(&report(&[]), Check::Input, Some(0), "takes 1 tensors, 0 were given");
    let reshaped = [FloatTensor { shape: vec![3, 1], ..scenario.input()[0].clone() }];
    assert_only(&report(&reshaped), Check::Input, Some(0), "expected shape [1, 3]");
    let short = [FloatTensor { shape: vec![1, 3], values: vec![0.0] }];
    assert_only(&report(&short), Check::Input, Some(0), "with 1 values");
}

#[test]
fn input_of_a_float_run() {
    let scenario = Scenario::float(2);
    let (bundle, card) = scenario.seal();
    let mut input = scenario.input();
    input[0].values[0] += f32::EPSILON;
    let options = VerifyOptions { input: Some(&input), ..VerifyOptions::default() };
    assert_only(&verify(&bundle, &card, &options).unwrap(), Check::Input, Some(0), "element 0");
}

#[test]
fn output_that_was_not_the_answer() {
    let scenario = hashed();
    let (bundle, card) = scenario.seal();
    let report = |output: &[f64]| {
        let options = VerifyOptions { output: Some(output), ..VerifyOptions::default() };
        verify(&bundle, &card, &options).unwrap()
    };
    let mut output = scenario.output();
    output[2] = output[2].next_up();
    assert_only(&report(&output), Check::Output, Some(2), "element 2: the run's output is");
    assert_only(&report(&output[..2]), Check::Output, Some(2), "has 3 values, 2 were given");
    output[2] = f64::NAN;
    assert_only(&report(&output), Check::Output, Some(2), "NaN was given");
}

#[test]
fn backend_version_that_is_not_pinned() {
    let (bundle, card) = hashed().seal();
    let verifier = MockVerifier { version: "mock 1.1", ..MockVerifier::new() };
    let report = with_job(|job| chain::verify(&bundle, &card, &VerifyOptions::default(), &[&verifier], job)).unwrap();
    assert_only(&report, Check::BackendVersion, Some(0), "expected ezkl mock 1.1, found mock 1.0");
}

#[test]
fn settings_without_range_checks() {
    let mut scenario = hashed();
    let keys = scenario.keys(1);
    keys.settings = keys.settings.replace(r#""range_checks":true"#, r#""range_checks":false"#);
    assert_only(&scenario.report(), Check::Settings, Some(1), "range checks are off");
}

#[test]
fn settings_of_another_mode() {
    let mut scenario = hashed();
    scenario.keys(2).settings = support::settings(BoundaryMode::Public, BoundaryMode::Public);
    assert_only(&scenario.report(), Check::Settings, Some(2), "the plan says hashed");
}

#[test]
fn srs_for_tests() {
    let mut scenario = hashed();
    scenario.keys(1).srs.insecure_test = true;
    assert_only(&scenario.report(), Check::Srs, Some(1), "insecure");
}

#[test]
fn verifying_key_of_the_provers_choice() {
    let mut scenario = hashed();
    scenario.claims[1].verifying_key = b"a circuit that does nothing".to_vec();
    assert_only(&scenario.report(), Check::VerifyingKey, Some(1), "expected key");
    let report = after(&hashed(), |bundle| {
        let key = bundle.shards[0].proof.as_ref().unwrap().verifying_key.clone();
        bundle.shards[2].proof.as_mut().unwrap().verifying_key = key;
    });
    assert_only(&report, Check::VerifyingKey, Some(2), "expected key");
}

/// Proves again what shard `shard` of `bundle` proves, after `forge`.
fn reprove(bundle: &mut Bundle, shard: usize, forge: impl FnOnce(&mut MockProof)) {
    let proof = bundle.shards[shard].proof.as_mut().unwrap();
    let mut parts: MockProof = postcard::from_bytes(&proof.proof).unwrap();
    forge(&mut parts);
    proof.proof = MockProof::make(&proof.verifying_key, parts.instances, parts.weights).bytes().into();
}

#[test]
fn instances_missing_extra_and_other() {
    let forgeries: [fn(&mut MockProof); 4] = [
        |proof| drop(proof.instances.pop()),
        |proof| proof.instances.push(vec![0]),
        |proof| proof.instances[0][0] ^= 1,
        |proof| proof.instances.reverse(),
    ];
    for forge in forgeries {
        let report = after(&hashed(), |bundle| reprove(bundle, 1, forge));
        assert_only(&report, Check::Instances, Some(1), "instances");
    }
}

#[test]
fn instances_of_the_answer_delivered() {
    let mut scenario = hashed();
    scenario.claims[2].output = vec![integers(&[1, 3], 10, 999)];
    let (forged, _) = scenario.seal();
    let report = after(&hashed(), |bundle| bundle.shards[2].proof = forged.shards[2].proof.clone());
    assert_only(&report, Check::Instances, Some(2), "instances");
}

#[test]
fn weights_of_another_model() {
    let mut scenario = hashed();
    scenario.visibility(1, ParameterVisibility::Hashed);
    scenario.keys(1).parameter_hashes = vec!["ab".repeat(32)];
    scenario.claims[1].weights = vec!["ba".repeat(32)];
    assert_only(&scenario.report(), Check::Weights, Some(1), "not the registered ones");
}

#[test]
fn weights_that_the_card_does_not_register() {
    let mut scenario = hashed();
    scenario.visibility(1, ParameterVisibility::Hashed);
    assert_only(&scenario.report(), Check::Weights, Some(1), "the card registers no hash of them");
    for visibility in [ParameterVisibility::Fixed, ParameterVisibility::Private] {
        let mut scenario = hashed();
        scenario.visibility(1, visibility);
        scenario.keys(1).parameter_hashes = vec!["ab".repeat(32)];
        scenario.claims[1].weights = vec!["ab".repeat(32)];
        assert_only(&scenario.report(), Check::Weights, Some(1), "registers 1 hashes");
    }
}

#[test]
fn proof_that_does_not_hold() {
    for shard in 0..3 {
        let report = after(&hashed(), |bundle| {
            let proof = bundle.shards[shard].proof.as_mut().unwrap();
            let mut bytes = std::mem::take(&mut proof.proof).into_vec();
            *bytes.last_mut().unwrap() ^= 1;
            proof.proof = bytes.into();
        });
        assert_only(&report, Check::Proof, Some(shard as u32), "the seal does not hold");
    }
}

#[test]
fn proof_that_is_empty() {
    let report = after(&hashed(), |bundle| bundle.shards[1].proof.as_mut().unwrap().proof = Vec::new().into());
    assert_only(&report, Check::Proof, Some(1), "not a proof");
}

#[test]
fn proof_of_another_shard() {
    let report = after(&hashed(), |bundle| {
        let proof = bundle.shards[0].proof.as_ref().unwrap().proof.clone();
        bundle.shards[1].proof.as_mut().unwrap().proof = proof;
    });
    assert_only(&report, Check::Instances, Some(1), "instances");
}

#[test]
fn a_whole_shard_of_another_run_is_rejected() {
    let mut other = hashed();
    other.run = RunId::from_bytes([8; 16]);
    let (forged, _) = other.seal();
    let report = after(&hashed(), |bundle| bundle.shards[1] = forged.shards[1].clone());
    assert_only(&report, Check::RunId, Some(1), "expected run 07070707");
}

#[test]
fn a_whole_run_under_another_card_is_rejected() {
    let mut other = hashed();
    other.keys(1).srs.logrows = 16;
    let (forged, _) = other.seal();
    let (_, card) = hashed().seal();
    let report = verify(&forged, &card, &VerifyOptions::default()).unwrap();
    assert_eq!(report.refusal().unwrap().check, Check::Card);
}

#[test]
fn relabelling_tensors_of_equal_shape_is_rejected() {
    let names = |specs: &mut Vec<TensorSpec>| specs.reverse();
    let mut scenario = hashed();
    names(&mut scenario.body.shards[0].output);
    assert_only(&scenario.report(), Check::Card, None, "boundary 1");
}
