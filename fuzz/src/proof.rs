//! A proof of the native backend: the bytes are a worker's, everything else is the verifier's.
//!
//! The first byte says which proof it should be, and how the rest is meant: as the proof's bytes, or as changes of an honest
//! proof's bytes, three of place and one of value each, which get past the decoder.

use shardproof_common::backend::{Registered, VerifyRequest};
use shardproof_common::tensor::{Tensor, decode_boundary};
use shardproof_gkr::Proof;

use crate::honest::{Stage, stage, stages};

/// The bit of the first byte that says that the rest is changes.
const CHANGES: u8 = 0x80;

pub(crate) fn check(bytes: &[u8]) {
    let Some((&selector, rest)) = bytes.split_first() else { return };
    let stage = stage(selector);
    let shard = usize::from((selector & !CHANGES) >> 1) % stage.runs[0].bundle.shards.len();
    let Some(honest) = stage.runs[0].bundle.shards[shard].proof.as_ref() else { return };
    let proof = if selector & CHANGES == 0 { rest.to_vec() } else { changed(&honest.proof, rest) };
    if let Ok(decoded) = Proof::from_bytes(&proof) {
        assert!(decoded.to_bytes() == proof, "a proof that has two encodings");
    }
    let accepted = accepts(stage, shard, &honest.verifying_key, &proof);
    assert_eq!(accepted, proof == *honest.proof, "whether a proof is the honest one and whether it is accepted differ");
}

fn changed(honest: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    let (changes, _incomplete) = changes.as_chunks::<4>();
    for &[a, b, c, value] in changes {
        let place = u32::from_le_bytes([a, b, c, 0]) as usize % bytes.len();
        bytes[place] ^= value;
    }
    bytes
}

fn accepts(stage: &Stage, shard: usize, verifying_key: &[u8], proof: &[u8]) -> bool {
    let draft = &stage.runs[0];
    let plan = &draft.card.body.plan;
    let shown = |boundary: usize| -> Option<Vec<Tensor>> {
        let encoded = draft.bundle.boundaries[boundary].as_ref()?;
        Some(decode_boundary(encoded).expect("an honest boundary can be decoded"))
    };
    let (input, output) = (shown(shard), shown(shard + 1));
    let request = VerifyRequest {
        statement: &draft.bundle.shards[shard].receipt.statement,
        card: &draft.card.body.shards[shard],
        registered: Registered {
            options: &plan.shards[shard].backend,
            input_mode: plan.boundaries[shard].mode,
            output_mode: plan.boundaries[shard + 1].mode,
        },
        verifying_key,
        input: input.as_deref(),
        output: output.as_deref(),
        proof,
    };
    stage.with_verifier(|verifier, job| verifier.verify(&request, job)).is_ok()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (index, stage) in (0u8..).zip(stages()) {
        for (shard, proof) in (0u8..).zip(crate::honest::proofs(&stage.runs[0])) {
            let selector = index | shard << 1;
            seeds.push([&[selector], &proof.proof[..]].concat());
            seeds.push(vec![selector | CHANGES, 40, 0, 0, 1, 90, 1, 0, 0x80]);
        }
    }
    seeds
}
