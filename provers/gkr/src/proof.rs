//! Proofs as bytes.

use serde::{Deserialize, Serialize};

use crate::error::VerifyError;
use crate::field::Ext;
use crate::pcs::{Commitment, Opening};

/// Version of the encoding and of the transcript; any change of either is a new one.
pub const VERSION: u32 = 1;
/// Longest proof that is read, in bytes.
pub const MAX_PROOF_BYTES: usize = 64 << 20;

/// A proof of one shard in one or more runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// [`VERSION`].
    pub version: u32,
    /// Commitment to the witness.
    pub witness: Commitment,
    /// Everything that is sent in the clear, in order.
    pub values: Vec<Ext>,
    /// Openings of the weights (where they are committed), the witness, and the committed tensors of both boundaries.
    pub openings: Vec<Opening>,
}

impl Proof {
    /// The one encoding.
    ///
    /// # Panics
    /// Never: a vector takes all bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a vector takes all bytes")
    }

    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are not a proof of this version in its one encoding.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifyError> {
        let refuse = |reason: String| VerifyError::Encoding { what: "proof", reason };
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(refuse(format!("{} bytes, {MAX_PROOF_BYTES} is the most", bytes.len())));
        }
        let proof: Self = postcard::from_bytes(bytes).map_err(|error| refuse(error.to_string()))?;
        if proof.version != VERSION {
            return Err(refuse(format!("version {}, expected {VERSION}", proof.version)));
        }
        // One proof has one encoding: no element above the modulus, no longer form of a number, nothing left over.
        if proof.to_bytes() != bytes {
            return Err(refuse("not the canonical encoding of its content".to_owned()));
        }
        Ok(proof)
    }
}
