//! The rows of the tables: one for each system and model, and one for each pass.

use serde::Serialize;
use shardproof_models::SampleOrigin;

use super::accuracy::Accuracy;
use super::error::{Status, Stop};
use super::session::{Pass, Session};
use super::subject::Subject;
use crate::stats::Summary;

/// One system on one model; a row of `backends.csv`. What was not measured is empty.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemRow {
    /// The model.
    pub model: String,
    /// Its trained values.
    pub parameters: u64,
    /// The system.
    pub system: String,
    /// `ok`, or why there are no figures.
    pub status: Status,
    /// Threads that it might use.
    pub threads: usize,
    /// Proofs that the figures are of.
    pub passes: usize,
    /// Setup by the system's own clock; made once.
    pub setup_ms: Option<f64>,
    /// The whole process of the setup.
    pub setup_wall_ms: Option<f64>,
    /// Running the model in the system's integers, by its own clock.
    pub witness_ms_median: Option<f64>,
    /// Least of them.
    pub witness_ms_min: Option<f64>,
    /// Greatest of them.
    pub witness_ms_max: Option<f64>,
    /// The proof, by the system's own clock.
    pub prove_ms_median: Option<f64>,
    /// Least of them.
    pub prove_ms_min: Option<f64>,
    /// Greatest of them.
    pub prove_ms_max: Option<f64>,
    /// The whole process of witness and proof.
    pub prove_wall_ms_median: Option<f64>,
    /// Least of them.
    pub prove_wall_ms_min: Option<f64>,
    /// Greatest of them.
    pub prove_wall_ms_max: Option<f64>,
    /// The verification, by the system's own clock.
    pub verify_ms_median: Option<f64>,
    /// Least of them.
    pub verify_ms_min: Option<f64>,
    /// Greatest of them.
    pub verify_ms_max: Option<f64>,
    /// The whole process of the verification.
    pub verify_wall_ms_median: Option<f64>,
    /// Least of them.
    pub verify_wall_ms_min: Option<f64>,
    /// Greatest of them.
    pub verify_wall_ms_max: Option<f64>,
    /// Size of the largest proof.
    pub proof_bytes: Option<u64>,
    /// Size of the largest witness; 0 where it never leaves memory.
    pub witness_bytes: Option<u64>,
    /// Size of the proving key.
    pub proving_key_bytes: Option<u64>,
    /// Size of the verifying key.
    pub verifying_key_bytes: Option<u64>,
    /// Peak memory of the setup.
    pub setup_peak_bytes: Option<u64>,
    /// Greatest peak of witness and proof.
    pub prove_peak_bytes: Option<u64>,
    /// Greatest peak of the verification.
    pub verify_peak_bytes: Option<u64>,
    /// Inputs that the answers are of.
    pub inputs: Option<usize>,
    /// Where inputs come from.
    pub input_origin: SampleOrigin,
    /// Greatest difference from the float model's answer.
    pub max_abs_error: Option<f64>,
    /// Root of the mean square of the differences, relative to the range of the float answers.
    pub relative_rmse: Option<f64>,
    /// Share of the inputs with the same largest value.
    pub class_agreement: Option<f64>,
    /// What became of a claim with one input value changed: `rejected`, as it must be, or `accepted`.
    pub control: Option<&'static str>,
}

/// One proof with its verification; a row of `passes.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PassRow {
    /// The model.
    pub model: String,
    /// The system.
    pub system: String,
    /// Which of the system's passes, from 0.
    pub pass: usize,
    /// Which of the model's inputs, from 0.
    pub input: usize,
    /// By the system's own clock.
    pub witness_ms: f64,
    /// By the system's own clock.
    pub prove_ms: f64,
    /// The whole process.
    pub prove_wall_ms: f64,
    /// By the system's own clock.
    pub verify_ms: f64,
    /// The whole process.
    pub verify_wall_ms: f64,
    /// Size of the proof.
    pub proof_bytes: u64,
    /// Size of the witness.
    pub witness_bytes: u64,
    /// Peak memory of witness and proof.
    pub prove_peak_bytes: u64,
    /// Peak memory of the verification.
    pub verify_peak_bytes: u64,
    /// Greatest difference from the float model's answer.
    pub max_abs_error: Option<f64>,
}

/// The row of a session. Where it failed, figures of its passes are left out: it may have failed by what it did to them.
pub fn system_row(session: &Session<'_>, subject: &Subject, threads: usize) -> SystemRow {
    let status = Status(session.stop.clone());
    let counts = matches!(status.0, None | Some(Stop::Interrupted));
    let passes: &[Pass] = if counts { &session.passes } else { &[] };
    let summary = |get: fn(&Pass) -> f64| Summary::of(passes.iter().map(get));
    let most = |get: fn(&Pass) -> u64| passes.iter().map(get).max();
    let [witness, prove, prove_wall, verify, verify_wall] = [
        |pass: &Pass| pass.witness_ms,
        |pass: &Pass| pass.prove_ms,
        |pass: &Pass| pass.prove_wall_ms,
        |pass: &Pass| pass.verify_ms,
        |pass: &Pass| pass.verify_wall_ms,
    ]
    .map(summary);
    let (median, min, max) = (
        |times: Option<Summary>| times.map(|times| times.median),
        |times: Option<Summary>| times.map(|times| times.min),
        |times: Option<Summary>| times.map(|times| times.max),
    );
    let accuracy = accuracy(passes, subject);
    let setup = session.setup.as_ref();
    SystemRow {
        model: subject.name.clone(),
        parameters: subject.parameters,
        system: session.system.name.clone(),
        status,
        threads,
        passes: passes.len(),
        setup_ms: setup.map(|setup| setup.setup_ms),
        setup_wall_ms: setup.map(|setup| setup.wall_ms),
        witness_ms_median: median(witness),
        witness_ms_min: min(witness),
        witness_ms_max: max(witness),
        prove_ms_median: median(prove),
        prove_ms_min: min(prove),
        prove_ms_max: max(prove),
        prove_wall_ms_median: median(prove_wall),
        prove_wall_ms_min: min(prove_wall),
        prove_wall_ms_max: max(prove_wall),
        verify_ms_median: median(verify),
        verify_ms_min: min(verify),
        verify_ms_max: max(verify),
        verify_wall_ms_median: median(verify_wall),
        verify_wall_ms_min: min(verify_wall),
        verify_wall_ms_max: max(verify_wall),
        proof_bytes: most(|pass| pass.proof_bytes),
        witness_bytes: most(|pass| pass.witness_bytes),
        proving_key_bytes: setup.map(|setup| setup.proving_key_bytes),
        verifying_key_bytes: setup.map(|setup| setup.verifying_key_bytes),
        setup_peak_bytes: setup.map(|setup| setup.peak_bytes),
        prove_peak_bytes: most(|pass| pass.prove_peak_bytes),
        verify_peak_bytes: most(|pass| pass.verify_peak_bytes),
        inputs: accuracy.map(|accuracy| accuracy.inputs),
        input_origin: subject.origin,
        max_abs_error: accuracy.map(|accuracy| accuracy.max_abs_error),
        relative_rmse: accuracy.and_then(|accuracy| accuracy.relative_rmse),
        class_agreement: accuracy.and_then(|accuracy| accuracy.class_agreement),
        control: session.control_rejected.map(|rejected| if rejected { "rejected" } else { "accepted" }),
    }
}

/// The rows of a session's passes, whatever became of it afterwards.
pub fn pass_rows(session: &Session<'_>, subject: &Subject) -> Vec<PassRow> {
    let row = |(index, pass): (usize, &Pass)| PassRow {
        model: subject.name.clone(),
        system: session.system.name.clone(),
        pass: index,
        input: pass.input,
        witness_ms: pass.witness_ms,
        prove_ms: pass.prove_ms,
        prove_wall_ms: pass.prove_wall_ms,
        verify_ms: pass.verify_ms,
        verify_wall_ms: pass.verify_wall_ms,
        proof_bytes: pass.proof_bytes,
        witness_bytes: pass.witness_bytes,
        prove_peak_bytes: pass.prove_peak_bytes,
        verify_peak_bytes: pass.verify_peak_bytes,
        max_abs_error: accuracy(std::slice::from_ref(pass), subject).map(|accuracy| accuracy.max_abs_error),
    };
    session.passes.iter().enumerate().map(row).collect()
}

/// Over the inputs that were proven, each counted once however often it was.
fn accuracy(passes: &[Pass], subject: &Subject) -> Option<Accuracy> {
    let first = |index: &usize| passes.iter().find(|pass| pass.input == *index);
    let pairs = (0..subject.inputs())
        .filter_map(|index| first(&index).map(|pass| (subject.expected[index].as_slice(), pass.output.as_slice())));
    Accuracy::of(&pairs.collect::<Vec<_>>())
}
