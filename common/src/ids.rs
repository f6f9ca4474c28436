//! Identifiers that cross function, process and file boundaries, each a type of its own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

/// Version of everything that is hashed or signed: statements, plans, cards, receipts, bundles.
pub const PROTOCOL_VERSION: u32 = 2;

/// A BLAKE3 digest. Text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of plain content, the one that `b3sum` prints.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a structured value under `context`, so that values of different kinds can never collide.
    ///
    /// The encoding is postcard's, which is injective for the types that are hashed here.
    pub fn derive<T: Serialize>(context: &'static str, value: &T) -> Self {
        let bytes = postcard::to_stdvec(value).expect("postcard encodes every type whose sequences know their length");
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// Wraps 32 bytes that are known to be a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = ParseIdError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseIdError::DigestLength { found: bytes.len() })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseIdError::Digest { found: text.chars().take(80).collect() })?;
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(ParseIdError::Digest { found: text.to_owned() });
        }
        Ok(Self(bytes))
    }
}

/// Hexadecimal text in human-readable formats, the bare bytes in binary ones.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            Ok(Self(<[u8; 32]>::deserialize(deserializer)?))
        }
    }
}

/// One inference through all shards, UUIDv7 so that runs sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id with exactly these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// When whoever chose the id says that it did; nothing where the id is of another kind than UUIDv7.
    pub fn created(&self) -> Option<UnixMillis> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(UnixMillis(seconds.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000))))
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let uuid = Uuid::parse_str(text).map_err(|_| ParseIdError::RunId { found: text.chars().take(80).collect() })?;
        Ok(Self(uuid))
    }
}

/// A point in time: milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The point this much later; the last one there is where that has no 64 bits.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms after 1970", self.0)
    }
}

/// Position of a shard in its plan, 0..n-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u32);

impl ShardIndex {
    /// The index for use with slices.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where in the chain a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Shard 0 of several.
    First,
    /// Neither first nor last.
    Middle,
    /// Shard n-1 of several.
    Last,
    /// The only shard.
    Solo,
}

impl Role {
    /// The role that shard `index` of `shards` calls for.
    pub fn of(index: ShardIndex, shards: usize) -> Self {
        match (index.as_usize(), shards) {
            (0, 1) => Self::Solo,
            (0, _) => Self::First,
            (i, n) if i + 1 == n => Self::Last,
            _ => Self::Middle,
        }
    }

    /// The name as it is written on command lines and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "FIRST",
            Self::Middle => "MIDDLE",
            Self::Last => "LAST",
            Self::Solo => "SOLO",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.to_ascii_uppercase().as_str() {
            "FIRST" => Ok(Self::First),
            "MIDDLE" => Ok(Self::Middle),
            "LAST" => Ok(Self::Last),
            "SOLO" => Ok(Self::Solo),
            _ => Err(ParseIdError::Role { found: text.to_owned() }),
        }
    }
}

/// Text or bytes that are not the identifier they should be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseIdError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("expected a digest of 64 lower-case hexadecimal digits, found `{found}`")]
    Digest {
        /// The text, cut to 80 characters.
        found: String,
    },
    /// Not 32 bytes.
    #[error("expected a digest of 32 bytes, found {found}")]
    DigestLength {
        /// Bytes found.
        found: usize,
    },
    /// Not a UUID.
    #[error("expected a run id (UUID), found `{found}`")]
    RunId {
        /// The text, cut to 80 characters.
        found: String,
    },
    /// Not a role.
    #[error("expected a role FIRST, MIDDLE, LAST or SOLO, found `{found}`")]
    Role {
        /// The text.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text_round_trips_and_is_canonical() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
        assert!("12".parse::<Digest>().is_err());
    }

    #[test]
    fn contexts_separate_equal_values() {
        assert_ne!(Digest::derive("shardproof a", &7u32), Digest::derive("shardproof b", &7u32));
    }

    #[test]
    fn roles_follow_from_position() {
        let roles: Vec<_> = (0..3).map(|i| Role::of(ShardIndex(i), 3)).collect();
        assert_eq!(roles, [Role::First, Role::Middle, Role::Last]);
        assert_eq!(Role::of(ShardIndex(0), 1), Role::Solo);
    }
}
