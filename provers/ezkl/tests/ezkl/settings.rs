//! Settings that are not what the plan asks for are refused, each for its own reason.

use serde_json::{Value, json};
use shardproof_common::backend::{ProofVerifier, Registered};
use shardproof_common::card::{ShardCard, ShardKeys};
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, ParameterVisibility};
use shardproof_ezkl::EzklVerifier;

use crate::support::{Link, config, hashed, options, polycommit};

fn check(card: &ShardCard, registered: &Registered<'_>) -> Result<(), String> {
    EzklVerifier::new(config()).check_settings(card, registered)
}

/// The card with one value of its settings replaced, keeping the canonical text.
fn with_setting(link: &Link, pointer: &str, value: Value) -> ShardCard {
    link.card_with(|keys| {
        let mut settings: Value = serde_json::from_str(&keys.settings).unwrap();
        *settings.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        keys.settings = settings.to_string();
    })
}

#[test]
fn every_tampered_setting_is_refused_for_its_reason() {
    let link = &hashed()[1];
    check(&link.files.card, &link.registered()).unwrap();
    for (pointer, value, reason) in [
        ("/version", json!("23.0.4"), "version 23.0.4, expected 23.0.5"),
        ("/check_mode", json!("UNSAFE"), "check_mode is UNSAFE"),
        ("/run_args/check_mode", json!("UNSAFE"), "run_args.check_mode is UNSAFE"),
        ("/run_args/ignore_range_check_inputs_outputs", json!(true), "ignore_range_check_inputs_outputs is true"),
        ("/run_args/decomp_base", json!(1), "1 digits"),
        ("/run_args/decomp_legs", json!(40), "40 digits to base 128"),
        ("/run_args/decomp_legs", json!(0), "0 digits"),
        ("/num_blinding_factors", json!(0), "num_blinding_factors is 0"),
        ("/run_args/input_visibility", json!("Private"), "input_visibility is Private"),
        ("/run_args/output_visibility/Hashed/hash_is_public", json!(false), "output_visibility is Hashed"),
        ("/run_args/param_visibility", json!("Private"), "param_visibility is Private"),
        ("/model_input_scales", json!([7, 8]), "model_input_scales is [7, 8], expected [7, 7]"),
        ("/model_output_scales", json!([]), "model_output_scales is [], expected [7]"),
        ("/model_instance_shapes", json!([[3]]), "public tensors of [3] elements, expected []"),
        ("/module_sizes/poseidon/1", json!([2]), "2 public hashes, expected 3"),
        ("/module_sizes/polycommit", json!([4]), "commitments to [4] elements, expected []"),
        ("/run_args/logrows", json!(20), "logrows 20, but the SRS is for"),
    ] {
        let card = with_setting(link, pointer, value.clone());
        let found = check(&card, &link.registered()).expect_err(pointer);
        let reason = if value == json!(1) { "4 digits to base 1" } else { reason };
        assert!(found.contains(reason), "{pointer}: {found}");
    }
}

#[test]
fn commitments_must_fit_one_column() {
    let link = &polycommit()[1];
    let mut card = link.card_with(|keys| {
        let mut settings: Value = serde_json::from_str(&keys.settings).unwrap();
        settings["run_args"]["logrows"] = json!(6);
        keys.settings = settings.to_string();
        keys.srs.logrows = 6;
    });
    let found = check(&card, &link.registered()).unwrap_err();
    assert_eq!(found, "settings: commitments to 4 elements do not fit one column of logrows 6");
    card = with_setting(link, "/module_sizes/polycommit", json!([4, 4]));
    assert!(
        check(&card, &link.registered()).unwrap_err().contains("commitments to [4, 4] elements, expected [4, 4, 3]")
    );
}

#[test]
fn settings_that_are_none_are_refused() {
    let link = &hashed()[1];
    let with_text = |text: &str| check(&link.card_with(|keys| keys.settings = text.to_owned()), &link.registered());
    assert!(with_text("").unwrap_err().contains("not ezkl's settings"));
    assert!(with_text("{}").unwrap_err().contains("missing field"));
    assert!(with_text(&"[".repeat(1000)).unwrap_err().contains("not ezkl's settings"));
    assert!(with_text(&" ".repeat((4 << 20) + 1)).unwrap_err().contains("more than the 4194304"));
    let spaced = link.keys().settings.replacen(':', ": ", 1);
    assert!(with_text(&spaced).unwrap_err().contains("not in their canonical form"));
    let timed = link.keys().settings.replacen('{', "{\"timestamp\":1,", 1);
    assert!(with_text(&timed).unwrap_err().contains("not in their canonical form"));

    let float = ShardCard { keys: ShardKeys::Float, ..link.files.card.clone() };
    assert_eq!(check(&float, &link.registered()).unwrap_err(), "the keys are not ezkl's");
}

#[test]
fn the_plan_must_agree() {
    let link = &hashed()[1];
    let asked = |options: EzklOptions| {
        let options = BackendOptions::Ezkl(options);
        let registered = Registered { options: &options, ..link.registered() };
        check(&link.files.card, &registered).unwrap_err()
    };
    let hashed_weights = EzklOptions { parameters: ParameterVisibility::Hashed, ..options() };
    assert!(asked(hashed_weights).contains("param_visibility is Fixed, expected Hashed"));
    let scale = EzklOptions { parameter_scale: Some(9), ..options() };
    assert_eq!(asked(scale), "settings: param_scale is 7, but the plan asks for 9");
    let range = EzklOptions { lookup_range: Some((-5, 5)), ..options() };
    assert_eq!(asked(range), "settings: lookup_range is (0, 0), but the plan asks for (-5, 5)");
    let rows = EzklOptions { logrows: Some(20), ..options() };
    assert!(asked(rows).contains("but the plan asks for at least 20"));

    let other_mode = Registered { input_mode: BoundaryMode::Polycommit, ..link.registered() };
    assert!(check(&link.files.card, &other_mode).unwrap_err().contains("expected KZGCommit"));
    let float = Registered { options: &BackendOptions::Float, ..link.registered() };
    assert_eq!(check(&link.files.card, &float).unwrap_err(), "the plan's options are not ezkl's");
}

#[test]
fn registered_weights_and_srs_must_be_whole() {
    let link = &hashed()[1];
    let with_hash = |hash: &str| {
        check(&link.card_with(|keys| keys.parameter_hashes = vec![hash.to_owned()]), &link.registered()).unwrap_err()
    };
    assert_eq!(with_hash(&"00".repeat(32)), "the weights are fixed, but 1 hashes of them are registered");
    assert!(with_hash(&"ff".repeat(32)).contains("weights' hash 0: not a canonical field element"));
    let with_srs =
        |verifier: String| check(&link.card_with(|keys| keys.srs.verifier = verifier), &link.registered()).unwrap_err();
    let whole = &link.keys().srs.verifier;
    for broken in [String::new(), format!("{whole}00"), whole.replacen("01", "02", 1), whole.to_uppercase()] {
        assert_eq!(with_srs(broken), "the registered SRS is not the verifier's part of one");
    }
}
