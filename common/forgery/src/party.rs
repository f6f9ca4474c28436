//! Who forges, and the keys that everyone has.

use std::fmt;

use serde::{Serialize, Serializer};
use shardproof_common::ids::Digest;
use shardproof_common::receipt::Identity;

use crate::scene::SHARDS;

/// Who could have made a forgery: the keys that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forger {
    /// Nobody's key: whoever the files pass through.
    Messenger,
    /// A key of its own that nobody admitted, or under which nobody expects a card.
    Outsider,
    /// One admitted worker's key.
    Worker,
    /// The keys of several admitted workers.
    Workers,
    /// The key of the authority that admits workers, and those of the workers.
    Authority,
    /// The key that signs cards, and all others.
    Owner,
}

impl Forger {
    /// All of them, from the weakest to the strongest.
    pub const ALL: [Self; 6] =
        [Self::Messenger, Self::Outsider, Self::Worker, Self::Workers, Self::Authority, Self::Owner];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Messenger => "messenger",
            Self::Outsider => "outsider",
            Self::Worker => "worker",
            Self::Workers => "workers",
            Self::Authority => "authority",
            Self::Owner => "owner",
        }
    }

    /// What the forger has, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Messenger => "no key: whoever the files pass through",
            Self::Outsider => "a key of its own, which nobody admitted and nobody expects on a card",
            Self::Worker => "the key of one admitted worker",
            Self::Workers => "the keys of several admitted workers, who collude",
            Self::Authority => "the key that admits workers, and the workers' keys",
            Self::Owner => "the key that signs cards, and all others",
        }
    }
}

impl fmt::Display for Forger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Forger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Everyone's keys; worker i holds shard i.
pub struct Keys {
    /// Signs cards.
    pub owner: Identity,
    /// Admits workers.
    pub authority: Identity,
    /// Hold the shards, in order.
    pub workers: Vec<Identity>,
    /// Nobody's friend.
    pub outsider: Identity,
}

impl Keys {
    /// The keys that belong to `seed`. Whoever knows the seed has them: they are for forgeries and nothing else.
    pub fn insecure(seed: u64) -> Self {
        let key = |who: &str, index: usize| {
            Identity::from_secret(Digest::derive("shardproof 2 forgery key", &(seed, who, index)).as_bytes())
        };
        Self {
            owner: key("owner", 0),
            authority: key("authority", 0),
            workers: (0..SHARDS).map(|shard| key("worker", shard)).collect(),
            outsider: key("outsider", 0),
        }
    }
}
