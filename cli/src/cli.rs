//! The commands and their dispatch.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use shardproof_common::telemetry::{self, LogFormat};
use shardproof_coordinator::CoordinatorArgs;
use shardproof_worker::WorkerArgs;

use crate::output::{Outcome, Output};
use crate::{card, cert, demo, doctor, evidence, ezkl, gc, plan, runs, services, status, token, verify, workers};

/// The commands that are programs as well, and take their options from wherever those take them.
pub(crate) const SERVICES: [&str; 2] = ["coordinator", "worker"];

/// Verifiable inference of ONNX models in shards.
#[derive(Debug, Parser)]
#[command(name = "shardproof", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 verification failed.")]
pub(crate) struct Cli {
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Say more on standard error.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    /// Runs a coordinator: plans, sets up, assigns shards to workers, verifies.
    #[command(arg(without_json()))]
    Coordinator(Box<CoordinatorArgs>),
    /// Runs a worker: runs one shard, proves on request.
    #[command(arg(without_json()))]
    Worker(Box<WorkerArgs>),
    Plan(plan::PlanCommand),
    Infer(runs::InferArgs),
    Prove(runs::ProveArgs),
    Verify(verify::VerifyArgs),
    Evidence(evidence::EvidenceArgs),
    Watch(runs::WatchArgs),
    Cancel(runs::CancelArgs),
    Runs(runs::RunsArgs),
    Status(status::StatusArgs),
    Workers(workers::WorkersArgs),
    /// Model cards: show, fetch, check.
    #[command(subcommand)]
    Card(card::CardCommand),
    Gc(gc::GcArgs),
    /// Certificates for --tls: make an authority, issue.
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Tokens for clients without a certificate.
    #[command(subcommand)]
    Token(token::TokenCommand),
    Doctor(doctor::DoctorArgs),
    Ezkl(Box<ezkl::EzklArgs>),
    /// Prints a completion script for a shell.
    #[command(arg(without_json()))]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `--json` where there is no data to print: not shown, and refused.
fn without_json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).hide(true)
}

/// A wrong use of the command line that shows only after parsing; exits 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The error with its causes in one line.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    telemetry::describe(error.as_ref())
}

/// Exit code of a command that failed.
pub(crate) fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Usage>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from running to its end.
    pub(crate) async fn run(self) -> Result<Outcome> {
        let output = Output::new(self.json, self.verbose);
        match self.command {
            Command::Coordinator(_) | Command::Worker(_) if self.json => {
                return Err(
                    Usage("--json: services print no data; --log-format json is for their log".to_owned()).into()
                );
            }
            Command::Completions { .. } if self.json => {
                return Err(Usage("--json: a completion script is no data".to_owned()).into());
            }
            _ => {}
        }
        // The services log in their own way.
        if !matches!(self.command, Command::Coordinator(_) | Command::Worker(_)) {
            telemetry::init(if self.verbose { "info" } else { "warn" }, LogFormat::Text);
        }
        match self.command {
            Command::Demo(args) => demo::run(args, output).await,
            Command::Coordinator(args) => services::coordinator(*args).await,
            Command::Worker(args) => services::worker(*args).await,
            Command::Plan(args) => plan::run(&args, output),
            Command::Infer(args) => runs::infer(args, output).await,
            Command::Prove(args) => runs::prove(args, output).await,
            Command::Verify(args) => verify::run(args, output).await,
            Command::Evidence(args) => evidence::fetch(args, output).await,
            Command::Watch(args) => runs::watch(args, output).await,
            Command::Cancel(args) => runs::cancel(args, output).await,
            Command::Runs(args) => runs::list(args, output).await,
            Command::Status(args) => status::status(args, output).await,
            Command::Workers(args) => workers::run(args, output).await,
            Command::Card(command) => card::run(command, output).await,
            Command::Gc(args) => gc::run(args, output).await,
            Command::Cert(command) => cert::run(command, output),
            Command::Token(command) => token::run(command, output),
            Command::Doctor(args) => doctor::run(args, output).await,
            Command::Ezkl(args) => ezkl::run(*args, output).await,
            Command::Completions { shell } => completions(shell, output),
        }
    }
}

fn completions(shell: Shell, output: Output) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shardproof", &mut script);
    output.raw(&script)?;
    Ok(Outcome::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause).context("x: disk full").context("writing");
        assert_eq!(describe(&error), "writing: x: disk full");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every option of a command and those below it whose value is said to be a `kind`.
    fn options(command: &clap::Command, kind: &str) -> Vec<(clap::Command, String)> {
        let takes = |arg: &&Arg| arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == kind));
        let own = command.get_arguments().filter(takes).filter_map(|arg| arg.get_long());
        let own = own.map(|long| (command.clone(), long.to_owned()));
        own.chain(command.get_subcommands().flat_map(|below| options(below, kind))).collect()
    }

    #[test]
    fn durations_beyond_any_clock_are_refused() {
        for (kind, value, count) in [("SECS", u64::MAX.to_string(), 10), ("DURATION", format!("{}ms", u64::MAX), 6)] {
            let options = options(&Cli::command(), kind);
            assert!(options.len() >= count, "{kind}: {options:?}");
            for (command, long) in options {
                let refused = command.try_get_matches_from(["x", &format!("--{long}={value}")]).unwrap_err();
                assert_eq!(refused.kind(), clap::error::ErrorKind::ValueValidation, "{refused}");
                let said = refused.to_string();
                assert!(said.contains(&value) && said.contains(&long), "{said}");
            }
        }
    }

    #[test]
    fn a_run_takes_a_day_at_most() {
        let parsed = |seconds: &str| {
            Cli::try_parse_from(["shardproof", "coordinator", "localhost", "0", "1", "mlp", "--run-deadline", seconds])
        };
        assert!(parsed("86400").is_ok());
        assert!(parsed("86401").unwrap_err().to_string().contains("86401 is not in 0..=86400"));
    }
}
