//! The proof systems that this program can work with.

use shardproof_common::backend::ProofVerifier;

/// One verifier per proof system.
pub(crate) fn verifiers() -> Vec<Box<dyn ProofVerifier>> {
    Vec::new()
}
