//! The bundle: one file with all that an offline verifier needs for one run, besides the model card.
//!
//! The file has one writing, and reading it is safe whatever its bytes are: see [`crate::format`].
//!
//! A bundle holds no value that nobody checks. What the card knows is not repeated, except inside the signed statements,
//! which [`crate::chain::verify`] compares with the card; there is no separate answer, for the answer is boundary n.

use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::bounded::Blob;
use crate::format::{Format, FormatError, read_capped};
use crate::ids::{Digest, RunId};
use crate::receipt::{Admission, Receipt};

/// Largest bundle that is read unless the caller says otherwise, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 1 << 30;
/// Most shards that a bundle or a card may have.
pub const MAX_SHARDS: usize = 4096;

const FORMAT: Format = Format { magic: b"SPBUNDLE", max_bytes: MAX_BUNDLE_BYTES };

/// One run: its receipts, the proofs there are, and the boundaries that the plan shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// [`crate::card::ModelCard::digest`] of the card that the run was made under.
    pub card: Digest,
    /// The run.
    pub run: RunId,
    /// One entry per shard of the plan, in order.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_SHARDS>")]
    pub shards: Vec<ShardRecord>,
    /// Boundaries 0..=n: [`crate::tensor::encode_boundary`] of those that the plan makes public, nothing for the others.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, { MAX_SHARDS + 1 }>")]
    pub boundaries: Vec<Option<Blob>>,
}

/// What a run left behind for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The worker's signed statement.
    pub receipt: Receipt,
    /// By the card's authority, for the receipt's worker and the card's plan.
    pub admission: Admission,
    /// The proof of the receipt's statement, once there is one.
    pub proof: Option<ShardProof>,
}

/// A proof with the key that checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardProof {
    /// The verifying key's bytes, whose digest the card names.
    pub verifying_key: Blob,
    /// The backend's bytes.
    pub proof: Blob,
}

impl Bundle {
    /// The file's bytes.
    ///
    /// # Errors
    /// When there are more shards than a bundle can have, or the result exceeds [`MAX_BUNDLE_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        self.check_counts()?;
        let payload = self.blobs().map(|blob| blob.len()).sum::<usize>();
        Ok(FORMAT.encode(self, payload + self.shards.len() * 1024)?)
    }

    /// Reads what [`Bundle::encode`] wrote, of at most [`MAX_BUNDLE_BYTES`].
    ///
    /// # Errors
    /// When the bytes are anything else; names where.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::decode_within(bytes, MAX_BUNDLE_BYTES)
    }

    /// [`Bundle::decode`] with another cap on the size, in bytes.
    ///
    /// # Errors
    /// As [`Bundle::decode`].
    pub fn decode_within(bytes: &[u8], cap: u64) -> Result<Self, BundleError> {
        let bundle: Self = FORMAT.decode(bytes, cap)?;
        bundle.check_counts()?;
        Ok(bundle)
    }

    /// Reads a bundle's file; a file larger than `cap` bytes is refused without reading it whole.
    ///
    /// # Errors
    /// When the file cannot be read, or as [`Bundle::decode`].
    pub fn read(path: &Path, cap: u64) -> Result<Self, BundleError> {
        Self::decode_within(&read_capped(path, cap)?, cap)
    }

    /// Refuses counts that no encoding can have, so that a bundle made in memory obeys the rules of one that was read.
    pub(crate) fn check_counts(&self) -> Result<(), BundleError> {
        let too_many = self.shards.len() > MAX_SHARDS || self.boundaries.len() > MAX_SHARDS + 1;
        if too_many {
            return Err(BundleError::TooManyShards { shards: self.shards.len(), boundaries: self.boundaries.len() });
        }
        Ok(())
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let proofs = self.shards.iter().filter_map(|shard| shard.proof.as_ref());
        proofs.flat_map(|proof| [&proof.verifying_key, &proof.proof]).chain(self.boundaries.iter().flatten())
    }
}

/// What can be wrong with a bundle's file.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The file is not one of a bundle.
    #[error("bundle: {0}")]
    Format(#[from] FormatError),
    /// More than a bundle can have.
    #[error(
        "a bundle of {shards} shards and {boundaries} boundaries exceeds the {MAX_SHARDS} shards that one can have"
    )]
    TooManyShards {
        /// Shards found.
        shards: usize,
        /// Boundaries found.
        boundaries: usize,
    },
}
