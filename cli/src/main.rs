//! The `shardproof` command line.
//!
//! Exit codes: 0 ok, 1 error, 2 usage, 3 verification failed. Data goes to standard output, everything else to standard
//! error.

mod answer;
mod audit;
mod backends;
mod card;
mod card_check;
mod cert;
mod cli;
mod client;
mod demo;
mod doctor;
mod evidence;
mod ezkl;
mod gc;
mod job;
mod model;
mod output;
mod plan;
mod progress;
mod run_view;
mod runs;
mod services;
mod status;
mod table;
mod token;
mod verify;
mod workers;

use std::process::ExitCode;

use mimalloc::MiMalloc;
use shardproof_common::options;

/// The system's allocator gives large tensors back after each run and takes as long as the run to fetch them again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli: cli::Cli = options::parse_commands(&cli::SERVICES);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say(&format!("error: starting the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli.run());
    // A blocking job that was abandoned on an error must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            output::say(&format!("error: {}", cli::describe(&error)));
            cli::exit_code_of(&error)
        }
    }
}
