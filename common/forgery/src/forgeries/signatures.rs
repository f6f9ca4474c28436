//! Who signed.

use std::time::Duration;

use anyhow::Result;
use shardproof_common::chain::Check;
use shardproof_common::receipt::{Admission, PublicKey, Receipt, SignatureBytes};

use super::{Forgery, forgery};
use crate::chain::nudge;
use crate::draft::{Draft, add_modulus, recoded};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::SHARDS;

/// Order of the group of ed25519, least significant byte first.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn forgeries() -> Vec<Forgery> {
    [receipts(), attempts(), admissions()].into_iter().flatten().collect()
}

/// A draft with the receipt of shard 1 changed.
fn with_receipt(honest: &Honest, change: impl FnOnce(&mut Receipt) -> Result<()>) -> Result<Draft> {
    let mut draft = honest.draft();
    change(&mut draft.bundle.shards[1].receipt)?;
    Ok(draft)
}

fn receipts() -> Vec<Forgery> {
    vec![
        forgery(
            "receipt-by-other-key",
            Forger::Outsider,
            "shard 1's receipt names its worker and is signed by a key of the forger's",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    receipt.signature = receipt.signed_by(&honest.keys.outsider).signature;
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-by-other-worker",
            Forger::Workers,
            "shard 1's receipt names its worker and is signed by the worker of shard 0",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    receipt.signature = receipt.signed_by(&honest.keys.workers[0]).signature;
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-in-second-writing",
            Forger::Messenger,
            "the group's order is added to the scalar of shard 1's signature: the same element, written above the modulus",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    let mut added = Ok(());
                    receipt.signature = recoded(&receipt.signature, |bytes| {
                        added = add_modulus(&mut bytes[32..], &ED25519_ORDER);
                    })?;
                    added
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-by-weak-key",
            Forger::Authority,
            "a worker whose key is the neutral point is admitted, and one signature of it fits every statement",
            Check::Receipt,
            |honest| {
                let neutral: [u8; 32] = std::array::from_fn(|index| u8::from(index == 0));
                let mut draft = with_receipt(honest, |receipt| {
                    receipt.worker = PublicKey::from_bytes(neutral);
                    receipt.signature = recoded::<SignatureBytes>(&receipt.signature, |bytes| {
                        bytes[..32].copy_from_slice(&neutral);
                        bytes[32..].fill(0);
                    })?;
                    Ok(())
                })?;
                draft.readmit(&honest.keys);
                draft.forged()
            },
        ),
    ]
}

fn attempts() -> Vec<Forgery> {
    vec![
        forgery(
            "receipt-relabelled-attempt",
            Forger::Messenger,
            "shard 1's receipt says that it is of the next attempt",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    receipt.attempt += 1;
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-signed-in-other-attempt",
            Forger::Messenger,
            "shard 1's receipt of the first attempt carries the signature that its worker gave in the next",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    let next = Receipt { attempt: 1, ..receipt.clone() };
                    receipt.signature = next.signed_by(&honest.keys.workers[1]).signature;
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-relabelled-provable-until",
            Forger::Messenger,
            "shard 1's receipt says that a proof may be asked for a day longer",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    receipt.provable_until = receipt.provable_until.after(DAY);
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-signed-for-another-time",
            Forger::Messenger,
            "shard 1's receipt carries the signature that its worker gave when it promised to prove for a day longer",
            Check::Receipt,
            |honest| {
                with_receipt(honest, |receipt| {
                    let later = Receipt { provable_until: receipt.provable_until.after(DAY), ..receipt.clone() };
                    receipt.signature = later.signed_by(&honest.keys.workers[1]).signature;
                    Ok(())
                })?
                .forged()
            },
        ),
        forgery(
            "receipt-of-failed-attempt",
            Forger::Messenger,
            "shard 1's receipt is that of an earlier attempt, in which its worker signed another input than shard 0 put out",
            Check::BoundaryLink,
            |honest| {
                let mut input = honest.run.links[1].input.clone();
                nudge(&mut input)?;
                let earlier = honest.chain.claimed(1, &input)?;
                let mut draft = honest.draft();
                draft.restate(&honest.keys, 1, |statement| statement.input = earlier);
                draft.forged()
            },
        ),
    ]
}

fn admissions() -> Vec<Forgery> {
    vec![
        forgery(
            "admission-by-nobody",
            Forger::Outsider,
            "an outsider signs shard 1's receipt and admits itself",
            Check::Admission,
            |honest| {
                let mut draft = outsider_at(honest, 1);
                let plan = draft.card.body.plan.digest();
                draft.bundle.shards[1].admission =
                    Admission::sign(honest.keys.outsider.public(), plan, &honest.keys.outsider);
                draft.forged()
            },
        ),
        forgery(
            "admission-of-other-worker",
            Forger::Outsider,
            "an outsider signs shard 1's receipt, under the admission of the worker that it replaces",
            Check::Admission,
            |honest| outsider_at(honest, 1).forged(),
        ),
        forgery(
            "admission-relabelled",
            Forger::Outsider,
            "an outsider signs the last shard's receipt, and puts its name into the admission of the worker that it replaces",
            Check::Admission,
            |honest| {
                let mut draft = outsider_at(honest, SHARDS - 1);
                draft.bundle.shards[SHARDS - 1].admission.worker = honest.keys.outsider.public();
                draft.forged()
            },
        ),
        forgery(
            "admission-to-other-plan",
            Forger::Worker,
            "the worker of shard 1 is admitted to the owner's other plan only",
            Check::Admission,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.shards[1].admission =
                    honest.draft_of(&honest.other, &honest.elsewhere).bundle.shards[1].admission.clone();
                draft.forged()
            },
        ),
    ]
}

/// The run with an outsider's receipt for one shard.
fn outsider_at(honest: &Honest, shard: usize) -> Draft {
    let mut draft = honest.draft();
    let receipt = &mut draft.bundle.shards[shard].receipt;
    *receipt = receipt.signed_by(&honest.keys.outsider);
    draft
}
