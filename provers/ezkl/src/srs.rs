//! Structured reference strings: the operator's from a ceremony, or cached test ones, and the few points of either that a
//! verifier needs.
//!
//! A file is `k` (u32), `2^k` points of G1 (powers of the secret), `2^k` points of G1 (the Lagrange basis), two points of
//! G2; all little-endian and uncompressed. Verification uses the first point of G1 and the two of G2 only, so the card
//! carries a file of logrows 1 that starts with the same points. Its Lagrange part, which no verifier reads, repeats the
//! powers, which makes the card's bytes the same for every k of one ceremony: they identify the ceremony.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Once;

use shardproof_common::backend::BackendError;
use shardproof_common::card::Srs;

use crate::config::EzklConfig;
use crate::frame::{Frame, failed};
use crate::install::lock;
use crate::runner::{Op, Runner};

const G1_BYTES: u64 = 64;
const G2_BYTES: u64 = 128;
/// Largest log2 of rows that the public ceremonies reach.
pub(crate) const MAX_LOGROWS: u32 = 28;
/// Bytes of the verifier's part: a file of logrows 1.
pub(crate) const VERIFIER_BYTES: usize = file_bytes(1) as usize;

/// A file for setting up and proving, with what the card says about it.
pub(crate) struct Prepared {
    pub(crate) path: PathBuf,
    pub(crate) srs: Srs,
}

/// The SRS for circuits of `logrows`: the operator's, or the test SRS, which is made where it is missing.
///
/// # Errors
/// When the operator's file is too small or no SRS file, or the test SRS cannot be made.
pub(crate) fn prepare(
    config: &EzklConfig,
    logrows: u32,
    runner: &mut dyn Runner,
    frame: &Frame<'_>,
) -> Result<Prepared, BackendError> {
    let path = match &config.srs {
        Some(path) => path.clone(),
        None => test_srs(&config.cache_dir(), logrows, runner, frame)?,
    };
    let verifier = verifier_part(&path, logrows)?;
    let insecure_test = config.srs.is_none() || is_cached(&config.cache_dir(), &verifier);
    Ok(Prepared { path, srs: Srs { logrows, insecure_test, verifier: hex::encode(verifier) } })
}

/// Reads the verifier's part of the file at `path`, which must serve circuits of `logrows`.
///
/// # Errors
/// [`BackendError::Input`] when it is not a whole SRS file, or too small.
pub(crate) fn verifier_part(path: &Path, logrows: u32) -> Result<Vec<u8>, BackendError> {
    let broken = |what: String| BackendError::Input(format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(BackendError::io(path))?;
    let length = file.metadata().map_err(BackendError::io(path))?.len();
    let mut word = [0; 4];
    file.read_exact(&mut word).map_err(|_| broken("not an SRS file: it is shorter than its header".to_owned()))?;
    let k = u32::from_le_bytes(word);
    if !(1..=MAX_LOGROWS).contains(&k) || length != file_bytes(k) {
        return Err(broken(format!("not an SRS file: {length} bytes do not fit the logrows of {k} that it names")));
    }
    if k < logrows {
        return Err(broken(format!("the SRS has logrows {k}, but this circuit needs {logrows}")));
    }
    let mut powers = vec![0; 2 * G1_BYTES as usize];
    let mut g2 = vec![0; 2 * G2_BYTES as usize];
    file.read_exact(&mut powers).map_err(BackendError::io(path))?;
    file.seek(SeekFrom::End(-(2 * G2_BYTES as i64))).map_err(BackendError::io(path))?;
    file.read_exact(&mut g2).map_err(BackendError::io(path))?;
    Ok([1u32.to_le_bytes().as_slice(), &powers, &powers, &g2].concat())
}

/// The test SRS files in `cache`: log2 of rows and bytes, smallest first.
pub(crate) fn cached(cache: &Path) -> Vec<(u32, u64)> {
    let found = |k: &u32| fs::metadata(test_path(cache, *k)).ok().map(|data| (*k, data.len()));
    (1..=MAX_LOGROWS).filter_map(|k| found(&k)).collect()
}

/// Whether `verifier` is the verifier's part of a test SRS in `cache`: a copy of one is no better.
fn is_cached(cache: &Path, verifier: &[u8]) -> bool {
    let same = |&(k, _): &(u32, u64)| verifier_part(&test_path(cache, k), k).is_ok_and(|part| part == verifier);
    cached(cache).iter().any(same)
}

fn test_srs(cache: &Path, logrows: u32, runner: &mut dyn Runner, frame: &Frame<'_>) -> Result<PathBuf, BackendError> {
    static ANNOUNCED: Once = Once::new();
    const WARNING: &str =
        "insecure test SRS: whoever made it could forge proofs; use a ceremony's file for anything real";
    ANNOUNCED.call_once(|| tracing::warn!("{WARNING}"));
    if !(1..=MAX_LOGROWS).contains(&logrows) {
        return Err(BackendError::Input(format!("logrows {logrows} is outside 1 to {MAX_LOGROWS}")));
    }
    let path = test_path(cache, logrows);
    let is_whole = || fs::metadata(&path).is_ok_and(|data| data.len() == file_bytes(logrows));
    if is_whole() {
        return Ok(path);
    }
    let _lock = lock(&path.with_extension("lock"), "srs", frame)?;
    if is_whole() {
        return Ok(path);
    }
    frame.at(&format!("srs ({WARNING})"));
    let draft = path.with_extension("draft");
    runner.call(&Op::GenSrs { srs: &draft, logrows }, frame).map_err(|error| error.at("srs"))?;
    let length = fs::metadata(&draft).map_err(BackendError::io(&draft))?.len();
    if length != file_bytes(logrows) {
        return Err(failed("srs", format!("expected {} bytes, found {length}", file_bytes(logrows))));
    }
    fs::rename(&draft, &path).map_err(BackendError::io(&path))?;
    Ok(path)
}

fn test_path(cache: &Path, logrows: u32) -> PathBuf {
    cache.join("srs").join(format!("insecure-test-{logrows}.srs"))
}

const fn file_bytes(logrows: u32) -> u64 {
    4 + ((2 * G1_BYTES) << logrows) + 2 * G2_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(k: u32, bytes: usize) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("srs");
        let mut content = k.to_le_bytes().to_vec();
        content.extend((0..bytes - 4).map(|i| (i % 251) as u8));
        fs::write(&path, content).unwrap();
        (directory, path)
    }

    #[test]
    fn the_verifier_part_has_the_first_powers_and_both_points_of_g2() {
        let (_directory, path) = written(3, file_bytes(3) as usize);
        let whole = fs::read(&path).unwrap();
        let part = verifier_part(&path, 3).unwrap();
        assert_eq!(part.len(), VERIFIER_BYTES);
        assert_eq!(part[..4], 1u32.to_le_bytes());
        assert_eq!(part[4..132], whole[4..132]);
        assert_eq!(part[132..260], whole[4..132]);
        assert_eq!(part[260..], whole[whole.len() - 256..]);
    }

    #[test]
    fn files_that_are_no_srs_or_too_small_are_refused() {
        for (k, bytes, reason) in [
            (3, file_bytes(3) as usize - 1, "not an SRS file"),
            (3, file_bytes(3) as usize + 1, "not an SRS file"),
            (0, file_bytes(0) as usize, "not an SRS file"),
            (u32::MAX, 600, "not an SRS file"),
            (2, file_bytes(2) as usize, "the SRS has logrows 2, but this circuit needs 3"),
        ] {
            let (_directory, path) = written(k, bytes);
            let error = verifier_part(&path, 3).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
