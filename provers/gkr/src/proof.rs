//! Proofs as bytes.

use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::VerifyError;
use crate::field::Ext;
use crate::pcs::{Commitment, Opening};

/// Version of the encoding and of the transcript; any change of either is a new one.
pub const VERSION: u32 = 2;
/// Longest proof that is read, in bytes.
pub const MAX_PROOF_BYTES: usize = 64 << 20;
/// Most openings. An opening has thousands of bytes, but its encoding may say that it has none: [`MAX_PROOF_BYTES`] alone
/// would let a forged proof take gigabytes.
const MAX_OPENINGS: usize = 1 << 14;

/// A proof of one shard in one or more runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// [`VERSION`].
    pub version: u32,
    /// Commitment to the witness; nothing where the graph has no cell that is looked up, and so nothing to commit to.
    pub witness: Option<Commitment>,
    /// Everything that is sent in the clear, in order.
    pub values: Vec<Ext>,
    /// Openings of the weights (where they are committed), the witness, and the committed tensors of both boundaries.
    #[serde(deserialize_with = "capped_openings")]
    pub openings: Vec<Opening>,
    /// The transcript's digest after all of this. A graph that only moves values has a proof of no other part, which would be
    /// the same bytes for every run.
    pub seal: [u8; 32],
}

/// Decodes at most [`MAX_OPENINGS`].
fn capped_openings<'de, D: Deserializer<'de>>(decoder: D) -> Result<Vec<Opening>, D::Error> {
    struct Openings;

    impl<'de> Visitor<'de> for Openings {
        type Value = Vec<Opening>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MAX_OPENINGS} openings")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut openings: A) -> Result<Vec<Opening>, A::Error> {
            let mut list = Vec::new();
            while let Some(opening) = openings.next_element()? {
                if list.len() == MAX_OPENINGS {
                    return Err(Error::custom(format_args!("more than {MAX_OPENINGS} openings")));
                }
                list.push(opening);
            }
            Ok(list)
        }
    }

    decoder.deserialize_seq(Openings)
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
