//! What honest runs amount to, and what the report says of them.

#![allow(clippy::unwrap_used)]

mod support;

use shardproof_common::backend::BackendError;
use shardproof_common::chain::{self, ChainError, Check, Outcome, ProofState, Status, VerifyOptions};
use shardproof_common::ids::ShardIndex;
use shardproof_common::plan::{BoundaryMode, ParameterVisibility};
use shardproof_common::tensor::{IntegerTensor, Tensor};
use support::{MockVerifier, Scenario, assert_only, assert_verified, verify, with_job};

const MODES: [BoundaryMode; 3] = [BoundaryMode::Public, BoundaryMode::Hashed, BoundaryMode::Polycommit];

fn missing(report: &chain::Report, check: Check) -> &str {
    match report.outcome(check) {
        Outcome::NotSupplied { missing } => missing,
        other => panic!("{check}: expected `not supplied`, found {other:?}"),
    }
}

#[test]
fn honest_runs_are_verified_in_every_mode_and_length() {
    for mode in MODES {
        for shards in [1, 2, 4, 12] {
            let scenario = Scenario::new(shards, mode);
            let report = scenario.report();
            assert_verified(&report);
            assert_eq!(report.outputs, Some(scenario.output()));
            assert!(report.shards.iter().all(|shard| shard.proof == ProofState::Verified));
        }
    }
}

#[test]
fn what_is_not_supplied_is_listed_and_never_passes() {
    let (bundle, card) = Scenario::new(3, BoundaryMode::Hashed).seal();
    let report = verify(&bundle, &card, &VerifyOptions::default()).unwrap();
    assert_eq!(report.status, Status::Verified);
    for (check, flag) in [
        (Check::OwnerKey, "--owner-key"),
        (Check::ModelFile, "--model"),
        (Check::Input, "--input"),
        (Check::Output, "--output"),
    ] {
        assert!(missing(&report, check).contains(flag));
    }
    assert_eq!(report.checks.iter().filter(|line| line.outcome == Outcome::Passed).count(), Check::ALL.len() - 4);
}

#[test]
fn a_run_without_proofs_is_answered() {
    let mut scenario = Scenario::new(3, BoundaryMode::Hashed);
    scenario.claims.iter_mut().for_each(|claim| claim.proven = false);
    let report = scenario.report();
    assert_eq!(report.status, Status::Answered);
    assert_eq!(report.outputs, Some(scenario.output()));
    for check in [Check::BackendVersion, Check::Settings, Check::Srs, Check::VerifyingKey] {
        assert!(missing(&report, check).contains("shardproof prove"));
    }
    for check in [Check::Instances, Check::Weights, Check::Proof] {
        assert!(missing(&report, check).contains("no shard is proven"));
    }
    let (bundle, card) = scenario.seal();
    let without_verifiers = with_job(|job| chain::verify(&bundle, &card, &VerifyOptions::default(), &[], job)).unwrap();
    assert_eq!(without_verifiers.status, Status::Answered);
}

#[test]
fn a_run_with_some_proofs_is_partial() {
    for unproven in 0..3 {
        let mut scenario = Scenario::new(3, BoundaryMode::Public);
        scenario.claims[unproven].proven = false;
        let report = scenario.report();
        assert_eq!(report.status, Status::Partial);
        assert!(missing(&report, Check::Proof).ends_with(&format!("--shard {unproven}`")));
        let states: Vec<_> = report.shards.iter().map(|shard| shard.proof).collect();
        let mut expected = [ProofState::Verified; 3];
        expected[unproven] = ProofState::Absent;
        assert_eq!(states, expected);
    }
}

#[test]
fn float_mode_is_never_more_than_answered() {
    let scenario = Scenario::float(3);
    let report = scenario.report();
    assert_eq!(report.status, Status::Answered);
    assert!(report.float && report.to_string().ends_with("computed in float mode, which proves nothing"));
    assert!(missing(&report, Check::Proof).contains("float mode proves nothing"));
    assert_eq!(report.outputs, Some(scenario.output()));
}

#[test]
fn private_weights_are_never_more_than_partial() {
    let mut scenario = Scenario::new(3, BoundaryMode::Hashed);
    scenario.visibility(1, ParameterVisibility::Private);
    let report = scenario.report();
    assert_eq!(report.status, Status::Partial);
    assert!(missing(&report, Check::Weights).contains("shards 1: the weights are private, nothing binds them"));
    assert_eq!(*report.outcome(Check::Proof), Outcome::Passed);
    assert_eq!(report.checks.iter().filter(|line| line.outcome == Outcome::Passed).count(), Check::ALL.len() - 1);
}

#[test]
fn hashed_weights_are_verified_against_the_card() {
    let mut scenario = Scenario::new(2, BoundaryMode::Hashed);
    let hashes = vec!["ab".repeat(32), "cd".repeat(32)];
    scenario.visibility(0, ParameterVisibility::Hashed);
    scenario.keys(0).parameter_hashes = hashes.clone();
    scenario.claims[0].weights = hashes;
    assert_verified(&scenario.report());
}

#[test]
fn a_shard_without_parameters_needs_no_hash() {
    let mut scenario = Scenario::new(2, BoundaryMode::Hashed);
    scenario.visibility(1, ParameterVisibility::Hashed);
    scenario.body.plan.shards[1].parameters = 0;
    assert_verified(&scenario.report());
}

#[test]
fn a_test_srs_is_waived_by_its_flag_and_by_nothing_else() {
    let mut scenario = Scenario::new(2, BoundaryMode::Hashed);
    scenario.keys(1).srs.insecure_test = true;
    assert_only(&scenario.report(), Check::Srs, Some(1), "insecure");
    let (bundle, card) = scenario.seal();
    let options = VerifyOptions { allow_test_srs: true, ..VerifyOptions::default() };
    let report = verify(&bundle, &card, &options).unwrap();
    assert_eq!(report.status, Status::Verified);
    assert!(matches!(report.outcome(Check::Srs), Outcome::Waived { reason } if reason.contains("--allow-test-srs")));
    assert!(report.to_string().contains("WAIVED"));
}

#[test]
fn no_result_is_neither_accepted_nor_rejected() {
    let (bundle, card) = Scenario::new(2, BoundaryMode::Hashed).seal();
    let options = VerifyOptions::default();
    let none = with_job(|job| chain::verify(&bundle, &card, &options, &[], job));
    assert!(matches!(none, Err(ChainError::NoVerifier { .. })), "{none:?}");
    let broken = MockVerifier { broken: true, ..MockVerifier::new() };
    let unavailable = with_job(|job| chain::verify(&bundle, &card, &options, &[&broken], job));
    assert!(matches!(unavailable, Err(ChainError::Unavailable { .. })), "{unavailable:?}");
}

#[test]
fn a_proof_system_draws_no_lines_either() {
    let source = BackendError::Limit("out of memory\nproof passed\u{1b}[2J".to_owned());
    let error = ChainError::Unavailable { shard: ShardIndex(1), source };
    assert_eq!(error.to_string(), r"shard 1: the proof could not be checked: out of memory\nproof passed\u{1b}[2J");
}

#[test]
fn a_printed_answer_is_the_answer() {
    let mut scenario = Scenario::new(1, BoundaryMode::Public);
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        bits as i64 >> 3
    };
    for scale in [-128, -9, 0, 13, 61, 128] {
        let values = (0..3).map(|_| value()).collect();
        scenario.body.shards[0].output[0].scale = scale;
        scenario.claims[0].output = vec![Tensor::Integer(IntegerTensor { shape: vec![1, 3], scale, values })];
        scenario.shown[1] = Some(scenario.claims[0].output.clone());
        let json = serde_json::to_string(&scenario.report().outputs).unwrap();
        let printed: Vec<f64> = serde_json::from_str(&json).unwrap();
        let (bundle, card) = scenario.seal();
        let options = VerifyOptions { output: Some(&printed), ..VerifyOptions::default() };
        assert_eq!(*verify(&bundle, &card, &options).unwrap().outcome(Check::Output), Outcome::Passed, "{json}");
    }
}

#[test]
fn a_broken_chain_is_rejected_even_where_proofs_cannot_be_checked() {
    let (bundle, card) =
        Scenario::new(2, BoundaryMode::Hashed).seal_with(|_, statement| statement.plan = statement.model);
    let report = with_job(|job| chain::verify(&bundle, &card, &VerifyOptions::default(), &[], job)).unwrap();
    assert_only(&report, Check::Statement, Some(0), "expected plan");
}

#[test]
fn proofs_of_a_broken_chain_are_not_run() {
    let mut scenario = Scenario::new(3, BoundaryMode::Hashed);
    scenario.claims[2].proven = false;
    let (bundle, card) = scenario.seal_with(|_, statement| statement.plan = statement.model);
    let verifier = MockVerifier::new();
    let report = with_job(|job| chain::verify(&bundle, &card, &VerifyOptions::default(), &[&verifier], job)).unwrap();
    assert_eq!(verifier.calls.into_inner(), 0);
    for check in [Check::Instances, Check::Weights, Check::Proof] {
        assert_eq!(*report.outcome(check), Outcome::NotReached);
    }
    let states: Vec<_> = report.shards.iter().map(|shard| shard.proof).collect();
    assert_eq!(states, [ProofState::Unchecked, ProofState::Unchecked, ProofState::Absent]);
}

#[test]
fn comparing_with_a_boundary_that_is_not_shown_is_an_error() {
    let mut scenario = Scenario::new(2, BoundaryMode::Hashed);
    for boundary in [0, 2] {
        scenario.body.plan.boundaries[boundary].mode = BoundaryMode::Hashed;
        scenario.shown[boundary] = None;
    }
    scenario.keys(0).settings = support::settings(BoundaryMode::Hashed, BoundaryMode::Hashed);
    scenario.keys(1).settings = support::settings(BoundaryMode::Hashed, BoundaryMode::Hashed);
    let (bundle, card) = scenario.seal();
    let (input, output) = (scenario.input(), scenario.output());
    let with_input = VerifyOptions { input: Some(&input), ..VerifyOptions::default() };
    let with_output = VerifyOptions { output: Some(&output), ..VerifyOptions::default() };
    for (options, expected) in [(with_input, "the input cannot"), (with_output, "the output cannot")] {
        let error = verify(&bundle, &card, &options).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let report = verify(&bundle, &card, &VerifyOptions::default()).unwrap();
    assert_eq!((report.status, report.outputs), (Status::Verified, None));
}

#[test]
fn the_json_report_is_stable() {
    let report = Scenario::new(2, BoundaryMode::Hashed).report();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["status"], "verified");
    assert_eq!(json["checks"][0], serde_json::json!({"check": "encoding", "outcome": "passed"}));
    assert_eq!(json["shards"][1]["proof"], "verified");
    assert!(json["outputs"].as_array().is_some_and(|values| values.len() == 3));

    let (bundle, card) =
        Scenario::new(2, BoundaryMode::Hashed).seal_with(|_, statement| statement.plan = statement.model);
    let report = verify(&bundle, &card, &VerifyOptions::default()).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["status"], "rejected");
    assert_eq!((&json["refusal"]["check"], &json["refusal"]["shard"]), (&"statement".into(), &0.into()));
    assert_eq!(json["outputs"], serde_json::Value::Null);
}

#[test]
fn names_of_checks_are_the_same_everywhere() {
    for check in Check::ALL {
        assert_eq!(serde_json::to_value(check).unwrap(), check.as_str());
        assert!(!check.meaning().is_empty());
    }
    let mut sorted = Check::ALL;
    sorted.sort();
    assert_eq!(sorted, Check::ALL, "the order in which checks are told is the order of the type");
}

#[test]
fn untrusted_text_draws_no_lines_in_a_report() {
    let forged = "1\nproof             passed        \u{1b}[2Jall proofs verify\u{202e}";
    let (bundle, card) = Scenario::new(2, BoundaryMode::Hashed)
        .seal_with(|_, statement| statement.backend.version = forged.chars().take(50).collect());
    let text = verify(&bundle, &card, &VerifyOptions::default()).unwrap().to_string();
    assert!(!text.lines().any(|line| line.starts_with("proof ") && line.contains("passed")), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}
