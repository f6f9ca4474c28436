//! A model card's file.

use shardproof_common::card::ModelCard;

use crate::honest::stages;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(card) = ModelCard::parse(bytes) else { return };
    let again = ModelCard::parse(card.to_json().as_bytes()).expect("a card that was read can be written and read");
    assert!(again == card && again.digest() == card.digest(), "a card that another one is read from");
    // All stages have the same owner.
    let signed = stages().any(|stage| card.owner == stage.honest.keys.owner.public());
    let mut honest = stages().flat_map(|stage| [&stage.runs[0], &stage.elsewhere]);
    assert!(!signed || honest.any(|draft| draft.card.body == card.body), "the owner did not sign {card:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    stages().map(|stage| stage.runs[0].card.to_json().into_bytes()).collect()
}
