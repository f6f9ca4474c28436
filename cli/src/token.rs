//! `shardproof token`: secrets for clients that have no certificate.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use shardproof_proto::transport::{Name, Party, Subject, Token, Tokens};

use crate::output::{Outcome, Output};

/// The commands about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token: prints the secret, which is kept nowhere, and the line for the coordinator's --tokens file.
    New(NewArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Who holds it; each name has one token.
    name: Name,
    /// Its holder may also do what is the admin's.
    #[arg(long)]
    admin: bool,
}

#[derive(Serialize)]
struct Made {
    token: String,
    line: String,
}

/// `shardproof token`.
pub(crate) fn run(command: TokenCommand, output: Output) -> Result<Outcome> {
    let TokenCommand::New(args) = command;
    let token = Token::generate();
    let party = if args.admin { Party::Admin } else { Party::Client };
    let line = Tokens::line(&Subject { party, name: args.name }, token.digest());
    let made = Made { token: token.reveal().to_owned(), line };
    output.data(&made, |made| {
        format!(
            "token, for its holder alone, in a file for --token-file or in SHARDPROOF_TOKEN:\n  {}\nline for the \
             coordinator's --tokens file:\n  {}\n",
            made.token, made.line
        )
    })?;
    Ok(Outcome::Success)
}
