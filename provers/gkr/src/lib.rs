//! The native proof system: quantised networks by sumcheck, logup and WHIR.
//!
//! A proof says that an integer graph, fixed by a [`VerifyingKey`], takes the input boundary of a [`Statement`] to its
//! output boundary. It is succinct, not zero-knowledge. `PROTOCOL.md` gives every reduction with its equation and source,
//! `SOUNDNESS.md` the account of its error.
//!
//! Use it through [`ProvingKey::new`], [`ProvingKey::prove`] and [`verify`]; [`shardproof_integer`] makes the graph and the
//! trace. Without the feature `prover` the verifier is built alone.

#[cfg(all(test, feature = "prover"))]
mod adversary;
mod channel;
mod claims;
mod error;
pub mod field;
mod functional;
mod keys;
mod layout;
mod lookup;
mod mle;
mod operands;
pub mod pcs;
mod products;
mod proof;
#[cfg(feature = "prover")]
mod prover;
mod requant;
mod rounding;
pub mod soundness;
mod statement;
mod sumcheck;
#[cfg(feature = "prover")]
mod table;
mod timings;
pub mod transcript;
mod verifier;
mod weights;

pub use channel::ChannelError;
pub use error::{Committed, VerifyError};
pub use keys::{RegisteredWeights, VerifyingKey, Visibility, WeightsKey};
pub use layout::witness_cells;
pub use lookup::LookupError;
pub use proof::{MAX_PROOF_BYTES, Proof, VERSION};
#[cfg(feature = "prover")]
pub use prover::{CommittedBoundaries, ProveError, ProvingKey, SetupError, commit_tensor};
pub use statement::{Boundary, Statement};
pub use timings::Timings;
pub use verifier::verify;
