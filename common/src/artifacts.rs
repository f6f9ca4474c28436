//! A directory of files named by the digest of their content, written once and checked when they arrive.
//!
//! A file appears under its name only whole: it is written beside and renamed. Transfers that broke off leave a partial
//! file, from whose end the next attempt goes on.
//!
//! What nobody would make again, keys and shard files, is on the disk before it has its name, and a proof once it is [synced].
//! The rest is not, because each run writes some: after a loss of power a name may be there without all of its content. So a name
//! alone never counts: a file of another size is not the artifact, and one whose content is found to be another is removed, so
//! that whoever has it can store it again.
//!
//! [synced]: ArtifactStore::sync

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, UNIX_EPOCH};

use thiserror::Error;

use crate::clock;
use crate::ids::Digest;

/// What the names of files begin with that are being written.
const TEMPORARY_PREFIX: &str = ".writing-";

/// A content-addressed directory.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    root: PathBuf,
}

/// Digest and size of a stored artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Artifact {
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What is on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, ArtifactError>> + Send + 'a>>;

/// Where a directory's artifacts come from and go to, besides the directory.
pub trait Backing: Send + Sync {
    /// Brings an artifact to the directory; none where it is not stored at all.
    fn bring(&self, digest: Digest) -> Pending<'_, Option<Artifact>>;
    /// Stores an artifact that is in the directory.
    fn keep(&self, artifact: Artifact) -> Pending<'_, ()>;
}

impl Backing for ArtifactStore {
    fn bring(&self, digest: Digest) -> Pending<'_, Option<Artifact>> {
        Box::pin(std::future::ready(Ok(self.find(digest))))
    }

    fn keep(&self, _: Artifact) -> Pending<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// An artifact on its way in: hashed while it is written, gone unless it is published.
#[derive(Debug)]
pub struct Incoming {
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    size: u64,
}

impl Incoming {
    /// Adds bytes.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(io_error(self.file.path()))
    }

    /// Digest of what was written so far.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// An artifact on its way out: hashed where it is read from its beginning, so that damage is found once all of it is out.
#[derive(Debug)]
pub struct Outgoing {
    store: ArtifactStore,
    artifact: Artifact,
    file: File,
    hasher: Option<blake3::Hasher>,
}

impl Outgoing {
    /// The next bytes, `most` of them unless there are fewer; none at the end.
    ///
    /// # Errors
    /// When they cannot be read, or all have been and are not the artifact, which is removed then.
    pub fn read(&mut self, most: usize) -> Result<Option<Vec<u8>>, ArtifactError> {
        let mut bytes = Vec::with_capacity(most);
        let read = (&mut self.file).take(most as u64).read_to_end(&mut bytes);
        read.map_err(io_error(&self.store.path(self.artifact.digest)))?;
        if !bytes.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&bytes);
            }
            return Ok(Some(bytes));
        }
        let expected = self.artifact.digest;
        let found = self.hasher.take().map(|hasher| Digest::from_bytes(*hasher.finalize().as_bytes()));
        match found.filter(|found| *found != expected) {
            Some(found) => {
                // It may have been stored again since it was opened.
                self.store.is_whole(self.artifact)?;
                Err(ArtifactError::Damaged { expected, found })
            }
            None => Ok(None),
        }
    }
}

impl ArtifactStore {
    /// Opens the store in `root`, which is made where it is missing.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        let root = root.into();
        let partials = root.join("partial");
        fs::create_dir_all(&partials).map_err(io_error(&partials))?;
        let store = Self { root };
        store.clear_temporaries()?;
        Ok(store)
    }

    /// Removes what is being written, of which nothing becomes an artifact any more: an earlier process was killed, or this one is about
    /// to end. Transfers that broke off stay.
    ///
    /// # Errors
    /// When the file system does not.
    pub fn clear_temporaries(&self) -> Result<(), ArtifactError> {
        let partials = self.root.join("partial");
        clear_temporaries(&partials).map_err(io_error(&partials))
    }

    /// Where the artifact is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(name)
    }

    /// The artifact with its size, if it is here.
    pub fn find(&self, digest: Digest) -> Option<Artifact> {
        let size = fs::metadata(self.path(digest)).ok()?.len();
        Some(Artifact { digest, size })
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn put(&self, bytes: &[u8]) -> Result<Artifact, ArtifactError> {
        let artifact = Artifact { digest: Digest::of(bytes), size: bytes.len() as u64 };
        if self.find(artifact.digest) == Some(artifact) {
            self.renew(artifact.digest)?;
            return Ok(artifact);
        }
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(io_error(file.path()))?;
        self.place(file, artifact.digest)?;
        Ok(artifact)
    }

    /// Stores a copy of the file at `path`, linked where the file system allows, and on the disk.
    ///
    /// # Errors
    /// When the file cannot be read or the disk does not take it.
    pub fn put_file(&self, path: &Path) -> Result<Artifact, ArtifactError> {
        let size = fs::metadata(path).map_err(io_error(path))?.len();
        let artifact = Artifact { digest: digest_of_file(path)?, size };
        if self.find(artifact.digest) == Some(artifact) {
            self.renew(artifact.digest)?;
            return Ok(artifact);
        }
        let target = self.prepare(artifact.digest)?;
        sync(path)?;
        if fs::hard_link(path, &target).is_err() {
            let mut file = self.temporary()?;
            let mut source = File::open(path).map_err(io_error(path))?;
            io::copy(&mut source, &mut file).map_err(io_error(&target))?;
            sync(file.path())?;
            self.place(file, artifact.digest)?;
        } else {
            // The file may have been written long before it is stored.
            self.renew(artifact.digest)?;
        }
        sync_name(&target)?;
        Ok(artifact)
    }

    /// Whether the artifact is here: its content is read and compared. A file that is not it is removed.
    ///
    /// # Errors
    /// When it cannot be read, or not be removed.
    pub fn is_whole(&self, artifact: Artifact) -> Result<bool, ArtifactError> {
        if self.find(artifact.digest).is_none() {
            return Ok(false);
        }
        let whole = digest_of_file(&self.path(artifact.digest))? == artifact.digest;
        if !whole {
            self.remove(artifact.digest)?;
        }
        Ok(whole)
    }

    /// Has the disk take an artifact that is here.
    ///
    /// # Errors
    /// When it does not.
    pub fn sync(&self, digest: Digest) -> Result<(), ArtifactError> {
        let path = self.path(digest);
        sync(&path)?;
        sync_name(&path)
    }

    /// Reads an artifact of at most `limit` bytes and checks its content. One that is damaged is removed.
    ///
    /// # Errors
    /// When it is missing, larger, or damaged.
    pub fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, ArtifactError> {
        let path = self.path(digest);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ArtifactError::Missing { digest }),
            Err(error) => return Err(io_error(&path)(error)),
        };
        if size > limit {
            return Err(ArtifactError::TooLarge { digest, size, limit });
        }
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        let found = Digest::of(&bytes);
        if found == digest {
            return Ok(bytes);
        }
        self.remove(digest)?;
        Err(ArtifactError::Damaged { expected: digest, found })
    }

    /// Begins to give an artifact out that is here, from `offset` on.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn send(&self, artifact: Artifact, offset: u64) -> Result<Outgoing, ArtifactError> {
        let path = self.path(artifact.digest);
        let opened = File::open(&path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
        let file = opened.map_err(io_error(&path))?;
        let hasher = (offset == 0).then(blake3::Hasher::new);
        Ok(Outgoing { store: self.clone(), artifact, file, hasher })
    }

    /// Where a transfer of the artifact collects its bytes.
    pub fn partial(&self, digest: Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_string())
    }

    /// Makes a completed transfer an artifact, on the disk; one with other content is deleted.
    ///
    /// # Errors
    /// When the content is not the digest's.
    pub fn complete(&self, digest: Digest) -> Result<PathBuf, ArtifactError> {
        let partial = self.partial(digest);
        let found = digest_of_file(&partial)?;
        if found != digest {
            fs::remove_file(&partial).map_err(io_error(&partial))?;
            return Err(ArtifactError::Damaged { expected: digest, found });
        }
        let target = self.prepare(digest)?;
        sync(&partial)?;
        fs::rename(&partial, &target).map_err(io_error(&target))?;
        sync_name(&target)?;
        Ok(target)
    }

    /// Begins to take an artifact in.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn receive(&self) -> Result<Incoming, ArtifactError> {
        Ok(Incoming { file: self.temporary()?, hasher: blake3::Hasher::new(), size: 0 })
    }

    /// Makes what was taken in an artifact, whatever it is.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish(&self, incoming: Incoming) -> Result<Artifact, ArtifactError> {
        let digest = incoming.digest();
        self.place(incoming.file, digest)?;
        Ok(Artifact { digest, size: incoming.size })
    }

    /// Makes what was taken in the artifact `expected`.
    ///
    /// # Errors
    /// When it is another, or cannot be renamed.
    pub fn publish_as(&self, incoming: Incoming, expected: Digest) -> Result<Artifact, ArtifactError> {
        let found = incoming.digest();
        if found != expected {
            return Err(ArtifactError::Damaged { expected, found });
        }
        self.publish(incoming)
    }

    /// All that is here, with the time at which it was written, milliseconds since 1970.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn list(&self) -> Result<Vec<(Artifact, u64)>, ArtifactError> {
        let mut found = Vec::new();
        for shelf in entries(&self.root)? {
            for path in entries(&shelf)? {
                // What is not named by a digest is not an artifact: a transfer that is under way, for one.
                let digest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                let (Some(digest), Ok(metadata)) = (digest, fs::metadata(&path)) else { continue };
                if self.path(digest) == path {
                    found.push((Artifact { digest, size: metadata.len() }, written_ms(&metadata)));
                }
            }
        }
        Ok(found)
    }

    /// Transfers that have not been completed, with their sizes and the times of their last bytes.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn partials(&self) -> Result<Vec<(PathBuf, u64, u64)>, ArtifactError> {
        let paths = entries(&self.root.join("partial"))?.into_iter();
        let known = paths.filter_map(|path| fs::metadata(&path).ok().map(|metadata| (path, metadata)));
        Ok(known.map(|(path, metadata)| (path, metadata.len(), written_ms(&metadata))).collect())
    }

    /// Removes an artifact; one that is not here is no error.
    ///
    /// # Errors
    /// When the file system does not.
    pub fn remove(&self, digest: Digest) -> Result<(), ArtifactError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes an artifact that was last stored before `before_ms`, milliseconds since 1970; whether it did.
    ///
    /// # Errors
    /// When the file system does not.
    pub fn remove_if_older(&self, digest: Digest, before_ms: u64) -> Result<bool, ArtifactError> {
        let older = fs::metadata(self.path(digest)).is_ok_and(|metadata| written_ms(&metadata) < before_ms);
        if older {
            self.remove(digest)?;
        }
        Ok(older)
    }

    /// Makes an artifact that is stored once more as young as one that was not there.
    fn renew(&self, digest: Digest) -> Result<(), ArtifactError> {
        let path = self.path(digest);
        let file = File::options().append(true).open(&path).map_err(io_error(&path))?;
        file.set_modified(UNIX_EPOCH + Duration::from_millis(clock::now().0)).map_err(io_error(&path))
    }

    fn temporary(&self) -> Result<tempfile::NamedTempFile, ArtifactError> {
        let named = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(self.root.join("partial"));
        named.map_err(io_error(&self.root))
    }

    fn place(&self, file: tempfile::NamedTempFile, digest: Digest) -> Result<(), ArtifactError> {
        let target = self.prepare(digest)?;
        file.persist(&target).map_err(|error| io_error(&target)(error.error))?;
        Ok(())
    }

    fn prepare(&self, digest: Digest) -> Result<PathBuf, ArtifactError> {
        let target = self.path(digest);
        let parent = target.parent().expect("artifact paths have a parent");
        fs::create_dir_all(parent).map_err(io_error(parent))?;
        Ok(target)
    }
}

/// Removes files that are being written. Transfers that broke off stay: they have the digest's name.
fn clear_temporaries(partials: &Path) -> io::Result<()> {
    for entry in fs::read_dir(partials)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
            match fs::remove_file(entry.path()) {
                // Whoever was writing it has removed it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Digest of a file's content, read in pieces.
///
/// # Errors
/// When the file cannot be read.
pub fn digest_of_file(path: &Path) -> Result<Digest, ArtifactError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io_error(path))?;
        if read == 0 {
            return Ok(Digest::from_bytes(*hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// Has the disk take a file, or the names in a directory.
fn sync(path: &Path) -> Result<(), ArtifactError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path))
}

/// Has the disk take an artifact's name, and that of the shelf it is on, which may be new.
fn sync_name(path: &Path) -> Result<(), ArtifactError> {
    path.ancestors().skip(1).take(2).try_for_each(sync)
}

/// The paths in a directory; none where it is gone or is no directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(io_error(directory))).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(io_error(directory)(error)),
    }
}

fn written_ms(metadata: &fs::Metadata) -> u64 {
    let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    written.map_or(0, |elapsed| elapsed.as_millis() as u64)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |source| ArtifactError::Io { path, source }
}

/// What can go wrong with an artifact.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// Not in this store.
    #[error("artifact {digest} is not here")]
    Missing {
        /// Which one.
        digest: Digest,
    },
    /// Larger than the caller takes.
    #[error("artifact {digest} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Which one.
        digest: Digest,
        /// Bytes found.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The content is not the name's.
    #[error("artifact damaged: expected content {expected}, found {found}")]
    Damaged {
        /// The name.
        expected: Digest,
        /// The content's digest.
        found: Digest,
    },
    /// The object store failed.
    #[error("object store at {place}: {reason}")]
    Remote {
        /// Which object.
        place: String,
        /// Why.
        reason: String,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
