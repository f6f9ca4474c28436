//! The whole way with ezkl: a demo, its bundle verified by the command line as anyone would, and forgeries of that bundle,
//! each made as well as somebody could make it and each caught by the check that is there for it.

use std::path::PathBuf;

use serde_json::{Value, json as value};
use shardproof_common::card::{ModelCard, ShardCard, ShardKeys};
use shardproof_common::receipt::Identity;
use shardproof_common::statement::Binding;
use shardproof_common::tensor::boundary_digest;

use crate::support::{Demo, alter, json, shardproof, with_flipped_byte};

#[test]
fn a_hashed_demo_verifies_and_no_forgery_of_its_bundle_does() {
    let demo = Demo::run("mlp", &["--shards", "2", "--backend", "ezkl"]);
    the_report_tells_what_happened(&demo.report);
    the_bundle_verifies_and_says_so(&demo);
    what_the_user_supplies_is_compared(&demo);
    values_cannot_be_exchanged(&demo);
    proofs_and_keys_cannot_be_exchanged(&demo);
    the_list_of_shards_is_the_plans(&demo);
    the_card_is_the_models(&demo);
    a_card_that_lies_about_its_circuits_is_not(&demo);
}

fn the_report_tells_what_happened(report: &Value) {
    assert_eq!(report["verified"], true);
    assert_eq!(report["rejected"], Value::Null);
    assert_eq!(report["backend"], "ezkl");
    assert_eq!(report["boundary_mode"], "hashed");
    assert_eq!(report["weights"], "fixed");
    assert!(report["max_abs_error"].as_f64().unwrap() < 0.05);
    let shards = report["per_shard"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    for shard in shards {
        for measured in ["setup_ms", "witness_ms", "prove_ms", "verify_ms", "proof_bytes", "proving_key_bytes"] {
            assert!(shard[measured].as_f64().unwrap() > 0.0, "{measured} of {shard}");
        }
    }
    let sum: f64 = shards.iter().map(|shard| shard["prove_ms"].as_f64().unwrap()).sum();
    assert!((report["prove_ms_sum"].as_f64().unwrap() - sum).abs() < 1e-6);
}

fn the_bundle_verifies_and_says_so(demo: &Demo) {
    let bundle = PathBuf::from(demo.report["bundle"].as_str().unwrap());
    let (code, report) = demo.verify_file(&bundle, &["--allow-test-srs"]);
    assert_eq!((code, &report["status"]), (Some(0), &Value::from("verified")), "{report:#}");
    let reported: Vec<f64> = serde_json::from_value(demo.report["outputs"].clone()).unwrap();
    assert_eq!(serde_json::from_value::<Vec<f64>>(report["outputs"].clone()).unwrap(), reported);

    let (code, report) = demo.verify_file(&bundle, &[]);
    assert_eq!((code, &report["refusal"]["check"]), (Some(3), &Value::from("srs")));

    // Nothing but bundle and card: what was not supplied is told, and not told as passed.
    let card = demo.path("card.json");
    let (code, report) = json(&["verify", bundle.to_str().unwrap(), "--card", &card, "--allow-test-srs"]);
    assert_eq!(code, Some(0));
    let not_supplied = report["checks"].as_array().unwrap().iter().filter(|line| line["outcome"] == "not-supplied");
    let names: Vec<&str> = not_supplied.map(|line| line["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["owner-key", "model-file", "input", "output"]);

    let mut partial = demo.bundle();
    partial.shards[1].proof = None;
    let (code, report) = demo.verify(&partial);
    assert_eq!((code, &report["status"]), (Some(3), &Value::from("partial")), "{report:#}");
}

fn what_the_user_supplies_is_compared(demo: &Demo) {
    let bundle = PathBuf::from(demo.path("run.bundle"));
    let other = PathBuf::from(demo.path("other.json"));
    let refused = |flag: &str, value: &str, check: &str| {
        let card = demo.path("card.json");
        let args = ["verify", bundle.to_str().unwrap(), "--card", &card, "--allow-test-srs", flag, value];
        let (code, report) = json(&args);
        assert_eq!((code, &report["refusal"]["check"]), (Some(3), &Value::from(check)), "{report:#}");
    };
    refused("--model", "testing", "model-file");
    refused("--owner-key", &"ab".repeat(32), "owner-key");
    std::fs::write(&other, serde_json::json!({ "input_data": [vec![0.5; 25]] }).to_string()).unwrap();
    refused("--input", other.to_str().unwrap(), "input");
    std::fs::write(&other, r#"{"outputs": [7.0]}"#).unwrap();
    refused("--output", other.to_str().unwrap(), "output");
}

fn values_cannot_be_exchanged(demo: &Demo) {
    let whole = demo.bundle();

    // The tensors that are shown, at the beginning and at the end.
    for boundary in [0, 2] {
        let mut forged = whole.clone();
        forged.boundaries[boundary] = Some(alter(whole.boundaries[boundary].as_ref().unwrap()).0.into());
        demo.assert_refused(&forged, "boundary-tensors");
    }
    // The answer, by a worker that signs what it likes: the proof is of another.
    let mut forged = whole.clone();
    let (encoded, tensors) = alter(whole.boundaries[2].as_ref().unwrap());
    forged.boundaries[2] = Some(encoded.into());
    forged.shards[1].receipt.statement.output.binding = Binding::Public(boundary_digest(&tensors));
    demo.assert_refused(&forged, "receipt");
    demo.reseal(&mut forged, 1);
    demo.assert_refused(&forged, "output");
    // The same where nobody has told the verifier the answer.
    let path = PathBuf::from(demo.path("forged.bundle"));
    std::fs::write(&path, forged.encode().unwrap()).unwrap();
    let card = demo.path("card.json");
    let (code, report) = json(&["verify", path.to_str().unwrap(), "--card", &card, "--allow-test-srs"]);
    assert_eq!((code, &report["refusal"]["check"]), (Some(3), &Value::from("proof")), "{report:#}");

    // The boundary between the shards: by one worker, then by both together.
    let mut forged = whole.clone();
    let swapped = match &whole.shards[0].receipt.statement.output.binding {
        Binding::Committed(commitments) => {
            let mut commitment = commitments[0].clone();
            commitment[0] ^= 1;
            Binding::Committed(vec![commitment])
        }
        Binding::Public(_) => panic!("the inner boundary of a hashed plan is public"),
    };
    forged.shards[0].receipt.statement.output.binding = swapped.clone();
    demo.reseal(&mut forged, 0);
    demo.assert_refused(&forged, "boundary-link");
    forged.shards[1].receipt.statement.input.binding = swapped;
    demo.reseal(&mut forged, 1);
    demo.assert_refused(&forged, "proof");

    // A receipt of another run.
    let mut forged = whole;
    forged.shards[0].receipt.statement.run = shardproof_common::ids::RunId::generate();
    demo.reseal(&mut forged, 0);
    demo.assert_refused(&forged, "run-id");
}

fn proofs_and_keys_cannot_be_exchanged(demo: &Demo) {
    let whole = demo.bundle();
    let proof = |shard: usize| whole.shards[shard].proof.clone().unwrap();

    let mut forged = whole.clone();
    forged.shards[0].proof.as_mut().unwrap().proof = proof(1).proof;
    demo.assert_refused(&forged, "proof");
    let mut forged = whole.clone();
    forged.shards[1].proof.as_mut().unwrap().proof = with_flipped_byte(&proof(1).proof);
    demo.assert_refused(&forged, "proof");

    let mut forged = whole.clone();
    forged.shards[0].proof.as_mut().unwrap().verifying_key = proof(1).verifying_key;
    demo.assert_refused(&forged, "verifying-key");
    // Key and proof together, which fit each other.
    let mut forged = whole.clone();
    forged.shards[0].proof = Some(proof(1));
    demo.assert_refused(&forged, "verifying-key");
}

fn the_list_of_shards_is_the_plans(demo: &Demo) {
    let whole = demo.bundle();
    let mut swapped = whole.clone();
    swapped.shards.swap(0, 1);
    demo.assert_refused(&swapped, "shard-list");
    let mut repeated = whole.clone();
    repeated.shards[1] = repeated.shards[0].clone();
    demo.assert_refused(&repeated, "shard-list");
    let mut short = whole.clone();
    short.shards.pop();
    demo.assert_refused(&short, "shard-list");
    let mut long = whole.clone();
    long.shards.push(long.shards[1].clone());
    demo.assert_refused(&long, "shard-list");
    let mut leftover = whole;
    leftover.boundaries[1] = leftover.boundaries[0].clone();
    demo.assert_refused(&leftover, "leftover");
}

fn the_card_is_the_models(demo: &Demo) {
    let card = demo.path("card.json");
    let (code, report) = json(&["card", "check", "mlp", "--card", &card]);
    assert_eq!((code, &report["agrees"]), (Some(0), &Value::from(true)), "{report:#}");
    let keys =
        report["lines"].as_array().unwrap().iter().filter(|line| line["what"].as_str().unwrap().ends_with("key"));
    assert_eq!(keys.count(), 2);
    let (code, report) = json(&["card", "check", "testing", "--card", &card]);
    assert_eq!((code, &report["agrees"]), (Some(3), &Value::from(false)));
}

/// Cards signed with scales or an SRS that are not what the circuits have.
fn a_card_that_lies_about_its_circuits_is_not(demo: &Demo) {
    let check = |lie: &dyn Fn(&mut [ShardCard])| {
        let mut card = ModelCard::parse(&std::fs::read(demo.path("card.json")).unwrap()).unwrap();
        lie(&mut card.body.shards);
        let path = demo.path("lie.json");
        std::fs::write(&path, ModelCard::sign(card.body, &Identity::generate()).to_json()).unwrap();
        let (code, report) = json(&["card", "check", "mlp", "--card", &path]);
        let differing = report["lines"].as_array().unwrap().iter().filter(|line| line["finding"] == "differs");
        (code, differing.map(|line| format!("{}: {}", line["what"], line["reason"])).collect::<Vec<_>>())
    };
    let with = |card: &mut ShardCard, field: &str, stated: Value| {
        let ShardKeys::Ezkl(keys) = &mut card.keys else { panic!("a card without ezkl keys") };
        let mut settings: Value = serde_json::from_str(&keys.settings).unwrap();
        *settings.pointer_mut(field).unwrap() = stated;
        keys.settings = settings.to_string();
    };
    assert_eq!(check(&|_| {}), (Some(0), vec![]), "signed again without a lie");

    let outputs = check(&|shards| {
        with(&mut shards[1], "/model_output_scales", value!([5]));
        shards[1].output[0].scale = 5;
    });
    let inputs = check(&|shards| {
        with(&mut shards[0], "/model_input_scales", value!([3]));
        shards[0].input[0].scale = 3;
    });
    let weights = check(&|shards| with(&mut shards[1], "/run_args/param_scale", value!(0)));
    let srs = check(&|shards| {
        let ShardKeys::Ezkl(keys) = &mut shards[1].keys else { panic!("a card without ezkl keys") };
        keys.srs.insecure_test = false;
    });
    for ((code, lines), what, reason) in [
        (outputs, "shard 1: settings", "settings: model_output_scales is [5], but the model gives"),
        (inputs, "shard 0: settings", "settings: model_input_scales is [3], but the model gives"),
        (weights, "shard 1: settings", "but the model gives"),
        (srs, "shard 1: SRS", "it is the insecure test SRS"),
    ] {
        assert_eq!(code, Some(3), "{what}");
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(what)), "{what}: {lines:?}");
        assert!(lines.iter().any(|line| line.contains(reason)), "{what}: {lines:?}");
    }
}

#[test]
fn a_polycommit_demo_verifies() {
    let demo = Demo::run("mlp", &["--shards", "2", "--backend", "ezkl", "--boundary", "polycommit"]);
    assert_eq!(demo.report["boundary_mode"], "polycommit");
    let (code, report) = demo.verify(&demo.bundle());
    assert_eq!((code, &report["status"]), (Some(0), &Value::from("verified")), "{report:#}");
}

#[test]
fn hashed_weights_are_compared_with_the_models_own() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");
    let demo = Demo::run(tiny, &["--shards", "2", "--backend", "ezkl", "--parameters", "hashed"]);
    assert_eq!(demo.report["weights"], "hashed");
    let (code, report) = json(&["card", "check", tiny, "--card", &demo.path("card.json")]);
    assert_eq!((code, &report["agrees"]), (Some(0), &Value::from(true)), "{report:#}");

    // A card whose owner registers other weights and signs that.
    let mut card = ModelCard::parse(&std::fs::read(demo.path("card.json")).unwrap()).unwrap();
    let weighted = card.body.plan.shards.iter().position(|shard| shard.parameters > 0).unwrap();
    let ShardKeys::Ezkl(keys) = &mut card.body.shards[weighted].keys else { panic!("a card without ezkl keys") };
    keys.parameter_hashes[0].replace_range(..2, "00");
    let forged = demo.path("forged.json");
    std::fs::write(&forged, ModelCard::sign(card.body, &Identity::generate()).to_json()).unwrap();
    let (code, report) = json(&["card", "check", tiny, "--card", &forged]);
    assert_eq!(code, Some(3));
    let lines = report["lines"].as_array().unwrap().iter();
    let differing: Vec<_> = lines
        .filter(|line| line["finding"] == "differs" || line["finding"] == "unbound")
        .map(|line| line["what"].clone())
        .collect();
    assert_eq!(differing, [format!("shard {weighted}: weights")], "{report:#}");
}

#[test]
fn one_shard_goes_through_ezkls_steps_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let run = |code: i32, args: &[&str]| {
        let output = shardproof(args).arg("--json").current_dir(directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null)
    };
    run(0, &["plan", "mlp", "--shards", "4", "--write", "."]);
    std::fs::rename(directory.path().join("shard-3.onnx"), directory.path().join("network.onnx")).unwrap();
    let data = serde_json::json!({ "input_data": [vec![0.25; 10]] }).to_string();
    std::fs::write(directory.path().join("calibration.json"), &data).unwrap();
    std::fs::write(directory.path().join("input.json"), &data).unwrap();

    run(0, &["ezkl", "settings", "--input-scale", "9", "--param-scale", "9"]);
    let calibrated = run(0, &["ezkl", "calibrate", "--input-scale", "9", "--param-scale", "9"]);
    assert_eq!(calibrated["found"]["input_scale"], 9);
    run(0, &["ezkl", "compile"]);
    let srs = run(0, &["ezkl", "srs"]);
    assert_eq!(srs["found"]["insecure_test"], true);
    run(0, &["ezkl", "setup"]);
    run(0, &["ezkl", "witness"]);
    run(0, &["ezkl", "mock"]);
    run(0, &["ezkl", "prove"]);
    let verified = run(0, &["ezkl", "verify"]);
    assert_eq!(verified["found"]["verified"], true);

    // The same proof for another output.
    let path = directory.path().join("proof.json");
    let mut proof: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let instances = proof["instances"][0].as_array_mut().unwrap();
    let last = instances.len() - 1;
    instances[last] = Value::from(format!("{:0<64}", "07"));
    std::fs::write(&path, proof.to_string()).unwrap();
    let verified = run(3, &["ezkl", "verify"]);
    assert_eq!(verified["found"]["verified"], false);
}
