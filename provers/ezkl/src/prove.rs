//! A worker's side when a proof is asked for.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use shardproof_common::backend::{BackendError, Proof, Registered, ShardFiles};
use shardproof_common::statement::Statement;
use shardproof_common::tensor::Tensor;

use crate::backend::{file, file_of, keys_of};
use crate::field::Felt;
use crate::frame::{Frame, failed};
use crate::infer::{WITNESS, make_witness};
use crate::layout::{PublicTensors, instances, leading_points, starts_with};
use crate::runner::{Op, Runner};
use crate::tools::Tools;
use crate::witness::Witness;

/// The parts of ezkl's `proof.json` that this backend reads.
#[derive(Deserialize)]
struct ProofFile {
    instances: Vec<Vec<String>>,
    hex_proof: String,
}

/// Proves `statement`; a witness that the job's directory has of `input` is used, any other made anew.
pub(crate) fn prove(
    tools: &Tools,
    shard: &ShardFiles,
    input: &[Tensor],
    statement: &Statement,
    frame: &Frame<'_>,
) -> Result<Proof, BackendError> {
    tools.with_runner(frame, |runner| prove_with(runner, shard, input, statement, frame))
}

fn prove_with(
    runner: &mut dyn Runner,
    shard: &ShardFiles,
    input: &[Tensor],
    statement: &Statement,
    frame: &Frame<'_>,
) -> Result<Proof, BackendError> {
    let directory = frame.job.directory;
    let (witness_path, proof_path) = (directory.join(WITNESS), directory.join("proof.json"));
    let witness = match Witness::read(&witness_path) {
        Ok(witness) if witness.is_of(input) => witness,
        _ => make_witness(runner, shard, input, frame)?,
    };
    let expected = public_part(shard, input, statement, &witness)?;

    frame.at("prove");
    let call = Op::Prove {
        witness: &witness_path,
        circuit: file_of(shard, file::CIRCUIT)?,
        pk: file_of(shard, file::PK)?,
        proof: &proof_path,
        srs: file_of(shard, file::SRS)?,
    };
    runner.call(&call, frame).map_err(|error| error.at(call.step()))?;
    let bytes = read_proof(&proof_path, &expected)?;
    Ok(Proof { bytes, peak_rss_bytes: runner.peak_rss_bytes() })
}

/// What the proof must say in public.
struct PublicPart {
    instances: Vec<Felt>,
    points: Vec<[u8; 32]>,
}

fn public_part(
    shard: &ShardFiles,
    input: &[Tensor],
    statement: &Statement,
    witness: &Witness,
) -> Result<PublicPart, BackendError> {
    let output = witness.outputs(&shard.card.output)?;
    let registered =
        Registered { options: &shard.options, input_mode: shard.input_mode, output_mode: shard.output_mode };
    let tensors = PublicTensors { input: Some(input), output: Some(&output) };
    let untrue = |reason: String| failed("prove", format!("the statement is not true of this input: {reason}"));
    Ok(PublicPart {
        instances: instances(statement, keys_of(&shard.card)?, &registered, tensors)
            .map_err(|error| untrue(error.to_string()))?,
        points: leading_points(statement, &registered).map_err(|error| untrue(error.to_string()))?,
    })
}

/// The transcript of ezkl's proof, when it says in public what is expected.
fn read_proof(path: &Path, expected: &PublicPart) -> Result<Vec<u8>, BackendError> {
    let text = fs::read(path).map_err(BackendError::io(path))?;
    let proof: ProofFile =
        serde_json::from_slice(&text).map_err(|error| failed("prove", format!("unreadable proof: {error}")))?;
    let digits = proof.hex_proof.strip_prefix("0x").unwrap_or(&proof.hex_proof);
    let bytes = hex::decode(digits).map_err(|error| failed("prove", format!("unreadable proof: {error}")))?;
    let instances: Vec<String> = expected.instances.iter().map(|felt| felt.to_hex()).collect();
    if proof.instances.concat() != instances || !starts_with(&bytes, &expected.points) {
        return Err(failed("prove", "the statement is not true of this input: its boundaries are not the proof's"));
    }
    Ok(bytes)
}
