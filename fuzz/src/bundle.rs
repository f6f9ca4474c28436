//! A bundle's file, as it comes from anyone.

use shardproof_common::bundle::Bundle;

use crate::honest::{stage, stages};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(bundle) = Bundle::decode(bytes) else { return };
    let again = bundle.encode().expect("what was decoded can be encoded");
    assert!(again == bytes, "a bundle that has two encodings");
    for index in 0..2 {
        stage(index).refuse(&bundle);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for stage in stages() {
        let mut bundle = stage.runs[0].bundle.clone();
        seeds.extend(bundle.encode());
        // Without its proofs it is short, and all checks of structure are made of it.
        bundle.shards.iter_mut().for_each(|shard| shard.proof = None);
        seeds.extend(bundle.encode());
        bundle.shards.truncate(1);
        seeds.extend(bundle.encode());
    }
    seeds
}
