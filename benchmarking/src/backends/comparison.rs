//! The measurement: all systems on each model, taking turns.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::error::{ComparisonError, Stop};
use super::manifest::SystemConditions;
use super::output;
use super::progress::Progress;
use super::record::{PassRow, SystemRow, pass_rows, system_row};
use super::session::{Session, Terms, look_for};
use super::subject::Subject;
use super::system::System;
use crate::conditions::Conditions;

/// What is compared.
#[derive(Debug)]
pub struct Request<'a> {
    /// The models.
    pub subjects: &'a [Subject],
    /// The systems.
    pub systems: &'a [System],
    /// How often each system proves each model, at least.
    pub repeats: usize,
    /// What all systems are given alike.
    pub terms: Terms<'a>,
    /// Where tables and plots go.
    pub out: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub(super) benchmark: &'static str,
    /// Under which conditions.
    #[serde(flatten)]
    pub setting: Setting,
    /// Whether the benchmark was stopped before it was done.
    pub interrupted: bool,
    /// One row for each model and system.
    pub rows: Vec<SystemRow>,
    /// One row for each proof.
    pub passes: Vec<PassRow>,
}

/// Under which conditions systems were compared; the content of `conditions.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The machine and this program.
    pub machine: Conditions,
    /// Threads that every step might use.
    pub threads: usize,
    /// What quantisation aimed at.
    pub target: &'static str,
    /// Wall-clock limit of a step, s.
    pub time_limit_s: f64,
    /// Memory limit of a step, bytes.
    pub memory_limit_bytes: u64,
    /// The models, where systems are compared on any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The systems.
    pub systems: Vec<Participant>,
}

/// A system with its conditions.
#[derive(Clone, Debug, Serialize)]
pub struct Participant {
    /// In tables.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The rest.
    #[serde(flatten)]
    pub conditions: SystemConditions,
}

impl Setting {
    /// That of this moment.
    pub fn new(systems: &[System], terms: &Terms<'_>) -> Self {
        let participant = |system: &System| Participant {
            name: system.name.clone(),
            about: system.about.clone(),
            conditions: system.conditions.clone(),
        };
        Self {
            machine: Conditions::now(),
            threads: terms.threads,
            target: terms.target.as_str(),
            time_limit_s: terms.limits.time.as_secs_f64(),
            memory_limit_bytes: terms.limits.memory_bytes,
            models: Vec::new(),
            systems: systems.iter().map(participant).collect(),
        }
    }
}

/// For each system why it cannot be tried at all, if it cannot.
///
/// # Errors
/// When there is no directory for logs.
pub fn absences(systems: &[System], terms: &Terms<'_>) -> Result<Vec<Option<Stop>>, ComparisonError> {
    let scratch = scratch()?;
    Ok(systems.iter().map(|system| look_for(system, terms, scratch.path()).err()).collect())
}

/// A directory for what lasts as long as the measurement.
pub(super) fn scratch() -> Result<tempfile::TempDir, ComparisonError> {
    let directory = std::env::temp_dir();
    tempfile::Builder::new()
        .prefix("backend-benchmark-")
        .tempdir_in(&directory)
        .map_err(ComparisonError::io(&directory))
}

/// Measures: setup of all systems, then rounds in each of which every system proves and verifies once, another one first
/// each time. Tables are written after each model, plots at the end.
///
/// # Errors
/// When results cannot be written. What a system does wrong is part of its row.
pub fn measure(request: &Request<'_>) -> Result<Comparison, ComparisonError> {
    let Request { subjects, systems, terms, .. } = request;
    let models = subjects.iter().map(|subject| subject.name.clone()).collect();
    let setting = Setting { models, ..Setting::new(systems, terms) };
    let mut comparison =
        Comparison { benchmark: "backends", setting, interrupted: false, rows: Vec::new(), passes: Vec::new() };
    let steps = subjects.iter().map(|subject| systems.len() * (1 + rounds(request, subject))).sum::<usize>();
    let mut progress = Progress::new((steps + systems.len().min(1)) as u64);
    progress.begin("looking for the systems");
    let absences = absences(systems, terms)?;
    for subject in *subjects {
        let sessions = sessions(request, subject, &absences, &mut progress)?;
        comparison.rows.extend(sessions.iter().map(|session| system_row(session, subject, terms.threads)));
        comparison.passes.extend(sessions.iter().flat_map(|session| pass_rows(session, subject)));
        comparison.interrupted = terms.interrupted.load(Ordering::Relaxed);
        output::write_tables(&comparison, &request.out)?;
    }
    drop(progress);
    output::write_plots(&comparison, &request.out)?;
    Ok(comparison)
}

/// Enough for the repeats and for every input.
fn rounds(request: &Request<'_>, subject: &Subject) -> usize {
    request.repeats.max(subject.inputs())
}

/// All systems on one model.
fn sessions<'a>(
    request: &'a Request<'_>,
    subject: &'a Subject,
    absences: &[Option<Stop>],
    progress: &mut Progress,
) -> Result<Vec<Session<'a>>, ComparisonError> {
    let Request { systems, terms, .. } = request;
    let scratch = scratch()?;
    let rounds = rounds(request, subject);
    let mut sessions = Vec::with_capacity(systems.len());
    for (system, absence) in systems.iter().zip(absences) {
        let stop = match absence {
            Some(stop) => Some(stop.clone()),
            None => too_large(system, subject, terms)?,
        };
        if let Some(stop) = &stop {
            progress.leave_out(1 + rounds as u64);
            progress.say(&format!("{}: {}: {stop}", subject.name, system.name));
        }
        let session = Session::new(system, subject, terms, scratch.path(), stop);
        sessions.push(session.map_err(ComparisonError::io(scratch.path()))?);
    }
    for session in &mut sessions {
        turn(session, subject, "setup", rounds, progress, Session::prepare);
    }
    for round in 0..rounds {
        for place in 0..sessions.len() {
            let session = &mut sessions[(round + place) % systems.len()];
            let what = format!("proof {} of {rounds}", round + 1);
            turn(session, subject, &what, rounds - round - 1, progress, |session| {
                session.pass(round % subject.inputs());
            });
        }
    }
    // What sessions measured goes on; their files, keys of gigabytes among them, end with the directory that holds them.
    Ok(sessions)
}

/// One system's turn, if it goes on; `left` are those that it would have after this one.
fn turn<'a>(
    session: &mut Session<'a>,
    subject: &Subject,
    what: &str,
    left: usize,
    progress: &mut Progress,
    action: impl FnOnce(&mut Session<'a>),
) {
    if !session.goes_on() {
        return;
    }
    let name = &session.system.name;
    progress.begin(&format!("{}: {name}: {what}", subject.name));
    action(session);
    if let Some(stop) = &session.stop {
        progress.leave_out(left as u64);
        if *stop != Stop::Interrupted {
            progress.say(&format!("{}: {}: {stop}", subject.name, session.system.name));
        }
    }
}

/// Why a model is not tried: the planner predicts more memory than there may be.
fn too_large(system: &System, subject: &Subject, terms: &Terms<'_>) -> Result<Option<Stop>, ComparisonError> {
    let limit = terms.limits.memory_bytes;
    let predicted = subject.predicted_memory(system.builtin)?.filter(|&predicted| predicted > limit);
    Ok(predicted.map(|predicted| {
        let mebibytes = |bytes: u64| bytes >> 20;
        let (predicted, limit) = (mebibytes(predicted), mebibytes(limit));
        Stop::Skipped(format!("predicted {predicted} MiB of memory, more than the limit of {limit} MiB"))
    }))
}
