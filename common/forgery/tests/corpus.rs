//! Every forgery is refused by the check that it aims at, and by no other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use shardproof_common::backend::ProofVerifier;
use shardproof_forgery::{Honest, Scene, chain, forgeries};

/// Makes and judges all forgeries of a scene; what differs from what is expected is told at once, for all of them.
fn judge_all(scene: Scene) {
    if let Some(missing) = scene.missing() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let honest = Honest::make(scene, 1).unwrap();
    let verifiers = chain::verifiers();
    let verifiers: Vec<&dyn ProofVerifier> = verifiers.iter().map(AsRef::as_ref).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut findings = Vec::new();
    let all = forgeries::of(scene);
    for forgery in &all {
        let forged = match forgery.make(&honest) {
            Ok(forged) => forged,
            Err(error) => {
                findings.push(format!("not made: {error:#}"));
                continue;
            }
        };
        match chain::with_job(directory.path(), |job| honest.judge(&forged, &verifiers, job)) {
            Ok(verdict) => {
                eprintln!("{scene} {}: {} by {:?}: {}", forgery.name, verdict.status, verdict.failed, verdict.reason);
                if let Err(difference) = forgery.expected_in(scene).compare(&verdict) {
                    findings.push(format!("{}: {difference}", forgery.name));
                }
            }
            Err(error) => findings.push(format!("{}: no result: {error}", forgery.name)),
        }
    }
    assert!(findings.is_empty(), "{scene}, {} of {}:\n{}", findings.len(), all.len(), findings.join("\n"));
    assert!(all.len() > 80, "{scene} has {} forgeries", all.len());
}

#[test]
fn gkr_with_commitments() {
    judge_all(Scene::GkrCommitted);
}

#[test]
fn gkr_in_public() {
    judge_all(Scene::GkrPublic);
}

#[test]
fn ezkl_with_hashes() {
    judge_all(Scene::Ezkl);
}

#[test]
fn ezkl_with_polynomial_commitments() {
    judge_all(Scene::EzklPolycommit);
}

#[test]
fn both_proof_systems_in_one_chain() {
    judge_all(Scene::Mixed);
}
