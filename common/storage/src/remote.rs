//! One object store with a prefix.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use shardproof_common::artifacts::{Artifact, ArtifactError, ArtifactStore};
use shardproof_common::clock;
use shardproof_common::ids::Digest;
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::StorageError;

/// Bytes of one part of an upload that does not fit into one request.
const PART_BYTES: usize = 8 << 20;

/// An artifact that was stored less long ago is not stored again.
const YOUNG: Duration = Duration::from_secs(600);
/// Whoever finds one just not too old has as long again to refer to it.
pub(crate) const SHORTEST_KEPT: Duration = YOUNG.saturating_mul(2);

/// Longest that one request is tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the artifacts are.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Remote {
    pub(crate) fn open(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self, StorageError> {
        let refuse = || StorageError::Url { url: url.to_owned() };
        let parsed = Url::parse(url).map_err(|_| refuse())?;
        let client = |source| StorageError::Client { url: url.to_owned(), source };
        match parsed.scheme() {
            "s3" => {
                // One that is installed already is this one.
                let _installed = rustls::crypto::ring::default_provider().install_default();
                let bucket = parsed.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(refuse)?;
                let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retries());
                for (name, value) in settings {
                    // Others than those that a client knows are for other programs.
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let store = builder.build().map_err(client)?;
                let prefix = Path::parse(parsed.path().trim_matches('/')).map_err(|_| refuse())?;
                Ok(Self { store: Arc::new(store), prefix })
            }
            "file" => {
                let directory = parsed.to_file_path().map_err(|()| refuse())?;
                let made = std::fs::create_dir_all(&directory);
                made.map_err(|source| client(object_store::Error::Generic { store: "file", source: source.into() }))?;
                let store = LocalFileSystem::new_with_prefix(directory).map_err(client)?;
                Ok(Self { store: Arc::new(store.with_fsync(true)), prefix: Path::default() })
            }
            _ => Err(refuse()),
        }
    }

    fn place(&self, digest: Digest) -> Path {
        let name = digest.to_string();
        self.prefix.clone().join(&name[..2]).join(name.as_str())
    }

    /// Uploads what lies in `local`, unless it is there. One that is not young is uploaded again, so that it becomes so: whoever
    /// stores it is about to refer to it.
    pub(crate) async fn put(&self, local: &ArtifactStore, artifact: Artifact) -> Result<(), ArtifactError> {
        let place = self.place(artifact.digest);
        match self.store.head(&place).await {
            Ok(found) if found.size == artifact.size && is_young(&found) => return Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(&place, error)),
        }
        let path = local.path(artifact.digest);
        let mut file = tokio::fs::File::open(&path).await.map_err(|error| failed(&place, error))?;
        let mut writer = BufWriter::with_capacity(self.store.clone(), place.clone(), PART_BYTES);
        let copied = tokio::io::copy(&mut file, &mut writer).await;
        // What ends before its last part is never an object.
        copied.map_err(|error| failed(&place, error))?;
        writer.shutdown().await.map_err(|error| failed(&place, error))
    }

    /// Brings an artifact to `local`; none when it is not here.
    pub(crate) async fn get(&self, local: &ArtifactStore, digest: Digest) -> Result<Option<Artifact>, ArtifactError> {
        let place = self.place(digest);
        let found = match self.store.get(&place).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(&place, error)),
        };
        let mut file = local.receive()?;
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.try_next().await.map_err(|error| failed(&place, error))? {
            file.write(&piece)?;
        }
        local.publish_as(file, digest).map(Some)
    }

    /// What is here, each with the time at which it was written.
    pub(crate) async fn list(&self) -> Result<Vec<(Artifact, u64)>, ArtifactError> {
        let objects: Vec<_> =
            self.store.list(Some(&self.prefix)).try_collect().await.map_err(|error| failed(&self.prefix, error))?;
        let artifacts = objects.into_iter().filter_map(|object| {
            // What is not named by a digest is not an artifact, and nobody's business here.
            let digest = object.location.filename()?.parse().ok()?;
            Some((Artifact { digest, size: object.size }, written_ms(&object)))
        });
        Ok(artifacts.collect())
    }

    /// When an artifact was last stored, milliseconds since 1970; none when it is not here.
    pub(crate) async fn written(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        let place = self.place(digest);
        match self.store.head(&place).await {
            Ok(found) => Ok(Some(written_ms(&found))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&place, error)),
        }
    }

    pub(crate) async fn remove(&self, digest: Digest) -> Result<(), ArtifactError> {
        let place = self.place(digest);
        match self.store.delete(&place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&place, error)),
        }
    }
}

/// A store that is away is soon said to be: whoever can wait tries again.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn written_ms(object: &ObjectMeta) -> u64 {
    object.last_modified.timestamp_millis().try_into().unwrap_or(0)
}

fn is_young(object: &ObjectMeta) -> bool {
    clock::now().0.saturating_sub(written_ms(object)) < YOUNG.as_millis() as u64
}

fn failed(place: &Path, error: impl Display) -> ArtifactError {
    ArtifactError::Remote { place: place.to_string(), reason: error.to_string() }
}
