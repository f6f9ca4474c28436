//! One proof of several runs: each of them verifies from it, and nothing else does.
//!
//! The forger here knows the protocol's library and writes the bytes of a batch itself, so that whatever it lies about, all
//! the rest is as an honest prover makes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod support;

use std::sync::Arc;

use BoundaryMode::{Committed, Public};
use shardproof_common::backend::{Backend, BackendError, BatchMember, ProofVerifier, VerifyError, VerifyRequest};
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::plan::{BoundaryMode, WeightVisibility};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::Tensor;
use shardproof_gkr::{CommittedBoundaries, ProvingKey, Timings, Visibility, commit_tensor, pcs};
use shardproof_gkr_service::{GkrBackend, GkrVerifier};
use shardproof_integer::{Executor, Graph, Weights};
use support::{Shard, assert_rejected, with_job};

/// Bytes before the first member.
const HEADER: usize = 5;

/// A run of the shard on an input of its own.
struct OneRun {
    input: Vec<Tensor>,
    output: Vec<Tensor>,
    statement: Statement,
}

fn runs(shard: &Shard, count: usize) -> Vec<OneRun> {
    let run = |index: usize| {
        let mut input = shard.input();
        let Tensor::Integer(tensor) = &mut input[0] else { panic!("floats") };
        tensor.values.iter_mut().step_by(3).for_each(|value| *value = *value * (index as i64 + 1) / (count as i64 + 1));
        tensor.values[0] = index as i64;
        let inference =
            with_job(shard.directory.path(), |job| GkrBackend::new().infer(&shard.files, &input, job)).unwrap();
        let statement = Statement { run: RunId::from_bytes([index as u8 + 1; 16]), ..shard.statement(&inference) };
        OneRun { input, output: inference.output, statement }
    };
    (0..count).map(run).collect()
}

fn prove(shard: &Shard, runs: &[OneRun]) -> Result<Vec<u8>, BackendError> {
    let members: Vec<BatchMember<'_>> =
        runs.iter().map(|run| BatchMember { input: &run.input, statement: &run.statement }).collect();
    let proof = with_job(shard.directory.path(), |job| GkrBackend::new().prove_batch(&shard.files, &members, job))?;
    Ok(proof.bytes)
}

fn verify(shard: &Shard, run: &OneRun, proof: &[u8]) -> Result<(), VerifyError> {
    let key = shard.key();
    let request = VerifyRequest {
        statement: &run.statement,
        card: &shard.files.card,
        registered: shard.registered(),
        verifying_key: &key,
        input: (shard.files.input_mode == Public).then_some(run.input.as_slice()),
        output: (shard.files.output_mode == Public).then_some(run.output.as_slice()),
        proof,
    };
    with_job(shard.directory.path(), |job| GkrVerifier::default().verify(&request, job))
}

/// A member as the forger states it.
#[derive(Clone)]
struct Claimed {
    context: Digest,
    /// What it runs, and shows.
    input: Vec<Tensor>,
}

impl Claimed {
    fn of(run: &OneRun) -> Self {
        Self { context: run.statement.digest(), input: run.input.clone() }
    }
}

fn batch_context(members: &[Claimed]) -> Digest {
    let contexts: Vec<Digest> = members.iter().map(|member| member.context).collect();
    Digest::derive("shardproof 2 gkr batch", &contexts)
}

fn integers(tensors: &[Tensor]) -> Vec<i64> {
    tensors.iter().flat_map(|tensor| tensor.as_integer().unwrap().values.clone()).collect()
}

/// Runs and proves what the members claim, bound to `context`; gives the blocks of all members and the protocol's proof.
fn forge(shard: &Shard, members: &[Claimed], context: Digest) -> (Vec<Vec<u8>>, Vec<u8>) {
    let file = |name: &str| std::fs::read(&shard.files.files[name]).unwrap();
    let graph = Graph::from_bytes(&file("gkr.graph")).unwrap().check().unwrap();
    let weights = Weights::from_bytes(&file("gkr.weights"), &graph).unwrap();
    let executor = Executor::new(Arc::new(graph.clone()), &weights).unwrap();
    let output = graph.graph().outputs[0];
    let key = ProvingKey::new(graph, weights, Visibility::Committed).unwrap();
    let inputs: Vec<i64> = members.iter().flat_map(|member| integers(&member.input)).collect();
    let trace = executor.run(std::slice::from_ref(&inputs), members.len()).unwrap();
    let answers = trace.tensor(output).to_vec();
    let each = |values: &[i64]| -> Vec<Vec<i64>> {
        values.chunks(values.len() / members.len()).map(<[i64]>::to_vec).collect()
    };
    let (input, output) = (each(&inputs), each(&answers));
    let commit = |runs: &[Vec<i64>], mode| -> Vec<Vec<pcs::Committed>> {
        if mode == Public { vec![] } else { vec![runs.iter().map(|values| commit_tensor(values).unwrap()).collect()] }
    };
    let modes = [shard.files.input_mode, shard.files.output_mode];
    let committed = [commit(&input, modes[0]), commit(&output, modes[1])];
    let commitments = committed.each_ref().map(|tensors| -> Vec<Vec<pcs::Commitment>> {
        tensors.iter().map(|runs| runs.iter().map(|run| run.commitment().clone()).collect()).collect()
    });
    let whole = [vec![inputs], vec![answers]];
    let boundary = |side: usize| match modes[side] {
        Public => shardproof_gkr::Boundary::Public(&whole[side]),
        _ => shardproof_gkr::Boundary::Committed(&commitments[side]),
    };
    let statement = shardproof_gkr::Statement {
        context: context.as_bytes(),
        runs: members.len(),
        input: boundary(0),
        output: boundary(1),
    };
    let both = CommittedBoundaries { input: &committed[0], output: &committed[1] };
    let proof = key.prove(&statement, &trace, both, &mut Timings::default()).unwrap();
    let block = |(run, member): (usize, &Claimed)| {
        let mut block = member.context.as_bytes().to_vec();
        for (side, values) in [&input, &output].into_iter().enumerate() {
            if modes[side] == Public {
                values[run].iter().for_each(|&value| block.extend(i32::try_from(value).unwrap().to_le_bytes()));
            } else {
                let encoded = postcard::to_allocvec(&commitments[side][0][run]).unwrap();
                block.extend(u16::try_from(encoded.len()).unwrap().to_le_bytes());
                block.extend(encoded);
            }
        }
        block
    };
    (members.iter().enumerate().map(block).collect(), proof.to_bytes())
}

fn envelope(count: usize, blocks: &[Vec<u8>], proof: &[u8]) -> Vec<u8> {
    [b"SPB1".as_slice(), &[u8::try_from(count).unwrap()], &blocks.concat(), proof].concat()
}

const MODES: [[BoundaryMode; 2]; 4] =
    [[Public, Public], [Public, Committed], [Committed, Public], [Committed, Committed]];

fn mlp(modes: [BoundaryMode; 2]) -> Shard {
    Shard::new("mlp", WeightVisibility::Committed, modes)
}

#[test]
fn every_run_of_a_batch_verifies_from_the_same_bytes() {
    for modes in MODES {
        let shard = mlp(modes);
        let all = runs(&shard, 4);
        let (batch, left_out) = (&all[..3], &all[3]);
        let proof = prove(&shard, batch).unwrap();
        for run in batch {
            verify(&shard, run, &proof).unwrap();
        }
        assert_rejected(verify(&shard, left_out, &proof), "of 3 runs, of which none has this statement");
        let members: Vec<Claimed> = batch.iter().map(Claimed::of).collect();
        let (blocks, inner) = forge(&shard, &members, batch_context(&members));
        assert!(envelope(3, &blocks, &inner) == proof, "{modes:?}: the bytes are those that the format describes");
        let single = prove(&shard, &all[..1]).unwrap();
        assert!(!single.starts_with(b"SPB1"), "a single proof has no envelope");
        assert!(proof.len() < 3 * single.len(), "{} bytes for 3, {} for 1", proof.len(), single.len());
    }
}

#[test]
fn a_batch_is_as_large_as_its_soundness_allows() {
    for modes in MODES {
        let shard = mlp(modes);
        let limit = GkrBackend::new().batch_limit(&shard.files);
        if modes == [Public, Public] {
            assert_eq!(limit, 64);
        } else {
            assert!((2..64).contains(&limit), "{modes:?}: {limit}");
        }
        let all = runs(&shard, limit + 1);
        let proof = prove(&shard, &all[..limit]).unwrap();
        for run in [&all[0], &all[limit - 1]] {
            verify(&shard, run, &proof).unwrap();
        }
        let refused = prove(&shard, &all).unwrap_err();
        assert!(matches!(&refused, BackendError::Unsupported { .. }), "{refused}");
    }
    assert!(matches!(prove(&mlp([Public, Public]), &[]).unwrap_err(), BackendError::Unsupported { .. }));
}

#[test]
fn a_false_statement_among_true_ones_is_not_proven() {
    let shard = mlp([Public, Committed]);
    let mut all = runs(&shard, 3);
    all[1].statement.output = all[2].statement.output.clone();
    let refused = prove(&shard, &all).unwrap_err();
    assert!(matches!(&refused, BackendError::Input(reason) if reason.contains("output boundary")), "{refused}");
}

#[test]
fn boundaries_of_a_member_are_the_statements() {
    for modes in MODES {
        let shard = mlp(modes);
        let all = runs(&shard, 3);
        // All is true of some run, but the statement's digest stands beside another run's boundaries.
        let mut members = vec![Claimed::of(&all[0]), Claimed::of(&all[1])];
        members[0].input = all[2].input.clone();
        let (blocks, inner) = forge(&shard, &members, batch_context(&members));
        let proof = envelope(2, &blocks, &inner);
        verify(&shard, &all[1], &proof).unwrap();
        let verdict = verify(&shard, &all[0], &proof);
        assert!(
            matches!(&verdict, Err(VerifyError::Instances(reason)) if reason.starts_with("the input boundary of run 0")),
            "{modes:?}: {verdict:?}"
        );
        // The statement lies about its output alone.
        let mut liar = runs(&shard, 3).remove(1);
        if modes[1] == Public {
            let Tensor::Integer(tensor) = &mut liar.output[0] else { panic!("floats") };
            tensor.values[0] += 1;
            liar.statement.output = Boundary::public(&liar.output);
        } else {
            liar.statement.output = all[2].statement.output.clone();
        }
        let members = [Claimed::of(&all[0]), Claimed::of(&liar)];
        let (blocks, inner) = forge(&shard, &members, batch_context(&members));
        let proof = envelope(2, &blocks, &inner);
        verify(&shard, &all[0], &proof).unwrap();
        let verdict = verify(&shard, &liar, &proof);
        assert!(
            matches!(&verdict, Err(VerifyError::Instances(reason)) if reason.starts_with("the output boundary of run 1")),
            "{modes:?}: {verdict:?}"
        );
    }
}

#[test]
fn a_statement_is_in_a_batch_once() {
    let shard = mlp([Public, Public]);
    let all = runs(&shard, 2);
    let members = [Claimed::of(&all[0]), Claimed::of(&all[1]), Claimed::of(&all[0])];
    let (blocks, inner) = forge(&shard, &members, batch_context(&members));
    let proof = envelope(3, &blocks, &inner);
    assert_rejected(verify(&shard, &all[1], &proof), "runs 0 and 2 of the batch have the same statement");
}

#[test]
fn the_proof_is_bound_to_all_statements_in_their_order() {
    let shard = mlp([Public, Committed]);
    let all = runs(&shard, 3);
    let members: Vec<Claimed> = all.iter().map(Claimed::of).collect();
    let lies = |blocks: &[Vec<u8>], inner: &[u8]| verify(&shard, &all[0], &envelope(blocks.len(), blocks, inner));
    let (blocks, inner) = forge(&shard, &members, batch_context(&members));
    lies(&blocks, &inner).unwrap();

    let reordered = [blocks[0].clone(), blocks[2].clone(), blocks[1].clone()];
    let fewer = &blocks[..2];
    let more = [
        &blocks[..],
        &[forge(&shard, &[Claimed { context: Digest::of(b"x"), ..members[2].clone() }], Digest::of(b"x")).0.remove(0)],
    ]
    .concat();
    let changed = |place: usize| {
        let mut blocks = blocks.clone();
        blocks[1][place] ^= 1;
        blocks
    };
    let commitment = blocks[1].len() - 30;
    for (lie, blocks) in [
        ("reordered", reordered.as_slice()),
        ("fewer", fewer),
        ("more", &more),
        ("another's statement", &changed(0)),
        ("another's input", &changed(32)),
        ("another's output", &changed(commitment)),
    ] {
        let verdict = lies(blocks, &inner);
        assert!(matches!(verdict, Err(VerifyError::Rejected(_))), "{lie}: {verdict:?}");
    }

    // Bound to one statement alone, or to the batch in another order.
    for context in [members[0].context, batch_context(&[members[0].clone(), members[2].clone(), members[1].clone()])] {
        let (blocks, inner) = forge(&shard, &members, context);
        assert!(matches!(lies(&blocks, &inner), Err(VerifyError::Rejected(_))));
    }
    // A single proof is of its own statement, not of a batch of one.
    let (_, inner) = forge(&shard, &members[..1], batch_context(&members[..1]));
    assert!(matches!(verify(&shard, &all[0], &inner), Err(VerifyError::Rejected(_))));
    let (_, inner) = forge(&shard, &members[..1], members[0].context);
    verify(&shard, &all[0], &inner).unwrap();
}

#[test]
fn a_batch_has_one_form() {
    let shard = mlp([Public, Committed]);
    let all = runs(&shard, 2);
    let members: Vec<Claimed> = all.iter().map(Claimed::of).collect();
    let (blocks, inner) = forge(&shard, &members, batch_context(&members));
    let proof = envelope(2, &blocks, &inner);
    let check = |proof: &[u8]| verify(&shard, &all[0], proof);
    check(&proof).unwrap();

    let (alone, alone_inner) = forge(&shard, &members[..1], members[0].context);
    assert_rejected(check(&envelope(1, &alone, &alone_inner)), "a batch of 1 runs, expected 2 to 64");
    for count in [0, 65, 255] {
        assert_rejected(check(&envelope(count, &blocks, &inner)), &format!("a batch of {count} runs"));
    }
    assert_rejected(check(b"SPB1"), "a batch of 0 runs");
    let first = HEADER + blocks[0].len();
    for cut in [HEADER, HEADER + 31, HEADER + 40, first - 1] {
        assert_rejected(check(&proof[..cut]), "ends within its run 0");
    }
    assert_rejected(check(&proof[..first]), "ends within its run 1");
    assert_rejected(check(&proof[..first + blocks[1].len()]), "not a proof");
    assert_rejected(check(&proof[..proof.len() - 1]), "not a proof");
    assert_rejected(check(&[proof.as_slice(), &[0]].concat()), "not a proof");
    assert_rejected(check(&[b"SPB1", proof.as_slice()].concat()), "a batch of 83 runs");

    let in_commitment = |block: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut blocks = blocks.clone();
        change(&mut blocks[block]);
        check(&envelope(2, &blocks, &inner))
    };
    let input_bytes = integers(&all[0].input).len() * 4;
    let length = 32 + input_bytes;
    let longer = in_commitment(1, &|block| {
        block[length] += 1;
        block.push(0);
    });
    assert_rejected(longer, "run 1 of the batch: not the one encoding of a commitment");
    let long = in_commitment(1, &|block| block[length + 1] = 0xff);
    assert_rejected(long, "run 1 of the batch: a commitment of");
    let shape = in_commitment(1, &|block| *block.last_mut().unwrap() += 1);
    assert_rejected(shape, "2^");

    for position in (0..HEADER + blocks.concat().len()).chain((HEADER..proof.len()).step_by(997)) {
        let mut forged = proof.clone();
        forged[position] ^= 1;
        assert!(check(&forged).is_err(), "byte {position}");
    }
}
