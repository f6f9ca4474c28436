//! A corpus of forged bundles: what a verifier of runs must refuse, with the check that must refuse it.
//!
//! - **What.** [`Honest`] sets a small model up and runs it as owner, workers and client would, all in this process;
//!   [`forgeries::all`] lists what forgers make of that, each with who could make it ([`Forger`]) and what a verifier must
//!   say ([`Expected`]); [`corpus::write`] writes it all to files.
//! - **When to use.** To try a verifier: this project's own in its tests, or anyone's, with the files that `forge` writes.
//! - **What is different from fuzzing.** A forgery is sealed again after it was changed, as far as its forger has the keys:
//!   digests, signatures, framing, and proofs that are true of something else. One check alone stands in its way.
//! - **Related.** `shardproof_common::chain` has the checks. `README.md` has the table of the forgeries.
//!
//! All keys follow from a seed. Nothing made here is of any worth beside its purpose.

pub mod chain;
pub mod corpus;
mod draft;
pub mod forgeries;
mod honest;
mod liar;
pub mod parts;
mod party;
mod scene;
pub mod table;

pub use draft::{Draft, Forged};
pub use forgeries::{Expected, Forgery};
pub use honest::{Honest, Verdict};
pub use party::{Forger, Keys};
pub use scene::{MODEL, SHARDS, Scene};
