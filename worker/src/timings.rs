//! Where the time of proofs went, gathered in one file for whoever asks with `--timings`.
//!
//! Several workers may write to one file: each proof's rows are one append, which the system does not interleave.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_gkr_service::TIMINGS_FILE;

/// The titles of the columns; times are in milliseconds.
pub const TIMINGS_HEADER: &str = "run,shard,step,layer,ms\n";

/// Appends what the backend left in the job's `directory`, if it left anything, to `file`.
pub(crate) fn append(file: &Path, directory: &Path, run: RunId, shard: ShardIndex) -> io::Result<()> {
    let rows = match fs::read_to_string(directory.join(TIMINGS_FILE)) {
        Ok(rows) => rows,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut target = OpenOptions::new().create(true).append(true).open(file)?;
    let mut text = if target.metadata()?.len() == 0 { TIMINGS_HEADER.to_owned() } else { String::new() };
    rows.lines().skip(1).for_each(|row| text.push_str(&format!("{run},{shard},{row}\n")));
    target.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_proofs_are_under_one_header() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.csv");
        let run = RunId::from_bytes([7; 16]);
        append(&file, directory.path(), run, ShardIndex(0)).unwrap();
        assert!(!file.exists(), "a backend that measures nothing adds nothing");
        fs::write(directory.path().join(TIMINGS_FILE), "step,layer,ms\ncommit,witness,1.5\nreduce,fc1,0.2\n").unwrap();
        append(&file, directory.path(), run, ShardIndex(0)).unwrap();
        append(&file, directory.path(), run, ShardIndex(2)).unwrap();
        let rows = |shard| format!("{run},{shard},commit,witness,1.5\n{run},{shard},reduce,fc1,0.2\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), TIMINGS_HEADER.to_owned() + &rows(0) + &rows(2));
    }
}
