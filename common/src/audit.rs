//! Audits: which shards of a run are proven without anyone asking, and how they are drawn.
//!
//! A draw is by a hash that nobody could steer alone. The client commits to a nonce when it submits the run; workers give their
//! receipts without knowing it; only when all receipts are in, and the client has seen their digests, does it reveal the nonce.
//! A worker that knew beforehand which runs are drawn would cheat in the others; a coordinator that could choose receipts or
//! run id after it knows the nonce would draw what it likes.
//!
//! The trade-off: a client that has seen the receipts can compute the draw before it reveals, and keep silent. It robs only
//! itself of the audit, and the run says that it was not audited.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::ids::{Digest, RunId, ShardIndex};
use crate::receipt::Receipt;

/// Which proofs are asked for without a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditPolicy {
    /// None.
    #[default]
    Request,
    /// Those of every shard of every run.
    Always,
    /// Those of every shard of a share of the runs.
    Runs(Share),
    /// Those of a share of the shards of every run, each drawn by itself.
    Shards(Share),
}

impl AuditPolicy {
    /// Whether what is proven is left to a draw.
    pub const fn is_random(self) -> bool {
        matches!(self, Self::Runs(_) | Self::Shards(_))
    }

    /// The shards to prove, in order. `receipts` are the [`receipt_digest`]s of all shards in order, fixed before anyone but
    /// the client knew `nonce`.
    pub fn draw(self, run: RunId, receipts: &[Digest], nonce: &Nonce) -> Vec<ShardIndex> {
        let seed = Digest::derive("shardproof 2 audit draw", &(run, receipts, nonce));
        let drawn = |shard: &ShardIndex| match self {
            Self::Request => false,
            Self::Always => true,
            Self::Runs(share) => share.holds(seed),
            Self::Shards(share) => share.holds(Digest::derive("shardproof 2 audit shard", &(seed, shard))),
        };
        (0..receipts.len() as u32).map(ShardIndex).filter(drawn).collect()
    }
}

impl fmt::Display for AuditPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Always => f.write_str("always"),
            Self::Runs(share) => write!(f, "runs:{share}"),
            Self::Shards(share) => write!(f, "shards:{share}"),
        }
    }
}

impl FromStr for AuditPolicy {
    type Err = ParseAuditError;

    fn from_str(text: &str) -> Result<Self, ParseAuditError> {
        match text.split_once(':') {
            None if text == "request" => Ok(Self::Request),
            None if text == "always" => Ok(Self::Always),
            Some(("runs", share)) => Ok(Self::Runs(share.parse()?)),
            Some(("shards", share)) => Ok(Self::Shards(share.parse()?)),
            _ => Err(ParseAuditError::Policy { found: text.chars().take(80).collect() }),
        }
    }
}

impl Serialize for AuditPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AuditPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A share from 0 (none) to 1 (all) in steps of one billionth. Exact, so that both sides of a draw agree on it; text form is the
/// decimal, `0.05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Billionths in the whole.
    const WHOLE: u32 = 1_000_000_000;
    /// Digits after the point.
    const DECIMALS: usize = 9;

    /// As a real, for people and for statistics.
    pub fn to_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// Whether a uniform digest falls into the share: its first 64 bits as a fraction of 2^64 are below it. The probability is
    /// off the share by less than 2^-64.
    fn holds(self, uniform: Digest) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *uniform.as_bytes();
        let fraction = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        fraction * u128::from(Self::WHOLE) < u128::from(self.0) << 64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, billionths) = (self.0 / Self::WHOLE, self.0 % Self::WHOLE);
        if billionths == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{billionths:0width$}", width = Self::DECIMALS);
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

impl FromStr for Share {
    type Err = ParseAuditError;

    fn from_str(text: &str) -> Result<Self, ParseAuditError> {
        let refuse = || ParseAuditError::Share { found: text.chars().take(80).collect() };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > Self::DECIMALS {
            return Err(refuse());
        }
        let whole: u32 = whole.parse().map_err(|_| refuse())?;
        let billionths: u32 = format!("{decimals:0<width$}", width = Self::DECIMALS).parse().map_err(|_| refuse())?;
        let share = whole.checked_mul(Self::WHOLE).and_then(|whole| whole.checked_add(billionths));
        share.filter(|&share| share <= Self::WHOLE).map(Self).ok_or_else(refuse)
    }
}

/// What a client adds to a draw: 32 random bytes, one set for each run, known to nobody else until revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(Digest);

impl Nonce {
    /// From the operating system's randomness.
    pub fn generate() -> Self {
        use rand::RngCore;
        let mut bytes = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The nonce with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What binds the client to the nonce and tells nothing about it.
    pub fn commitment(&self) -> NonceCommitment {
        NonceCommitment(Digest::derive("shardproof 2 audit nonce", self))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A commitment to a [`Nonce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NonceCommitment(Digest);

impl NonceCommitment {
    /// Wraps 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NonceCommitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a draw takes of a receipt: all of it, signature included, which only its worker can make.
pub fn receipt_digest(receipt: &Receipt) -> Digest {
    Digest::derive("shardproof 2 audit receipt", receipt)
}

/// Text that is no audit policy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseAuditError {
    /// None of the forms.
    #[error("expected `always`, `request`, `runs:SHARE` or `shards:SHARE`, found `{found}`")]
    Policy {
        /// The text, cut to 80 characters.
        found: String,
    },
    /// A share that is no decimal from 0 to 1, or a finer one.
    #[error("expected a share from 0 to 1 with at most 9 decimals, such as 0.05, found `{found}`")]
    Share {
        /// The text, cut to 80 characters.
        found: String,
    },
}
