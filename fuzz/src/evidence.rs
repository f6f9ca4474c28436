//! A file of evidence against a worker. Nobody lied in the honest runs, so nothing may convict.

use shardproof_common::bundle::Blob;
use shardproof_common::evidence::{Evidence, Executable};
use shardproof_gkr_service::{GkrReexecutor, KeyFile};
use shardproof_integer::{CheckedGraph, Node, Op, TensorId, Weight, WeightId, Weights};

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
fn shard() -> Option<(CheckedGraph, Weights)> {
    let file = &proofs(&stage(1).runs[0]).next()?.verifying_key;
    let key = KeyFile::decode(file).ok()?.key;
    // Behind magic, length and key.
    let weights = Weights::from_bytes(file.get(12 + key.to_bytes().len()..)?, key.graph()).ok()?;
    Some((key.graph().clone(), weights))
}

fn executable((graph, weights): &(CheckedGraph, Weights)) -> Option<Executable> {
    let bytes = weights.to_bytes(graph).ok()?;
    Some(Executable { graph: graph.graph().to_bytes().into(), weights: bytes.into() })
}

/// The shard with a weight that very many nodes read, which nothing needs: an executor would keep it for each of them.
fn crowded((graph, weights): &(CheckedGraph, Weights)) -> Option<(CheckedGraph, Weights)> {
    let (mut graph, mut weights) = (graph.graph().clone(), weights.clone());
    let (values, readers) = (4096, 2000);
    let weight = WeightId(graph.weights.len() as u32);
    graph.weights.push(Weight { name: String::new(), shape: vec![values, 1], bits: 0 });
    weights.0.push(vec![1; values]);
    let (scale, elements) = (graph.inputs[0].scale, graph.inputs[0].shape.iter().product());
    let mut add = |op| {
        graph.nodes.push(Node { name: String::new(), op, scale });
        TensorId((graph.inputs.len() + graph.nodes.len()) as u32 - 1)
    };
    let column = add(Op::Reshape { input: TensorId(0), shape: vec![elements, 1] });
    for _ in 0..readers {
        add(Op::MatMul { input: column, weight });
    }
    Some((graph.check().ok()?, weights))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for stage in stages() {
        let [first, second] = [0, 1].map(|run| &stage.runs[run].bundle.shards[0]);
        let (card, admission) = (&stage.runs[0].card, &first.admission);
        let two = Evidence::contradiction(card, admission.clone(), first.receipt.clone(), second.receipt.clone());
        seeds.extend(two.encode());
        let input = stage.runs[0].bundle.boundaries[0].as_ref().map(|shown: &Blob| shown.to_vec());
        let shard = shard();
        let crowded = shard.as_ref().and_then(crowded).expect("the graph can be made larger");
        let shards = shard.iter().chain([&crowded]).filter_map(executable);
        for (input, executable) in input.iter().flat_map(|input| shards.clone().map(move |shard| (input, shard))) {
            let receipt = first.receipt.clone();
            let one = Evidence::wrong_execution(card, admission.clone(), receipt, input.clone(), executable);
            seeds.extend(one.encode());
            seeds.extend(one.without_executable().encode());
        }
    }
    seeds
}
