//! What travels packed inside messages. The first byte says what it should be.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shardproof_common::receipt::{Admission, Receipt, SignatureBytes};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_forgery::Draft;
use shardproof_proto::convert::{pack, unpack};

use crate::honest::stages;

pub(crate) fn check(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    match kind {
        0 => {
            let Some(receipt) = read::<Receipt>(rest) else { return };
            if receipt.check().is_ok() {
                assert!(is_honest(&receipt), "a receipt that nobody signed: {receipt:?}");
            }
        }
        1 => {
            let Some(admission) = read::<Admission>(rest) else { return };
            // All stages have the same authority.
            let signed = stages().any(|stage| admission.check(&stage.honest.keys.authority.public()).is_ok());
            let honest = drafts().flat_map(|draft| &draft.bundle.shards).any(|shard| shard.admission == admission);
            assert!(!signed || honest, "nobody signed {admission:?}");
        }
        2 => drop(read::<Statement>(rest)),
        3 => drop(read::<Boundary>(rest)),
        _ => drop(read::<SignatureBytes>(rest)),
    }
}

fn drafts() -> impl Iterator<Item = &'static Draft> {
    stages().flat_map(|stage| stage.runs.iter().chain([&stage.elsewhere]))
}

/// Whether a worker of some stage signed it.
pub(crate) fn is_honest(receipt: &Receipt) -> bool {
    drafts().flat_map(|draft| &draft.bundle.shards).any(|shard| shard.receipt == *receipt)
}

/// A value of the system, which is the same after it was written and read.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = unpack("value", bytes).ok()?;
    let again: T = unpack("value", &pack(&value)).expect("what was read can be written and read");
    assert_eq!(again, value);
    Some(value)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for stage in stages() {
        for shard in &stage.runs[0].bundle.shards {
            let mut seed = |kind: u8, packed: &[u8]| seeds.push([&[kind], packed].concat());
            seed(0, &pack(&shard.receipt));
            seed(1, &pack(&shard.admission));
            seed(2, &pack(&shard.receipt.statement));
            seed(3, &pack(&shard.receipt.statement.output));
            seed(4, &pack(&shard.receipt.signature));
        }
    }
    seeds
}
