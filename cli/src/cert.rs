//! `shardproof cert`: a development authority and the certificates that it issues.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use shardproof_authority::{AUTHORITY_KEY_FILE, AUTHORITY_VALIDITY, Authority, Leaf};
use shardproof_common::address;
use shardproof_proto::transport::{AUTHORITY_FILE, Name, Party, Subject};

use crate::output::{Outcome, Output};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The commands about certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Makes an authority: its key, which stays where it is, and the certificate that everyone trusts.
    Init(InitArgs),
    /// Issues a certificate for one program or person, in the directory that `--tls` takes.
    Issue(IssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Directory for the authority; who has it can pass for anyone.
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Directory of the authority.
    authority: PathBuf,
    /// What its holder is: coordinator, worker, client or admin.
    #[arg(long, value_name = "ROLE")]
    role: Party,
    /// Host name or IP address that others connect to it at; for coordinators and workers, may be given again.
    #[arg(long = "host", value_name = "HOST", value_parser = host)]
    hosts: Vec<String>,
    /// Name of its holder, in logs and limits [default: the first host, else the role].
    #[arg(long)]
    name: Option<Name>,
    /// Days that it is valid for.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// New directory for ca.pem, cert.pem and key.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Made {
    directory: PathBuf,
    holder: Option<String>,
    hosts: Vec<String>,
    days: u64,
}

/// A host name, also one with `*` for its first part, or an IP address.
fn host(text: &str) -> Result<String, String> {
    let host = address::bare(text);
    match address::is_host(host.strip_prefix("*.").unwrap_or(host)) {
        true => Ok(host.to_owned()),
        false => Err("expected a host name or an IP address, without a port".to_owned()),
    }
}

/// `shardproof cert`.
pub(crate) fn run(command: CertCommand, output: Output) -> Result<Outcome> {
    match command {
        CertCommand::Init(args) => init(args, output),
        CertCommand::Issue(args) => issue(args, output),
    }
}

fn init(args: InitArgs, output: Output) -> Result<Outcome> {
    Authority::create(&args.directory)?;
    let days = AUTHORITY_VALIDITY.as_secs() / DAY.as_secs();
    let made = Made { directory: args.directory, holder: None, hosts: Vec::new(), days };
    output.data(&made, |made| {
        let shown = made.directory.display();
        format!(
            "{shown}/{AUTHORITY_FILE}   what everyone trusts\n{shown}/{AUTHORITY_KEY_FILE}   keep it from everyone, and off \
             the machines of the service\nvalid for {} days; next: shardproof cert issue {shown} --role coordinator --host \
             HOST --out DIR\n",
            made.days
        )
    })?;
    Ok(Outcome::Success)
}

fn issue(args: IssueArgs, output: Output) -> Result<Outcome> {
    let connected_to = matches!(args.role, Party::Coordinator | Party::Worker);
    if connected_to && args.hosts.is_empty() {
        bail!("a {} is connected to: give --host with each name or address that others use for it", args.role);
    }
    let name = match (&args.name, args.hosts.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(host)) => {
            let name = host.replace(':', "-").parse();
            name.with_context(|| format!("--host {host} makes no name: give --name"))?
        }
        (None, None) => args.role.as_str().parse()?,
    };
    let leaf = Leaf::new(Subject { party: args.role, name }, args.hosts.clone(), DAY * args.days);
    Authority::open(&args.authority)?.issue(&leaf)?.write(&args.out)?;
    let holder = Some(leaf.subject.to_string());
    let made = Made { directory: args.out, holder, hosts: args.hosts, days: args.days.into() };
    output.data(&made, |made| {
        let hosts = if made.hosts.is_empty() { String::new() } else { format!(" at {}", made.hosts.join(", ")) };
        let holder = made.holder.as_deref().unwrap_or_default();
        format!("{}   {holder}{hosts}, valid for {} days; use it with --tls\n", made.directory.display(), made.days)
    })?;
    Ok(Outcome::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_names_and_addresses_without_ports() {
        for (given, expected) in
            [("localhost", "localhost"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1"), ("*.a.org", "*.a.org")]
        {
            assert_eq!(host(given).as_deref(), Ok(expected));
        }
        for wrong in ["localhost:8000", "[::1]:8000", "http://localhost", "a b", "", "a/b", "*"] {
            assert!(host(wrong).unwrap_err().contains("without a port"), "{wrong}");
        }
    }
}
