//! Bad input: a clear error that names what and where, and the exit code that was promised.

use std::path::Path;

use shardproof_common::bundle::Bundle;
use shardproof_common::card::ModelCard;
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::plan::{BackendOptions, Plan};
use shardproof_common::receipt::Identity;
use shardproof_common::tensor::TensorSpec;
use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};

use crate::{fails, shardproof};

/// A port on which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn gc_refuses_what_would_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let gc = ["gc", "--data-dir", text(directory.path())];
    let asked = fails(2, &[gc.as_slice(), &["--coordinator", "127.0.0.1:9"]].concat());
    assert!(asked.contains("--coordinator") && asked.contains("no coordinator is asked"), "{asked}");
    std::fs::create_dir(directory.path().join("spool")).unwrap();
    for option in ["--keep-runs", "--keep-artifacts"] {
        let kept = fails(2, &[gc.as_slice(), &[option, "1h"]].concat());
        assert!(kept.contains(option) && kept.contains("is a worker's"), "{kept}");
    }
}

#[test]
fn wrong_usage_exits_2() {
    assert!(fails(2, &["plan", "mlp"]).contains("--shards"));
    assert!(fails(2, &["nonsense"]).contains("nonsense"));
    assert!(fails(2, &["demo", "mlp", "--shards", "0"]).contains("at least one"));
    assert!(fails(2, &["demo", "--backend", "magic"]).contains("expected one of gkr, ezkl, float"));
    assert!(
        fails(2, &["plan", "mlp", "--shards", "2", "--boundary", "open"])
            .contains("public, hashed, polycommit, committed")
    );
    assert!(fails(2, &["plan", "mlp", "--shards", "2", "--dim", "batch"]).contains("NAME=N"));
    let no_data: [&[&str]; 3] = [
        &["completions", "bash"],
        &["coordinator", "127.0.0.1", "0", "1", "mlp"],
        &["worker", "127.0.0.1", "0", "127.0.0.1", "9", "SOLO"],
    ];
    for command in no_data {
        for line in [[&["--json"], command].concat(), [command, &["--json"]].concat()] {
            assert!(fails(2, &line).contains("--json"));
        }
        let help = shardproof(&[command[0], "--help"]).output().unwrap();
        assert!(!String::from_utf8(help.stdout).unwrap().contains("--json"));
    }
    let worker = ["worker", "127.0.0.1", "0", "127.0.0.1", "9", "SOLO"];
    let coordinator = ["coordinator", "127.0.0.1", "0", "1", "mlp"];
    for (command, option, number) in [
        (worker.as_slice(), "--queue", "0"),
        (&worker, "--concurrency", "0"),
        (&worker, "--queue", "18446744073709551615"),
        (&coordinator, "--max-runs", "0"),
        (&["runs"], "--limit", "0"),
        (&["runs"], "--limit", "1001"),
    ] {
        let said = fails(2, &[command, &[option, number]].concat());
        assert!(said.contains(option) && said.contains(&format!("{number} is not in 1..")), "{said}");
    }
    assert!(fails(2, &["prove", "not-a-run"]).contains("run id"));
}

#[test]
fn models_that_cannot_be_used_are_named() {
    let unknown = fails(1, &["plan", "nosuch", "--shards", "2"]);
    for name in ["nosuch", "mlp", "cnn", "mlp2", "attention", "testing"] {
        assert!(unknown.contains(name), "{unknown}");
    }
    assert!(fails(1, &["plan", "mlp", "--shards", "13"]).contains("1 to 12"));
    assert!(fails(1, &["demo", "mlp", "--shards", "13", "--backend", "float"]).contains("12"));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.onnx");
    std::fs::write(&path, b"this is no model").unwrap();
    assert!(fails(1, &["plan", text(&path), "--shards", "1"]).contains("ONNX"));
    let whole = shardproof_models::zoo::find("mlp").unwrap().onnx;
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(fails(1, &["plan", text(&path), "--shards", "1"]).contains("truncated"));
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input.json");
    let demo = |code| fails(code, &["demo", "mlp", "--backend", "float", "--input", text(&path)]);
    assert!(demo(1).contains("input.json"));
    std::fs::write(&path, r#"{"input_data": [[1, 2, 3]]}"#).unwrap();
    assert!(demo(1).contains("expected 25 values"));
    let huge = "1e999, ".repeat(24) + "1";
    std::fs::write(&path, format!(r#"{{"input_data": [[{huge}]]}}"#)).unwrap();
    assert!(demo(1).contains("input"));
    std::fs::write(&path, "25 numbers").unwrap();
    assert!(demo(1).contains("input_data"));
}

#[test]
fn samples_that_do_not_fit_are_refused_by_their_option_and_file() {
    let directory = tempfile::tempdir().unwrap();
    let (samples, data) = (directory.path().join("samples.json"), directory.path().join("data"));
    let named = ["--samples", text(&samples)];
    let commands: [&[&str]; 3] = [
        &["plan", "mlp", "--shards", "1"],
        &["demo", "mlp", "--shards", "1"],
        &["coordinator", "127.0.0.1", "0", "1", "mlp", "--data-dir", text(&data)],
    ];
    for command in commands {
        let refused = |expected: &str| {
            let said = fails(1, &[command, &named].concat());
            assert!(said.contains("--samples: ") && said.contains("samples.json: "), "{said}");
            assert!(said.contains(expected), "{said}");
        };
        std::fs::write(&samples, r#"{"input_data": [[1, 2, 3]]}"#).unwrap();
        refused("[samples, 1, 1, 5, 5]");
        std::fs::remove_file(&samples).unwrap();
        refused("No such file");
    }
    let two = serde_json::json!({ "input_data": [vec![0.5; 50]] }).to_string();
    std::fs::write(&samples, two).unwrap();
    let planned = shardproof(&[commands[0], &named].concat()).output().unwrap();
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    let demo = ["demo", "mlp", "--shards", "1", "--out", text(directory.path())];
    let demo = shardproof(&[demo.as_slice(), &named].concat()).output().unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
}

#[test]
fn a_plan_is_printed_and_its_shards_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let write = directory.path().join("shards");
    let output = shardproof(&["plan", "mlp", "--shards", "4", "--write", text(&write), "--json"]).output().unwrap();
    assert!(output.status.success());
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["shards"].as_array().unwrap().len(), 4);
    assert_eq!(plan["parameters"], 711);
    assert_eq!(plan["boundaries"][0]["tensors"][0]["shape"], serde_json::json!([1, 1, 5, 5]));
    for shard in 0..4 {
        let onnx = std::fs::read(write.join(format!("shard-{shard}.onnx"))).unwrap();
        shardproof_models::FloatShard::load(&onnx).unwrap();
    }
    let table = shardproof(&["plan", "mlp", "--shards", "4"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    for word in ["FIRST", "MIDDLE", "LAST", "gkr", "committed", "proof", "[1, 1, 5, 5]"] {
        assert!(table.contains(word), "{word} in {table}");
    }
}

#[test]
fn clients_without_a_coordinator_fail_at_once_and_say_what_to_do() {
    let address = nobody();
    let run = RunId::generate().to_string();
    let directory = tempfile::tempdir().unwrap();
    let (input, card) = (directory.path().join("input.json"), directory.path().join("card.json"));
    std::fs::write(&input, r#"{"input_data": [[1]]}"#).unwrap();
    let commands: [&[&str]; 6] = [
        &["status"],
        &["runs"],
        &["watch", &run],
        &["prove", &run],
        &["infer", "--input", text(&input)],
        &["card", "fetch", "--out", text(&card)],
    ];
    for command in commands {
        let said = fails(1, &[command, &["--coordinator", &address]].concat());
        assert!(said.contains(&format!("no coordinator at {address}")), "{said}");
        assert!(said.contains("--coordinator"), "{said}");
    }
    assert!(!card.exists());
}

#[test]
fn what_is_no_address_of_a_coordinator_is_refused_as_such() {
    for (wrong, reason) in [
        ("localhost", "there is no port"),
        ("localhost:x", "a port from 1 to 65535"),
        ("localhost:99999", "a port from 1 to 65535"),
        ("http://localhost:8000", "without `scheme://`"),
        ("::1:8000", "[::1]:8000"),
    ] {
        let said = fails(2, &["status", "--coordinator", wrong]);
        let expected = ["--coordinator <HOST:PORT>", "expected HOST:PORT", reason];
        assert!(expected.iter().all(|expected| said.contains(expected)), "{said}");
    }
}

#[test]
fn bundles_and_cards_that_cannot_be_understood_are_rejected_and_missing_ones_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let card_path = path("card.json");
    std::fs::write(&card_path, CARD).unwrap();
    let verify = |code, bundle: &Path, card: &Path| {
        let output = shardproof(&["verify", text(bundle), "--card", text(card)]).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };

    let missing = path("missing.bundle");
    assert!(verify(1, &missing, &card_path).contains("missing.bundle"));
    let empty = Bundle { card: Digest::of(b""), run: RunId::generate(), shards: vec![], boundaries: vec![] };
    let bytes = empty.encode().unwrap();
    let bundle = path("run.bundle");
    std::fs::write(&bundle, &bytes).unwrap();
    assert!(verify(1, &bundle, &path("missing.json")).contains("missing.json"));
    // Whole, but of another card.
    assert!(verify(3, &bundle, &card_path).contains("check `card` failed"));

    std::fs::write(&bundle, b"something else").unwrap();
    assert!(
        verify(3, &bundle, &card_path)
            .contains("run.bundle: bundle: not a file of this kind: it does not begin with `SPBUNDLE`")
    );
    std::fs::write(&bundle, &bytes[..bytes.len() - 1]).unwrap();
    assert!(verify(3, &bundle, &card_path).contains("truncated"));
    std::fs::write(&bundle, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert!(verify(3, &bundle, &card_path).contains("1 bytes follow"));
    // A sparse file: large without taking room, and never read whole.
    std::fs::File::create(&bundle).unwrap().set_len(1 << 40).unwrap();
    let large = verify(3, &bundle, &card_path);
    assert!(large.contains("run.bundle: ") && large.contains("more than the"), "{large}");

    std::fs::write(&bundle, &bytes).unwrap();
    std::fs::write(&card_path, &CARD[..CARD.len() / 2]).unwrap();
    assert!(verify(3, &bundle, &card_path).contains("not a model card"));
    assert!(verify(3, &bundle, &card_path).contains("card.json"));
    for command in
        [["card", "show", text(&card_path)].as_slice(), &["card", "check", "mlp", "--card", text(&card_path)]]
    {
        let output = shardproof(&[command, &["--json"]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let refused: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&refused["status"], &refused["refusal"]["check"]), (&"rejected".into(), &"card".into()));
        assert!(refused["refusal"]["reason"].as_str().unwrap().contains("card.json: not a model card"), "{refused}");
    }
    std::fs::write(&card_path, CARD.replace("\"name\": \"mlp\"", "\"name\": \"other\"")).unwrap();
    assert!(verify(3, &bundle, &card_path).contains("signature"));
    std::fs::File::create(&card_path).unwrap().set_len(1 << 40).unwrap();
    assert!(verify(3, &bundle, &card_path).contains("more than the"));
}

#[test]
fn a_card_is_shown_and_compared_with_its_model() {
    let directory = tempfile::tempdir().unwrap();
    let out = text(directory.path());
    let demo = shardproof(&["demo", "mlp", "--shards", "3", "--backend", "float", "--out", out]).output().unwrap();
    assert!(demo.status.success());
    let card = directory.path().join("card.json");
    let shown = shardproof(&["card", "show", text(&card), "--json"]).output().unwrap();
    assert!(shown.status.success());
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["name"], "mlp");
    assert_eq!(shown["weights"], "unproven");
    let own = shardproof(&["card", "check", "mlp", "--card", text(&card)]).output().unwrap();
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stdout));
    let other = shardproof(&["card", "check", "testing", "--card", text(&card)]).output().unwrap();
    assert_eq!(other.status.code(), Some(3));
    assert!(String::from_utf8(other.stdout).unwrap().contains("model file               DIFFERS"));
}

/// A card, signed again, whose plan cuts mlp elsewhere than the planner does.
#[test]
fn a_card_is_checked_at_its_own_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("card.json");
    let check = |card: &ModelCard| {
        std::fs::write(&path, ModelCard::sign(card.body.clone(), &Identity::generate()).to_json()).unwrap();
        let output = shardproof(&["card", "check", "mlp", "--card", text(&path)]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let out = text(directory.path());
    let demo = shardproof(&["demo", "mlp", "--shards", "2", "--backend", "float", "--out", out]).output().unwrap();
    assert!(demo.status.success());
    let mut card = ModelCard::parse(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(check(&card).0, Some(0), "signed again without a change");

    let model = OnnxModel::load(&ModelSource::resolve("mlp").unwrap(), &LoadOptions::default()).unwrap();
    card.body.plan.shards[0].last_node = "flatten".to_owned();
    card.body.plan.shards[1].first_node = "fc1".to_owned();
    let (plan, _) = model.split_as(&card.body.plan).unwrap();
    for strategy in [Strategy::Balanced, Strategy::Layers] {
        let backend = |_| BackendOptions::Float;
        let request = SplitRequest { shards: 2, strategy, backend: &backend, modes: BoundaryModes::default() };
        assert_ne!(model.split(&request).unwrap().plan, plan);
    }
    card.body.plan = plan;
    let crossing = &card.body.plan.boundaries[1].tensors[0];
    let spec = TensorSpec { name: crossing.name.clone(), shape: crossing.shape.clone(), scale: 0 };
    card.body.shards[0].output = vec![spec.clone()];
    card.body.shards[1].input = vec![spec];
    let (code, said) = check(&card);
    assert_eq!(code, Some(0), "{said}");

    let refused = |change: &dyn Fn(&mut Plan), reason: &str| {
        let mut lie = card.clone();
        change(&mut lie.body.plan);
        let (code, said) = check(&lie);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&format!("plan                     DIFFERS  {reason}")), "{reason} in {said}");
    };
    let cut = |last: &'static str| move |plan: &mut Plan| plan.shards[0].last_node = last.to_owned();
    refused(&cut("fc1"), "shard 1 of the plan has to begin with node `relu1`, but it begins with `fc1`");
    refused(&cut("nowhere"), "shard 0 of the plan cannot end with `nowhere`");
    refused(&|plan| plan.shards[1].last_node = "relu5".to_owned(), "the plan ends with node `relu5`");
    refused(&|plan| plan.shards[1].parameters = 710, "shard 1: the card states the file");
    refused(&|plan| plan.shards[0].model = Digest::of(b""), "shard 0: the card states the file");
}

#[test]
fn completions_and_doctor_print_something_usable() {
    let script = shardproof(&["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8(script.stdout).unwrap().contains("_shardproof"));
    let diagnosis = shardproof(&["doctor", "--json"]).output().unwrap();
    let diagnosis: serde_json::Value = serde_json::from_slice(&diagnosis.stdout).unwrap();
    assert!(diagnosis["gkr"].as_str().unwrap().contains("needs nothing"));
    assert_eq!(diagnosis["ezkl"]["pinned_version"], shardproof_ezkl::VERSION);
    assert!(diagnosis["ezkl"]["command_by_hand"].as_str().unwrap().contains("pip install"));
    let missing = shardproof(&["doctor", "--ezkl-cli", "/nonexistent/ezkl"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn ezkl_steps_name_the_file_that_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let output = shardproof(&["ezkl", "prove"]).current_dir(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("witness.json: no such file, which `ezkl prove` needs"));
}

/// The card of mlp in two shards in float mode.
const CARD: &str = include_str!("../data/mlp-float.card.json");
