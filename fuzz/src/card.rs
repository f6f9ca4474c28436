//! A model card's file.

use shardproof_common::card::ModelCard;

use crate::honest::stages;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(card) = ModelCard::parse(bytes) else { return };
    let again = ModelCard::parse(card.to_json().as_bytes()).expect("a card that was read can be written and read");
    assert!(again == card && again.digest() == card.digest(), "a card that another one is read from");
    for stage in stages() {
        let owner = stage.honest.keys.owner.public();
        let honest = [&stage.runs[0], &stage.elsewhere].iter().any(|draft| draft.card.body == card.body);
        assert!(card.owner != owner || honest, "a forged card has the owner's signature: {card:?}");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    stages().map(|stage| stage.runs[0].card.to_json().into_bytes()).collect()
}
