//! The card: another one, or one that its own owner made wrong.

use anyhow::{Context, Result};
use shardproof_common::card::{CardBody, EzklKeys, ModelCard, ShardKeys};
use shardproof_common::chain::Check;
use shardproof_common::ids::Digest;
use shardproof_common::plan::{BackendOptions, WeightVisibility};

use super::{EZKL, EZKL_LAST, Forgery, NATIVE, forgery};
use crate::draft::{Forged, add_modulus};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::{SHARDS, Scene};

/// Order of the scalar field of BN254, least significant byte first.
pub(super) const BN254_SCALARS: [u8; 32] = [
    0x01, 0x00, 0x00, 0xf0, 0x93, 0xf5, 0xe1, 0x43, 0x91, 0x70, 0xb9, 0x79, 0x48, 0xe8, 0x33, 0x28, 0x5d, 0x58, 0x81,
    0x81, 0xb6, 0x45, 0x50, 0xb8, 0x29, 0xa0, 0x31, 0xe1, 0x72, 0x4e, 0x64, 0x30,
];
const LAST: usize = SHARDS - 1;

pub(super) fn forgeries() -> Vec<Forgery> {
    [others(), by_the_owner()].into_iter().flatten().collect()
}

fn others() -> Vec<Forgery> {
    vec![
        forgery(
            "card-published-later",
            Forger::Messenger,
            "the card that the owner published later, for the same plan and keys under another name",
            Check::Card,
            |honest| {
                let mut draft = honest.draft();
                draft.card.body.name.push('2');
                draft.card = ModelCard::sign(draft.card.body, &honest.keys.owner);
                draft.forged()
            },
        ),
        forgery(
            "card-of-other-plan",
            Forger::Messenger,
            "the owner's card of another plan of the model, with that plan's verifying keys",
            Check::Card,
            |honest| {
                let mut draft = honest.draft();
                draft.card = honest.draft_of(&honest.other, &honest.elsewhere).card;
                draft.carry_keys(&honest.other.verifying_keys)?;
                draft.forged()
            },
        )
        .noticed_by(&[Check::Statement, Check::Admission]),
        forgery(
            "card-changed",
            Forger::Messenger,
            "the model's name on the card, after it was signed",
            Check::Card,
            |honest| {
                let mut draft = honest.draft();
                draft.card.body.name.push('!');
                draft.bundle.card = draft.card.digest();
                draft.forged()
            },
        ),
        forgery(
            "card-cut-off",
            Forger::Messenger,
            "the second half of the card's file is cut off",
            Check::Card,
            |honest| {
                let mut forged = honest.draft().forged()?;
                forged.card.truncate(forged.card.len() / 2);
                Ok(forged)
            },
        ),
        forgery(
            "card-with-more",
            Forger::Messenger,
            "the card's file has a field that cards do not have",
            Check::Card,
            |honest| {
                let mut forged = honest.draft().forged()?;
                let brace = forged.card.iter().position(|&byte| byte == b'{').context("no object")?;
                forged.card.splice(brace + 1..=brace, *b"\"note\": 1,");
                Ok(forged)
            },
        ),
        forgery(
            "card-of-other-owner",
            Forger::Outsider,
            "the card, signed by another owner",
            Check::OwnerKey,
            |honest| {
                let mut draft = honest.draft();
                draft.card = ModelCard::sign(draft.card.body, &honest.keys.outsider);
                draft.forged()
            },
        ),
        forgery(
            "card-relabelled",
            Forger::Authority,
            "the owner's card of another plan, with that plan's verifying keys; the bundle says that it is of that card, and \
             all workers are admitted to its plan, but the statements are of this one",
            Check::Statement,
            |honest| {
                let mut draft = honest.draft();
                draft.card = honest.draft_of(&honest.other, &honest.elsewhere).card;
                draft.bundle.card = draft.card.digest();
                draft.carry_keys(&honest.other.verifying_keys)?;
                draft.readmit(&honest.keys);
                draft.forged()
            },
        ),
        forgery(
            "run-relabelled-to-other-plan",
            Forger::Authority,
            "the whole run is stated, signed and admitted as one of another plan, with that plan's keys; the proofs are of \
             this one",
            Check::Proof,
            |honest| {
                let mut draft = honest.draft_of(&honest.other, &honest.elsewhere);
                for shard in 0..SHARDS {
                    let proof = honest.run.links[shard].proof.clone();
                    draft.proof(shard)?.proof = proof.into();
                }
                draft.forged()
            },
        )
        .led_by_commitments(),
    ]
}

/// The owner publishes another card, and its workers state, sign and prove the run under it.
fn published(honest: &Honest, change: impl FnOnce(&mut CardBody) -> Result<()>) -> Result<Forged> {
    let mut body = honest.chain.body.clone();
    change(&mut body)?;
    let run = honest.chain.restated(&honest.run, &body)?;
    honest.draft_under(&honest.chain, &body, &run).forged()
}

fn by_the_owner() -> Vec<Forgery> {
    let card = |name: &str, change: &str, check, edit: fn(&mut CardBody) -> Result<()>| {
        forgery(name, Forger::Owner, change, check, move |honest: &Honest| published(honest, edit))
    };
    vec![
        card("card-that-contradicts-itself", "one side of boundary 1 has another scale", Check::Card, |body| {
            body.shards[1].input[0].scale += 1;
            Ok(())
        }),
        card("card-of-other-model", "the card is for another model file", Check::ModelFile, |body| {
            body.plan.model = Digest::of(b"another model");
            Ok(())
        }),
        card(
            "card-of-other-version",
            "shard 1 is registered for another version of its proof system",
            Check::BackendVersion,
            |body| {
                body.shards[1].backend.version = "0".to_owned();
                // Neighbours that share commitments are of one version.
                let version = body.shards[1].backend.clone();
                body.shards.iter_mut().filter(|shard| shard.backend.kind == version.kind).for_each(|shard| {
                    shard.backend = version.clone();
                });
                Ok(())
            },
        ),
        card(
            "card-without-range-checks",
            "the last shard's circuit is registered without range checks",
            Check::Settings,
            |body| {
                let settings = &mut ezkl(body, LAST)?.settings;
                *settings = settings.replace("\"SAFE\"", "\"UNSAFE\"");
                Ok(())
            },
        )
        .only_in(EZKL_LAST),
        forgery(
            "card-under-test-srs",
            Forger::Owner,
            "the SRS is one for tests, whose maker can forge proofs, and the client did not say that this will do",
            Check::Srs,
            |honest| {
                let mut draft = honest.draft();
                draft.accept_test_srs = false;
                draft.forged()
            },
        )
        .only_in(EZKL_LAST),
        card(
            "card-with-other-key",
            "the card registers, for shard 1, the key of shard 0",
            Check::VerifyingKey,
            |body| {
                let key = body.shards[0].keys.verifying_key().context("no key")?;
                match &mut body.shards[1].keys {
                    ShardKeys::Gkr(keys) => keys.verifying_key = key,
                    ShardKeys::Ezkl(keys) => keys.verifying_key = key,
                    ShardKeys::Float => {}
                }
                Ok(())
            },
        ),
        card(
            "card-with-other-weights",
            "the plan asks for weights bound in another way than the key binds them",
            Check::Weights,
            |body| {
                let BackendOptions::Gkr(options) = &mut body.plan.shards[1].backend else { return Ok(()) };
                options.weights = match options.weights {
                    WeightVisibility::Committed => WeightVisibility::Public,
                    WeightVisibility::Public => WeightVisibility::Committed,
                };
                Ok(())
            },
        )
        .only_in(NATIVE),
        forgery(
            "card-with-second-writing-of-a-hash",
            Forger::Owner,
            "a registered hash of the weights is written as a number above the field's order",
            Check::Settings,
            |honest| {
                let mut body = honest.other.body.clone();
                let hash = ezkl(&mut body, LAST)?.parameter_hashes.first_mut().context("no hash")?;
                let mut bytes: [u8; 32] = *hash.parse::<Digest>()?.as_bytes();
                add_modulus(&mut bytes, &BN254_SCALARS)?;
                *hash = Digest::from_bytes(bytes).to_string();
                let run = honest.other.restated(&honest.elsewhere, &body)?;
                honest.draft_under(&honest.other, &body, &run).forged()
            },
        )
        .only_in(&[Scene::Ezkl, Scene::EzklPolycommit, Scene::Mixed]),
        forgery(
            "card-with-other-hash-of-weights",
            Forger::Owner,
            "a registered hash of the weights is that of other weights",
            Check::Proof,
            |honest| {
                let mut body = honest.other.body.clone();
                let hash = ezkl(&mut body, LAST)?.parameter_hashes.first_mut().context("no hash")?;
                *hash = format!("01{}", "00".repeat(31));
                let run = honest.other.restated(&honest.elsewhere, &body)?;
                honest.draft_under(&honest.other, &body, &run).forged()
            },
        )
        .only_in(EZKL),
    ]
}

fn ezkl(body: &mut CardBody, shard: usize) -> Result<&mut EzklKeys> {
    match &mut body.shards[shard].keys {
        ShardKeys::Ezkl(keys) => Ok(keys),
        ShardKeys::Float | ShardKeys::Gkr(_) => anyhow::bail!("shard {shard} has no ezkl keys"),
    }
}
