//! Databases of both kinds for tests.

use std::path::Path;
use std::time::Duration;

use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::receipt::PublicKey;
use shardproof_testing::Postgres;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::lease::Candidate;
use super::{Database, Location, Store};
use crate::record::RunRecord;

/// A database that vanishes with the value.
pub(crate) enum TestDatabase {
    File(TempDir),
    Server(Postgres),
}

impl TestDatabase {
    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    pub(crate) fn server() -> Self {
        Self::Server(Postgres::start().unwrap())
    }

    pub(crate) fn location(&self) -> Location {
        match self {
            Self::File(directory) => Location::File(directory.path().join("state.sqlite")),
            Self::Server(server) => Location::Url(server.url()),
        }
    }

    pub(crate) async fn connect(&self) -> Database {
        Database::open(&self.location()).await.unwrap()
    }

    /// The store as data directory `holder` opens it, which has to find the lease free.
    pub(crate) async fn store(&self, holder: u8) -> Store {
        lead(self.connect().await, holder).await
    }
}

/// The store in a file.
pub(crate) async fn in_file(path: &Path) -> Store {
    lead(Database::open(&Location::File(path.to_owned())).await.unwrap(), 1).await
}

/// Whoever has data directory `holder` of the one service of these tests.
pub(crate) fn candidate(holder: u8) -> Candidate {
    Candidate { owner: PublicKey::from_bytes([9; 32]), holder: PublicKey::from_bytes([holder; 32]) }
}

async fn lead(database: Database, holder: u8) -> Store {
    let never = CancellationToken::new();
    Store::lead(database, &candidate(holder), Duration::ZERO, &never).await.unwrap().unwrap()
}

/// A run that has just been accepted.
pub(crate) fn run(shards: usize) -> RunRecord {
    let input = Artifact { digest: Digest::of(b"x"), size: 1 };
    RunRecord::new(RunId::generate(), Digest::of(b"plan"), shards, input, 5)
}
