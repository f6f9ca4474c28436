//! A file of evidence against a worker. Nobody lied in the honest runs, so nothing may convict.

use shardproof_common::bundle::Blob;
use shardproof_common::evidence::{Evidence, Executable};
use shardproof_gkr_service::{GkrReexecutor, KeyFile};

use crate::honest::{proofs, stage, stages};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(evidence) = Evidence::decode(bytes) else { return };
    let again = evidence.encode().expect("what was decoded can be encoded");
    assert!(again == bytes, "evidence that has two encodings");
    for stage in stages() {
        let conviction = stage.with_verifier(|_, job| evidence.check(&stage.runs[0].card, None, &GkrReexecutor, job));
        assert!(conviction.is_err(), "an honest worker is convicted: {evidence:?}");
    }
}

/// The first shard as its key with public weights shows it.
fn executable() -> Option<Executable> {
    let file = &proofs(&stage(1).runs[0]).next()?.verifying_key;
    let key = KeyFile::decode(file).ok()?.key;
    let graph = key.graph().graph().to_bytes();
    // Behind magic, length and key.
    let weights = file.get(12 + key.to_bytes().len()..)?.to_vec();
    Some(Executable { graph: graph.into(), weights: weights.into() })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for stage in stages() {
        let [first, second] = [0, 1].map(|run| &stage.runs[run].bundle.shards[0]);
        let (card, admission) = (&stage.runs[0].card, &first.admission);
        let two = Evidence::contradiction(card, admission.clone(), first.receipt.clone(), second.receipt.clone());
        seeds.extend(two.encode());
        let input = stage.runs[0].bundle.boundaries[0].as_ref().map(|shown: &Blob| shown.to_vec());
        if let (Some(input), Some(executable)) = (input, executable()) {
            let receipt = first.receipt.clone();
            let one = Evidence::wrong_execution(card, admission.clone(), receipt, input, executable);
            seeds.extend(one.encode());
            seeds.extend(one.without_executable().encode());
        }
    }
    seeds
}
