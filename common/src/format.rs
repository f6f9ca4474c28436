//! Files of untrusted origin: a magic, a version (u32, little-endian), and the postcard encoding of one value.
//!
//! A value has exactly one file: decoding compares the input with what encoding the result gives and refuses the rest,
//! trailing bytes included. So a file's digest names its content, and nobody brings the same thing in two writings. Nothing is
//! allocated on the strength of a length that the file claims: blobs are taken from bytes that are there, and lists of small
//! things have caps of their own, so a value takes a few times its file's size at most.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use postcard::de_flavors::Flavor as DecodeFlavor;
use postcard::ser_flavors::Flavor as EncodeFlavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::ids::PROTOCOL_VERSION;

const MAGIC_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC_BYTES + 4;

/// One kind of file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// What it begins with; readable, so that an error can say it.
    pub(crate) magic: &'static [u8; MAGIC_BYTES],
    /// Largest file that is written, in bytes.
    pub(crate) max_bytes: u64,
}

impl Format {
    /// The file of `value`; `payload_bytes` is about what it will have.
    pub(crate) fn encode<T: Serialize>(&self, value: &T, payload_bytes: usize) -> Result<Vec<u8>, FormatError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload_bytes);
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        let bytes = postcard::to_extend(value, bytes).expect("postcard encodes every list whose length is known");
        if bytes.len() as u64 > self.max_bytes {
            return Err(FormatError::TooLarge { bytes: bytes.len() as u64, cap: self.max_bytes });
        }
        Ok(bytes)
    }

    /// Reads what [`Format::encode`] wrote, of at most `cap` bytes.
    pub(crate) fn decode<T: Serialize + DeserializeOwned>(&self, bytes: &[u8], cap: u64) -> Result<T, FormatError> {
        if bytes.len() as u64 > cap {
            return Err(FormatError::TooLarge { bytes: bytes.len() as u64, cap });
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(FormatError::Truncated { bytes: bytes.len() });
        };
        let (magic, version) = header.split_at(MAGIC_BYTES);
        if magic != self.magic {
            return Err(FormatError::Magic { expected: String::from_utf8_lossy(self.magic).into_owned() });
        }
        let version = u32::from_le_bytes(version.try_into().expect("the header ends with four bytes"));
        if version != PROTOCOL_VERSION {
            return Err(FormatError::Version { expected: PROTOCOL_VERSION, found: version });
        }
        let offset = Cell::new(0);
        let mut deserializer = postcard::Deserializer::from_flavor(Tracked { bytes: body, offset: &offset });
        let value = T::deserialize(&mut deserializer).map_err(|error| match error {
            postcard::Error::DeserializeUnexpectedEnd => FormatError::Truncated { bytes: bytes.len() },
            _ => FormatError::Malformed { offset: HEADER_BYTES + offset.get() },
        })?;
        let decoded = offset.get();
        if decoded != body.len() {
            return Err(FormatError::Trailing { offset: HEADER_BYTES + decoded, bytes: body.len() - decoded });
        }
        offset.set(0);
        postcard::serialize_with_flavor(&value, Compared { expected: body, offset: &offset })
            .map_err(|_| FormatError::NotCanonical { offset: HEADER_BYTES + offset.get() })?;
        Ok(value)
    }
}

/// A file's bytes, at most `cap` of them: also for files whose size is not known before they are read.
///
/// # Errors
/// When the file cannot be read or is larger.
pub fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>, FormatError> {
    let io = |source| FormatError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > cap {
        return Err(FormatError::TooLarge { bytes: size, cap });
    }
    let mut bytes = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > cap {
        return Err(FormatError::TooLarge { bytes: bytes.len() as u64, cap });
    }
    Ok(bytes)
}

/// Reads from a slice and tells the caller how far it came, also when it fails.
struct Tracked<'de, 'a> {
    bytes: &'de [u8],
    offset: &'a Cell<usize>,
}

impl<'de, 'a: 'de> DecodeFlavor<'de> for Tracked<'de, 'a> {
    type Remainder = ();
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        Ok(self.try_take_n(1)?[0])
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let start = self.offset.get();
        let end = start.checked_add(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        let taken = self.bytes.get(start..end).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.offset.set(end);
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Compares an encoding with the bytes it should be, without storing it.
struct Compared<'a> {
    expected: &'a [u8],
    offset: &'a Cell<usize>,
}

impl EncodeFlavor for Compared<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let start = self.offset.get();
        let same = self.expected.get(start..).is_some_and(|rest| rest.starts_with(bytes));
        if !same {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.offset.set(start + bytes.len());
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.offset.get() == self.expected.len() { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }
}

/// What can be wrong with a file.
#[derive(Debug, Error)]
pub enum FormatError {
    /// Larger than what is read.
    #[error("the file has {bytes} bytes, more than the {cap} allowed")]
    TooLarge {
        /// Bytes found, or where reading stopped.
        bytes: u64,
        /// Bytes allowed.
        cap: u64,
    },
    /// Some other file.
    #[error("not a file of this kind: it does not begin with `{expected}`")]
    Magic {
        /// What such files begin with.
        expected: String,
    },
    /// Of another version.
    #[error("the file is of version {found}, this program reads {expected}")]
    Version {
        /// This program's.
        expected: u32,
        /// The file's.
        found: u32,
    },
    /// Ends early.
    #[error("the file is truncated: its {bytes} bytes end in the middle of a value")]
    Truncated {
        /// Bytes found.
        bytes: usize,
    },
    /// A value that cannot be.
    #[error("the file is malformed near byte {offset}")]
    Malformed {
        /// Where in the file.
        offset: usize,
    },
    /// Readable, but not how this content is written.
    #[error("the file is not in its canonical encoding near byte {offset}")]
    NotCanonical {
        /// Where in the file.
        offset: usize,
    },
    /// Something after the end.
    #[error("the content ends at byte {offset}, but {bytes} bytes follow")]
    Trailing {
        /// Where the content ends.
        offset: usize,
        /// Bytes that follow.
        bytes: usize,
    },
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
