//! What a worker keeps of each run so that it can prove it later: the input boundary, its receipt, the backend's witness,
//! and the proof once there is one.
//!
//! One directory per run and shard. A file is there whole or not at all, so whatever is found after a crash can be used: it is
//! written in a scratch directory, which is emptied at the start, and renamed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shardproof_common::artifacts;
use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::Receipt;
use shardproof_common::tensor::{self, Tensor, TensorError};
use thiserror::Error;

const INPUT: &str = "input";
const RECEIPT: &str = "receipt";
const PROOF: &str = "proof";

/// The spool directory.
pub(crate) struct Spool {
    root: PathBuf,
    scratch: Arc<Path>,
}

/// The files of one run at one shard.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    directory: PathBuf,
    scratch: Arc<Path>,
}

impl Spool {
    /// Opens the spool in `root`, which is made where it is missing. `scratch` is on the same file system.
    pub(crate) fn open(root: PathBuf, scratch: &Path) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root, scratch: scratch.into() })
    }

    /// The entry of a run, which may not exist yet.
    pub(crate) fn entry(&self, run: RunId, shard: ShardIndex) -> Entry {
        let directory = self.root.join(run.to_string()).join(shard.to_string());
        Entry { directory, scratch: self.scratch.clone() }
    }
}

impl Entry {
    /// Where the backend keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Digest of the run's input boundary, if it has arrived before.
    pub(crate) fn input_digest(&self) -> Option<Digest> {
        artifacts::digest_of_file(&self.directory.join(INPUT)).ok()
    }

    /// Spools the encoding of an input boundary.
    pub(crate) fn write_input(&self, encoding: &[u8]) -> Result<(), SpoolError> {
        fs::create_dir_all(&self.directory)
            .map_err(|source| SpoolError::Io { path: self.directory.clone(), source })?;
        self.write(INPUT, encoding)
    }

    pub(crate) fn read_input(&self) -> Result<Vec<Tensor>, SpoolError> {
        let bytes = self.read(INPUT)?;
        tensor::decode_boundary(&bytes)
            .map_err(|source| SpoolError::Damaged { path: self.directory.join(INPUT), reason: source.to_string() })
    }

    pub(crate) fn write_receipt(&self, receipt: &Receipt) -> Result<(), SpoolError> {
        self.write(RECEIPT, &shardproof_proto::convert::pack(receipt))
    }

    pub(crate) fn read_receipt(&self) -> Result<Receipt, SpoolError> {
        let bytes = self.read(RECEIPT)?;
        shardproof_proto::convert::unpack("receipt", &bytes).map_err(|status| SpoolError::Damaged {
            path: self.directory.join(RECEIPT),
            reason: status.message().to_owned(),
        })
    }

    pub(crate) fn write_proof(&self, proof: &[u8]) -> Result<(), SpoolError> {
        self.write(PROOF, proof)
    }

    /// The proof made earlier, if there is one.
    pub(crate) fn read_proof(&self) -> Option<Vec<u8>> {
        fs::read(self.directory.join(PROOF)).ok()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.directory.join(name);
        let written = tempfile::NamedTempFile::new_in(&self.scratch).and_then(|mut file| {
            file.write_all(bytes)?;
            file.persist(&path).map_err(|error| error.error)?;
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

/// What can be wrong with the spool.
#[derive(Debug, Error)]
pub(crate) enum SpoolError {
    /// This worker never had the run, or no longer has it.
    #[error("this worker has not spooled the run ({path} is missing)")]
    NotSpooled { path: PathBuf },
    /// A file is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
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
        let open = || Spool::open(directory.path().join("spool"), directory.path()).unwrap();
        let entry = open().entry(run, ShardIndex(1));
        assert!(matches!(entry.read_input(), Err(SpoolError::NotSpooled { .. })));
        entry.write_input(&encode_boundary(&tensors)).unwrap();
        let again = open().entry(run, ShardIndex(1));
        assert_eq!(again.input_digest(), Some(Digest::of(&encode_boundary(&tensors))));
        assert_eq!(again.read_input().unwrap(), tensors);
        fs::write(entry.directory().join(INPUT), b"x").unwrap();
        assert!(matches!(entry.read_input(), Err(SpoolError::Damaged { .. })));
    }
}
