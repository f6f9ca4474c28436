//! The native proof system as a backend of the service.
//!
//! - **What.** [`GkrVerifier`] checks proofs against what a model card registers; [`GkrBackend`] quantises a shard, makes its
//!   keys, runs it in integers and proves what it ran.
//! - **When to use.** By default: it needs nothing beside this program, and proves in milliseconds what ezkl proves in
//!   seconds. Its proofs are succinct, not zero-knowledge.
//! - **What a proof binds.** The digest of shardproof's statement is the first thing in the transcript, so a proof is of one
//!   shard of one plan in one run by one key, and of nothing else. Boundaries are the integers themselves, or commitments that
//!   the proofs on both sides open.
//! - **Several runs in one proof.** [`Backend::prove_batch`] proves them together, and each run's bundle carries the same
//!   bytes: the digests of all statements, the boundaries of every run, and one proof that is bound to them. A verifier finds
//!   its statement among them. Whoever has one run's bundle can read the public tensors of the others, so only runs of one
//!   requester are proven together.
//! - **What a verifying key's file holds.** [`KeyFile`]: the key, and the weights where they are public, so that a bundle is
//!   all that a verifier needs beside the card.
//! - **Related.** `shardproof_gkr` has the protocol, `shardproof_models::quantise` makes the integer graph,
//!   `shardproof_common::backend` has the interface.
//!
//! Without the feature `prover` the verifier is built alone.
//!
//! [`Backend::prove_batch`]: shardproof_common::backend::Backend::prove_batch

#[cfg(feature = "prover")]
mod backend;
mod batch;
mod boundary;
#[cfg(feature = "prover")]
mod execution;
mod key_file;
#[cfg(feature = "prover")]
mod loaded;
#[cfg(feature = "prover")]
mod reexecution;
#[cfg(feature = "prover")]
mod setup;
mod verifier;

#[cfg(feature = "prover")]
pub use backend::{GkrBackend, TIMINGS_FILE};
pub use key_file::{KeyFile, KeyFileError};
#[cfg(feature = "prover")]
pub use loaded::{GRAPH, WEIGHTS};
#[cfg(feature = "prover")]
pub use reexecution::GkrReexecutor;
pub use verifier::GkrVerifier;

/// The one version whose keys and proofs are made and accepted here: that of the proofs' encoding and transcript.
pub const VERSION: &str = "2";

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_proofs() {
        assert_eq!(super::VERSION, shardproof_gkr::VERSION.to_string());
    }
}
