//! One chain of two proof systems.

use serde_json::Value;
use shardproof_common::statement::Binding;
use shardproof_common::tensor::boundary_digest;

use crate::support::{Demo, alter, json, shardproof};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

#[test]
fn shards_of_gkr_and_ezkl_make_one_chain() {
    let demo = Demo::run("mlp", &["--shards", "4", "--backend", "gkr,gkr,ezkl,gkr"]);
    let report = &demo.report;
    let stated = ["backend", "boundary_mode", "weights"].map(|key| report[key].as_str().unwrap());
    assert_eq!(stated, ["gkr,gkr,ezkl,gkr", "committed,public,public", "committed,committed,fixed,committed"]);
    assert!(report["max_abs_error"].as_f64().unwrap() < 0.05);
    let whole = demo.bundle();
    let (code, verified) = demo.verify(&whole);
    assert_eq!((code, &verified["status"]), (Some(0), &Value::from("verified")), "{verified:#}");

    // The tensor between gkr and ezkl: shown as another, then signed by one side, then by both.
    for (boundary, last_check) in [(2, "proof"), (3, "proof")] {
        let mut forged = whole.clone();
        let (encoded, tensors) = alter(whole.boundaries[boundary].as_ref().unwrap());
        forged.boundaries[boundary] = Some(encoded.into());
        demo.assert_refused(&forged, "boundary-tensors");
        let binding = Binding::Public(boundary_digest(&tensors));
        forged.shards[boundary - 1].receipt.statement.output.binding = binding.clone();
        demo.reseal(&mut forged, boundary - 1);
        demo.assert_refused(&forged, "boundary-link");
        forged.shards[boundary].receipt.statement.input.binding = binding;
        demo.reseal(&mut forged, boundary);
        demo.assert_refused(&forged, last_check);
    }
    let (code, checked) = json(&["card", "check", "mlp", "--card", &demo.path("card.json")]);
    assert_eq!((code, &checked["agrees"]), (Some(0), &Value::from(true)), "{checked:#}");
    let shown = shardproof(&["card", "show", &demo.path("card.json")]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("gkr 2 (succinct, not zero-knowledge) and ezkl "), "{shown}");
}

#[test]
fn ezkl_takes_the_lead_as_well() {
    let demo = Demo::run(TINY, &["--shards", "2", "--backend", "ezkl,gkr", "--weights", "public"]);
    let (code, verified) = demo.verify(&demo.bundle());
    assert_eq!((code, &verified["status"]), (Some(0), &Value::from("verified")), "{verified:#}");
}

#[test]
fn backends_that_do_not_fit_are_refused_before_anything_starts() {
    let refused = |args: &[&str]| {
        let output = shardproof(&[&["demo", "mlp"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&["--shards", "3", "--backend", "gkr,ezkl"]);
    assert!(said.contains("--backend names 2 backends, there are 3 shards"), "{said}");
    let said = refused(&["--shards", "2", "--backend", "gkr,float"]);
    assert!(said.contains("float mode is for all shards or for none"), "{said}");
    let said = refused(&["--shards", "2", "--boundary", "hashed"]);
    assert!(said.contains("boundary 1 cannot be hashed: shard 0 runs on gkr"), "{said}");
}
