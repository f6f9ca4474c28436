//! The ezkl backend: Halo2/KZG proofs through the pinned ezkl, which runs in a child process and is never linked.
//!
//! - **What.** [`EzklBackend`] computes keys, witnesses and proofs of one shard; [`EzklVerifier`] checks proofs against what
//!   a model card registers; [`Installation`] puts the pinned wheel into the user's cache directory; [`steps::Steps`] is the
//!   same workflow one step at a time, file to file.
//! - **When to use.** For zero-knowledge proofs of small models. Time and memory grow with the number of rows of the
//!   circuit, a power of two.
//! - **What a proof is here.** The bare transcript. The verifier makes the public instances itself from the statement and
//!   the card, so that no value travels twice and none can differ from the one that is checked.
//! - **Related.** `shardproof_common::backend` has the interface, `shardproof_common::chain` the checks around a proof.
//!
//! ```no_run
//! use shardproof_ezkl::{EzklBackend, EzklConfig, Installation};
//!
//! let config = EzklConfig::from_env();
//! eprintln!("{}", Installation::new(&config).status());
//! let backend = EzklBackend::new(config);
//! ```

mod backend;
mod check;
mod child;
mod circuit;
mod cli;
mod config;
mod fidelity;
mod field;
mod frame;
mod infer;
mod install;
mod layout;
mod prove;
mod recompute;
mod runner;
mod settings;
mod setup;
mod srs;
pub mod steps;
mod tools;
mod verifier;
mod warm;
mod wheel;
mod witness;

pub use backend::EzklBackend;
pub use config::{EzklConfig, KeepWarm, RunnerKind};
pub use fidelity::Fidelity;
pub use field::{Felt, FeltError};
pub use install::{Installation, Status};
pub use recompute::{RecomputeRequest, Recomputed, RecomputedKeys, SampleRun};
pub use settings::{Settings, SettingsError};
pub use verifier::EzklVerifier;

/// The one version of ezkl whose keys and proofs are made and accepted here.
pub const VERSION: &str = "23.0.5";
