//! Reading lists, text and bytes with a cap that holds before anything is allocated.
//!
//! A length in an untrusted encoding is a claim. Serde's derived code grows a list as elements arrive, so a file of two
//! bytes per element turns into many times its size in memory; these functions bound that by refusing the list at its cap.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// Bytes whose encoding is a length and the bytes themselves, read with one allocation of exactly their size.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// The bytes, without the wrapper.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes, {})", self.0.len(), crate::ids::Digest::of(&self.0).short())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// A list of at most `MAX` elements.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(element) = elements.next_element()? {
                if found.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                found.push(element);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// A list of at most `COUNT` lists of at most `LENGTH` bytes each.
pub(crate) fn byte_lists<'de, D, const COUNT: usize, const LENGTH: usize>(
    deserializer: D,
) -> Result<Vec<Vec<u8>>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bytes<const LENGTH: usize>(Vec<u8>);

    impl<'de, const LENGTH: usize> Deserialize<'de> for Bytes<LENGTH> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Self(list::<D, u8, LENGTH>(deserializer)?))
        }
    }

    let lists = list::<D, Bytes<LENGTH>, COUNT>(deserializer)?;
    Ok(lists.into_iter().map(|bytes| bytes.0).collect())
}

/// Text of at most `MAX` bytes.
pub(crate) fn text<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    struct Text<const MAX: usize>;

    impl<const MAX: usize> Visitor<'_> for Text<MAX> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "text of at most {MAX} bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            if text.len() > MAX { Err(E::invalid_length(text.len(), &self)) } else { Ok(text.to_owned()) }
        }
    }

    deserializer.deserialize_str(Text::<MAX>)
}
