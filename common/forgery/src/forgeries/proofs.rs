//! Verifying keys and proofs.

use anyhow::{Context, Result, bail, ensure};
use shardproof_common::chain::Check;
use shardproof_gkr::Proof;
use shardproof_gkr::pcs::Opening;

use super::cards::BN254_SCALARS;
use super::{EZKL, Forgery, NATIVE, forgery};
use crate::draft::add_modulus;
use crate::honest::Honest;
use crate::party::Forger;

/// Order of the base field of BN254, least significant byte first.
const BN254_COORDINATES: [u8; 32] = [
    0x47, 0xfd, 0x7c, 0xd8, 0x16, 0x8c, 0x20, 0x3c, 0x8d, 0xca, 0x71, 0x68, 0x91, 0x6a, 0x81, 0x97, 0x5d, 0x58, 0x81,
    0x81, 0xb6, 0x45, 0x50, 0xb8, 0x29, 0xa0, 0x31, 0xe1, 0x72, 0x4e, 0x64, 0x30,
];
/// Order of the native field.
const GOLDILOCKS: u64 = 0xffff_ffff_0000_0001;
/// Bytes of a scalar or a coordinate in a proof of ezkl.
const WORD: usize = 32;
/// Words after the last scalar of a proof of ezkl: the two points that open the commitments.
const WORDS_BEHIND_SCALARS: usize = 4;

pub(super) fn forgeries() -> Vec<Forgery> {
    [keys(), others(), writings()].into_iter().flatten().collect()
}

fn keys() -> Vec<Forgery> {
    let key = |name: &str, change: &str, edit: fn(&mut Vec<u8>, &Honest)| {
        forgery(name, Forger::Worker, change, Check::VerifyingKey, move |honest: &Honest| {
            let mut draft = honest.draft();
            draft.change_key(1, |bytes| {
                edit(bytes, honest);
                Ok(())
            })?;
            draft.forged()
        })
    };
    vec![
        key("key-of-other-plan", "shard 1's verifying key is that of the owner's other plan", |bytes, honest| {
            bytes.clone_from(&honest.other.verifying_keys[1]);
        }),
        key("key-of-neighbour", "shard 1's verifying key is that of shard 0", |bytes, honest| {
            bytes.clone_from(&honest.chain.verifying_keys[0]);
        }),
        key("key-truncated", "a byte is cut off shard 1's verifying key", |bytes, _| bytes.truncate(bytes.len() - 1)),
        key("key-extended", "a byte follows shard 1's verifying key", |bytes, _| bytes.push(0)),
        key("key-empty", "shard 1's verifying key is empty", |bytes, _| bytes.clear()),
        forgery(
            "key-and-proof-of-other-plan",
            Forger::Worker,
            "shard 1's verifying key and proof are those of the owner's other plan, on the same input",
            Check::VerifyingKey,
            |honest| {
                let mut draft = honest.draft();
                let other = honest.draft_of(&honest.other, &honest.elsewhere).bundle;
                draft.bundle.shards[1].proof = other.shards[1].proof.clone();
                draft.forged()
            },
        ),
    ]
}

fn others() -> Vec<Forgery> {
    let proof = |name: &str, change: &str, edit: fn(&mut Vec<u8>, &Honest) -> Result<()>| {
        forgery(name, Forger::Messenger, change, Check::Proof, move |honest: &Honest| {
            let mut draft = honest.draft();
            draft.change_proof(1, |bytes| edit(bytes, honest))?;
            draft.forged()
        })
    };
    vec![
        proof("proof-of-neighbour", "shard 1's proof is that of shard 0", |bytes, honest| {
            bytes.clone_from(&honest.run.links[0].proof);
            Ok(())
        })
        .only_in(NATIVE),
        proof("proof-of-neighbour-ezkl", "shard 1's proof is that of shard 0", |bytes, honest| {
            bytes.clone_from(&honest.run.links[0].proof);
            Ok(())
        })
        .only_in(&[crate::Scene::Ezkl]),
        proof("proof-of-other-run", "shard 1's proof is that of a run on the same input", |bytes, honest| {
            bytes.clone_from(&honest.again.links[1].proof);
            Ok(())
        })
        .only_in(NATIVE),
        proof(
            "proof-of-other-plan",
            "shard 1's proof is that of the owner's other plan, on the same input",
            |bytes, honest| {
                bytes.clone_from(&honest.elsewhere.links[1].proof);
                Ok(())
            },
        )
        .led_by_commitments(),
        proof("proof-truncated", "a byte is cut off shard 1's proof", |bytes, _| {
            bytes.pop().context("an empty proof").map(drop)
        }),
        proof("proof-truncated-by-a-word", "32 bytes are cut off shard 1's proof", |bytes, _| {
            bytes.truncate(bytes.len() - WORD);
            Ok(())
        }),
        proof("proof-extended", "a byte follows shard 1's proof", |bytes, _| {
            bytes.push(0);
            Ok(())
        }),
        proof("proof-extended-by-a-word", "32 bytes follow shard 1's proof", |bytes, _| {
            bytes.extend([0; WORD]);
            Ok(())
        }),
        proof("proof-empty", "shard 1's proof is empty", |bytes, _| {
            bytes.clear();
            Ok(())
        }),
    ]
}

fn writings() -> Vec<Forgery> {
    let written = |name: &str, change: &str, scenes, edit: fn(&mut Vec<u8>) -> Result<()>| {
        forgery(name, Forger::Messenger, change, Check::Proof, move |honest: &Honest| {
            let mut draft = honest.draft();
            draft.change_proof(1, edit)?;
            draft.forged()
        })
        .only_in(scenes)
    };
    vec![
        written(
            "number-in-second-writing",
            "the version in shard 1's proof is written in two bytes instead of one",
            NATIVE,
            |bytes| {
                ensure!(bytes.first().is_some_and(|&byte| byte < 0x80), "the version has more than a byte");
                bytes[0] |= 0x80;
                bytes.insert(1, 0);
                Ok(())
            },
        ),
        written(
            "element-in-second-writing",
            "the field's order is added to an element of an opening in shard 1's proof: the same element, written above the \
             modulus",
            NATIVE,
            |bytes| {
                let mut proof = Proof::from_bytes(bytes)?;
                let found = proof.openings.iter().enumerate().find_map(|(index, opening)| {
                    let (words, _) = opening.as_bytes().as_chunks::<8>();
                    let small = |word: &[u8; 8]| u64::from_le_bytes(*word).checked_add(GOLDILOCKS).is_some();
                    Some((index, words.iter().position(small)?))
                });
                let Some((opening, word)) = found else { bail!("no element has a second writing of 64 bits") };
                let mut opened = proof.openings[opening].as_bytes().to_vec();
                add_modulus(&mut opened[word * 8..][..8], &GOLDILOCKS.to_le_bytes())?;
                proof.openings[opening] = Opening::from_bytes(opened);
                *bytes = proof.to_bytes();
                Ok(())
            },
        ),
        written(
            "scalar-in-second-writing",
            "the field's order is added to the last scalar of shard 1's proof: the same scalar, written above the modulus",
            EZKL,
            |bytes| {
                let word = bytes.len() / WORD - WORDS_BEHIND_SCALARS - 1;
                add_to_word(bytes, word, &BN254_SCALARS)
            },
        ),
        written(
            "coordinate-in-second-writing",
            "the field's order is added to a coordinate of the last point of shard 1's proof",
            EZKL,
            |bytes| {
                let word = bytes.len() / WORD - 2;
                add_to_word(bytes, word, &BN254_COORDINATES)
            },
        ),
    ]
}

/// Adds to a word of a proof of ezkl, which is written most significant byte first.
fn add_to_word(bytes: &mut [u8], word: usize, modulus: &[u8]) -> Result<()> {
    let word = bytes.get_mut(word * WORD..(word + 1) * WORD).context("the proof is too short")?;
    word.reverse();
    let added = add_modulus(word, modulus);
    word.reverse();
    added
}
