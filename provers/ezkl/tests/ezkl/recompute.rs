//! Settings and keys are recomputed from the model, and a card that differs in any of them is found out.

use serde_json::{Value, json};
use shardproof_common::backend::{BackendError, Limits};
use shardproof_common::card::{ShardCard, ShardKeys};
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, ParameterVisibility};
use shardproof_common::tensor::Tensor;
use shardproof_ezkl::{EzklBackend, EzklConfig, RecomputeRequest, Recomputed, RecomputedKeys};

use crate::support::{ChainPlan, Link, config, hashed, options, polycommit, public, samples, shards};

fn recompute(chain: &[Link], index: usize, card: &ShardCard, config: EzklConfig) -> Result<Recomputed, BackendError> {
    let link = &chain[index];
    let samples = samples(&shards()[index].1);
    let request = RecomputeRequest {
        model: &link.files.model,
        card,
        registered: link.registered(),
        previous: index.checked_sub(1).map(|before| chain[before].files.card.output.as_slice()),
        samples: &samples,
    };
    let directory = tempfile::tempdir().unwrap();
    crate::support::with_job(directory.path(), Limits::default(), |job| {
        EzklBackend::new(config).recompute(&request, job)
    })
}

fn keys(chain: &[Link], index: usize, card: &ShardCard) -> RecomputedKeys {
    match recompute(chain, index, card, config()).unwrap() {
        Recomputed::Keys(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// What differs when one value of the settings is replaced, and the tensors' scales are made to agree with them.
fn differences(chain: &[Link], index: usize, pointer: &str, value: Value) -> Vec<String> {
    let mut card = chain[index].card_with(|keys| {
        let mut settings: Value = serde_json::from_str(&keys.settings).unwrap();
        *settings.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        keys.settings = settings.to_string();
    });
    let ShardKeys::Ezkl(keys) = &card.keys else { panic!("not ezkl's keys") };
    let settings: Value = serde_json::from_str(&keys.settings).unwrap();
    for (specs, field) in [(&mut card.input, "model_input_scales"), (&mut card.output, "model_output_scales")] {
        for (spec, scale) in specs.iter_mut().zip(settings[field].as_array().unwrap()) {
            spec.scale = scale.as_i64().unwrap() as i32;
        }
    }
    match recompute(chain, index, &card, config()).unwrap() {
        Recomputed::OtherSettings(lines) => lines,
        other => panic!("{pointer}: {other:?}"),
    }
}

#[test]
fn every_modes_cards_are_the_models() {
    let hashed_weights = EzklOptions { parameters: ParameterVisibility::Hashed, ..options() };
    let hashed_weights = ChainPlan { options: hashed_weights, ..ChainPlan::new(BoundaryMode::Polycommit) }.run();
    let manual = EzklOptions { input_scale: Some(6), parameter_scale: Some(8), ..EzklOptions::default() };
    let manual = ChainPlan { options: manual, length: 1, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    for chain in [hashed(), public(), polycommit(), &hashed_weights, &manual] {
        for (index, link) in chain.iter().enumerate() {
            let found = keys(chain, index, &link.files.card);
            assert_eq!(found.verifying_key, link.keys().verifying_key);
            assert!(found.insecure_test_srs);
            let run = found.run.unwrap();
            assert_eq!(run.parameter_hashes, link.keys().parameter_hashes);
            let counts: Vec<usize> = run.outputs.iter().map(Vec::len).collect();
            assert_eq!(counts, [link.files.card.output.len(); 2]);
            let scale = link.files.card.output[0].scale;
            assert!(run.outputs.iter().flatten().all(|tensor| tensor.scale() == scale));
        }
    }
    let again = ChainPlan { length: 1, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    assert_eq!(again[0].keys(), hashed()[0].keys(), "set up again");
}

#[test]
fn false_scales_are_found_out() {
    for (pointer, value, reason) in [
        ("/model_output_scales", json!([3]), "settings: model_output_scales is [3], but the model gives [7]"),
        ("/model_input_scales", json!([3, 3]), "settings: model_input_scales is [3,3], but the model gives [7,7]"),
        ("/run_args/input_scale", json!(6), "settings: run_args.input_scale is 6, but the model gives 7"),
        ("/run_args/scale_rebase_multiplier", json!(2), "scale_rebase_multiplier is 2, but the model gives 1"),
        ("/run_args/epsilon", json!(0.5), "settings: run_args.epsilon is 0.5, but the model gives "),
        ("/num_rows", json!(1), "settings: num_rows is 1, but the model gives "),
        ("/total_assignments", json!(1), "settings: total_assignments is 1, but the model gives "),
    ] {
        let found = differences(hashed(), 1, pointer, value);
        assert!(found.len() == 1 && found[0].contains(reason), "{pointer}: {found:?}");
    }
    // Another scale of the weights makes another circuit, whose other fields are then stated wrongly.
    let found = differences(hashed(), 0, "/run_args/param_scale", json!(0));
    assert!(!found.is_empty() && !found[0].contains("param_scale"), "{found:?}");
}

#[test]
fn the_plans_scales_and_the_previous_shards_prevail() {
    let link = &hashed()[0];
    let asked = BackendOptions::Ezkl(EzklOptions { input_scale: Some(9), ..options() });
    let samples = samples(&shards()[0].1);
    let directory = tempfile::tempdir().unwrap();
    let request = RecomputeRequest {
        model: &link.files.model,
        card: &link.files.card,
        registered: shardproof_common::backend::Registered { options: &asked, ..link.registered() },
        previous: None,
        samples: &samples,
    };
    let found = crate::support::with_job(directory.path(), Limits::default(), |job| {
        EzklBackend::new(config()).recompute(&request, job).unwrap()
    });
    let Recomputed::OtherSettings(lines) = found else { panic!("{found:?}") };
    let line = "settings: run_args.input_scale is 7, but the model gives 9";
    assert!(lines.iter().any(|found| found == line), "{lines:?}");
}

#[test]
fn settings_without_room_and_samples_out_of_range_are_answers() {
    let short = hashed()[0].card_with(|keys| {
        keys.settings = keys.settings.replacen(&format!("\"logrows\":{}", keys.srs.logrows), "\"logrows\":5", 1);
        keys.srs.logrows = 5;
    });
    let found = recompute(hashed(), 0, &short, config());
    assert!(!matches!(found, Ok(Recomputed::Keys(_))), "{found:?}");

    let link = &hashed()[2];
    let mut wild = samples(&shards()[2].1);
    wild[1][0].values[0] = -1000.0;
    let request = RecomputeRequest {
        model: &link.files.model,
        card: &link.files.card,
        registered: link.registered(),
        previous: Some(&hashed()[1].files.card.output),
        samples: &wild,
    };
    let directory = tempfile::tempdir().unwrap();
    crate::support::with_job(directory.path(), Limits::default(), |job| {
        let backend = EzklBackend::new(config());
        let Recomputed::Keys(found) = backend.recompute(&request, job).unwrap() else { panic!("no keys") };
        let reason = found.run.unwrap_err();
        assert!(reason.starts_with("sample 1: ") && reason.contains("the lookup tables cover"), "{reason}");
        let none = backend.recompute(&RecomputeRequest { samples: &[], ..request }, job).unwrap_err();
        assert!(none.to_string().contains("takes a sample"), "{none}");
    });
}

#[test]
fn the_srs_is_the_registered_one_and_known_for_what_it_is() {
    let link = &hashed()[0];
    let copy = EzklConfig { srs: Some(link.files.files["srs"].clone()), ..config() };
    let Recomputed::Keys(found) = recompute(hashed(), 0, &link.files.card, copy).unwrap() else { panic!("no keys") };
    assert!(found.insecure_test_srs, "a file that is the cached test SRS");

    let foreign = link.card_with(|keys| keys.srs.verifier = keys.srs.verifier.replacen("01", "02", 2));
    let error = recompute(hashed(), 0, &foreign, config()).unwrap_err().to_string();
    assert!(error.contains("is not the SRS under which these keys were made"), "{error}");
    let answers = keys(hashed(), 0, &link.files.card).run.unwrap().outputs;
    assert!(answers.iter().flatten().all(|tensor| matches!(tensor, Tensor::Integer(_))));
}
