//! Every byte of a bundle counts: another byte, with nothing sealed again, is noticed by the check of the part it lies in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use shardproof_common::backend::ProofVerifier;
use shardproof_common::bundle::Bundle;
use shardproof_forgery::parts::{self, Part};
use shardproof_forgery::{Honest, Scene, chain};

/// Flips one bit of every byte of small parts and of every `step`-th byte of large ones, and of their last.
fn flip_all(scene: Scene, step: usize) {
    if let Some(missing) = scene.missing() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let honest = Honest::make(scene, 2).unwrap();
    let forged = honest.draft().forged().unwrap();
    let map = parts::of(&Bundle::decode(&forged.bundle).unwrap()).unwrap();
    for part in [Part::Signed, Part::Signature, Part::Admission, Part::VerifyingKey, Part::Proof, Part::Tensors] {
        assert!(map.iter().any(|(range, found)| *found == part && !range.is_empty()), "no {part:?}");
    }
    let verifiers = chain::verifiers();
    let verifiers: Vec<&dyn ProofVerifier> = verifiers.iter().map(AsRef::as_ref).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut flipped = 0;
    for (range, part) in &map {
        // Different bits in different places, so that none is left out in all.
        let stride = if part.is_small() { 1 } else { step };
        for place in range.clone().step_by(stride).chain(range.clone().last()) {
            let mut changed = forged.clone();
            changed.bundle[place] ^= 1 << (place % 8);
            let verdict = chain::with_job(directory.path(), |job| honest.judge(&changed, &verifiers, job)).unwrap();
            if let Err(difference) = part.compare(&verdict) {
                panic!("{scene}, byte {place} of {}: {difference}", forged.bundle.len());
            }
            flipped += 1;
        }
    }
    eprintln!("{scene}: {flipped} of {} bytes flipped", forged.bundle.len());
    assert!(flipped > 1000, "{flipped} bytes");
}

#[test]
fn gkr_with_commitments() {
    flip_all(Scene::GkrCommitted, 89);
}

#[test]
fn gkr_in_public() {
    flip_all(Scene::GkrPublic, 89);
}

/// A proof of ezkl takes a child process for each flip.
#[test]
fn ezkl_with_hashes() {
    flip_all(Scene::Ezkl, 4999);
}
