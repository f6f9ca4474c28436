//! The bundle: one file with all that an offline verifier needs for one run, besides the model card.
//!
//! The file is a magic, a version (u32, little-endian), and the postcard encoding of [`Bundle`]. A bundle has exactly one
//! encoding: decoding compares the input with what encoding the result gives and refuses the rest, trailing bytes
//! included. Nothing is allocated on the strength of a length that the file claims: blobs are taken from bytes that are
//! there, and lists of small things have caps of their own, so a bundle takes a few times its file's size at most.
//!
//! A bundle holds no value that nobody checks. What the card knows is not repeated, except inside the signed statements,
//! which [`crate::chain::verify`] compares with the card; there is no separate answer, for the answer is boundary n.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use postcard::de_flavors::Flavor as DecodeFlavor;
use postcard::ser_flavors::Flavor as EncodeFlavor;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::bounded::Blob;
use crate::ids::{Digest, PROTOCOL_VERSION, RunId};
use crate::receipt::{Admission, Receipt};

/// Largest bundle that is read unless the caller says otherwise, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 1 << 30;
/// Most shards that a bundle or a card may have.
pub const MAX_SHARDS: usize = 4096;

const MAGIC: &[u8; 8] = b"SPBUNDLE";
const HEADER_BYTES: usize = MAGIC.len() + 4;

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
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload + self.shards.len() * 1024);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        let bytes = postcard::to_extend(self, bytes).expect("postcard encodes every list whose length is known");
        if bytes.len() as u64 > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge { bytes: bytes.len() as u64, cap: MAX_BUNDLE_BYTES });
        }
        Ok(bytes)
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
        if bytes.len() as u64 > cap {
            return Err(BundleError::TooLarge { bytes: bytes.len() as u64, cap });
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(BundleError::Truncated { bytes: bytes.len() });
        };
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BundleError::Magic);
        }
        let version = u32::from_le_bytes(version.try_into().expect("the header ends with four bytes"));
        if version != PROTOCOL_VERSION {
            return Err(BundleError::Version { expected: PROTOCOL_VERSION, found: version });
        }
        let offset = Cell::new(0);
        let mut deserializer = postcard::Deserializer::from_flavor(Tracked { bytes: body, offset: &offset });
        let bundle = Self::deserialize(&mut deserializer).map_err(|error| match error {
            postcard::Error::DeserializeUnexpectedEnd => BundleError::Truncated { bytes: bytes.len() },
            _ => BundleError::Malformed { offset: HEADER_BYTES + offset.get() },
        })?;
        bundle.check_counts()?;
        let decoded = offset.get();
        if decoded != body.len() {
            return Err(BundleError::Trailing { offset: HEADER_BYTES + decoded, bytes: body.len() - decoded });
        }
        offset.set(0);
        postcard::serialize_with_flavor(&bundle, Compared { expected: body, offset: &offset })
            .map_err(|_| BundleError::NotCanonical { offset: HEADER_BYTES + offset.get() })?;
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

/// A bundle file's bytes, at most `cap` of them: also for files whose size is not known before they are read.
///
/// # Errors
/// When the file cannot be read or is larger.
pub fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>, BundleError> {
    let io = |source| BundleError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > cap {
        return Err(BundleError::TooLarge { bytes: size, cap });
    }
    let mut bytes = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > cap {
        return Err(BundleError::TooLarge { bytes: bytes.len() as u64, cap });
    }
    Ok(bytes)
}

/// Reads from a slice and tells the caller how far it came, also when it fails.
struct Tracked<'de, 'a> {
    bytes: &'de [u8],
    offset: &'a Cell<usize>,
}

impl<'de, 'a: 'de> DecodeFlavor<'de> for Tracked<'de, 'a> {
    type Remainder = ();
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        Ok(self.try_take_n(1)?[0])
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let start = self.offset.get();
        let end = start.checked_add(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        let taken = self.bytes.get(start..end).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.offset.set(end);
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Compares an encoding with the bytes it should be, without storing it.
struct Compared<'a> {
    expected: &'a [u8],
    offset: &'a Cell<usize>,
}

impl EncodeFlavor for Compared<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let start = self.offset.get();
        let same = self.expected.get(start..).is_some_and(|rest| rest.starts_with(bytes));
        if !same {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.offset.set(start + bytes.len());
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.offset.get() == self.expected.len() { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }
}

/// What can be wrong with a bundle's file.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Larger than what is read.
    #[error("the bundle has {bytes} bytes, more than the {cap} allowed")]
    TooLarge {
        /// Bytes found, or where reading stopped.
        bytes: u64,
        /// Bytes allowed.
        cap: u64,
    },
    /// Some other file.
    #[error("not a shardproof bundle: it does not begin with `SPBUNDLE`")]
    Magic,
    /// Of another version.
    #[error("the bundle is of version {found}, this program reads {expected}")]
    Version {
        /// This program's.
        expected: u32,
        /// The file's.
        found: u32,
    },
    /// Ends early.
    #[error("the bundle is truncated: its {bytes} bytes end in the middle of a value")]
    Truncated {
        /// Bytes found.
        bytes: usize,
    },
    /// A value that cannot be.
    #[error("the bundle is malformed near byte {offset}")]
    Malformed {
        /// Where in the file.
        offset: usize,
    },
    /// Readable, but not how this content is written.
    #[error("the bundle is not in its canonical encoding near byte {offset}")]
    NotCanonical {
        /// Where in the file.
        offset: usize,
    },
    /// Something after the end.
    #[error("the bundle ends at byte {offset}, but {bytes} bytes follow")]
    Trailing {
        /// Where the bundle ends.
        offset: usize,
        /// Bytes that follow.
        bytes: usize,
    },
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
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
