//! A verifying key of the native backend. Its digest is the card's, but a key is decoded by workers as well, and a card
//! may be an attacker's.

use shardproof_gkr::{Boundary, Proof, Statement, Visibility, WeightsKey, verify};
use shardproof_gkr_service::KeyFile;
use shardproof_integer::TensorId;

use crate::honest::{proofs, stages};

/// Elements of all tensors together beyond which no proof is tried: a verifier's time is linear in them.
const MAX_ELEMENTS: usize = 1 << 18;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(file) = KeyFile::decode(bytes) else { return };
    let graph = file.key.graph();
    let tensors = || (0..graph.tensors() as u32).map(TensorId);
    let elements = tensors().fold(0usize, |sum, tensor| sum.saturating_add(graph.elements(tensor)));
    let inputs = 0..graph.graph().inputs.len() as u32;
    if elements > MAX_ELEMENTS {
        return;
    }
    let zeros = |tensors: Vec<TensorId>| -> Vec<Vec<i64>> {
        tensors.into_iter().map(|tensor| vec![0; graph.elements(tensor)]).collect()
    };
    let (input, output) = (zeros(inputs.map(TensorId).collect()), zeros(graph.graph().outputs.clone()));
    let statement =
        Statement { context: b"fuzz", runs: 1, input: Boundary::Public(&input), output: Boundary::Public(&output) };
    for proof in stages().flat_map(|stage| proofs(&stage.runs[0])) {
        let proof = Proof::from_bytes(&proof.proof).expect("an honest proof can be decoded");
        let verdict = verify(&file.key, file.weights.as_ref(), &statement, &proof);
        assert!(verdict.is_err(), "a proof of another statement is accepted under a forged key");
    }
    let visibility = match file.key.weights() {
        WeightsKey::None => None,
        WeightsKey::Public(_) => Some(Visibility::Public),
        WeightsKey::Committed(_) => Some(Visibility::Committed),
    };
    assert_eq!(visibility.is_none(), graph.graph().weights.is_empty(), "a key without weights for a graph with some");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let keys = stages().flat_map(|stage| proofs(&stage.runs[0])).map(|proof| proof.verifying_key.to_vec());
    keys.filter(|key| key.len() <= crate::KEY.max_len).collect()
}
