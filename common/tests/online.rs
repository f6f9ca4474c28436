//! What the coordinator checks while a run proceeds is what the offline verifier checks afterwards.

#![allow(clippy::unwrap_used)]

mod support;

use shardproof_common::bundle::Bundle;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::{
    ChainError, Check, Refusal, ShardCheck, ShardError, check_admission, check_link, check_receipt, verify_shard,
};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::plan::BoundaryMode;
use shardproof_common::receipt::Admission;
use shardproof_common::statement::Statement;
use support::{MockVerifier, Scenario, identity, integers, with_job};

/// What is expected, and what is changed.
type Forgery<'a, T> = (T, &'a dyn Fn(&mut Statement));

fn shard_check<'a>(bundle: &'a Bundle, card: &'a ModelCard, shard: usize) -> ShardCheck<'a> {
    let record = &bundle.shards[shard];
    let proof = record.proof.as_ref().unwrap();
    ShardCheck {
        card,
        run: bundle.run,
        shard: ShardIndex(shard as u32),
        receipt: &record.receipt,
        verifying_key: &proof.verifying_key,
        proof: &proof.proof,
        input: bundle.boundaries[shard].as_deref(),
        output: bundle.boundaries[shard + 1].as_deref(),
        allow_test_srs: false,
    }
}

fn verdict(request: &ShardCheck<'_>) -> Result<(), ShardError> {
    with_job(|job| verify_shard(request, &[&MockVerifier::new()], job))
}

#[track_caller]
fn assert_refused(result: Result<(), ShardError>, check: Check) {
    match result {
        Err(ShardError::Refused(Refusal { check: found, shard: Some(_), worker: Some(_), .. })) => {
            assert_eq!(found, check)
        }
        other => panic!("expected `{check}` to refuse, found {other:?}"),
    }
}

#[test]
fn honest_shards_pass_every_check() {
    for mode in [BoundaryMode::Public, BoundaryMode::Hashed] {
        let (bundle, card) = Scenario::new(3, mode).seal();
        for (shard, record) in bundle.shards.iter().enumerate() {
            check_receipt(&record.receipt, &card, bundle.run, ShardIndex(shard as u32)).unwrap();
            check_admission(&record.receipt, &record.admission, &card).unwrap();
            verdict(&shard_check(&bundle, &card, shard)).unwrap();
        }
        for pair in bundle.shards.windows(2) {
            check_link(&pair[0].receipt, &pair[1].receipt).unwrap();
        }
    }
}

#[test]
fn receipts_are_refused_by_name() {
    let scenario = Scenario::new(3, BoundaryMode::Hashed);
    let forgeries: [Forgery<'_, Check>; 4] = [
        (Check::ShardList, &|statement| statement.shard = ShardIndex(2)),
        (Check::RunId, &|statement| statement.run = RunId::from_bytes([8; 16])),
        (Check::Statement, &|statement| statement.keys = Digest::of(b"other")),
        (Check::BoundaryForm, &|statement| statement.input.tensors[0].scale += 1),
    ];
    for (check, forge) in forgeries {
        let (bundle, card) = scenario.seal_with(|_, statement| forge(statement));
        let refusal = check_receipt(&bundle.shards[1].receipt, &card, bundle.run, ShardIndex(1));
        assert_eq!(refusal.map_err(|refusal| refusal.check), Err(check));
    }
    let (bundle, card) = scenario.seal();
    let mut receipt = bundle.shards[1].receipt.clone();
    receipt.signature = receipt.signed_by(&identity(98)).signature;
    let refusal = check_receipt(&receipt, &card, bundle.run, ShardIndex(1)).unwrap_err();
    assert_eq!((refusal.check, refusal.worker), (Check::Receipt, Some(receipt.worker)));
    let beyond = check_receipt(&receipt, &card, bundle.run, ShardIndex(u32::MAX)).unwrap_err();
    assert_eq!(beyond.check, Check::ShardList);
}

#[test]
fn admissions_are_refused() {
    let (bundle, card) = Scenario::new(3, BoundaryMode::Hashed).seal();
    let receipt = &bundle.shards[1].receipt;
    let forged = Admission::sign(receipt.worker, card.body.plan.digest(), &identity(98));
    assert_eq!(check_admission(receipt, &forged, &card).unwrap_err().check, Check::Admission);
    assert_eq!(check_admission(receipt, &bundle.shards[0].admission, &card).unwrap_err().check, Check::Admission);
}

#[test]
fn links_are_refused_by_name() {
    let mut scenario = Scenario::new(3, BoundaryMode::Hashed);
    scenario.claims[1].input[0] = integers(&[1, 3], 8, 500);
    let (bundle, _) = scenario.seal();
    let receipts: Vec<_> = bundle.shards.iter().map(|record| &record.receipt).collect();
    let refusal = check_link(receipts[0], receipts[1]).unwrap_err();
    assert_eq!((refusal.check, refusal.shard), (Check::BoundaryLink, Some(ShardIndex(1))));
    assert!(refusal.reason.contains(&receipts[0].worker.to_string()), "{refusal}");
    assert_eq!(check_link(receipts[0], receipts[2]).unwrap_err().check, Check::ShardList);
    assert_eq!(check_link(receipts[1], receipts[0]).unwrap_err().check, Check::ShardList);

    let forge = |change: &dyn Fn(&mut Statement)| {
        let (bundle, _) = Scenario::new(3, BoundaryMode::Hashed).seal_with(|i, statement| {
            if i == 1 {
                change(statement);
            }
        });
        check_link(&bundle.shards[0].receipt, &bundle.shards[1].receipt).unwrap_err()
    };
    assert_eq!(forge(&|statement| statement.run = RunId::from_bytes([8; 16])).check, Check::RunId);
    let forgeries: [Forgery<'_, &str>; 4] = [
        ("put out in shape [1, 3], taken in as [3]", &|s| s.input.tensors[0].shape = vec![3]),
        ("put out at scale 9, taken in at 0", &|s| s.input.tensors[1].scale = 0),
        ("2 tensors were put out, 1 taken in", &|s| drop(s.input.tensors.pop())),
        ("one side shows its tensors", &|s| {
            s.input.binding = shardproof_common::statement::Binding::Public(Digest::of(b""))
        }),
    ];
    for (reason, change) in forgeries {
        let refusal = forge(change);
        assert_eq!(refusal.check, Check::BoundaryLink);
        assert!(refusal.reason.contains(reason), "{refusal}");
    }
}

#[test]
fn proofs_are_refused_by_name() {
    let scenario = Scenario::new(3, BoundaryMode::Public);
    let (bundle, card) = scenario.seal();
    let honest = shard_check(&bundle, &card, 1);
    let other = shard_check(&bundle, &card, 2);
    verdict(&honest).unwrap();
    assert_refused(verdict(&ShardCheck { input: None, ..honest }), Check::BoundaryTensors);
    assert_refused(verdict(&ShardCheck { output: None, ..honest }), Check::BoundaryTensors);
    assert_refused(verdict(&ShardCheck { output: other.output, ..honest }), Check::BoundaryTensors);
    assert_refused(verdict(&ShardCheck { verifying_key: other.verifying_key, ..honest }), Check::VerifyingKey);
    assert_refused(verdict(&ShardCheck { proof: other.proof, ..honest }), Check::Instances);
    assert_refused(verdict(&ShardCheck { proof: b"", ..honest }), Check::Proof);
    assert_refused(verdict(&ShardCheck { receipt: other.receipt, ..honest }), Check::ShardList);
    assert_refused(verdict(&ShardCheck { run: RunId::from_bytes([8; 16]), ..honest }), Check::RunId);

    let mut tests_only = Scenario::new(2, BoundaryMode::Hashed);
    tests_only.keys(0).srs.insecure_test = true;
    let (bundle, card) = tests_only.seal();
    let request = shard_check(&bundle, &card, 0);
    assert_refused(verdict(&request), Check::Srs);
    verdict(&ShardCheck { allow_test_srs: true, ..request }).unwrap();
    let tensors = bundle.boundaries[0].as_deref();
    assert_refused(verdict(&ShardCheck { output: tensors, allow_test_srs: true, ..request }), Check::Leftover);

    let mut unchecked = Scenario::new(2, BoundaryMode::Hashed);
    unchecked.keys(0).settings = "{}".to_owned();
    let (bundle, card) = unchecked.seal();
    assert_refused(verdict(&shard_check(&bundle, &card, 0)), Check::Settings);
    let newer = MockVerifier { version: "mock 2", ..MockVerifier::new() };
    let request = shard_check(&bundle, &card, 1);
    assert_refused(with_job(|job| verify_shard(&request, &[&newer], job)), Check::BackendVersion);
    let missing = with_job(|job| verify_shard(&request, &[], job));
    assert!(matches!(missing, Err(ShardError::Unavailable(ChainError::NoVerifier { .. }))), "{missing:?}");
}

#[test]
fn a_float_shard_proves_nothing() {
    let (mut bundle, card) = Scenario::float(2).seal();
    bundle.shards[0].proof = Scenario::new(2, BoundaryMode::Public).seal().0.shards[0].proof.clone();
    assert_refused(verdict(&shard_check(&bundle, &card, 0)), Check::Leftover);
}
