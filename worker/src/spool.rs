//! What a worker keeps of each run so that it can prove it later: the input boundary with the receipt that it came with, the
//! worker's own receipt, the backend's witness, and the proof once there is one.
//!
//! One directory per run and shard, with few files and no more operations of the file system than it takes: with small models
//! those are what bounds the number of runs. The file `arrival` is written after the input that it names by its digest, and a
//! receipt carries its signature, so of these whatever a crash left half written is not taken for anything. A file that
//! replaces another, and a proof, which nothing here could tell from half of one, is written in a scratch directory, which is
//! emptied at the start, synced to the disk, and renamed.
//!
//! A worker signs one statement in each attempt of a run, for two would be evidence against it. So receipts are signed under
//! the run's turn, and only while the attempt that they are of is the one that arrived last. A receipt outlives the rest of
//! its entry for the same reason.
//!
//! The spool has a limit, because it grows with what others send. A boundary that would exceed it is refused; nothing is ever
//! evicted to make room, since each receipt promises that its run can be proven. Receipts and proofs are written all the same.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::Receipt;
use shardproof_common::tensor::{self, Tensor, TensorError};
use shardproof_proto::convert;
use thiserror::Error;

pub(crate) const ARRIVAL: &str = "arrival";
const INPUT: &str = "input";
pub(crate) const RECEIPT: &str = "receipt";
const PROOF: &str = "proof";

/// Runs whose numbers end alike take turns; more of them would only cost memory.
const TURNS: usize = 64;

/// The spool directory.
pub(crate) struct Spool {
    root: PathBuf,
    scratch: Arc<Path>,
    usage: Arc<Usage>,
    turns: [Mutex<()>; TURNS],
}

/// How full the spool is.
#[derive(Debug)]
struct Usage {
    /// Bytes of all files. A file that is written again counts twice until the next recount.
    used: AtomicU64,
    /// Most bytes with which a boundary is still taken.
    limit: u64,
}

/// What was delivered last of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    /// The run's attempt.
    pub(crate) attempt: u32,
    /// Digest of the input's encoding.
    pub(crate) input: Digest,
    /// The receipt that came with it; none at boundary 0.
    pub(crate) upstream: Option<Receipt>,
}

/// The files of one run at one shard.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    directory: PathBuf,
    scratch: Arc<Path>,
    usage: Arc<Usage>,
}

impl Spool {
    /// Opens the spool in `root`, which is made where it is missing. `scratch` is on the same file system. Boundaries are taken
    /// while the files have no more than `limit` bytes together.
    pub(crate) fn open(root: PathBuf, scratch: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let usage = Arc::new(Usage { used: AtomicU64::new(size_of(&root)?), limit });
        Ok(Self { root, scratch: scratch.into(), usage, turns: std::array::from_fn(|_| Mutex::new(())) })
    }

    /// Counts anew what the files take, after some were removed.
    pub(crate) fn recount(&self) -> io::Result<()> {
        self.usage.used.store(size_of(&self.root)?, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes that the files take, and that they may.
    pub(crate) fn usage(&self) -> (u64, u64) {
        (self.usage.used.load(Ordering::Relaxed), self.usage.limit)
    }

    /// Held while a delivery or a receipt of the run is written, so that neither overtakes the other.
    pub(crate) fn turn(&self, run: RunId) -> MutexGuard<'_, ()> {
        let number = usize::from(run.as_bytes()[15]) % TURNS;
        // Nothing is left half done by a panic: files are written whole.
        self.turns[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory with one directory for each run.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The run and shard whose entry has this name, if there is one of it.
    pub(crate) fn parse_name(name: &str) -> Option<(RunId, ShardIndex)> {
        let (run, shard) = name.split_once('.')?;
        Some((run.parse().ok()?, ShardIndex(shard.parse().ok()?)))
    }

    /// The entry of a run, which may not exist yet.
    pub(crate) fn entry(&self, run: RunId, shard: ShardIndex) -> Entry {
        let directory = self.root.join(format!("{run}.{shard}"));
        Entry { directory, scratch: self.scratch.clone(), usage: self.usage.clone() }
    }
}

impl Entry {
    /// Where the backend keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was delivered last, if the run has arrived before.
    pub(crate) fn arrival(&self) -> Option<Arrival> {
        convert::unpack("arrival", &self.read(ARRIVAL).ok()?).ok()
    }

    /// Spools the encoding of an input boundary. A proof of another input goes: it is of an earlier attempt.
    pub(crate) fn write_input(&self, encoding: &[u8], arrival: &Arrival) -> Result<(), SpoolError> {
        let (used, limit) = (self.usage.used.load(Ordering::Relaxed), self.usage.limit);
        if used.saturating_add(encoding.len() as u64) > limit {
            return Err(SpoolError::Full { used, limit });
        }
        if !self.directory.is_dir() {
            fs::create_dir_all(&self.directory)
                .map_err(|source| SpoolError::Io { path: self.directory.clone(), source })?;
        } else if self.arrival().is_none_or(|earlier| earlier.input != arrival.input) {
            self.remove(PROOF)?;
        }
        self.write(INPUT, encoding)?;
        self.write(ARRIVAL, &convert::pack(arrival))
    }

    pub(crate) fn read_input(&self) -> Result<Vec<Tensor>, SpoolError> {
        let bytes = self.read(INPUT)?;
        tensor::decode_boundary(&bytes)
            .map_err(|source| SpoolError::Damaged { path: self.directory.join(INPUT), reason: source.to_string() })
    }

    pub(crate) fn write_receipt(&self, receipt: &Receipt) -> Result<(), SpoolError> {
        self.write(RECEIPT, &convert::pack(receipt))
    }

    pub(crate) fn read_receipt(&self) -> Result<Receipt, SpoolError> {
        let bytes = self.read(RECEIPT)?;
        convert::unpack("receipt", &bytes).map_err(|status| SpoolError::Damaged {
            path: self.directory.join(RECEIPT),
            reason: status.message().to_owned(),
        })
    }

    pub(crate) fn write_proof(&self, proof: &[u8]) -> Result<(), SpoolError> {
        self.replace(PROOF, proof)
    }

    /// The proof made earlier, if there is one.
    pub(crate) fn read_proof(&self) -> Option<Vec<u8>> {
        fs::read(self.directory.join(PROOF)).ok()
    }

    fn remove(&self, name: &str) -> Result<(), SpoolError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SpoolError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Writes a file that can be told from half of one.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.directory.join(name);
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return self.replace(name, bytes),
            Err(source) => return Err(SpoolError::Io { path, source }),
        };
        if let Err(source) = file.write_all(bytes) {
            // What is left of it takes room, and is of no use.
            let _gone = fs::remove_file(&path);
            return Err(SpoolError::Io { path, source });
        }
        self.usage.used.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a file that is there whole or as it was before.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.directory.join(name);
        let written = tempfile::NamedTempFile::new_in(&self.scratch).and_then(|mut file| {
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            self.usage.used.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(())
        });
        written.map_err(|source| SpoolError::Io { path, source })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, SpoolError> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpoolError::NotSpooled { path }),
            Err(source) => Err(SpoolError::Io { path, source }),
        }
    }
}

/// Bytes of all files below `directory`; those that vanish meanwhile count nothing.
fn size_of(directory: &Path) -> io::Result<u64> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(error) => gone(error)?,
        };
    }
    Ok(bytes)
}

/// What can be wrong with the spool.
#[derive(Debug, Error)]
pub(crate) enum SpoolError {
    /// This worker never had the run, or no longer has it.
    #[error("this worker has not spooled the run ({path} is missing)")]
    NotSpooled { path: PathBuf },
    /// A file is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// There is no room for another boundary.
    #[error(
        "this worker's spool has {used} bytes of the {limit} allowed: raise --spool-limit, or lower --keep-spool for later runs"
    )]
    Full { used: u64, limit: u64 },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl From<TensorError> for SpoolError {
    fn from(error: TensorError) -> Self {
        Self::Damaged { path: PathBuf::from(INPUT), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::tensor::{IntegerTensor, encode_boundary};

    use super::*;

    #[test]
    fn an_input_survives_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunId::generate();
        let tensors = vec![Tensor::Integer(IntegerTensor { shape: vec![2], scale: 3, values: vec![1, -2] })];
        let open = || Spool::open(directory.path().join("spool"), directory.path(), u64::MAX).unwrap();
        let entry = open().entry(run, ShardIndex(1));
        assert!(matches!(entry.read_input(), Err(SpoolError::NotSpooled { .. })));
        let encoding = encode_boundary(&tensors);
        let arrival = Arrival { attempt: 0, input: Digest::of(&encoding), upstream: None };
        entry.write_input(&encoding, &arrival).unwrap();
        let again = open().entry(run, ShardIndex(1));
        assert_eq!(again.arrival(), Some(arrival));
        assert_eq!(again.read_input().unwrap(), tensors);
        fs::write(entry.directory().join(INPUT), b"x").unwrap();
        assert!(matches!(entry.read_input(), Err(SpoolError::Damaged { .. })));
    }

    #[test]
    fn a_full_spool_takes_no_boundary_and_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let encoding = [7; 1000];
        let arrival = Arrival { attempt: 0, input: Digest::of(&encoding), upstream: None };
        let spool = Spool::open(directory.path().join("spool"), directory.path(), 2500).unwrap();
        let entries = [1, 2, 3].map(|n| spool.entry(RunId::from_bytes([n; 16]), ShardIndex(0)));
        entries[0].write_input(&encoding, &arrival).unwrap();
        entries[1].write_input(&encoding, &arrival).unwrap();
        assert!(matches!(entries[2].write_input(&encoding, &arrival), Err(SpoolError::Full { limit: 2500, .. })));
        entries[0].write_proof(&encoding).unwrap();
        assert_eq!(entries[0].read_proof().unwrap(), encoding, "what was promised is written all the same");
        assert!(entries[0].arrival().is_some() && entries[2].arrival().is_none());

        // A spool that is opened again is as full, and room comes only from what is removed.
        let again = Spool::open(directory.path().join("spool"), directory.path(), 2500).unwrap();
        let third = again.entry(RunId::from_bytes([3; 16]), ShardIndex(0));
        assert!(matches!(third.write_input(&encoding, &arrival), Err(SpoolError::Full { .. })));
        fs::remove_dir_all(entries[0].directory()).unwrap();
        again.recount().unwrap();
        third.write_input(&encoding, &arrival).unwrap();
    }
}
