//! CSV files of typed rows.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use shardproof_common::files;
use thiserror::Error;

/// Why a table could not be read or written.
#[derive(Debug, Error)]
pub enum TableError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is no such table; the message names the line.
    #[error("{}: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: csv::Error,
    },
}

/// Writes `rows` with a heading of their fields' names; the file is there whole or not at all.
///
/// # Errors
/// When a row is no flat record, or the file cannot be written.
pub fn write<R: Serialize>(path: &Path, rows: &[R]) -> Result<(), TableError> {
    let wrong = |source| TableError::Csv { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(wrong)?;
    let bytes = writer.into_inner().map_err(|error| wrong(error.into_error().into()))?;
    files::write_whole(path, &bytes).map_err(|source| TableError::Io { path: path.to_owned(), source })
}

/// Reads what [`write()`] wrote. Columns are found by name, so a table may have more of them.
///
/// # Errors
/// When the file cannot be read, or a row lacks a column or has another kind of value; the message names the line.
pub fn read<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>, TableError> {
    let wrong = |source| TableError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(wrong)?;
    reader.deserialize().collect::<Result<_, _>>().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        ms: Option<f64>,
    }

    #[test]
    fn rows_survive_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        let rows = [
            Row { name: "a, \"quoted\"\nname".to_owned(), ms: Some(0.1) },
            Row { name: "failed".to_owned(), ms: None },
        ];
        write(&path, &rows).unwrap();
        assert_eq!(read::<Row>(&path).unwrap(), rows);
    }

    #[test]
    fn a_wrong_value_is_named_by_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        std::fs::write(&path, "name,ms\nfirst,1\nsecond,fast\n").unwrap();
        let error = read::<Row>(&path).unwrap_err().to_string();
        assert!(error.contains("rows.csv") && error.contains("line: 3"), "{error}");
    }
}
