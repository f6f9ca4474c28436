//! Which operators a system can prove: each probe goes through setup, a proof, its verification and the control.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::Serialize;
use shardproof_models::ModelSource;

use super::accuracy::Accuracy;
use super::comparison::{Setting, absences, scratch};
use super::error::{ComparisonError, Stop};
use super::output::write_conditions;
use super::probes::{Probe, probes};
use super::progress::Progress;
use super::session::{Session, Terms};
use super::subject::Subject;
use super::system::System;
use crate::report;
use crate::table;

/// What is tried.
#[derive(Debug)]
pub struct CompatibilityRequest<'a> {
    /// The systems.
    pub systems: &'a [System],
    /// What all systems are given alike.
    pub terms: Terms<'a>,
    /// Where the table goes.
    pub out: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Compatibility {
    benchmark: &'static str,
    /// Under which conditions.
    #[serde(flatten)]
    setting: Setting,
    /// Whether the benchmark was stopped before it was done.
    pub interrupted: bool,
    /// One row for each probe and system.
    pub rows: Vec<CompatibilityRow>,
}

/// One probe with one system; a row of `compatibility.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompatibilityRow {
    /// The operator.
    pub operator: &'static str,
    /// How it is used.
    pub detail: &'static str,
    /// The system.
    pub system: String,
    /// `yes`, `no`, or `skipped`.
    pub proven: &'static str,
    /// Why not.
    pub reason: String,
    /// Greatest difference from the float answer.
    pub max_abs_error: Option<f64>,
}

/// Tries every probe with every system. The table is written after each probe.
///
/// # Errors
/// When results cannot be written, or a probe is no model here.
pub fn measure(request: &CompatibilityRequest<'_>) -> Result<Compatibility, ComparisonError> {
    let CompatibilityRequest { systems, terms, out } = request;
    fs::create_dir_all(out).map_err(ComparisonError::io(out))?;
    let setting = Setting::new(systems, terms);
    let mut found = Compatibility { benchmark: "compatibility", setting, interrupted: false, rows: Vec::new() };
    let probes = probes();
    let mut progress = Progress::new(1 + probes.len() as u64);
    progress.begin("looking for the systems");
    let absences = absences(systems, terms)?;
    for probe in &probes {
        if terms.interrupted.load(Ordering::Relaxed) {
            break;
        }
        progress.begin(&format!("{} {}", probe.operator, probe.detail));
        let scratch = scratch()?;
        let subject = subject(probe, scratch.path())?;
        for (system, absence) in systems.iter().zip(&absences) {
            let session = Session::new(system, &subject, terms, scratch.path(), absence.clone());
            let mut session = session.map_err(ComparisonError::io(scratch.path()))?;
            session.prepare();
            session.pass(0);
            found.rows.extend(row(probe, &session, &subject));
        }
        table::write(&out.join("compatibility.csv"), &found.rows)?;
    }
    found.interrupted = terms.interrupted.load(Ordering::Relaxed);
    write_conditions(&found.setting, out)?;
    Ok(found)
}

fn subject(probe: &Probe, scratch: &Path) -> Result<Subject, ComparisonError> {
    let path = scratch.join("probe.onnx");
    fs::write(&path, &probe.onnx).map_err(ComparisonError::io(&path))?;
    let source = ModelSource::File(path);
    if probe.positive { Subject::on_positive_inputs(&source, 1) } else { Subject::load(&source, 1) }
}

/// The row of a session that came to an end; nothing of one that was interrupted.
fn row(probe: &Probe, session: &Session<'_>, subject: &Subject) -> Option<CompatibilityRow> {
    let (proven, reason) = match &session.stop {
        None => ("yes", String::new()),
        Some(Stop::Skipped(reason)) => ("skipped", reason.clone()),
        Some(Stop::Unsupported(reason)) => ("no", reason.clone()),
        Some(stop @ Stop::Failed(_)) => ("no", stop.to_string()),
        Some(Stop::Interrupted) => return None,
    };
    let answers = session.passes.iter().map(|pass| (subject.expected[0].as_slice(), pass.output.as_slice()));
    Some(CompatibilityRow {
        operator: probe.operator,
        detail: probe.detail,
        system: session.system.name.clone(),
        proven,
        reason,
        max_abs_error: Accuracy::of(&answers.collect::<Vec<_>>()).map(|accuracy| accuracy.max_abs_error),
    })
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let systems: Vec<&str> = self.setting.systems.iter().map(|system| system.name.as_str()).collect();
        let heading: Vec<&str> = ["operator"].into_iter().chain(systems.iter().copied()).collect();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for chunk in self.rows.chunk_by(|a, b| (a.operator, a.detail) == (b.operator, b.detail)) {
            let cell = |system: &&str| {
                let row = chunk.iter().find(|row| row.system == **system);
                row.map_or_else(|| "-".to_owned(), |row| row.proven.to_owned())
            };
            let name = format!("{} {}", chunk[0].operator, chunk[0].detail);
            rows.push(std::iter::once(name).chain(systems.iter().map(cell)).collect());
        }
        writeln!(f, "{}\n\n{}", self.setting, report::table(&heading, &rows))?;
        for row in self.rows.iter().filter(|row| row.proven == "no") {
            writeln!(f, "{} {}: {}: {}", row.operator, row.detail, row.system, row.reason)?;
        }
        write!(f, "`yes`: set up, proven, verified, and a claim with one input value changed was rejected.")
    }
}
