//! Cards: whatever is changed in one is refused, and so is one on which no chain could rest.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use shardproof_common::card::{CardBody, CardError, MAX_CARD_BYTES, ModelCard, ShardKeys};
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, GkrOptions, ParameterVisibility, WeightVisibility,
};
use shardproof_common::statement::BackendId;
use shardproof_common::tensor::TensorSpec;
use support::{Scenario, identity};

fn card() -> ModelCard {
    let mut scenario = Scenario::new(3, BoundaryMode::Hashed);
    scenario.visibility(1, ParameterVisibility::Hashed);
    scenario.keys(1).parameter_hashes = vec!["ab".repeat(32)];
    scenario.seal().1
}

fn parse_signed(body: CardBody) -> Result<ModelCard, CardError> {
    ModelCard::parse(ModelCard::sign(body, &identity(1)).to_json().as_bytes())
}

#[test]
fn cards_round_trip() {
    let card = card();
    assert_eq!(ModelCard::parse(card.to_json().as_bytes()).unwrap(), card);
    let compact = serde_json::to_string(&card).unwrap();
    assert_eq!(ModelCard::parse(compact.as_bytes()).unwrap(), card, "white space is not signed");
}

/// Every value of the JSON, one after another, replaced by another of its type.
fn tampered(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Null => vec![Value::from(3)],
        Value::Bool(value) => vec![Value::from(!value)],
        Value::Number(number) => vec![Value::from(number.as_i64().unwrap() + 1), Value::from(-1)],
        Value::String(text) => {
            let other = if text.starts_with('0') { '1' } else { '0' };
            let exchanged: String = std::iter::once(other).chain(text.chars().skip(1)).collect();
            vec![Value::from(exchanged), Value::from(format!("{text}0"))]
        }
        Value::Array(items) => {
            let replaced = items
                .iter()
                .enumerate()
                .flat_map(|(index, item)| tampered(item).into_iter().map(move |item| (index, item)));
            let mut all: Vec<_> = replaced
                .map(|(index, item)| {
                    let mut items = items.clone();
                    items[index] = item;
                    Value::Array(items)
                })
                .collect();
            let repeated = items.iter().chain(items.first()).cloned().collect();
            all.extend(items.first().map(|_| Value::Array(repeated)));
            all.extend(items.first().map(|_| Value::Array(items[1..].to_vec())));
            if items.len() > 1 && items[0] != items[1] {
                let mut exchanged = items.clone();
                exchanged.swap(0, 1);
                all.push(Value::Array(exchanged));
            }
            all
        }
        Value::Object(map) => {
            let mut all = Vec::new();
            for (key, item) in map {
                for item in tampered(item) {
                    let mut map = map.clone();
                    map.insert(key.clone(), item);
                    all.push(Value::Object(map));
                }
            }
            let mut unknown = map.clone();
            unknown.insert("unknown".to_owned(), Value::from(1));
            all.push(Value::Object(unknown));
            all
        }
    }
}

#[test]
fn every_changed_value_is_refused() {
    let json = serde_json::to_value(card()).unwrap();
    let forgeries = tampered(&json);
    assert!(forgeries.len() > 300, "{} forgeries", forgeries.len());
    for forged in forgeries {
        let text = forged.to_string();
        assert!(ModelCard::parse(text.as_bytes()).is_err(), "accepted: {text}");
    }
}

#[test]
fn every_removed_field_is_refused_or_means_the_same() {
    fn without(value: &serde_json::Value) -> Vec<serde_json::Value> {
        let mut all = Vec::new();
        if let serde_json::Value::Object(map) = value {
            for (key, item) in map {
                let mut removed = map.clone();
                removed.shift_remove(key);
                all.push(serde_json::Value::Object(removed));
                for item in without(item) {
                    let mut replaced = map.clone();
                    replaced.insert(key.clone(), item);
                    all.push(serde_json::Value::Object(replaced));
                }
            }
        }
        if let serde_json::Value::Array(items) = value {
            for (index, item) in items.iter().enumerate() {
                for item in without(item) {
                    let mut replaced = items.clone();
                    replaced[index] = item;
                    all.push(serde_json::Value::Array(replaced));
                }
            }
        }
        all
    }
    let card = card();
    for forged in without(&serde_json::to_value(&card).unwrap()) {
        if let Ok(parsed) = ModelCard::parse(forged.to_string().as_bytes()) {
            assert_eq!(parsed, card, "accepted another card: {forged}");
        }
    }
}

#[test]
fn a_repeated_field_is_refused() {
    let text = card().to_json().replacen("\"name\": \"mock\"", "\"name\": \"mock\", \"name\": \"mock\"", 1);
    assert!(
        matches!(ModelCard::parse(text.as_bytes()), Err(CardError::Json(error)) if error.to_string().contains("duplicate"))
    );
}

#[test]
fn sizes_and_truncations_are_refused() {
    let json = card().to_json();
    for length in (0..json.trim_end().len()).step_by(7) {
        assert!(matches!(ModelCard::parse(&json.as_bytes()[..length]), Err(CardError::Json(_))), "{length} bytes");
    }
    let extended = format!("{json}{{}}");
    assert!(matches!(ModelCard::parse(extended.as_bytes()), Err(CardError::Json(_))));
    let huge = vec![b' '; MAX_CARD_BYTES as usize + 1];
    assert!(matches!(ModelCard::parse(&huge), Err(CardError::TooLarge { .. })));
    let deep = "[".repeat(100_000);
    assert!(matches!(ModelCard::parse(deep.as_bytes()), Err(CardError::Json(_))));
}

#[test]
fn a_card_of_another_owner_is_another_card_but_whole() {
    let forged = ModelCard::sign(card().body, &identity(9));
    assert_eq!(ModelCard::parse(forged.to_json().as_bytes()).unwrap().owner, identity(9).public());
    let mut renamed = card();
    renamed.owner = identity(9).public();
    assert!(matches!(ModelCard::parse(renamed.to_json().as_bytes()), Err(CardError::Signature(_))));
}

/// Signs a changed body and returns why it is refused all the same.
#[track_caller]
fn refusal(mode: BoundaryMode, change: impl FnOnce(&mut Scenario)) -> CardError {
    let mut scenario = Scenario::new(3, mode);
    change(&mut scenario);
    parse_signed(scenario.body).expect_err("the card is refused")
}

/// Changes the tensor at boundary 1 consistently: in the plan and on both sides.
fn at_boundary_1(scenario: &mut Scenario, shape: Vec<u64>, scale: i32) {
    let body = &mut scenario.body;
    body.plan.boundaries[1].tensors[0].shape = shape.clone();
    let spec = TensorSpec { name: body.shards[0].output[0].name.clone(), shape, scale };
    body.shards[0].output[0] = spec.clone();
    body.shards[1].input[0] = spec;
}

#[test]
fn cards_that_do_not_fit_together_are_refused_though_signed() {
    let hashed = BoundaryMode::Hashed;
    let protocol = refusal(hashed, |scenario| scenario.body.plan.protocol = 3);
    assert!(matches!(protocol, CardError::Protocol { expected: 2, found: 3 }));
    let protocol = refusal(hashed, |scenario| scenario.body.protocol = 3);
    assert!(matches!(protocol, CardError::Protocol { expected: 2, found: 3 }));
    let counts = refusal(hashed, |scenario| drop(scenario.body.shards.pop()));
    assert!(matches!(counts, CardError::Counts { .. }));
    let counts = refusal(hashed, |scenario| drop(scenario.body.plan.boundaries.pop()));
    assert!(matches!(counts, CardError::Counts { .. }));
    let none = refusal(hashed, |scenario| {
        scenario.body.shards.clear();
        scenario.body.plan.shards.clear();
        scenario.body.plan.boundaries.truncate(1);
    });
    assert!(matches!(none, CardError::Counts { shards: 0, .. }));
    let keys = refusal(hashed, |scenario| scenario.body.shards[1].keys = ShardKeys::Float);
    assert!(matches!(keys, CardError::Backend { shard: 1 }));
    let options = refusal(hashed, |scenario| scenario.body.plan.shards[2].backend = BackendOptions::Float);
    assert!(matches!(options, CardError::Backend { shard: 2 }));
    let scale = refusal(hashed, |scenario| scenario.body.shards[2].input[1].scale += 1);
    assert!(matches!(scale, CardError::Boundary { boundary: 2, .. }));
    let shape = refusal(hashed, |scenario| scenario.body.shards[0].input[0].shape = vec![3, 1]);
    assert!(matches!(shape, CardError::Boundary { shard: 0, boundary: 0 }));
    let hash = refusal(hashed, |scenario| scenario.keys(0).parameter_hashes = vec!["AB".repeat(32)]);
    assert!(matches!(hash, CardError::ParameterHash { shard: 0, .. }));
}

#[test]
fn tensors_that_cannot_be_are_refused_though_signed() {
    let hashed = BoundaryMode::Hashed;
    for (shape, scale) in [
        (vec![u64::MAX, u64::MAX], 8),
        (vec![u64::MAX, 2, 0], 8),
        (vec![0, 3], 8),
        (vec![1; 9], 8),
        (vec![1 << 29], 8),
        (vec![1, 3], 129),
        (vec![1, 3], i32::MIN),
    ] {
        let error = refusal(hashed, |scenario| at_boundary_1(scenario, shape.clone(), scale));
        assert!(matches!(error, CardError::Tensor { boundary: 1, .. }), "{shape:?} at {scale}: {error}");
    }
    let none = refusal(hashed, |scenario| {
        scenario.body.plan.boundaries[1].tensors.clear();
        scenario.body.shards[0].output.clear();
        scenario.body.shards[1].input.clear();
    });
    assert!(matches!(none, CardError::TensorCount { boundary: 1, found: 0 }), "an empty boundary links nothing");
}

#[test]
fn commitments_that_do_not_compare_are_refused_though_signed() {
    let version = |scenario: &mut Scenario| scenario.body.shards[1].backend.version.push('1');
    for mode in [BoundaryMode::Hashed, BoundaryMode::Polycommit] {
        let error = refusal(mode, version);
        assert!(matches!(error, CardError::CommittedAcross { boundary: 1, .. }), "{error}");
    }
    let mut public = Scenario::new(3, BoundaryMode::Public);
    version(&mut public);
    assert!(parse_signed(public.body).is_ok(), "a public boundary may lie between different backends");

    let srs = |scenario: &mut Scenario| scenario.keys(1).srs.verifier = "01".to_owned();
    let error = refusal(BoundaryMode::Polycommit, srs);
    assert!(matches!(error, CardError::Polycommit { boundary: 1 }), "{error}");
    let mut hashed = Scenario::new(3, BoundaryMode::Hashed);
    srs(&mut hashed);
    assert!(parse_signed(hashed.body).is_ok(), "hashes do not depend on the SRS");

    for settings in [r#"{"run_args":{"logrows":16}}"#, "{}", "not json"] {
        let error = refusal(BoundaryMode::Polycommit, |scenario| scenario.keys(2).settings = settings.to_owned());
        assert!(matches!(error, CardError::Polycommit { boundary: 2 }), "{error}");
    }
}

#[test]
fn boundaries_between_backends_are_public_and_modes_are_the_backends_though_signed() {
    let native = |scenario: &mut Scenario| scenario.gkr(1, WeightVisibility::Committed);
    for mode in [BoundaryMode::Hashed, BoundaryMode::Polycommit, BoundaryMode::Committed] {
        let error = refusal(mode, native);
        assert!(matches!(error, CardError::CommittedAcross { boundary: 1, .. }), "{error}");
    }
    let mut public = Scenario::new(3, BoundaryMode::Public);
    native(&mut public);
    assert!(parse_signed(public.body).is_ok());

    let error = refusal(BoundaryMode::Committed, |_| {});
    assert!(matches!(error, CardError::Mode { boundary: 1, backend: BackendKind::Ezkl, .. }), "{error}");
    assert!(parse_signed(Scenario::native(3).body).is_ok());
    for mode in [BoundaryMode::Hashed, BoundaryMode::Polycommit] {
        for boundary in [0, 2, 3] {
            let mut scenario = Scenario::native(3);
            scenario.body.plan.boundaries[boundary].mode = mode;
            let error = parse_signed(scenario.body).unwrap_err();
            assert!(
                matches!(error, CardError::Mode { boundary: at, backend: BackendKind::Gkr, .. } if at == boundary),
                "{error}"
            );
        }
    }
    let mut ends = Scenario::native(3);
    ends.body.plan.boundaries[3].mode = BoundaryMode::Committed;
    assert!(parse_signed(ends.body).is_ok(), "the owner may commit to the output");
    let mut ends = Scenario::native(3);
    ends.body.plan.boundaries[0].mode = BoundaryMode::Committed;
    let error = parse_signed(ends.body).unwrap_err();
    assert!(matches!(error, CardError::CommittedInput), "{error}");

    let keys =
        |scenario: &mut Scenario| scenario.body.plan.shards[1].backend = BackendOptions::Gkr(GkrOptions::default());
    assert!(matches!(refusal(BoundaryMode::Public, keys), CardError::Backend { shard: 1 }));
    let kind = |scenario: &mut Scenario| {
        native(scenario);
        scenario.body.shards[1].backend.kind = BackendKind::Ezkl;
    };
    assert!(matches!(refusal(BoundaryMode::Public, kind), CardError::Backend { shard: 1 }));
}

#[test]
fn float_mode_is_all_or_nothing_though_signed() {
    let float = |scenario: &mut Scenario, shard: usize| {
        let body = &mut scenario.body;
        body.shards[shard].backend = BackendId { kind: BackendKind::Float, version: "1".to_owned() };
        body.shards[shard].keys = ShardKeys::Float;
        body.plan.shards[shard].backend = BackendOptions::Float;
        let specs = body.shards.iter_mut().flat_map(|card| card.input.iter_mut().chain(&mut card.output));
        specs.for_each(|spec| spec.scale = 0);
    };
    let mixed = refusal(BoundaryMode::Public, |scenario| float(scenario, 1));
    assert!(matches!(mixed, CardError::FloatMixed { boundary: 1 }), "{mixed}");
    let committed = refusal(BoundaryMode::Hashed, |scenario| float(scenario, 1));
    assert!(matches!(committed, CardError::CommittedAcross { boundary: 1, .. }), "{committed}");
    let mut scenario = Scenario::float(3);
    assert!(parse_signed(scenario.body.clone()).is_ok());
    scenario.body.plan.boundaries[2].mode = BoundaryMode::Hashed;
    assert!(matches!(
        parse_signed(scenario.body.clone()),
        Err(CardError::Mode { boundary: 2, backend: BackendKind::Float, .. })
    ));
    scenario.body.plan.boundaries[2].mode = BoundaryMode::Public;
    scenario.body.shards[2].output[0].scale = 3;
    assert!(matches!(parse_signed(scenario.body), Err(CardError::Tensor { boundary: 3, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_text_is_refused_or_means_the_same(edits in proptest::collection::vec((any::<u32>(), any::<u8>(), 0u8..3), 1..4)) {
        let card = card();
        let mut bytes = card.to_json().into_bytes();
        for (position, byte, kind) in edits {
            let position = position as usize % bytes.len();
            match kind {
                0 => bytes[position] = byte,
                1 => drop(bytes.remove(position)),
                _ => bytes.insert(position, byte),
            }
        }
        if let Ok(parsed) = ModelCard::parse(&bytes) {
            prop_assert_eq!(parsed, card);
        }
    }
}
