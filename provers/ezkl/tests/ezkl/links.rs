//! Chains of three shards in every boundary mode are linked and verify; keys can be recomputed.

use shardproof_common::backend::{Backend, BackendError, Limits, SetupRequest};
use shardproof_common::ids::ShardIndex;
use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, ParameterVisibility};
use shardproof_common::statement::Binding;
use shardproof_common::tensor::{IntegerTensor, Tensor, TensorSpec};
use shardproof_ezkl::{EzklBackend, Settings};

use crate::support::{
    ANSWER, ChainPlan, INPUT, Link, config, hashed, model, names, options, polycommit, public, rejection, verify,
    with_job,
};

fn assert_linked(chain: &[Link]) {
    for (previous, next) in chain.iter().zip(&chain[1..]) {
        assert_eq!(previous.statement.output, next.statement.input);
        assert_eq!(previous.files.card.output, next.files.card.input);
    }
}

fn assert_verifies(chain: &[Link]) {
    chain.iter().for_each(|link| verify(&link.request()).unwrap());
}

fn commitments(binding: &Binding) -> usize {
    match binding {
        Binding::Public(_) => 0,
        Binding::Committed(commitments) => commitments.len(),
    }
}

#[test]
fn a_hashed_chain_is_linked_and_verifies() {
    assert_linked(hashed());
    assert_verifies(hashed());
    assert_eq!(commitments(&hashed()[1].statement.input.binding), 2);
}

#[test]
fn a_public_chain_is_linked_and_verifies() {
    assert_linked(public());
    assert_verifies(public());
}

#[test]
fn a_polycommit_chain_is_linked_and_verifies() {
    assert_linked(polycommit());
    assert_verifies(polycommit());
    assert_eq!(commitments(&polycommit()[1].statement.input.binding), 2);
    let srs = &polycommit()[0].keys().srs;
    assert!(polycommit().iter().all(|link| link.keys().srs == *srs));
}

#[test]
fn the_answer_is_the_models() {
    let Tensor::Integer(answer) = &hashed()[2].inference.output[0] else { panic!("integers") };
    for (found, expected) in answer.dequantise().iter().zip(ANSWER) {
        assert!((found - expected).abs() < 0.03, "{found} is not {expected}");
    }
    assert_eq!(answer.values.len(), ANSWER.len());
}

#[test]
fn hashed_weights_are_bound_to_the_registered_ones() {
    let options = EzklOptions { parameters: ParameterVisibility::Hashed, ..options() };
    let chain = ChainPlan { options, length: 2, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    assert_linked(&chain);
    assert_verifies(&chain);
    assert_eq!(chain.iter().map(|link| link.keys().parameter_hashes.len()).collect::<Vec<_>>(), [1, 1]);

    let other = chain[1].keys().parameter_hashes.clone();
    let card = chain[0].card_with(|keys| keys.parameter_hashes = other);
    let mut request = chain[0].request();
    request.card = &card;
    assert!(rejection(&request).contains("the proof does not verify"));
}

#[test]
fn a_shard_without_weights_has_no_hashes_of_them() {
    let options = EzklOptions { parameters: ParameterVisibility::Hashed, ..options() };
    let chain = ChainPlan { options, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    assert_verifies(&chain);
    assert_eq!(chain.iter().map(|link| link.keys().parameter_hashes.len()).collect::<Vec<_>>(), [1, 1, 0]);

    // Leaving the hash out where there are weights, or making one up where there are none.
    let hash = chain[0].keys().parameter_hashes.clone();
    let without = chain[0].card_with(|keys| keys.parameter_hashes.clear());
    let with = chain[2].card_with(|keys| keys.parameter_hashes = hash);
    for (link, card, reason) in [
        (&chain[0], &without, "settings: 3 public hashes, expected 2"),
        (&chain[2], &with, "settings: 1 public hashes, expected 2"),
    ] {
        let mut request = link.request();
        request.card = card;
        let found = rejection(&request);
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn private_weights_verify() {
    let options = EzklOptions { parameters: ParameterVisibility::Private, ..options() };
    let chain = ChainPlan { options, length: 1, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    assert_verifies(&chain);
}

#[test]
fn manual_scales_range_and_rows_are_kept() {
    let options = EzklOptions {
        input_scale: Some(6),
        parameter_scale: Some(8),
        lookup_range: Some((-2000, 2000)),
        logrows: Some(11),
        ..EzklOptions::default()
    };
    let chain = ChainPlan { options, length: 1, ..ChainPlan::new(BoundaryMode::Hashed) }.run();
    assert_verifies(&chain);
    let run_args = Settings::parse(&chain[0].keys().settings).unwrap().run_args;
    assert_eq!((run_args.input_scale, run_args.param_scale), (6, 8));
    assert_eq!((run_args.lookup_range, run_args.logrows), ((-2000, 2000), 11));
    assert_eq!(chain[0].files.card.input[0].scale, 6);
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let backend = EzklBackend::new(config());
    let infer = |link: &Link, input: Vec<Tensor>| {
        let directory = tempfile::tempdir().unwrap();
        let result = with_job(directory.path(), Limits::default(), |job| backend.infer(&link.files, &input, job));
        match result.unwrap_err() {
            BackendError::Input(reason) => reason,
            other => panic!("another error: {other}"),
        }
    };
    let tensor = |shape: &[u64], scale, values: &[i64]| {
        Tensor::Integer(IntegerTensor { shape: shape.to_vec(), scale, values: values.to_vec() })
    };
    let (first, last) = (&hashed()[0], &hashed()[2]);
    let scale = first.files.card.input[0].scale;
    assert_eq!(infer(first, vec![]), "expected 1 input tensors, found 0");
    assert!(infer(first, vec![tensor(&[4], scale, &[0; 4])]).contains("input `x`: expected shape [1, 4], found [4]"));
    assert!(infer(first, vec![tensor(&[1, 4], scale + 1, &[0; 4])]).contains("input `x`: expected scale 7, found 8"));
    let floats = shardproof_common::tensor::FloatTensor { shape: vec![1, 4], values: INPUT.to_vec() };
    assert!(infer(first, vec![Tensor::Float(floats)]).contains("input `x`: expected integers, found floats"));

    let beyond_table = infer(last, vec![tensor(&[1, 3], 7, &[1 << 20; 3])]);
    assert!(beyond_table.contains("the lookup tables cover"), "{beyond_table}");
    let beyond_range = infer(first, vec![tensor(&[1, 4], scale, &[1 << 40; 4])]);
    assert!(beyond_range.contains("is too large to be represented"), "{beyond_range}");
}

#[test]
fn inputs_of_different_scales_are_refused_by_name() {
    let (inputs, outputs) = (names(&[("h", 4), ("a", 4)]), names(&[("r", 3)]));
    let spec = |name: &str, scale| TensorSpec { name: name.to_owned(), shape: vec![1, 4], scale };
    let previous = [spec("h", 14), spec("a", 7)];
    let request = SetupRequest {
        shard: ShardIndex(1),
        model: &model("middle"),
        samples: &[],
        input: Some(&previous),
        input_names: &inputs,
        output_names: &outputs,
        input_mode: BoundaryMode::Hashed,
        output_mode: BoundaryMode::Public,
        options: &BackendOptions::Ezkl(options()),
        min_logrows: None,
    };
    let directory = tempfile::tempdir().unwrap();
    let backend = EzklBackend::new(config());
    let error = with_job(directory.path(), Limits::default(), |job| backend.setup(&request, job).unwrap_err());
    assert!(matches!(error, BackendError::Unsupported { .. }));
    assert!(error.to_string().contains("`h` has scale 14, `a` has 7; choose another cut"), "{error}");
}
