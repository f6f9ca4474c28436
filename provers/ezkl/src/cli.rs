//! The runner that drives the `ezkl` program: one process per call.
//!
//! The program knows nothing of this one, so it cannot ask to die with it; `setpriv` does so on its behalf where the
//! machine has it. Without it a call that runs while this process is killed ends by itself later.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use shardproof_common::backend::BackendError;

use crate::VERSION;
use crate::child::Child;
use crate::frame::Frame;
use crate::runner::{CallError, Op, RunArgs, Runner};

/// How much of what the program writes to standard output is kept.
const KEPT_LINES: usize = 200;

/// The `ezkl` program, found to be of the pinned version.
pub(crate) struct CliRunner {
    program: PathBuf,
    peak_bytes: u64,
}

impl CliRunner {
    /// Asks the program for its version.
    ///
    /// # Errors
    /// [`BackendError::Missing`] when there is no such program, or it is another version.
    pub(crate) fn start(program: &Path, frame: &Frame<'_>) -> Result<Self, BackendError> {
        let mut runner = Self { program: program.to_owned(), peak_bytes: 0 };
        let said = match runner.run("version", &["--version".into()], frame) {
            Ok(said) => said,
            Err(CallError::Refused { message, .. }) => message,
            Err(CallError::Backend(error)) => return Err(error),
        };
        let is_pinned = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').any(|word| word == VERSION);
        if is_pinned {
            return Ok(runner);
        }
        Err(BackendError::Missing(format!(
            "expected ezkl {VERSION}, but {} --version says `{}`",
            program.display(),
            said.trim()
        )))
    }

    fn run(&mut self, step: &str, arguments: &[OsString], frame: &Frame<'_>) -> Result<String, CallError> {
        let mut command = tied_to_this_process(&self.program);
        command.args(arguments);
        let missing = |error| BackendError::Missing(format!("cannot run `{}`: {error}", self.program.display()));
        let mut child = Child::start(command, None).map_err(missing)?;
        let mut lines = Vec::new();
        while let Some(line) = child.next_line(step, frame)? {
            lines.push(line);
            if lines.len() > KEPT_LINES {
                lines.drain(..KEPT_LINES / 2);
            }
        }
        let ending = child.end(step, frame)?;
        self.peak_bytes = self.peak_bytes.max(child.peak_rss_bytes());
        let said = lines.join("\n") + "\n" + &ending.text;
        match ending.status.code() {
            Some(0) => Ok(said),
            Some(CANNOT_EXECUTE) if said.contains("setpriv: ") => {
                Err(BackendError::Missing(format!("cannot run `{}`: {}", self.program.display(), said.trim())).into())
            }
            Some(_) => Err(CallError::Refused { message: last_lines(&said), text: String::new() }),
            None => Err(child.unexpected_end(step, frame).into()),
        }
    }
}

/// What `setpriv` exits with when there is no program to run.
const CANNOT_EXECUTE: i32 = 127;

impl Runner for CliRunner {
    fn call(&mut self, op: &Op<'_>, frame: &Frame<'_>) -> Result<String, CallError> {
        self.run(op.step(), &arguments_of(op), frame)
    }

    fn peak_rss_bytes(&self) -> u64 {
        self.peak_bytes
    }
}

fn tied_to_this_process(program: &Path) -> Command {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let Some(setpriv) = std::env::split_paths(&directories).map(|dir| dir.join("setpriv")).find(|path| path.is_file())
    else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 6;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

/// The program's arguments for one call.
fn arguments_of(op: &Op<'_>) -> Vec<OsString> {
    let mut arguments = Arguments::default();
    match op {
        Op::GenSettings { model, settings, run_args } => arguments
            .command("gen-settings")
            .path("--model", model)
            .path("--settings-path", settings)
            .run_args(run_args),
        Op::Calibrate { data, model, settings, target, scales, lookup_safety_margin, max_logrows } => {
            arguments.command("calibrate-settings").path("--data", data).path("--model", model);
            arguments.path("--settings-path", settings).flag("--target", target);
            arguments.flag("--lookup-safety-margin", lookup_safety_margin).flag("--scale-rebase-multiplier", "1");
            if let Some(scales) = scales {
                arguments.flag("--scales", scales.iter().map(i32::to_string).collect::<Vec<_>>().join(","));
            }
            if let Some(max_logrows) = max_logrows {
                arguments.flag("--max-logrows", max_logrows);
            }
            &mut arguments
        }
        Op::Compile { model, circuit, settings } => arguments
            .command("compile-circuit")
            .path("--model", model)
            .path("--compiled-circuit", circuit)
            .path("--settings-path", settings),
        Op::GenSrs { srs, logrows } => arguments.command("gen-srs").path("--srs-path", srs).flag("--logrows", logrows),
        Op::Setup { circuit, vk, pk, srs } => arguments
            .command("setup")
            .path("--compiled-circuit", circuit)
            .path("--vk-path", vk)
            .path("--pk-path", pk)
            .path("--srs-path", srs),
        Op::Witness { data, circuit, output, vk, srs } => {
            arguments.command("gen-witness").flag("--data", format!("@{}", data.display()));
            arguments.path("--compiled-circuit", circuit).path("--output", output);
            if let Some(vk) = vk {
                arguments.path("--vk-path", vk);
            }
            if let Some(srs) = srs {
                arguments.path("--srs-path", srs);
            }
            &mut arguments
        }
        Op::Mock { witness, circuit } => arguments.command("mock").path("--witness", witness).path("--model", circuit),
        Op::Prove { witness, circuit, pk, proof, srs } => arguments
            .command("prove")
            .path("--witness", witness)
            .path("--compiled-circuit", circuit)
            .path("--pk-path", pk)
            .path("--proof-path", proof)
            .path("--srs-path", srs)
            .flag("--check-mode", "safe"),
        Op::Verify { proof, settings, vk, srs, reduced_srs } => {
            arguments.command("verify").path("--proof-path", proof).path("--settings-path", settings);
            arguments.path("--vk-path", vk).path("--srs-path", srs);
            if *reduced_srs {
                arguments.0.push("--reduced-srs".into());
            }
            &mut arguments
        }
    };
    arguments.0
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn command(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.0.extend([name.into(), path.into()]);
        self
    }

    fn flag(&mut self, name: &str, value: impl ToString) -> &mut Self {
        // One word, so that a negative number is not taken for another flag.
        self.0.push(format!("{name}={}", value.to_string()).into());
        self
    }

    fn run_args(&mut self, run_args: &RunArgs) -> &mut Self {
        let RunArgs {
            input_visibility,
            output_visibility,
            param_visibility,
            input_scale,
            param_scale,
            decomp_base,
            decomp_legs,
            check_mode,
            lookup_range,
            logrows,
        } = run_args;
        self.flag("--input-visibility", input_visibility).flag("--output-visibility", output_visibility);
        self.flag("--param-visibility", param_visibility).flag("--check-mode", check_mode);
        self.flag("--decomp-base", decomp_base).flag("--decomp-legs", decomp_legs);
        if let Some(scale) = input_scale {
            self.flag("--input-scale", scale);
        }
        if let Some(scale) = param_scale {
            self.flag("--param-scale", scale);
        }
        if let Some((lowest, highest)) = lookup_range {
            self.flag("--lookup-range", format!("{lowest}->{highest}"));
        }
        if let Some(logrows) = logrows {
            self.flag("--logrows", logrows);
        }
        self
    }
}
