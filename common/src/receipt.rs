//! Signatures: a worker's over its statement, and the owner's over the workers it admits and the card it publishes.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::ids::{Digest, RunId, UnixMillis};
use crate::statement::Statement;

/// An ed25519 public key. Text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(Digest);

/// 64 bytes of an ed25519 signature; in text formats two strings of 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureBytes([u8; 64]);

impl Serialize for SignatureBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let halves: [&[u8]; 2] = [&self.0[..32], &self.0[32..]];
        let halves = halves.map(|half| Digest::try_from(half).expect("half a signature has 32 bytes"));
        halves.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let halves = <[Digest; 2]>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(halves[0].as_bytes());
        bytes[32..].copy_from_slice(halves[1].as_bytes());
        Ok(Self(bytes))
    }
}

/// A party's signing key.
pub struct Identity(SigningKey);

impl Identity {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(SigningKey::generate(&mut rand::rngs::OsRng))
    }

    /// The key with these secret bytes.
    pub fn from_secret(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The secret bytes, for the key file.
    pub fn to_secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(Digest::from_bytes(self.0.verifying_key().to_bytes()))
    }

    /// Signs `digest`, which the caller derived under a context of its own.
    pub fn sign(&self, digest: Digest) -> SignatureBytes {
        SignatureBytes(self.0.sign(digest.as_bytes()).to_bytes())
    }
}

impl PublicKey {
    /// Wraps 32 bytes; whether they are a key shows when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }

    /// Checks a signature over `digest`, strictly (no small-order keys, no malleable signatures).
    ///
    /// # Errors
    /// When the key is no curve point or the signature is not its.
    pub fn verify(&self, digest: Digest, signature: &SignatureBytes) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| SignatureError::Key { key: *self })?;
        let signature = Signature::from_bytes(&signature.0);
        key.verify_strict(digest.as_bytes(), &signature).map_err(|_| SignatureError::Signature { key: *self })
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for PublicKey {
    type Err = crate::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse()?))
    }
}

/// A worker's signature over its statement, given at inference time, before any proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What the worker asserts.
    pub statement: Statement,
    /// Counts how often the shard was tried in this run, from 0.
    pub attempt: u32,
    /// Until when the worker keeps what it takes to prove the statement. A proof that is asked for later may be refused; one
    /// that exists stays as true as it was, and so does the receipt.
    pub provable_until: UnixMillis,
    /// The worker's key.
    pub worker: PublicKey,
    /// Over all of the above.
    pub signature: SignatureBytes,
}

impl Receipt {
    /// Signs `statement` as `worker`.
    pub fn sign(statement: Statement, attempt: u32, provable_until: UnixMillis, worker: &Identity) -> Self {
        let key = worker.public();
        let signature = worker.sign(Self::signed_digest(&statement, attempt, provable_until, key));
        Self { statement, attempt, provable_until, worker: key, signature }
    }

    /// The same content as `worker` signs it.
    pub fn signed_by(&self, worker: &Identity) -> Self {
        Self::sign(self.statement.clone(), self.attempt, self.provable_until, worker)
    }

    /// Checks the signature; whether the worker is admitted is the caller's question.
    ///
    /// # Errors
    /// When the signature is not the named worker's over this content.
    pub fn check(&self) -> Result<(), SignatureError> {
        self.worker.verify(self.digest(), &self.signature)
    }

    /// Names the content: all but the signature. What the signature is over.
    pub fn digest(&self) -> Digest {
        Self::signed_digest(&self.statement, self.attempt, self.provable_until, self.worker)
    }

    fn signed_digest(statement: &Statement, attempt: u32, provable_until: UnixMillis, worker: PublicKey) -> Digest {
        Digest::derive("shardproof 2 receipt", &(statement.digest(), attempt, provable_until, worker))
    }
}

/// What the owner's side signs for each attempt of a run. It travels along with the run's boundaries, so that no worker makes its
/// successor work on a run, or on an attempt of one, that the owner's side did not begin.
pub fn attempt_digest(run: RunId, plan: Digest, attempt: u32) -> Digest {
    Digest::derive("shardproof 2 attempt", &(run, plan, attempt))
}

/// What the owner's side signs when it hands a boundary to a worker itself: boundary 0, so that nobody else can start runs,
/// and another one where its two workers are at odds about it.
pub fn handed_digest(run: RunId, plan: Digest, boundary: u32, attempt: u32, encoding: Digest) -> Digest {
    Digest::derive("shardproof 2 handed", &(run, plan, boundary, attempt, encoding))
}

/// The owner's word that a worker's receipts count for a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The worker admitted.
    pub worker: PublicKey,
    /// For this plan.
    pub plan: Digest,
    /// By the authority that the card names.
    pub signature: SignatureBytes,
}

impl Admission {
    /// Admits `worker` to `plan` as `authority`.
    pub fn sign(worker: PublicKey, plan: Digest, authority: &Identity) -> Self {
        Self { worker, plan, signature: authority.sign(Self::digest(worker, plan)) }
    }

    /// Checks the signature against the authority's key.
    ///
    /// # Errors
    /// When the signature is not the authority's over this worker and plan.
    pub fn check(&self, authority: &PublicKey) -> Result<(), SignatureError> {
        authority.verify(Self::digest(self.worker, self.plan), &self.signature)
    }

    fn digest(worker: PublicKey, plan: Digest) -> Digest {
        Digest::derive("shardproof 2 admission", &(worker, plan))
    }
}

/// A signature that does not hold.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// The key is no point of the curve.
    #[error("{key} is not an ed25519 key")]
    Key {
        /// The bytes found.
        key: PublicKey,
    },
    /// The signature is not this key's over this content.
    #[error("the signature is not by {key} over this content")]
    Signature {
        /// The key named.
        key: PublicKey,
    },
}
