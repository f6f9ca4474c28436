//! The file of a verifying key, as bundles carry it and cards name it by digest.
//!
//! Little-endian: magic, the key's length (u64), the key, and the weights up to the end of the file. A key with public weights
//! is followed by them, every other one by nothing, so that no byte is there that is not checked.

use shardproof_common::plan::WeightVisibility;
use shardproof_gkr::{RegisteredWeights, VerifyingKey, WeightsKey};
use shardproof_integer::Weights;
use thiserror::Error;

const MAGIC: &[u8; 4] = b"SPG1";
const HEADER_BYTES: usize = 12;

/// A verifying key, with the weights where they are public.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The key.
    pub key: VerifyingKey,
    /// Public weights, compared with the key.
    pub weights: Option<RegisteredWeights>,
}

/// What can be wrong with a verifying key's file.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// Too short, or with another beginning.
    #[error("not a verifying key's file of this version")]
    Header,
    /// The key is longer than the file.
    #[error("the file names a key of {expected} bytes, {found} are there")]
    Truncated {
        /// Bytes that the file says the key has.
        expected: u64,
        /// Bytes after the header.
        found: usize,
    },
    /// Not a key.
    #[error(transparent)]
    Key(shardproof_gkr::VerifyError),
    /// Bytes after a key whose weights are not public.
    #[error("{found} bytes follow a key that has no public weights")]
    Leftover {
        /// Bytes there.
        found: usize,
    },
    /// Not the key's weights.
    #[error("the weights: {0}")]
    Weights(String),
}

impl KeyFile {
    /// The file of `key`; `weights` are those that it was made from.
    ///
    /// # Errors
    /// When the weights are not of the key's graph.
    pub fn encode(key: &VerifyingKey, weights: &Weights) -> Result<Vec<u8>, KeyFileError> {
        let bytes = key.to_bytes();
        let public = match key.weights() {
            WeightsKey::Public(_) => {
                weights.to_bytes(key.graph()).map_err(|error| KeyFileError::Weights(error.to_string()))?
            }
            WeightsKey::None | WeightsKey::Committed(_) => Vec::new(),
        };
        let mut file = Vec::with_capacity(HEADER_BYTES + bytes.len() + public.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        file.extend_from_slice(&bytes);
        file.extend_from_slice(&public);
        Ok(file)
    }

    /// Reads what [`KeyFile::encode`] wrote; anything else is refused, without allocating beyond the size of `bytes`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(KeyFileError::Header)?;
        let (magic, length) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(KeyFileError::Header);
        }
        let expected = u64::from_le_bytes(length.try_into().expect("the header is twelve bytes, four of them magic"));
        let parts = usize::try_from(expected).ok().and_then(|length| rest.split_at_checked(length));
        let (key, weights) = parts.ok_or(KeyFileError::Truncated { expected, found: rest.len() })?;
        let key = VerifyingKey::from_bytes(key).map_err(KeyFileError::Key)?;
        let weights = match key.weights() {
            WeightsKey::Public(_) => {
                let weights = Weights::from_bytes(weights, key.graph())
                    .map_err(|error| KeyFileError::Weights(error.to_string()))?;
                Some(key.register(weights).map_err(|error| KeyFileError::Weights(error.to_string()))?)
            }
            WeightsKey::None | WeightsKey::Committed(_) if weights.is_empty() => None,
            WeightsKey::None | WeightsKey::Committed(_) => return Err(KeyFileError::Leftover { found: weights.len() }),
        };
        Ok(Self { key, weights })
    }

    /// How the key fixes the weights; nothing where there are none.
    pub fn visibility(&self) -> Option<WeightVisibility> {
        visibility_of(&self.key)
    }
}

/// How a key fixes its weights; nothing where there are none.
pub(crate) fn visibility_of(key: &VerifyingKey) -> Option<WeightVisibility> {
    match key.weights() {
        WeightsKey::None => None,
        WeightsKey::Public(_) => Some(WeightVisibility::Public),
        WeightsKey::Committed(_) => Some(WeightVisibility::Committed),
    }
}
