//! Secret keys on disk: one file each, readable by its owner only.

use std::fs;
use std::io;
use std::path::Path;

use crate::files;
use crate::receipt::Identity;

/// Reads the key in `path`, or makes one there.
///
/// # Errors
/// When the file cannot be read or written, or holds no key.
pub fn load_or_create(path: &Path) -> io::Result<Identity> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        loaded => loaded,
    }
}

/// Reads the key in `path`.
///
/// # Errors
/// When the file cannot be read, or holds no key.
pub fn load(path: &Path) -> io::Result<Identity> {
    parse(fs::read_to_string(path)?.trim()).ok_or_else(|| {
        let message = format!("{}: expected a secret key of 64 hexadecimal digits", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn create(path: &Path) -> io::Result<Identity> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let identity = Identity::generate();
    files::create_secret(path, (hex::encode(identity.to_secret()) + "\n").as_bytes())?;
    Ok(identity)
}

fn parse(text: &str) -> Option<Identity> {
    let mut secret = [0; 32];
    hex::decode_to_slice(text, &mut secret).ok()?;
    Some(Identity::from_secret(&secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_a_private_key_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys").join("worker.key");
        let first = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public(), first.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(load_or_create(&path).map(|key| key.public()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
