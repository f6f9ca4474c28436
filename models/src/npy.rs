//! The `.npy` format, as far as inputs need it: one numeric array, little-endian, row-major.
//!
//! Specification: `numpy.lib.format`, versions 1.0 to 3.0.

use shardproof_common::tensor::{FloatTensor, MAX_ELEMENTS, MAX_RANK};

use crate::error::InputError;

/// First bytes of every `.npy` file.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read; that of a plain array has about 128 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Reads an array of f32, f64, i32, i64 or u8 as f32. A rank of up to [`MAX_RANK`] + 1 allows for stacked samples.
///
/// # Errors
/// When the bytes are anything else.
pub fn read(bytes: &[u8]) -> Result<FloatTensor, InputError> {
    let refused = |reason: String| InputError::Npy { reason };
    let (header, data) = split(bytes)?;
    let text = std::str::from_utf8(header).map_err(|_| refused("its header is not text".to_owned()))?;
    let header = Header::parse(text)?;
    if header.fortran_order {
        return Err(refused("the array is in Fortran order: save it with numpy.ascontiguousarray".to_owned()));
    }
    let (width, convert): (usize, fn(&[u8]) -> f32) = match header.descr.as_str() {
        "<f4" => (4, |b| f32::from_le_bytes(array(b))),
        "<f8" => (8, |b| f64::from_le_bytes(array(b)) as f32),
        "<i4" => (4, |b| i32::from_le_bytes(array(b)) as f32),
        "<i8" => (8, |b| i64::from_le_bytes(array(b)) as f32),
        "|u1" => (1, |b| f32::from(b[0])),
        other => {
            return Err(refused(format!("element type `{other}`; expected f32, f64, i32, i64 or u8, little-endian")));
        }
    };
    let elements = header.shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    let fits = header.shape.len() <= MAX_RANK + 1 && header.shape.iter().all(|&extent| extent <= MAX_ELEMENTS);
    let elements = elements.filter(|&n| fits && n <= MAX_ELEMENTS);
    let elements = elements.ok_or_else(|| refused(format!("shape {:?} is too large", header.shape)))?;
    let expected = elements * width as u64;
    if data.len() as u64 != expected {
        return Err(refused(format!("shape {:?} needs {expected} bytes of data, found {}", header.shape, data.len())));
    }
    Ok(FloatTensor { shape: header.shape, values: data.chunks_exact(width).map(convert).collect() })
}

/// Writes an array of f32.
pub fn write(tensor: &FloatTensor) -> Vec<u8> {
    let extents: String = tensor.shape.iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", extents.trim_end());
    if tensor.shape.len() > 1 {
        header = header.replace(",), }", "), }");
    }
    // The data begins at a multiple of 64 bytes.
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let mut bytes = [MAGIC.as_slice(), &[1, 0]].concat();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.into_bytes());
    bytes.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have the width of their type")
}

/// Header and data.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), InputError> {
    let refused = |reason: &str| InputError::Npy { reason: reason.to_owned() };
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or_else(|| refused("it does not begin with \\x93NUMPY"))?;
    let truncated = || refused("it ends within its header");
    let (length, rest) = match rest {
        [1, 0, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, 0, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [1..=3, 0, ..] | [] | [_] => return Err(truncated()),
        _ => return Err(refused("its format version is not 1.0, 2.0 or 3.0")),
    };
    if length > MAX_HEADER {
        return Err(refused("its header is too long"));
    }
    rest.split_at_checked(length).ok_or_else(truncated)
}

#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Reads the Python dictionary that a header is.
    fn parse(text: &str) -> Result<Self, InputError> {
        let refused = |what: &str| InputError::Npy { reason: format!("its header has no {what}: {}", text.trim()) };
        let after = |key: &str| {
            let quoted = [format!("'{key}'"), format!("\"{key}\"")];
            let start = quoted.iter().find_map(|key| text.find(key.as_str()).map(|at| at + key.len()))?;
            text[start..].trim_start().strip_prefix(':').map(str::trim_start)
        };
        let descr = after("descr").and_then(|rest| {
            let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
            rest[1..].split_once(quote).map(|(value, _)| value.to_owned())
        });
        let fortran_order = after("fortran_order").and_then(|rest| match rest {
            _ if rest.starts_with("True") => Some(true),
            _ if rest.starts_with("False") => Some(false),
            _ => None,
        });
        let shape = after("shape").and_then(|rest| {
            let (extents, _) = rest.strip_prefix('(')?.split_once(')')?;
            let parts = extents.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| part.parse().ok()).collect()
        });
        Ok(Self {
            descr: descr.ok_or_else(|| refused("readable `descr`"))?,
            fortran_order: fortran_order.ok_or_else(|| refused("readable `fortran_order`"))?,
            shape: shape.ok_or_else(|| refused("readable `shape`"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = [MAGIC.as_slice(), &[1, 0]].concat();
        bytes.extend((header.len() as u16).to_le_bytes());
        [bytes.as_slice(), header.as_bytes(), data].concat()
    }

    #[test]
    fn every_type_is_read() {
        let cases: [(&str, Vec<u8>); 5] = [
            ("<f4", [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
            ("<f8", [1.5f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
            ("<i4", [7i32, -2].iter().flat_map(|x| x.to_le_bytes()).collect()),
            ("<i8", [7i64, -2].iter().flat_map(|x| x.to_le_bytes()).collect()),
            ("|u1", vec![7, 254]),
        ];
        let expected = [[1.5, -2.0], [1.5, -2.0], [7.0, -2.0], [7.0, -2.0], [7.0, 254.0]];
        for ((descr, data), expected) in cases.into_iter().zip(expected) {
            let tensor = read(&file(descr, "False", "(2,)", &data)).unwrap();
            assert_eq!((tensor.shape, tensor.values), (vec![2], expected.to_vec()), "{descr}");
        }
    }

    #[test]
    fn each_defect_is_named() {
        let four = [0; 4];
        let cases = [
            (b"PK\x03\x04".to_vec(), "does not begin with"),
            (MAGIC.to_vec(), "ends within its header"),
            ([MAGIC.as_slice(), &[9, 9, 0, 0]].concat(), "format version"),
            ([MAGIC.as_slice(), &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat(), "header is too long"),
            ([MAGIC.as_slice(), &[1, 0, 100, 0, b'{']].concat(), "ends within its header"),
            (file("<f4", "True", "(1,)", &four), "Fortran order"),
            (file(">f4", "False", "(1,)", &four), "element type `>f4`"),
            (file("|O", "False", "(1,)", &four), "element type `|O`"),
            (file("<f4", "False", "(2,)", &four), "needs 8 bytes of data, found 4"),
            (file("<f4", "False", "(4294967296, 4294967296)", &four), "too large"),
            (file("<f4", "False", "(-1,)", &four), "no readable `shape`"),
            (file("<f4", "Maybe", "(1,)", &four), "no readable `fortran_order`"),
        ];
        for (bytes, expected) in cases {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} should say {expected}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(shape in proptest::collection::vec(0u64..5, 0..4), seed in any::<f32>()) {
            let count = shape.iter().product::<u64>();
            let tensor = FloatTensor { shape, values: (0..count).map(|i| i as f32 * 0.5 + seed.fract()).collect() };
            prop_assume!(tensor.values.iter().all(|value| value.is_finite()));
            let bytes = write(&tensor);
            prop_assert_eq!((bytes.len() - tensor.values.len() * 4) % 64, 0);
            prop_assert_eq!(read(&bytes).unwrap(), tensor);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[MAGIC.as_slice(), &[1, 0], &bytes].concat());
        }
    }
}
