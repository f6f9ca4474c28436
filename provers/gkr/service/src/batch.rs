//! One proof of several runs, as the bundle of each of them carries it.
//!
//! The protocol proves several runs at once, and is bound to one context. Here the context is the digest of all runs'
//! statements in their order, and the bytes say what a verifier who knows but one of the runs lacks: the digests of the
//! others' statements and their boundaries. Nothing is believed of the others; they take part because the proof is of them
//! all.
//!
//! Little-endian: magic, the number of members (1 byte), the members, and the protocol's proof up to the end. A member is the
//! digest of its statement, its input, its output. A public tensor is its integers (`i32` each, as many as its shape has), a
//! committed one its commitment after its length (`u16`). A proof of one run is the protocol's proof alone, so one run is
//! written in one way.

use shardproof_common::ids::Digest;
use shardproof_common::statement::MAX_COMMITMENT_BYTES;
use shardproof_integer::{CheckedGraph, TensorId};
use thiserror::Error;

#[cfg(feature = "prover")]
use crate::boundary::encode;
use crate::boundary::{Side, decode};

const MAGIC: &[u8; 4] = b"SPB1";
/// Most runs of one proof.
const MAX_MEMBERS: usize = 64;
/// Most elements of all tensors over all runs of one proof. Memory grows with them, while what several runs share is done
/// once for any number of them.
const MAX_ELEMENTS: usize = 1 << 22;

/// One run of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Digest of its statement.
    pub(crate) context: Digest,
    /// What entered in this run.
    pub(crate) input: Side,
    /// What left.
    pub(crate) output: Side,
}

/// What the protocol's proof is about: one run or a batch.
#[derive(Clone, Debug)]
pub(crate) struct Asserted {
    context: Digest,
    runs: usize,
    input: Side,
    output: Side,
}

/// Why bytes are not a batch with the statement's run in it.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BatchError {
    #[error("a batch of {found} runs, expected 2 to {most}")]
    Count { found: usize, most: usize },
    #[error("the batch ends within its run {member}")]
    Truncated { member: usize },
    #[error("run {member} of the batch: {reason}")]
    Commitment { member: usize, reason: String },
    #[error("runs {first} and {second} of the batch have the same statement")]
    Repeated { first: usize, second: usize },
    #[error("the proof is of {runs} runs, of which none has this statement")]
    NotAMember { runs: usize },
    #[error("the {side} boundary of run {member} of the batch is not the statement's")]
    Boundary { member: usize, side: &'static str },
}

/// Most runs that one proof of a graph may cover for its size.
pub(crate) fn most_runs(graph: &CheckedGraph) -> usize {
    let elements: usize = (0..graph.tensors() as u32).map(|tensor| graph.elements(TensorId(tensor))).sum();
    (MAX_ELEMENTS / elements.max(1)).clamp(1, MAX_MEMBERS)
}

impl Asserted {
    /// The claim about all `members`, of which there is one at least.
    pub(crate) fn of(first: &Member, rest: &[Member]) -> Self {
        let mut all =
            Self { context: first.context, runs: 1, input: first.input.clone(), output: first.output.clone() };
        for member in rest {
            all.runs += 1;
            all.input.append(&member.input);
            all.output.append(&member.output);
        }
        if !rest.is_empty() {
            let contexts: Vec<Digest> = std::iter::once(first).chain(rest).map(|member| member.context).collect();
            all.context = Digest::derive("shardproof 2 gkr batch", &contexts);
        }
        all
    }

    /// As the protocol takes it.
    pub(crate) fn statement(&self) -> shardproof_gkr::Statement<'_> {
        shardproof_gkr::Statement {
            context: self.context.as_bytes(),
            runs: self.runs,
            input: self.input.boundary(),
            output: self.output.boundary(),
        }
    }
}

/// The bytes of a proof of `members`: as they are for one, in an envelope for several.
#[cfg(feature = "prover")]
pub(crate) fn seal(members: &[Member], proof: &[u8]) -> Vec<u8> {
    if members.len() == 1 {
        return proof.to_vec();
    }
    let mut bytes = MAGIC.to_vec();
    bytes.push(u8::try_from(members.len()).expect("a batch has at most 64 members"));
    for member in members {
        bytes.extend_from_slice(member.context.as_bytes());
        write_side(&mut bytes, &member.input);
        write_side(&mut bytes, &member.output);
    }
    bytes.extend_from_slice(proof);
    bytes
}

#[cfg(feature = "prover")]
fn write_side(bytes: &mut Vec<u8>, side: &Side) {
    match side {
        Side::Public(tensors) => tensors.iter().flatten().for_each(|&value| {
            let value = i32::try_from(value).expect("a side's integers are in the protocol's range");
            bytes.extend_from_slice(&value.to_le_bytes());
        }),
        Side::Committed(tensors) => tensors.iter().flatten().for_each(|commitment| {
            let encoded = encode(commitment);
            let length = u16::try_from(encoded.len()).expect("a commitment has less than a hundred bytes");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&encoded);
        }),
    }
}

/// What `bytes` prove of the run `own`, and the protocol's proof: a proof of that run alone, or of a batch with it of at most
/// `most` runs.
///
/// # Errors
/// When a batch is malformed or too large, lacks the run's statement, or says something else of its boundaries.
pub(crate) fn open<'a>(bytes: &'a [u8], own: &Member, most: usize) -> Result<(Asserted, &'a [u8]), BatchError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Ok((Asserted::of(own, &[]), bytes));
    };
    let (count, mut rest) = rest.split_first().map_or((0, rest), |(&count, rest)| (usize::from(count), rest));
    if !(2..=most).contains(&count) {
        return Err(BatchError::Count { found: count, most });
    }
    let mut members: Vec<Member> = Vec::with_capacity(count);
    for member in 0..count {
        let read = read_member(&mut rest, member, own)?;
        if let Some(first) = members.iter().position(|earlier| earlier.context == read.context) {
            return Err(BatchError::Repeated { first, second: member });
        }
        members.push(read);
    }
    let place = members.iter().position(|member| member.context == own.context);
    let member = place.ok_or(BatchError::NotAMember { runs: count })?;
    for (side, stated, found) in
        [("input", &own.input, &members[member].input), ("output", &own.output, &members[member].output)]
    {
        if stated != found {
            return Err(BatchError::Boundary { member, side });
        }
    }
    Ok((Asserted::of(&members[0], &members[1..]), rest))
}

/// A member in the form of `own`, whose kinds of boundaries and shapes all runs of a shard have.
fn read_member(rest: &mut &[u8], member: usize, own: &Member) -> Result<Member, BatchError> {
    let context: [u8; 32] =
        take(rest, 32).and_then(|bytes| bytes.try_into().ok()).ok_or(BatchError::Truncated { member })?;
    let input = read_side(rest, member, &own.input)?;
    let output = read_side(rest, member, &own.output)?;
    Ok(Member { context: Digest::from_bytes(context), input, output })
}

fn read_side(rest: &mut &[u8], member: usize, form: &Side) -> Result<Side, BatchError> {
    match form {
        Side::Public(tensors) => {
            let read = tensors.iter().map(|tensor| {
                let bytes = take(rest, tensor.len().saturating_mul(4)).ok_or(BatchError::Truncated { member })?;
                let (words, _none_left) = bytes.as_chunks::<4>();
                Ok(words.iter().map(|&word| i32::from_le_bytes(word).into()).collect())
            });
            Ok(Side::Public(read.collect::<Result<_, BatchError>>()?))
        }
        Side::Committed(tensors) => {
            let read = tensors.iter().map(|_| {
                let length: Option<[u8; 2]> = take(rest, 2).and_then(|bytes| bytes.try_into().ok());
                let length = usize::from(u16::from_le_bytes(length.ok_or(BatchError::Truncated { member })?));
                if length > MAX_COMMITMENT_BYTES {
                    let reason = format!("a commitment of {length} bytes");
                    return Err(BatchError::Commitment { member, reason });
                }
                let bytes = take(rest, length).ok_or(BatchError::Truncated { member })?;
                Ok(vec![decode(bytes).map_err(|reason| BatchError::Commitment { member, reason })?])
            });
            Ok(Side::Committed(read.collect::<Result<_, BatchError>>()?))
        }
    }
}

/// The first `length` bytes, which are taken off `rest`.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use shardproof_integer::{Graph, Input, Node, Op};

    use super::*;

    /// A graph of two tensors with so many elements each.
    fn graph(elements: usize) -> CheckedGraph {
        let copy =
            Node { name: "copy".to_owned(), op: Op::Reshape { input: TensorId(0), shape: vec![elements] }, scale: 0 };
        let input = Input { name: "x".to_owned(), shape: vec![elements], scale: 0 };
        let graph = Graph {
            inputs: vec![input],
            weights: vec![],
            tables: vec![],
            nodes: vec![copy],
            outputs: vec![TensorId(1)],
        };
        graph.check().unwrap()
    }

    #[test]
    fn a_proof_covers_as_many_runs_as_its_shard_is_small_enough_for() {
        for (elements, most) in [(1, MAX_MEMBERS), (1 << 16, 32), (1 << 20, 2), (1 << 21, 1), (1 << 24, 1)] {
            assert_eq!(most_runs(&graph(elements)), most, "{elements} elements");
        }
        let side = || Side::Public(vec![vec![1]]);
        let member = |n: u8| Member { context: Digest::of(&[n]), input: side(), output: side() };
        let proof = |count: u8| {
            let mut bytes = [&MAGIC[..], &[count]].concat();
            for member in (0..count).map(member) {
                bytes.extend_from_slice(member.context.as_bytes());
                bytes.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
            }
            bytes
        };
        assert_eq!(open(&proof(3), &member(0), 3).unwrap().0.runs, 3);
        assert_eq!(open(&proof(4), &member(0), 3).unwrap_err(), BatchError::Count { found: 4, most: 3 });
        assert_eq!(open(&proof(2), &member(0), 1).unwrap_err(), BatchError::Count { found: 2, most: 1 });
    }
}
