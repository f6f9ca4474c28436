//! Files that are written whole or not at all.
//!
//! A disk that fills up while a file is being written must cost neither what was there before nor leave half of what was
//! to come: a key that is cut short keeps a program from starting ever again. So a file is written beside its place and
//! renamed once all of it is on the disk.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes `bytes` to `path`: afterwards it holds either them or what it held before. What is no regular file, such as a
/// terminal or a pipe, is written to as it is.
///
/// # Errors
/// When the file system does not take the bytes; nothing is left of them then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    // Where `path` is a link, the file that it leads to is replaced, and the link stays.
    let target = fs::canonicalize(path);
    let target = target.as_deref().unwrap_or(path);
    let mode = fs::metadata(target).map_or(0o666, |metadata| metadata.permissions().mode());
    written_beside(target, bytes, mode)?.persist(target)?;
    Ok(())
}

/// Makes a file that only its owner can read; one that exists is not replaced.
///
/// # Errors
/// When the file exists, or the file system does not take the bytes; nothing is left of them then.
pub fn create_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    written_beside(path, bytes, 0o600)?.persist_noclobber(path)?;
    Ok(())
}

fn written_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let mut file = builder.prefix(".writing-").permissions(Permissions::from_mode(mode)).tempfile_in(parent)?;
    file.write_all(bytes)?;
    // Some file systems find out that they are full only now.
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn files_are_replaced_and_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        write_whole(&path, b"one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write_whole(&link, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(directory.path()).len(), 2);
    }

    #[test]
    fn what_is_no_file_is_written_to() {
        assert!(write_whole(Path::new("/dev/null"), b"anything").is_ok());
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        assert_eq!(write_whole(Path::new("/dev/full"), b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_secret_is_its_owners_and_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_secret(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create_secret(&path, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(names(directory.path()), ["key"]);
    }
}
