//! `shardproof workers`: the owner's view of who works, and its word on who may.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use shardproof_common::receipt::PublicKey;
use shardproof_proto::convert;
use shardproof_proto::v1::{WorkerRecord, WorkerStanding, WorkerStatus};

use crate::cli::Usage;
use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};
use crate::table::{self, Table};

/// Lists the workers with their records, admits keys and revokes them. For the model's owner: with an admin's certificate or token
/// or, without them, on the coordinator's machine.
///
/// From the first admitted key on only admitted keys join; workers that are connected by then stay until they leave. A key that was
/// convicted of a lie is refused for good.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<WorkersCommand>,
}

#[derive(Debug, Subcommand)]
enum WorkersCommand {
    List(ListArgs),
    Admit(AdmitArgs),
    Revoke(RevokeArgs),
}

/// Lists the workers, as `workers` alone does.
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Admits workers by their keys.
#[derive(Debug, Args)]
struct AdmitArgs {
    /// 64 hexadecimal digits; a worker that is refused says its own.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<PublicKey>,
    /// What the worker is called in lists; for one key at a time.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Ends a worker's connection, gives its shard to another, and refuses its key until it is admitted again.
#[derive(Debug, Args)]
struct RevokeArgs {
    /// 64 hexadecimal digits.
    #[arg(value_name = "KEY")]
    key: PublicKey,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// All workers.
#[derive(Debug, Serialize)]
struct WorkersView {
    /// Whether only admitted keys join.
    admission_required: bool,
    workers: Vec<WorkerView>,
}

/// One worker.
#[derive(Debug, Serialize)]
struct WorkerView {
    key: String,
    name: String,
    /// `unlisted`, `admitted`, `revoked` or `convicted`.
    standing: &'static str,
    /// `away`, or one of [`state`]'s.
    state: &'static str,
    role: Option<String>,
    address: Option<String>,
    shard: Option<u32>,
    /// Proofs that passed.
    proved: u64,
    /// Receipts and proofs that did not pass a check.
    failed: u64,
    /// What it owed and did not give.
    refused: u64,
    /// Evidence against it that passed its check.
    convicted: u64,
    /// Unix time, ms.
    last_seen_unix_ms: Option<u64>,
}

/// How a worker that is connected stands: `spare`, `loading`, `ready` or, when it cannot take its shard, `failing`.
pub(crate) fn state(worker: &WorkerStatus) -> &'static str {
    match (worker.shard, worker.ready) {
        (Some(_), true) => "ready",
        _ if !worker.trouble.is_empty() => "failing",
        (None, _) => "spare",
        (Some(_), false) => "loading",
    }
}

/// `shardproof workers`.
pub(crate) async fn run(args: WorkersArgs, output: Output) -> Result<Outcome> {
    match args.command.unwrap_or(WorkersCommand::List(args.list)) {
        WorkersCommand::List(args) => list(&args, output).await,
        WorkersCommand::Admit(args) => admit(&args, output).await,
        WorkersCommand::Revoke(args) => {
            let client = Client::connect(&args.coordinator).await?;
            show_changed(&[client.revoke_worker(args.key).await?], output)
        }
    }
}

async fn list(args: &ListArgs, output: Output) -> Result<Outcome> {
    let listed = Client::connect(&args.coordinator).await?.list_workers().await?;
    let workers = listed.workers.iter().map(WorkerView::read).collect::<Result<Vec<_>>>()?;
    let view = WorkersView { admission_required: listed.admission_required, workers };
    output.data(&view, WorkersView::render)?;
    Ok(Outcome::Success)
}

async fn admit(args: &AdmitArgs, output: Output) -> Result<Outcome> {
    if args.name.is_some() && args.keys.len() > 1 {
        return Err(Usage("--name: give one key with it".to_owned()).into());
    }
    let client = Client::connect(&args.coordinator).await?;
    let open_before = !client.list_workers().await?.admission_required;
    let mut admitted = Vec::new();
    for &key in &args.keys {
        let record = client.admit_worker(key, args.name.as_deref().unwrap_or_default()).await?;
        if record.last_seen_unix_ms == 0 && record.connected.is_none() {
            output.say(&format!(
                "no worker with the key {key} was seen so far: compare it with what the worker's log says"
            ));
        }
        admitted.push(record);
    }
    if open_before {
        output.say("from now on only admitted keys join");
    }
    show_changed(&admitted, output)
}

fn show_changed(changed: &[WorkerRecord], output: Output) -> Result<Outcome> {
    let changed = changed.iter().map(WorkerView::read).collect::<Result<Vec<_>>>()?;
    let line = |worker: &WorkerView| format!("{} {}\n", worker.key, worker.standing);
    output.data(&changed, |changed| changed.iter().map(line).collect())?;
    Ok(Outcome::Success)
}

impl WorkerView {
    fn read(record: &WorkerRecord) -> Result<Self> {
        let key = convert::public_key(&record.key)
            .map_err(|status| anyhow::anyhow!("the coordinator sent a bad worker: {}", status.message()))?;
        let connected = record.connected.as_ref();
        Ok(Self {
            key: key.to_string(),
            name: record.name.chars().filter(|c| !c.is_control()).collect(),
            standing: match record.standing() {
                WorkerStanding::Unspecified | WorkerStanding::Unlisted => "unlisted",
                WorkerStanding::Admitted => "admitted",
                WorkerStanding::Revoked => "revoked",
                WorkerStanding::Convicted => "convicted",
            },
            state: connected.map_or("away", state),
            role: connected.map(|member| member.role.clone()),
            address: connected.map(|member| member.address.clone()),
            shard: connected.and_then(|member| member.shard),
            proved: record.proved,
            failed: record.failed,
            refused: record.refused,
            convicted: record.convicted,
            last_seen_unix_ms: Some(record.last_seen_unix_ms).filter(|&at| at > 0),
        })
    }
}

impl WorkersView {
    fn render(&self) -> String {
        let note = if self.admission_required {
            "only admitted keys join\n"
        } else {
            "any key joins; `shardproof workers admit KEY` closes the door to others\n"
        };
        if self.workers.is_empty() {
            return format!("no workers yet\n{note}");
        }
        let mut table = Table::new(&[
            "worker",
            "name",
            "standing",
            "state",
            "role",
            "shard",
            ">proved",
            ">failed",
            ">refused",
            ">convicted",
        ]);
        for worker in &self.workers {
            table.row([
                worker.key.clone(),
                worker.name.clone(),
                worker.standing.to_owned(),
                worker.state.to_owned(),
                worker.role.clone().unwrap_or_default(),
                worker.shard.map_or_else(String::new, |shard| shard.to_string()),
                table::number(worker.proved),
                table::number(worker.failed),
                table::number(worker.refused),
                table::number(worker.convicted),
            ]);
        }
        format!("{}\n{note}", table.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_laid_out_with_who_is_there() {
        let connected = |shard, ready| Some(WorkerStatus { role: "FIRST".into(), shard, ready, ..Default::default() });
        let record = |n: u8, standing: WorkerStanding, connected| WorkerRecord {
            key: vec![n; 32].into(),
            standing: standing.into(),
            proved: 1234,
            connected,
            ..WorkerRecord::default()
        };
        let records = [
            record(1, WorkerStanding::Admitted, connected(Some(0), true)),
            record(2, WorkerStanding::Unlisted, connected(None, false)),
            record(3, WorkerStanding::Convicted, None),
        ];
        let troubled = WorkerStatus { shard: Some(0), trouble: "disk full".into(), ..Default::default() };
        assert_eq!(state(&troubled), "failing");
        let workers: Vec<WorkerView> = records.iter().map(|record| WorkerView::read(record).unwrap()).collect();
        assert_eq!(workers.iter().map(|worker| worker.state).collect::<Vec<_>>(), ["ready", "spare", "away"]);
        let text = WorkersView { admission_required: true, workers }.render();
        assert!(text.contains(&"01".repeat(32)) && text.contains("1,234") && text.contains("convicted"), "{text}");
        assert!(text.ends_with("only admitted keys join\n"), "{text}");
        assert!(WorkerView::read(&WorkerRecord::default()).is_err(), "no key");
    }
}
