//! `shardproof status`: the model that a coordinator serves, its shards and their workers.

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use shardproof_proto::v1::StatusResponse;

use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};
use crate::table::{self, Table};

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
}

#[derive(Debug, Serialize)]
struct WorkerView {
    key: String,
    role: String,
    address: String,
    shard: Option<u32>,
    ready: bool,
    connected_ms: u64,
    /// Why it cannot take its shard.
    trouble: Option<String>,
}

/// `shardproof status`.
pub(crate) async fn status(args: StatusArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let view = StatusView::of(client.status().await?);
    output.data(&view, StatusView::render)?;
    Ok(if view.failure.is_some() { Outcome::Failure } else { Outcome::Success })
}

impl StatusView {
    fn of(status: StatusResponse) -> Self {
        let shard = |shard: shardproof_proto::v1::ShardStatus| ShardView {
            shard: shard.shard,
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

    fn render(&self) -> String {
        let mut out = format!("model    {}\nbackend  {}\nstage    {}\n", self.model, self.backend, self.stage);
        if let Some(failure) = &self.failure {
            out.push_str(&format!("failure  {failure}\n"));
        }
        out.push('\n');
        out.push_str(&self.shard_table().render());
        out.push('\n');
        out.push_str(&self.worker_table());
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
            let state = match (&shard.worker, shard.ready) {
                (None, _) => "vacant",
                (Some(_), false) => "loading",
                (Some(_), true) => "ready",
            };
            let cached = if shard.setup_cached { " (cached)" } else { "" };
            table.row([
                shard.shard.to_string(),
                shard.role.clone(),
                table::number(shard.parameters),
                table::duration(shard.setup_ms) + cached,
                table::bytes(shard.proving_key_bytes),
                table::bytes(shard.verifying_key_bytes),
                worker,
                state.to_owned(),
            ]);
        }
        table
    }

    fn worker_table(&self) -> String {
        if self.workers.is_empty() {
            return "no workers have joined; start one with: shardproof worker localhost 0 HOST PORT ROLE\n".to_owned();
        }
        let mut table = Table::new(&["worker", "role", "address", "shard", "state", ">connected"]);
        for worker in &self.workers {
            table.row([
                worker.key.chars().take(8).collect(),
                worker.role.clone(),
                worker.address.clone(),
                worker.shard.map_or_else(|| "spare".to_owned(), |shard| shard.to_string()),
                worker.state().to_owned(),
                table::duration(worker.connected_ms as f64),
            ]);
        }
        let troubled = self.workers.iter().filter_map(|worker| Some((worker, worker.trouble.as_ref()?)));
        let reasons = troubled.map(|(worker, why)| format!("worker {:.8} cannot take its shard: {why}\n", worker.key));
        table.render() + &reasons.collect::<String>()
    }
}

impl WorkerView {
    fn state(&self) -> &'static str {
        match (&self.trouble, self.ready) {
            (_, true) => "ready",
            (Some(_), false) => "failing",
            (None, false) => "loading",
        }
    }
}

#[cfg(test)]
mod tests {
    use shardproof_proto::v1::{ShardStatus, WorkerStatus};

    use super::*;

    #[test]
    fn vacant_shards_and_spares_are_named() {
        let shard = |shard, worker: &str, ready| ShardStatus {
            shard,
            role: "MIDDLE".to_owned(),
            worker: worker.to_owned(),
            ready,
            ..ShardStatus::default()
        };
        let status = StatusResponse {
            model: "mlp".to_owned(),
            shards: vec![shard(0, "", false), shard(1, "abcdefghij", false), shard(2, "abcdefghij", true)],
            workers: vec![WorkerStatus { key: "0123456789".to_owned(), shard: None, ..WorkerStatus::default() }],
            ..StatusResponse::default()
        };
        let text = StatusView::of(status).render();
        for state in ["vacant", "abcdefgh  loading", "abcdefgh  ready", "spare"] {
            assert!(text.contains(state), "{state} in {text}");
        }
    }

    #[test]
    fn without_workers_the_next_command_is_named() {
        let text = StatusView::of(StatusResponse::default()).render();
        assert!(text.contains("shardproof worker"), "{text}");
    }
}
