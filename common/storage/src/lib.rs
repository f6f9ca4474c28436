//! Artifacts as the coordinator keeps them: in its directory, or in an object store that several machines share.
//!
//! An object store (S3 or what speaks its language, or a directory that machines share) holds each artifact under its digest, written
//! once. The local directory is then a cache in front of it: whatever is used is first brought there, its content checked against
//! its name, so that all that needs a file has one. An artifact counts as stored only when the object store has it; the price is
//! a round trip for every new one. Workers never come here: they get bytes through the coordinator, and hold no credentials.

mod remote;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardproof_common::artifacts::{Artifact, ArtifactError, ArtifactStore, Backing, Pending};
use shardproof_common::ids::Digest;
use thiserror::Error;

use remote::Remote;

/// Bytes that are read, written and hashed sooner than another thread would begin to.
const AT_ONCE: u64 = 64 << 10;
/// Bytes of what is stored that another thread is given at a time.
const PIECE_BYTES: usize = 8 << 20;

/// The artifacts of a service.
#[derive(Clone, Debug)]
pub struct Artifacts {
    local: ArtifactStore,
    remote: Option<Remote>,
}

impl Artifacts {
    /// Artifacts in the directory of `local` alone.
    pub fn in_directory(local: ArtifactStore) -> Self {
        Self { local, remote: None }
    }

    /// Artifacts at `url`, with `local` as the cache: `s3://BUCKET/PREFIX`, whose endpoint, region and credentials are the
    /// environment's `AWS_*`, or `file:///DIRECTORY`.
    ///
    /// # Errors
    /// When the URL is of another kind, or what the environment says does not make a client.
    pub fn at(local: ArtifactStore, url: &str) -> Result<Self, StorageError> {
        let settings = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
        Self::with_settings(local, url, settings)
    }

    /// The same with `settings` in place of the environment: names such as `AWS_ENDPOINT`, in either case.
    ///
    /// # Errors
    /// As for [`Artifacts::at`].
    pub fn with_settings(
        local: ArtifactStore,
        url: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StorageError> {
        Ok(Self { local, remote: Some(Remote::open(url, settings)?) })
    }

    /// The directory in which what is used lies.
    pub fn local(&self) -> &ArtifactStore {
        &self.local
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// When the directory or the object store does not take them.
    pub async fn put(&self, bytes: &[u8]) -> Result<Artifact, ArtifactError> {
        let artifact =
            if bytes.len() as u64 > AT_ONCE { self.put_local(bytes).await? } else { self.local.put(bytes)? };
        self.keep(artifact).await?;
        Ok(artifact)
    }

    /// Writes to the directory on another thread, piece by piece, so that nothing large is in memory twice.
    async fn put_local(&self, bytes: &[u8]) -> Result<Artifact, ArtifactError> {
        let mut incoming = self.local.receive()?;
        for piece in bytes.chunks(PIECE_BYTES) {
            let piece = piece.to_vec();
            incoming = blocking(move || incoming.write(&piece).map(|()| incoming)).await?;
        }
        let local = self.local.clone();
        blocking(move || local.publish(incoming)).await
    }

    /// Stores a copy of the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or the directory or the object store does not take it.
    pub async fn put_file(&self, path: &Path) -> Result<Artifact, ArtifactError> {
        let (local, path) = (self.local.clone(), path.to_owned());
        let artifact = blocking(move || local.put_file(&path)).await?;
        self.keep(artifact).await?;
        Ok(artifact)
    }

    /// Stores what lies in the directory already.
    ///
    /// # Errors
    /// When the object store does not take it.
    pub async fn keep(&self, artifact: Artifact) -> Result<(), ArtifactError> {
        match &self.remote {
            Some(remote) => remote.put(&self.local, artifact).await,
            None => Ok(()),
        }
    }

    /// The artifact, brought to the directory where it is not there; none where it is not stored.
    ///
    /// # Errors
    /// When it cannot be brought, or its content is not its name's.
    pub async fn find(&self, digest: Digest) -> Result<Option<Artifact>, ArtifactError> {
        if let Some(artifact) = self.local.find(digest) {
            return Ok(Some(artifact));
        }
        match &self.remote {
            Some(remote) => remote.get(&self.local, digest).await,
            None => Ok(None),
        }
    }

    /// Reads an artifact of at most `limit` bytes and checks its content. What is damaged in the directory is brought again.
    ///
    /// # Errors
    /// When it is missing, larger, or damaged.
    pub async fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, ArtifactError> {
        self.find(digest).await?.ok_or(ArtifactError::Missing { digest })?;
        match self.read_local(digest, limit).await {
            // It is no longer in the directory.
            Err(ArtifactError::Damaged { .. }) if self.find(digest).await?.is_some() => {
                self.read_local(digest, limit).await
            }
            read => read,
        }
    }

    async fn read_local(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, ArtifactError> {
        match self.local.find(digest) {
            Some(artifact) if artifact.size > AT_ONCE => {
                let local = self.local.clone();
                blocking(move || local.read(digest, limit)).await
            }
            _ => self.local.read(digest, limit),
        }
    }

    /// All that is stored, with the time at which it was written, milliseconds since 1970; and what lies in the directory alone, of an
    /// upload that the object store did not take, or that someone else removed from there.
    ///
    /// # Errors
    /// When the directory or the object store cannot be listed.
    pub async fn list(&self) -> Result<Vec<(Artifact, u64)>, ArtifactError> {
        let mut listed = match &self.remote {
            Some(remote) => remote.list().await?,
            None => Vec::new(),
        };
        let local = self.local.clone();
        let mut cached = blocking(move || local.list()).await?;
        let stored: HashSet<Digest> = listed.iter().map(|(artifact, _)| artifact.digest).collect();
        cached.retain(|(artifact, _)| !stored.contains(&artifact.digest));
        listed.append(&mut cached);
        Ok(listed)
    }

    /// What is younger may be about to be referred to, by someone who did not need to store it again: it is not to be removed.
    pub fn shortest_kept(&self) -> Duration {
        self.remote.as_ref().map_or(Duration::ZERO, |_| remote::SHORTEST_KEPT)
    }

    /// Removes an artifact, from the directory as well; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove(&self, digest: Digest) -> Result<(), ArtifactError> {
        if let Some(remote) = &self.remote {
            remote.remove(digest).await?;
        }
        self.local.remove(digest)
    }

    /// Removes an artifact that was last stored before `before_ms`, milliseconds since 1970; whether it did.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove_if_older(&self, digest: Digest, before_ms: u64) -> Result<bool, ArtifactError> {
        let stored = match &self.remote {
            Some(remote) => remote.written(digest).await?.map(|written_ms| (remote, written_ms)),
            None => None,
        };
        match stored {
            Some((remote, written_ms)) if written_ms < before_ms => {
                remote.remove(digest).await?;
                self.local.remove(digest)?;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => {
                let local = self.local.clone();
                blocking(move || local.remove_if_older(digest, before_ms)).await
            }
        }
    }

    /// Where the artifact lies in the directory, or would.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.local.path(digest)
    }
}

/// Work with files that may take long, where it holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

impl Backing for Artifacts {
    fn bring(&self, digest: Digest) -> Pending<'_, Option<Artifact>> {
        Box::pin(self.find(digest))
    }

    fn keep(&self, artifact: Artifact) -> Pending<'_, ()> {
        Box::pin(self.keep(artifact))
    }
}

/// Why an object store cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    /// No URL, or one of another kind.
    #[error("`{url}` is no place for artifacts: give s3://BUCKET/PREFIX or file:///DIRECTORY")]
    Url {
        /// What was given.
        url: String,
    },
    /// The client could not be made.
    #[error("object store {url}: {source}")]
    Client {
        /// What was given.
        url: String,
        /// Why.
        source: object_store::Error,
    },
}
