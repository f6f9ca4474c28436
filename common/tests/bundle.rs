//! The bundle's format: pinned, canonical, and safe to read whatever the bytes are.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use proptest::prelude::*;
use shardproof_common::bundle::{Blob, Bundle, BundleError, MAX_SHARDS};
use shardproof_common::chain::{self, VerifyOptions};
use shardproof_common::format::{FormatError, read_capped};
use shardproof_common::plan::BoundaryMode;
use shardproof_common::statement::{Binding, Statement};
use support::{MockVerifier, Scenario, assert_verified, with_job};

const HEADER: usize = 12;

fn honest() -> (Scenario, Vec<u8>) {
    let mut scenario = Scenario::new(2, BoundaryMode::Hashed);
    scenario.body.name = "golden".to_owned();
    let (bundle, _) = scenario.seal();
    let bytes = bundle.encode().unwrap();
    (scenario, bytes)
}

fn golden_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bundle-v2.bin")
}

#[test]
fn golden_bytes_pin_the_format() {
    let golden = std::fs::read(golden_path()).unwrap();
    let (scenario, bytes) = honest();
    assert!(bytes == golden, "the encoding changed: that takes a new version, and a golden file of its own");
    let bundle = Bundle::decode(&golden).unwrap();
    let (_, card) = scenario.seal();
    assert_verified(&scenario.report_on(&bundle, &card));
}

#[test]
#[ignore = "writes the golden file of a new version"]
fn write_golden_bytes() {
    std::fs::write(golden_path(), honest().1).unwrap();
}

#[test]
fn encoding_round_trips() {
    for mode in [BoundaryMode::Public, BoundaryMode::Hashed] {
        for shards in [1, 5] {
            let (bundle, _) = Scenario::new(shards, mode).seal();
            assert_eq!(Bundle::decode(&bundle.encode().unwrap()).unwrap(), bundle);
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let (_, bytes) = honest();
    for length in 0..bytes.len() {
        let error = Bundle::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, BundleError::Format(FormatError::Truncated { .. })), "{length} bytes: {error}");
    }
    let extended = [bytes.as_slice(), &[0]].concat();
    let error = Bundle::decode(&extended).unwrap_err();
    assert!(
        matches!(error, BundleError::Format(FormatError::Trailing { offset, bytes: 1 }) if offset == bytes.len()),
        "{error}"
    );
}

#[test]
fn every_flipped_byte_is_never_verified() {
    let (scenario, bytes) = honest();
    let (_, card) = scenario.seal();
    let (verifier, options) = (MockVerifier::new(), VerifyOptions::default());
    let verified = |bytes: &[u8]| {
        let report = with_job(|job| chain::verify_bytes(bytes, &card, &options, &[&verifier], job)).unwrap();
        (report.is_verified(), report.refusal().is_some())
    };
    assert_eq!(verified(&bytes), (true, false));
    for offset in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut forged = bytes.clone();
            forged[offset] ^= flip;
            assert_eq!(verified(&forged), (false, true), "byte {offset} with {flip:#04x}");
        }
    }
}

#[test]
fn magic_and_version_are_named() {
    let (_, bytes) = honest();
    let mut other = bytes.clone();
    other[0] = b'X';
    assert!(matches!(Bundle::decode(&other), Err(BundleError::Format(FormatError::Magic { .. }))));
    let mut newer = bytes;
    newer[8] = 3;
    assert!(matches!(Bundle::decode(&newer), Err(BundleError::Format(FormatError::Version { expected: 2, found: 3 }))));
}

/// The varint of a number, padded to `length` bytes with continuation bits.
fn long_varint(value: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0x80; length];
    bytes[0] |= value;
    bytes[length - 1] = 0;
    bytes
}

#[test]
fn a_number_has_one_encoding() {
    let (_, bytes) = honest();
    let shards_at = HEADER + 32 + 17;
    assert_eq!(bytes[shards_at], 2, "the number of shards");
    let mut padded = bytes.clone();
    padded.splice(shards_at..=shards_at, long_varint(2, 2));
    let error = Bundle::decode(&padded).unwrap_err();
    assert!(
        matches!(error, BundleError::Format(FormatError::NotCanonical { offset }) if offset == shards_at),
        "{error}"
    );
}

#[test]
fn claimed_lengths_are_not_believed() {
    let (scenario, bytes) = honest();
    let (_, card) = scenario.seal();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for offset in HEADER..bytes.len() {
        let mut forged = bytes.clone();
        forged.splice(offset..=offset, huge);
        if let Ok(bundle) = Bundle::decode(&forged) {
            let extents = bundle.shards.iter().flat_map(|shard| {
                let statement = &shard.receipt.statement;
                statement.input.tensors.iter().chain(&statement.output.tensors).flat_map(|tensor| &tensor.shape)
            });
            assert!(extents.into_iter().any(|&extent| extent == u64::MAX), "byte {offset} is no extent");
            assert!(!scenario.report_on(&bundle, &card).is_verified());
        }
    }
}

#[test]
fn lists_of_small_things_are_capped() {
    let many = vec![None; MAX_SHARDS + 2];
    let (mut bundle, _) = Scenario::new(1, BoundaryMode::Hashed).seal();
    let honest_boundaries = std::mem::replace(&mut bundle.boundaries, many);
    assert!(matches!(bundle.encode(), Err(BundleError::TooManyShards { .. })));

    bundle.boundaries = Vec::new();
    let mut bytes = bundle.encode().unwrap();
    assert_eq!(bytes.pop(), Some(0), "the number of boundaries");
    let encoded = postcard::to_stdvec(&vec![None::<Blob>; MAX_SHARDS + 2]).unwrap();
    bytes.extend_from_slice(&encoded);
    let error = Bundle::decode(&bytes).unwrap_err();
    assert!(matches!(error, BundleError::Format(FormatError::Malformed { .. })), "{error}");

    bundle.boundaries = honest_boundaries;
    let forgeries: [fn(&mut Statement); 3] = [
        |statement| statement.output.tensors[0].shape = vec![1; 9],
        |statement| statement.output.tensors = vec![statement.output.tensors[0].clone(); 65],
        |statement| statement.backend.version = "v".repeat(65),
    ];
    for forge in forgeries {
        let mut forged = bundle.clone();
        forge(&mut forged.shards[0].receipt.statement);
        let bytes = forged.encode().unwrap();
        assert!(matches!(Bundle::decode(&bytes), Err(BundleError::Format(FormatError::Malformed { .. }))));
    }
}

#[test]
fn commitments_are_capped() {
    let forge = |commitments: Vec<Vec<u8>>| {
        let (bundle, _) = Scenario::new(2, BoundaryMode::Hashed).seal_with(|shard, statement| {
            if shard == 0 {
                statement.output.binding = Binding::Committed(commitments.clone());
            }
        });
        Bundle::decode(&bundle.encode().unwrap())
    };
    assert!(forge(vec![vec![1; 1024]; 64]).is_ok());
    assert!(matches!(forge(vec![vec![1; 1025]]), Err(BundleError::Format(FormatError::Malformed { .. }))));
    assert!(matches!(forge(vec![vec![1]; 65]), Err(BundleError::Format(FormatError::Malformed { .. }))));
}

#[test]
fn files_are_capped() {
    let (_, bytes) = honest();
    let cap = bytes.len() as u64;
    assert!(Bundle::decode_within(&bytes, cap).is_ok());
    assert!(matches!(Bundle::decode_within(&bytes, cap - 1), Err(BundleError::Format(FormatError::TooLarge { .. }))));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    std::fs::write(&path, &bytes).unwrap();
    assert!(Bundle::read(&path, cap).is_ok());
    assert!(matches!(Bundle::read(&path, cap - 1), Err(BundleError::Format(FormatError::TooLarge { .. }))));
    let endless = std::path::Path::new("/dev/zero");
    assert!(matches!(read_capped(endless, 1000), Err(FormatError::TooLarge { .. })));
    let missing = Bundle::read(&directory.path().join("none"), cap).unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (_, honest) = honest();
        let bytes = [&honest[..HEADER], &body].concat();
        if let Ok(bundle) = Bundle::decode(&bytes) {
            prop_assert_eq!(bundle.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn spliced_bundles_never_panic_and_are_never_verified(
        start in 0usize..2000,
        removed in 0usize..40,
        inserted in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (scenario, honest) = honest();
        let (_, card) = scenario.seal();
        let start = start.min(honest.len());
        let end = (start + removed).min(honest.len());
        let mut bytes = honest.clone();
        bytes.splice(start..end, inserted);
        prop_assume!(bytes != honest);
        let verifier = MockVerifier::new();
        let report = with_job(|job| chain::verify_bytes(&bytes, &card, &VerifyOptions::default(), &[&verifier], job));
        prop_assert!(!report.unwrap().is_verified());
    }
}
