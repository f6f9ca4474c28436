//! `shardproof status`: the model that a coordinator serves, its shards and their workers.

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use shardproof_proto::v1::StatusResponse;

use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};
use crate::table::{self, Table};
use crate::workers;

/// Shows the coordinator's model, shards and workers.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

#[derive(Debug, Serialize)]
struct StatusView {
    model: String,
    backend: String,
    stage: String,
    failure: Option<String>,
    card: bool,
    shards: Vec<ShardView>,
    workers: Vec<WorkerView>,
}

#[derive(Debug, Serialize)]
struct ShardView {
    shard: u32,
    role: String,
    parameters: u64,
    setup_ms: f64,
    setup_cached: bool,
    proving_key_bytes: u64,
    verifying_key_bytes: u64,
    setup_peak_rss_bytes: u64,
    worker: Option<String>,
    ready: bool,
    /// `vacant`, or how its worker stands.
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    key: String,
    role: String,
    address: String,
    shard: Option<u32>,
    ready: bool,
    /// As `shardproof workers` says it.
    state: &'static str,
    connected_ms: u64,
    /// Why it cannot take its shard.
    trouble: Option<String>,
}

/// `shardproof status`.
pub(crate) async fn status(args: StatusArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let view = StatusView::of(client.status().await?);
    output.data(&view, |view| view.render(&args.coordinator))?;
    Ok(if view.failure.is_some() { Outcome::Failure } else { Outcome::Success })
}

impl StatusView {
    fn of(status: StatusResponse) -> Self {
        let state_of: HashMap<String, &'static str> =
            status.workers.iter().map(|worker| (worker.key.clone(), workers::state(worker))).collect();
        let shard = |shard: shardproof_proto::v1::ShardStatus| ShardView {
            shard: shard.shard,
            state: match (shard.worker.is_empty(), shard.ready) {
                (true, _) => "vacant",
                (false, true) => "ready",
                (false, false) => state_of.get(&shard.worker).copied().unwrap_or("loading"),
            },
            role: shard.role,
            parameters: shard.parameters,
            setup_ms: table::ms(shard.setup_us),
            setup_cached: shard.setup_cached,
            proving_key_bytes: shard.proving_key_bytes,
            verifying_key_bytes: shard.verifying_key_bytes,
            setup_peak_rss_bytes: shard.setup_peak_rss_bytes,
            worker: Some(shard.worker).filter(|worker| !worker.is_empty()),
            ready: shard.ready,
        };
        let worker = |worker: shardproof_proto::v1::WorkerStatus| WorkerView {
            state: workers::state(&worker),
            key: worker.key,
            role: worker.role,
            address: worker.address,
            shard: worker.shard,
            ready: worker.ready,
            connected_ms: worker.connected_ms,
            trouble: Some(worker.trouble).filter(|trouble| !trouble.is_empty()),
        };
        Self {
            model: status.model,
            backend: status.backend,
            stage: status.stage,
            failure: Some(status.failure).filter(|failure| !failure.is_empty()),
            card: !status.card.is_empty(),
            shards: status.shards.into_iter().map(shard).collect(),
            workers: status.workers.into_iter().map(worker).collect(),
        }
    }

    fn render(&self, coordinator: &CoordinatorAddress) -> String {
        let mut out = format!("model    {}\nbackend  {}\nstage    {}\n", self.model, self.backend, self.stage);
        if let Some(failure) = &self.failure {
            out.push_str(&format!("failure  {failure}\n"));
        }
        out.push('\n');
        out.push_str(&self.shard_table().render());
        out.push('\n');
        out.push_str(&self.worker_table(coordinator));
        out
    }

    fn shard_table(&self) -> Table {
        let mut table = Table::new(&[
            "shard",
            "role",
            ">parameters",
            ">setup",
            ">proving key",
            ">verifying key",
            "worker",
            "state",
        ]);
        for shard in &self.shards {
            let worker = shard.worker.as_deref().unwrap_or("-").chars().take(8).collect();
            let cached = if shard.setup_cached { " (cached)" } else { "" };
            table.row([
                shard.shard.to_string(),
                shard.role.clone(),
                table::number(shard.parameters),
                table::duration(shard.setup_ms) + cached,
                table::bytes(shard.proving_key_bytes),
                table::bytes(shard.verifying_key_bytes),
                worker,
                shard.state.to_owned(),
            ]);
        }
        table
    }

    fn worker_table(&self, coordinator: &CoordinatorAddress) -> String {
        if self.workers.is_empty() {
            return format!("no workers have joined; start one with: {}\n", self.command_of_worker(coordinator));
        }
        let mut table = Table::new(&["worker", "role", "address", "shard", "state", ">connected"]);
        for worker in &self.workers {
            table.row([
                worker.key.chars().take(8).collect(),
                worker.role.clone(),
                worker.address.clone(),
                worker.shard.map_or_else(|| "-".to_owned(), |shard| shard.to_string()),
                worker.state.to_owned(),
                table::duration(worker.connected_ms as f64),
            ]);
        }
        let troubled = self.workers.iter().filter_map(|worker| Some((worker, worker.trouble.as_ref()?)));
        let reasons = troubled.map(|(worker, why)| format!("worker {:.8} cannot take its shard: {why}\n", worker.key));
        table.render() + &reasons.collect::<String>()
    }

    /// What starts a worker on the coordinator's machine, for the first shard that has none.
    fn command_of_worker(&self, coordinator: &CoordinatorAddress) -> String {
        let (host, port) = coordinator.coordinator.rsplit_once(':').unwrap_or((&coordinator.coordinator, "8000"));
        // Beside the coordinator, and by its number, since a worker's data directory is named after it.
        let own = port.parse().ok().and_then(|port: u16| port.checked_add(1)).unwrap_or(8001);
        let vacant = self.shards.iter().find(|shard| shard.worker.is_none());
        let role = vacant.map_or("SOLO", |shard| shard.role.as_str());
        let tls = if coordinator.connect.tls.is_some() { " --tls DIR" } else { "" };
        format!("shardproof worker localhost {own} {host} {port} {role}{tls}")
    }
}

#[cfg(test)]
mod tests {
    use shardproof_proto::transport::ConnectArgs;
    use shardproof_proto::v1::{ShardStatus, WorkerStatus};

    use super::*;

    fn at(coordinator: &str) -> CoordinatorAddress {
        CoordinatorAddress { coordinator: coordinator.to_owned(), connect: ConnectArgs::default() }
    }

    #[test]
    fn vacant_shards_and_spares_are_named() {
        let shard = |shard, worker: &str, ready| ShardStatus {
            shard,
            role: "MIDDLE".to_owned(),
            worker: worker.to_owned(),
            ready,
            ..ShardStatus::default()
        };
        let failing = WorkerStatus {
            key: "ffffffffff".to_owned(),
            shard: Some(3),
            trouble: "disk full".to_owned(),
            ..WorkerStatus::default()
        };
        let status = StatusResponse {
            model: "mlp".to_owned(),
            shards: vec![
                shard(0, "", false),
                shard(1, "abcdefghij", false),
                shard(2, "abcdefghij", true),
                shard(3, "ffffffffff", false),
            ],
            workers: vec![
                WorkerStatus { key: "0123456789".to_owned(), shard: None, ..WorkerStatus::default() },
                failing,
            ],
            ..StatusResponse::default()
        };
        let view = StatusView::of(status);
        assert_eq!(view.workers[0].state, "spare");
        assert_eq!((view.workers[1].state, view.shards[3].state), ("failing", "failing"));
        let text = view.render(&at("localhost:8000"));
        for state in ["vacant", "abcdefgh  loading", "abcdefgh  ready", "spare"] {
            assert!(text.contains(state), "{state} in {text}");
        }
    }

    #[test]
    fn without_workers_the_next_command_is_named() {
        let shard = |role: &str, worker: &str| ShardStatus {
            role: role.to_owned(),
            worker: worker.to_owned(),
            ..ShardStatus::default()
        };
        let shards = vec![shard("FIRST", "abcdefghij"), shard("LAST", "")];
        let view = StatusView::of(StatusResponse { shards, ..StatusResponse::default() });
        for (coordinator, command) in [
            ("localhost:8000", "shardproof worker localhost 8001 localhost 8000 LAST\n"),
            ("[::1]:65535", "shardproof worker localhost 8001 [::1] 65535 LAST\n"),
        ] {
            let text = view.render(&at(coordinator));
            assert!(text.ends_with(command), "{text}");
        }
        let with_tls = ConnectArgs { tls: Some("client".into()), ..ConnectArgs::default() };
        let text = view.render(&CoordinatorAddress { connect: with_tls, ..at("localhost:8000") });
        assert!(text.ends_with("LAST --tls DIR\n"), "{text}");
    }
}
