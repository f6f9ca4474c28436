//! Who may reach the coordinator, and how much of it each client may have.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use shardproof_common::machine;
use shardproof_proto::transport::{ClientLimits, Gate, ListenArgs, TokenError, Tokens};

/// Who may reach the coordinator.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// How it listens
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Let clients in that show one of the tokens in this file, a line for each as `shardproof token new` prints it
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// What each may have
    #[command(flatten)]
    pub limits: LimitArgs,
}

fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { machine::parse_bytes(text) }
}

/// How much of a coordinator there is. A client is a token's or certificate's name, or else an address.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Runs under way at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_runs: usize,
    /// Largest upload and largest tensor, bytes, with K, M or G
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = machine::parse_bytes)]
    pub max_upload: u64,
    /// Largest proof that is taken from a worker, bytes, with K, M or G
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = machine::parse_bytes)]
    pub max_proof: u64,
    /// Bytes that one worker or client may have stored that no run and no verified proof uses, with K, M or G; 0 for no limit
    #[arg(long, value_name = "BYTES", default_value = "32G", value_parser = bytes_or_none)]
    pub max_unused: u64,
    /// Calls a second by one client, and five times as many at once after a pause; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub client_rate: u32,
    /// Calls of one client under way at a time, followed runs among them; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub client_calls: usize,
    /// Uploads of one client under way at a time; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub client_uploads: usize,
}

impl AccessArgs {
    /// The gate that every call passes.
    ///
    /// # Errors
    /// When the tokens cannot be read.
    pub(crate) fn gate(&self) -> Result<Gate, TokenError> {
        let tokens = self.tokens.as_deref().map(Tokens::read).transpose()?;
        let limits = &self.limits;
        let limits = ClientLimits {
            rate: Some(limits.client_rate).filter(|&rate| rate > 0),
            calls: Some(limits.client_calls).filter(|&calls| calls > 0),
            uploads: Some(limits.client_uploads).filter(|&uploads| uploads > 0),
        };
        Ok(Gate::new(tokens, limits))
    }
}
