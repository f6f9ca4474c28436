//! The native backend, which needs nothing but this program.

use std::path::PathBuf;

use serde_json::Value;
use shardproof_common::card::{ModelCard, ShardKeys};
use shardproof_common::plan::WeightVisibility;
use shardproof_common::receipt::Identity;
use shardproof_common::statement::Binding;
use shardproof_common::tensor::boundary_digest;

use crate::support::{Demo, alter, json, with_flipped_byte};

fn assert_verified(demo: &Demo) {
    let report = &demo.report;
    assert_eq!((&report["verified"], &report["rejected"]), (&Value::from(true), &Value::Null), "{report:#}");
    let bundle = PathBuf::from(report["bundle"].as_str().unwrap());
    let (code, verified) = demo.verify_file(&bundle, &[]);
    assert_eq!((code, &verified["status"]), (Some(0), &Value::from("verified")), "{verified:#}");
    assert_eq!(verified["outputs"], report["outputs"]);
}

#[test]
fn the_demo_without_arguments_is_native_and_verified() {
    let demo = Demo::run("mlp", &[]);
    let report = &demo.report;
    let stated = ["backend", "boundary_mode", "weights"].map(|key| report[key].as_str().unwrap());
    assert_eq!((stated, &report["shards"]), (["gkr", "committed", "committed"], &Value::from(4)));
    assert_verified(&demo);
    assert!(report["max_abs_error"].as_f64().unwrap() < 0.05);
    for shard in report["per_shard"].as_array().unwrap() {
        for measured in ["proof_bytes", "proving_key_bytes", "verifying_key_bytes", "peak_rss_bytes"] {
            assert!(shard[measured].as_u64().unwrap() > 0, "{measured} of {shard}");
        }
    }
}

#[test]
fn zoo_models_in_many_cuts_are_verified() {
    for (model, shards, extra) in [
        ("mlp", "1", ["--target=accuracy", "--weights=committed"]),
        ("mlp", "12", ["--target=resources", "--weights=public"]),
        ("testing", "6", ["--target=resources", "--weights=committed"]),
        ("cnn", "3", ["--target=accuracy", "--boundary=public"]),
        ("mlp2", "2", ["--target=resources", "--weights=public"]),
    ] {
        let demo = Demo::run(model, &[["--shards", shards].as_slice(), &extra].concat());
        assert_verified(&demo);
        let error = demo.report["max_abs_error"].as_f64().unwrap();
        let allowed = if extra[0].ends_with("accuracy") { 0.01 } else { 0.2 };
        assert!(error < allowed, "{model} in {shards}: {error}");
    }
}

#[test]
fn timings_tell_where_the_time_of_every_shard_went() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("timings.csv");
    std::fs::write(&file, "of an earlier demo").unwrap();
    Demo::run("testing", &["--shards", "2", "--timings", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("run,shard,step,layer,ms"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    for shard in ["0", "1"] {
        let steps: Vec<&str> = rows.iter().filter(|row| row[1] == shard).map(|row| row[2]).collect();
        for step in ["execute", "commit", "lookups", "reduce", "open"] {
            assert!(steps.contains(&step), "{step} of shard {shard}: {steps:?}");
        }
    }
    assert!(rows.iter().all(|row| row.len() == 5 && row[4].parse::<f64>().is_ok_and(|ms| ms >= 0.0)));
}

#[test]
fn no_forgery_of_a_committed_bundle_verifies() {
    let demo = Demo::run("mlp", &["--shards", "3"]);
    values_cannot_be_exchanged(&demo);
    proofs_and_keys_cannot_be_exchanged(&demo);
    a_bundle_cannot_be_cut_or_extended(&demo);
}

fn values_cannot_be_exchanged(demo: &Demo) {
    let whole = demo.bundle();
    for boundary in [0, 3] {
        let mut forged = whole.clone();
        forged.boundaries[boundary] = Some(alter(whole.boundaries[boundary].as_ref().unwrap()).0.into());
        demo.assert_refused(&forged, "boundary-tensors");
    }
    // The answer, by a worker that signs what it likes; nobody has told the verifier the one that was delivered.
    let mut forged = whole.clone();
    let (encoded, tensors) = alter(whole.boundaries[3].as_ref().unwrap());
    forged.boundaries[3] = Some(encoded.into());
    forged.shards[2].receipt.statement.output.binding = Binding::Public(boundary_digest(&tensors));
    demo.reseal(&mut forged, 2);
    let path = PathBuf::from(demo.path("forged.bundle"));
    std::fs::write(&path, forged.encode().unwrap()).unwrap();
    let (code, report) = json(&["verify", path.to_str().unwrap(), "--card", &demo.path("card.json")]);
    assert_eq!((code, &report["refusal"]["check"]), (Some(3), &Value::from("proof")), "{report:#}");

    // The boundary between the shards: by one worker, then by both together.
    let commitment = |side: &Binding| match side {
        Binding::Committed(commitments) => commitments.clone(),
        Binding::Public(_) => panic!("the inner boundary of a committed plan is public"),
    };
    let inner = commitment(&whole.shards[0].receipt.statement.output.binding);
    let mut flipped = inner.clone();
    flipped[0][0] ^= 1;
    let other = commitment(&whole.shards[1].receipt.statement.output.binding);
    for swapped in [flipped, other] {
        let mut forged = whole.clone();
        forged.shards[0].receipt.statement.output.binding = Binding::Committed(swapped.clone());
        demo.reseal(&mut forged, 0);
        demo.assert_refused(&forged, "boundary-link");
        forged.shards[1].receipt.statement.input.binding = Binding::Committed(swapped);
        demo.reseal(&mut forged, 1);
        demo.assert_refused(&forged, "proof");
    }
    let mut forged = whole.clone();
    for (shard, side) in [(0, 1), (1, 0)] {
        let statement = &mut forged.shards[shard].receipt.statement;
        let boundary = if side == 1 { &mut statement.output } else { &mut statement.input };
        boundary.binding = Binding::Committed(vec![inner[0][..inner[0].len() - 1].to_vec()]);
        demo.reseal(&mut forged, shard);
    }
    demo.assert_refused(&forged, "instances");

    // Statements of another run, all signed again: unlike ezkl's, these proofs are of one run.
    let mut forged = whole;
    let run = shardproof_common::ids::RunId::generate();
    forged.run = run;
    for shard in 0..3 {
        forged.shards[shard].receipt.statement.run = run;
        demo.reseal(&mut forged, shard);
    }
    demo.assert_refused(&forged, "proof");
}

fn proofs_and_keys_cannot_be_exchanged(demo: &Demo) {
    let whole = demo.bundle();
    let proof = |shard: usize| whole.shards[shard].proof.clone().unwrap();
    let mut forged = whole.clone();
    forged.shards[0].proof.as_mut().unwrap().proof = proof(1).proof;
    demo.assert_refused(&forged, "proof");
    for shard in 0..3 {
        let mut forged = whole.clone();
        forged.shards[shard].proof.as_mut().unwrap().proof = with_flipped_byte(&proof(shard).proof);
        demo.assert_refused(&forged, "proof");
    }
    let mut forged = whole.clone();
    forged.shards[1].proof.as_mut().unwrap().verifying_key = with_flipped_byte(&proof(1).verifying_key);
    demo.assert_refused(&forged, "verifying-key");
    let mut forged = whole.clone();
    forged.shards[0].proof = Some(proof(1));
    demo.assert_refused(&forged, "verifying-key");
    let mut partial = whole.clone();
    partial.shards[1].proof = None;
    let (code, report) = demo.verify(&partial);
    assert_eq!((code, &report["status"]), (Some(3), &Value::from("partial")), "{report:#}");
}

fn a_bundle_cannot_be_cut_or_extended(demo: &Demo) {
    let bytes = demo.bundle().encode().unwrap();
    let path = PathBuf::from(demo.path("cut.bundle"));
    for forged in [bytes[..bytes.len() - 1].to_vec(), [bytes.as_slice(), &[0]].concat()] {
        std::fs::write(&path, forged).unwrap();
        let (code, report) = demo.verify_file(&path, &[]);
        assert_eq!((code, &report["refusal"]["check"]), (Some(3), &Value::from("encoding")), "{report:#}");
    }
}

#[test]
fn public_weights_and_boundaries_are_in_the_bundle_and_checked() {
    let demo = Demo::run("mlp", &["--shards", "2", "--weights", "public", "--boundary", "public"]);
    assert_eq!((&demo.report["weights"], &demo.report["boundary_mode"]), (&"public".into(), &"public".into()));
    assert_verified(&demo);
    let whole = demo.bundle();
    let mut forged = whole.clone();
    let (encoded, tensors) = alter(whole.boundaries[1].as_ref().unwrap());
    forged.boundaries[1] = Some(encoded.into());
    demo.assert_refused(&forged, "boundary-tensors");
    let binding = Binding::Public(boundary_digest(&tensors));
    forged.shards[0].receipt.statement.output.binding = binding.clone();
    demo.reseal(&mut forged, 0);
    demo.assert_refused(&forged, "boundary-link");
    forged.shards[1].receipt.statement.input.binding = binding;
    demo.reseal(&mut forged, 1);
    demo.assert_refused(&forged, "proof");
    // The last byte of the key's file is one of a weight.
    let mut forged = whole.clone();
    let proof = forged.shards[1].proof.as_mut().unwrap();
    let mut key = proof.verifying_key.to_vec();
    *key.last_mut().unwrap() ^= 1;
    proof.verifying_key = key.into();
    demo.assert_refused(&forged, "verifying-key");
}

#[test]
fn the_card_is_the_models() {
    let demo = Demo::run("mlp", &["--shards", "2", "--target", "accuracy"]);
    let check = |model: &str, card: &str| {
        let (code, report) = json(&["card", "check", model, "--card", card]);
        let lines = report["lines"].as_array().unwrap().clone();
        let differing = lines.iter().filter(|line| line["finding"] == "differs");
        (code, differing.map(|line| format!("{}: {}", line["what"], line["reason"])).collect::<Vec<_>>())
    };
    let card = demo.path("card.json");
    assert_eq!(check("mlp", &card), (Some(0), vec![]));
    assert_eq!(check("testing", &card).0, Some(3));

    let lie = |change: &dyn Fn(&mut ModelCard)| {
        let mut card = ModelCard::parse(&std::fs::read(demo.path("card.json")).unwrap()).unwrap();
        change(&mut card);
        let path = demo.path("lie.json");
        std::fs::write(&path, ModelCard::sign(card.body, &Identity::generate()).to_json()).unwrap();
        check("mlp", &path)
    };
    assert_eq!(lie(&|_| {}), (Some(0), vec![]), "signed again without a lie");
    let (code, lines) = lie(&|card| {
        let other = card.body.shards[0].keys.clone();
        card.body.shards[1].keys = other;
    });
    assert_eq!(code, Some(3));
    assert!(lines.iter().any(|line| line.contains("shard 1: verifying key")), "{lines:?}");
    let (code, lines) = lie(&|card| card.body.shards[1].output[0].scale += 1);
    assert_eq!(code, Some(3));
    assert!(lines.len() == 1 && lines[0].contains("shard 1: settings"), "{lines:?}");
    let (code, lines) = lie(&|card| {
        let ShardKeys::Gkr(keys) = &mut card.body.shards[0].keys else { panic!("other keys") };
        keys.weights = Some(WeightVisibility::Public);
    });
    assert_eq!(code, Some(3));
    assert!(lines.len() == 1 && lines[0].contains("shard 0: weights"), "{lines:?}");
}
