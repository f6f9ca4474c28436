//! One system on one model: its directory, its steps, and what they gave.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shardproof_common::plan::CalibrationTarget;
use tempfile::TempDir;

use super::contract::{self, Answer, Claim, Prepared, Proven, Said, Verified, file};
use super::error::Stop;
use super::process::{self, Ended, Limits, Step, variable};
use super::subject::Subject;
use super::system::System;

/// What all systems are given alike.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Threads that a step may use.
    pub threads: usize,
    /// What quantisation should aim at.
    pub target: CalibrationTarget,
    /// What a step may use.
    pub limits: Limits,
    /// Where adapters may keep what outlives the benchmark.
    pub cache: PathBuf,
    /// Set once the benchmark is to stop.
    pub interrupted: &'a AtomicBool,
}

/// What setup gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The system's own time, ms.
    pub setup_ms: f64,
    /// The whole process, ms.
    pub wall_ms: f64,
    /// Bytes of the proving key.
    pub proving_key_bytes: u64,
    /// Bytes of the verifying key.
    pub verifying_key_bytes: u64,
    /// Peak memory, bytes.
    pub peak_bytes: u64,
}

/// What one proof and its verification gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Which input.
    pub input: usize,
    /// The system's own times, ms.
    pub witness_ms: f64,
    /// See `witness_ms`.
    pub prove_ms: f64,
    /// See `witness_ms`.
    pub verify_ms: f64,
    /// The whole process of witness and proof, ms.
    pub prove_wall_ms: f64,
    /// The whole process of the verification, ms.
    pub verify_wall_ms: f64,
    /// Bytes of the witness; 0 where it is kept in memory.
    pub witness_bytes: u64,
    /// Bytes of the proof.
    pub proof_bytes: u64,
    /// Peak memory of witness and proof, bytes.
    pub prove_peak_bytes: u64,
    /// Peak memory of the verification, bytes.
    pub verify_peak_bytes: u64,
    /// The model's answer as the system computed it.
    pub output: Vec<f64>,
}

/// One system on one model.
#[derive(Debug)]
pub struct Session<'a> {
    /// The system.
    pub system: &'a System,
    /// What setup gave, once it is done.
    pub setup: Option<Setup>,
    /// What was measured since.
    pub passes: Vec<Pass>,
    /// Whether a claim that was changed was rejected, once that was tried.
    pub control_rejected: Option<bool>,
    /// Why there is no more.
    pub stop: Option<Stop>,
    subject: &'a Subject,
    terms: &'a Terms<'a>,
    directory: TempDir,
}

impl<'a> Session<'a> {
    /// A session in a new directory below `scratch`, with the files that setup reads; `stop` says why it will do nothing.
    ///
    /// # Errors
    /// When the directory cannot be filled.
    pub fn new(
        system: &'a System,
        subject: &'a Subject,
        terms: &'a Terms<'a>,
        scratch: &Path,
        stop: Option<Stop>,
    ) -> std::io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("{}-", system.name)).tempdir_in(scratch)?;
        let session =
            Self { system, subject, terms, directory, setup: None, passes: Vec::new(), control_rejected: None, stop };
        fs::create_dir(session.work())?;
        fs::write(session.work().join(file::MODEL), &subject.onnx)?;
        fs::write(session.work().join(file::SAMPLES), subject.samples_json().to_string())?;
        Ok(session)
    }

    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        self.stop.is_none()
    }

    /// Setup, unless the session has stopped.
    pub fn prepare(&mut self) {
        if self.goes_on() {
            match self.try_prepare() {
                Ok(setup) => self.setup = Some(setup),
                Err(stop) => self.stop = Some(stop),
            }
        }
    }

    /// Proves an input and verifies the proof, and once a changed claim, unless the session has stopped.
    pub fn pass(&mut self, input: usize) {
        if !self.goes_on() {
            return;
        }
        let outcome = self.try_pass(input).and_then(|pass| {
            self.passes.push(pass);
            if self.control_rejected.is_none() { self.control() } else { Ok(()) }
        });
        self.stop = outcome.err();
    }

    fn try_prepare(&self) -> Result<Setup, Stop> {
        let (ended, said) = self.step::<Prepared>("prepare", &self.system.steps.prepare)?;
        let size = |names| contract::size_of(&self.work(), names);
        Ok(Setup {
            setup_ms: said.result.setup_ms,
            wall_ms: ms(ended.wall),
            proving_key_bytes: size(&said.result.proving_key)?,
            verifying_key_bytes: size(&said.result.verifying_key)?,
            peak_bytes: peak(&ended, &said),
        })
    }

    fn try_pass(&self, input: usize) -> Result<Pass, Stop> {
        let path = self.work().join(file::INPUT);
        let text = self.subject.input_json(input).to_string();
        fs::write(&path, text).map_err(|error| Stop::Failed(format!("{}: {error}", file::INPUT)))?;
        let (proving, proven) = self.step::<Proven>("prove", &self.system.steps.prove)?;
        let (expected, found) = (self.subject.expected[input].len(), proven.result.output.len());
        if expected != found {
            return Err(Stop::Failed(format!("prove gave an answer of {found} values, the model has {expected}")));
        }
        // The claim that is verified is one that the control can be made of.
        Claim::read(&self.work())?;
        let (verifying, verified) = self.step::<Verified>("verify", &self.system.steps.verify)?;
        if !verified.result.accepted {
            return Err(Stop::Failed("the system rejects its own proof".to_owned()));
        }
        Ok(Pass {
            input,
            witness_ms: proven.result.witness_ms,
            prove_ms: proven.result.prove_ms,
            verify_ms: verified.result.verify_ms,
            prove_wall_ms: ms(proving.wall),
            verify_wall_ms: ms(verifying.wall),
            witness_bytes: contract::size_of(&self.work(), &proven.result.witness)?,
            proof_bytes: contract::size_of(&self.work(), &proven.result.proof)?,
            prove_peak_bytes: peak(&proving, &proven),
            verify_peak_bytes: peak(&verifying, &verified),
            output: proven.result.output,
        })
    }

    /// Verifies the last proof for another claim, which must be rejected; then puts the claim back.
    fn control(&mut self) -> Result<(), Stop> {
        let claim = Claim::read(&self.work())?;
        claim.altered()?.write(&self.work())?;
        let (_, verified) = self.step::<Verified>("verify", &self.system.steps.verify).map_err(|stop| match stop {
            Stop::Failed(reason) | Stop::Unsupported(reason) | Stop::Skipped(reason) => {
                Stop::Failed(format!("the control, a claim with one input value changed, was not judged: {reason}"))
            }
            Stop::Interrupted => Stop::Interrupted,
        })?;
        self.control_rejected = Some(!verified.result.accepted);
        if verified.result.accepted {
            let reason = "the control was accepted: the proof also verifies for another input";
            return Err(Stop::Failed(reason.to_owned()));
        }
        claim.write(&self.work())
    }

    fn step<A: Answer>(&self, name: &str, command: &[String]) -> Result<(Ended, Said<A>), Stop> {
        let environment = environment(self.terms, self.system, &self.work());
        let step =
            Step { name, command, folder: &self.system.folder, environment: &environment, logs: self.directory.path() };
        let ended = process::run(&step, self.terms.limits, self.terms.interrupted)?.succeeded(name)?;
        let said = contract::parse(name, &ended.line)?;
        Ok((ended, said))
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }
}

/// Whether a system can be tried on this machine: what it requires is there, and its installation ran. `scratch` is for
/// logs.
///
/// # Errors
/// [`Stop::Skipped`] says what is missing and what to do about it.
pub fn look_for(system: &System, terms: &Terms<'_>, scratch: &Path) -> Result<(), Stop> {
    let environment = environment(terms, system, scratch);
    let run = |name: &str, command: &[String]| {
        let step = Step { name, command, folder: &system.folder, environment: &environment, logs: scratch };
        process::run(&step, terms.limits, terms.interrupted)
    };
    let skipped = |stop: Stop| match stop {
        Stop::Failed(reason) => Stop::Skipped(reason),
        stop => stop,
    };
    fs::create_dir_all(cache(terms, system)).map_err(|error| Stop::Skipped(format!("the cache: {error}")))?;
    if let Some(require) = &system.require {
        let ended = run("require", &require.command).map_err(skipped)?;
        if !ended.success() {
            return Err(Stop::Skipped(format!("{}; {}", ended.last_words(), require.remedy)));
        }
    }
    match &system.steps.install {
        Some(install) => {
            run("install", install).and_then(|ended| ended.succeeded("install")).map_err(skipped).map(drop)
        }
        None => Ok(()),
    }
}

fn environment(terms: &Terms<'_>, system: &System, work: &Path) -> [(&'static str, OsString); 5] {
    let threads = terms.threads.to_string();
    [
        variable(contract::variable::WORK, work),
        variable(contract::variable::CACHE, cache(terms, system)),
        variable(contract::variable::THREADS, &threads),
        variable("RAYON_NUM_THREADS", &threads),
        variable(contract::variable::TARGET, terms.target.as_str()),
    ]
}

fn cache(terms: &Terms<'_>, system: &System) -> PathBuf {
    terms.cache.join(&system.name)
}

/// The larger of what the benchmark saw and what the step says of itself: sampling misses the end of short steps.
fn peak<R>(ended: &Ended, said: &Said<R>) -> u64 {
    ended.peak_bytes.max(said.peak_bytes.unwrap_or(0))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
