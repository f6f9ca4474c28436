//! The plain Python script that makes the same ezkl calls as the service.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::error::BenchError;

/// The script, which is part of this program so that it is found wherever the program runs.
const SCRIPT: &str = include_str!("../scripts/plain_ezkl.py");

/// What the script is told; see its first lines.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Directory that holds the ezkl package.
    pub site: PathBuf,
    /// Where files go.
    pub directory: PathBuf,
    /// The shard's ONNX file.
    pub model: PathBuf,
    /// Calibration data, ezkl's `input_data`.
    pub samples: PathBuf,
    /// The input to prove, ezkl's `input_data`.
    pub input: PathBuf,
    /// ezkl's run arguments by name.
    pub run_args: BTreeMap<String, Value>,
    /// ezkl's calibration target.
    pub target: String,
    /// ezkl's `scales` of the calibration.
    pub scales: Option<Vec<i32>>,
    /// ezkl's `lookup_safety_margin`.
    pub lookup_safety_margin: f64,
    /// Overrides the calibrated logrows.
    pub logrows: Option<u32>,
    /// Path of the SRS with `{logrows}` in it.
    pub srs: String,
}

/// One call of the script.
#[derive(Clone, Debug)]
pub struct Step {
    /// What the call took by the script's own clock.
    pub call: Duration,
    /// When it was done, counted from the script's start.
    pub done: Duration,
}

#[derive(Deserialize)]
struct Line {
    step: String,
    seconds: f64,
    accepted: bool,
}

/// Runs the script and returns its steps by name.
///
/// # Errors
/// When it fails, or a call does not give what it should.
pub async fn run(python: &Path, job: &Job) -> Result<BTreeMap<String, Step>, BenchError> {
    let (script, config) = (job.directory.join("plain_ezkl.py"), job.directory.join("job.json"));
    fs::write(&script, SCRIPT).map_err(BenchError::io(script.display().to_string()))?;
    let text =
        serde_json::to_vec(job).map_err(|error| BenchError::Io { what: "the job".to_owned(), source: error.into() })?;
    fs::write(&config, text).map_err(BenchError::io(config.display().to_string()))?;

    let started = Instant::now();
    let mut child = Command::new(python)
        .arg(&script)
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| BenchError::Start { path: python.to_owned(), source })?;
    let mut errors = child.stderr.take();
    let complaints = async {
        let mut text = Vec::new();
        if let Some(stderr) = &mut errors {
            stderr.read_to_end(&mut text).await?;
        }
        std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let stdout = child.stdout.take();
    let steps = async {
        let mut steps = BTreeMap::new();
        if let Some(stdout) = stdout {
            let mut lines = BufReader::new(stdout).lines();
            while let Some(line) = lines.next_line().await.map_err(BenchError::io("reading what the script says"))? {
                let (name, step) = step(&line, started.elapsed())?;
                steps.insert(name, step);
            }
        }
        Ok::<_, BenchError>(steps)
    };
    let (steps, text) = tokio::join!(steps, complaints);
    let steps = steps?;
    let status = child.wait().await.map_err(BenchError::io("waiting for the script"))?;
    if !status.success() {
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        return Err(BenchError::Script { status, text: tail });
    }
    Ok(steps)
}

fn step(line: &str, done: Duration) -> Result<(String, Step), BenchError> {
    let wrong = |expected| BenchError::ScriptOutput { line: line.to_owned(), expected };
    let read: Line = serde_json::from_str(line).map_err(|_| wrong("one step as a JSON object"))?;
    if !read.accepted {
        return Err(wrong("a step that ezkl accepts"));
    }
    let call = Duration::try_from_secs_f64(read.seconds).map_err(|_| wrong("a time that is not negative"))?;
    Ok((read.step, Step { call, done }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_not_accepted_is_no_measurement() {
        let (name, step) =
            super::step(r#"{"step": "prove", "seconds": 1.5, "accepted": true}"#, Duration::ZERO).unwrap();
        assert_eq!((name.as_str(), step.call), ("prove", Duration::from_millis(1500)));
        for line in [
            r#"{"step": "verify", "seconds": 1.5, "accepted": false}"#,
            r#"{"step": "prove", "seconds": -1, "accepted": true}"#,
            "Traceback",
        ] {
            assert!(super::step(line, Duration::ZERO).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_script_that_fails_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let job = Job {
            site: path.join("nothing here"),
            directory: path.clone(),
            model: path.clone(),
            samples: path.clone(),
            input: path.clone(),
            run_args: BTreeMap::new(),
            target: "resources".to_owned(),
            scales: None,
            lookup_safety_margin: 2.0,
            logrows: None,
            srs: String::new(),
        };
        // Isolated from packages that the machine may have.
        let python = path.join("python");
        fs::write(&python, "#!/bin/sh\nexec python3 -I \"$@\"\n").unwrap();
        fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = run(&python, &job).await.unwrap_err().to_string();
        assert!(error.contains("ModuleNotFoundError"), "{error}");
    }
}
