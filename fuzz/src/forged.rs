//! An honest bundle, changed by a script and sealed again, as colluding workers and messengers could.
//!
//! The first byte names the stage. Then follow changes of four bytes: what, where, from where, and a value. Afterwards the
//! bundle is encoded, so that only checks of content stand in the way. Workers sign whatever the script says; the authority
//! and the owner sign nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shardproof_common::bundle::{Blob, Bundle, ShardRecord};
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::statement::{Binding, Boundary, Statement};

use crate::honest::{Stage, stage, stages};

pub(crate) fn check(bytes: &[u8]) {
    let Some((&selector, script)) = bytes.split_first() else { return };
    let stage = stage(selector);
    let mut bundle = stage.runs[0].bundle.clone();
    let (changes, _incomplete) = script.as_chunks::<4>();
    for &change in changes {
        apply(stage, &mut bundle, change);
    }
    let Ok(sealed) = bundle.encode() else { return };
    let bundle = Bundle::decode(&sealed).expect("what was encoded can be decoded");
    stage.refuse(&bundle);
}

/// Makes one change; nothing where what it is about is not there.
fn apply(stage: &Stage, bundle: &mut Bundle, [what, place, from, value]: [u8; 4]) {
    let sources: Vec<&Bundle> = stage.runs.iter().chain([&stage.elsewhere]).map(|draft| &draft.bundle).collect();
    let source = sources[usize::from(from >> 4) % sources.len()];
    let other = &source.shards[usize::from(from & 15) % source.shards.len()];
    match what % 20 {
        0 => bundle.run = source.run,
        1 => bundle.card = source.card,
        2 => bundle.run = RunId::from_bytes([value; 16]),
        3 => {
            let count = bundle.boundaries.len().max(1);
            if let Some(shown) = bundle.boundaries.get_mut(usize::from(place) % count) {
                *shown = source.boundaries[usize::from(from & 15) % source.boundaries.len()].clone();
            }
        }
        4 => {
            let count = bundle.boundaries.len().max(1);
            if let Some(shown) = bundle.boundaries.get_mut(usize::from(place) % count) {
                *shown = flipped(shown.as_ref(), from, value);
            }
        }
        5 => drop(bundle.boundaries.pop()),
        6 => bundle.boundaries.push(None),
        7 if bundle.shards.len() < 8 => bundle.shards.push(other.clone()),
        8 if !bundle.shards.is_empty() => drop(bundle.shards.remove(usize::from(place) % bundle.shards.len())),
        9 if !bundle.shards.is_empty() => {
            let count = bundle.shards.len();
            bundle.shards.swap(usize::from(place) % count, usize::from(from) % count);
        }
        _ => {
            let count = bundle.shards.len().max(1);
            let at = usize::from(place) % count;
            if let Some(record) = bundle.shards.get_mut(at) {
                change_shard(stage, record, other, at, [what % 20, place, from, value]);
            }
        }
    }
}

fn change_shard(stage: &Stage, record: &mut ShardRecord, other: &ShardRecord, at: usize, change: [u8; 4]) {
    let [what, place, from, value] = change;
    match what {
        10 => record.clone_from(other),
        11 => record.proof.clone_from(&other.proof),
        12 => record.receipt.clone_from(&other.receipt),
        13 => record.admission.clone_from(&other.admission),
        14 => record.proof = None,
        15 => {
            let Some(proof) = &mut record.proof else { return };
            let part = if value & 1 == 0 { &mut proof.proof } else { &mut proof.verifying_key };
            if let Some(changed) = flipped(Some(part), from, value) {
                *part = changed;
            }
        }
        16 => record.receipt.attempt = value.into(),
        17 => {
            let signer = &stage.honest.keys.workers[usize::from(value) % stage.honest.keys.workers.len()];
            record.receipt = record.receipt.signed_by(signer);
        }
        18 => {
            if let Some(receipt) = recoded(&record.receipt, place, value) {
                record.receipt = receipt;
            }
        }
        _ => {
            let mut statement = record.receipt.statement.clone();
            restate(&mut statement, &other.receipt.statement, from, value);
            let signer = &stage.honest.keys.workers[at % stage.honest.keys.workers.len()];
            record.receipt.statement = statement;
            record.receipt = record.receipt.signed_by(signer);
        }
    }
}

/// Changes what a worker states.
fn restate(statement: &mut Statement, other: &Statement, from: u8, value: u8) {
    match value % 16 {
        0 => statement.protocol ^= u32::from(from),
        1 => statement.backend.version.push('0'),
        2 => statement.model = other.plan,
        3 => statement.architecture = other.model,
        4 => statement.plan = other.plan,
        5 => statement.shard = ShardIndex(from.into()),
        6 => statement.shards = from.into(),
        7 => statement.run = other.run,
        8 => statement.input.clone_from(&other.input),
        9 => statement.output.clone_from(&other.output),
        10 => statement.keys = other.keys,
        11 => std::mem::swap(&mut statement.input, &mut statement.output),
        12 => rebind(&mut statement.input, from),
        13 => rebind(&mut statement.output, from),
        14 => reshape(&mut statement.input, from),
        _ => reshape(&mut statement.output, from),
    }
}

/// Changes what fixes a boundary's values.
fn rebind(boundary: &mut Boundary, value: u8) {
    match &mut boundary.binding {
        Binding::Public(digest) => {
            let digest = *digest;
            boundary.binding = Binding::Committed(vec![digest.as_bytes().to_vec()]);
        }
        Binding::Committed(commitments) => match commitments.first_mut() {
            Some(commitment) if value & 1 == 0 => drop(commitment.pop()),
            Some(commitment) => {
                let place = usize::from(value) % commitment.len().max(1);
                if let Some(byte) = commitment.get_mut(place) {
                    *byte ^= value;
                }
            }
            None => commitments.push(vec![value]),
        },
    }
}

/// Changes what is said of a boundary's tensors.
fn reshape(boundary: &mut Boundary, value: u8) {
    let repeated = boundary.tensors.first().cloned();
    match (value & 3, boundary.tensors.first_mut()) {
        (0, Some(tensor)) => tensor.scale ^= i32::from(value >> 2),
        (1, Some(tensor)) => tensor.shape.push(1),
        (2, Some(tensor)) => tensor.shape.reverse(),
        _ => boundary.tensors.extend(repeated),
    }
}

/// The bytes with one of them changed, at a place that two bytes name.
fn flipped(bytes: Option<&Blob>, place: u8, value: u8) -> Option<Blob> {
    let mut bytes = bytes?.to_vec();
    let count = bytes.len();
    let place = (usize::from(place) * 251 + usize::from(value)) % count.max(1);
    *bytes.get_mut(place)? ^= value | 1;
    Some(bytes.into())
}

/// The value whose encoding differs in one byte, if there is one.
fn recoded<T: Serialize + DeserializeOwned>(value: &T, place: u8, change: u8) -> Option<T> {
    let mut bytes = postcard::to_allocvec(value).ok()?;
    let place = usize::from(place) % bytes.len();
    bytes[place] ^= change;
    postcard::from_bytes(&bytes).ok()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let changes = (0u8..20).map(|what| [what, 1, 0x11, 3]);
    let statements = (0u8..16).map(|field| [19, 1, 0x21, field]);
    let all: Vec<[u8; 4]> = changes.chain(statements).collect();
    let stages = 0..stages().count() as u8;
    stages.flat_map(|stage| all.iter().map(move |change| [&[stage], &change[..]].concat())).collect()
}
