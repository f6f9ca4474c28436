//! Measuring one configuration: real processes, driven as a client drives them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use shardproof_common::tensor::FloatTensor;
use shardproof_proto::v1::{Run, RunState, ShardProgress};
use tokio::process::Command;

use super::configuration::{Configuration, ProvenBy};
use super::record::{Figures, Pass, ProcessFigures, ShardFigures, ShardPass};
use crate::client::{Client, Serving};
use crate::error::BenchError;
use crate::memory::MemoryWatch;
use crate::processes::{Cluster, Programs, Stopped, WorkerOptions};
use crate::progress::Progress;

/// How often, and with what pause, it is asked whether a program ended when a connection was lost.
const LAST_WORDS_TRIES: u32 = 100;
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(50);

/// What is measured, and within which limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) programs: &'a Programs,
    /// The model's input.
    pub(super) input: &'a [FloatTensor],
    /// Trained values of the model.
    pub(super) parameters: u64,
    /// What each shard is predicted to need, bytes.
    pub(super) predicted: &'a [u64],
    pub(super) memory_limit: u64,
    pub(super) repeats: usize,
    /// Whether shards are proven one after the other only.
    pub(super) apart_only: bool,
    /// Options of the coordinator beyond the configuration's.
    pub(super) coordinator_options: &'a [String],
}

impl Measurement<'_> {
    /// Starts the service with data and logs below `directory`, measures, and ends it on every way out.
    pub(super) async fn run(&self, directory: &Path, progress: &Progress) -> Result<Figures, BenchError> {
        let mut options = self.configuration.arguments();
        options.push(format!("--memory-limit={}", self.memory_limit));
        options.extend_from_slice(self.coordinator_options);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let Configuration { model, shards, .. } = self.configuration;
        let started = Instant::now();
        let mut cluster =
            Cluster::start(self.programs, directory, model, *shards, &options, WorkerOptions::default()).await?;
        let memory = MemoryWatch::start(cluster.process_ids());
        let measured = match self.drive(&mut cluster, started, directory, progress).await {
            Err(lost @ (BenchError::Call(_) | BenchError::Connection(_))) => Err(explained(&mut cluster, lost).await),
            measured => measured,
        };
        let peaks = memory.peaks();
        let stopped = cluster.stop().await;
        let mut figures = measured?;
        figures.processes =
            stopped.iter().zip(peaks).map(|(process, peak)| traffic(process, peak)).collect::<Result<_, _>>()?;
        Ok(figures)
    }

    async fn drive(
        &self,
        cluster: &mut Cluster,
        started: Instant,
        directory: &Path,
        progress: &Progress,
    ) -> Result<Figures, BenchError> {
        let step = |what: &str| progress.step(&format!("{}: {what}", self.configuration.folder()));
        step("setup");
        let client = Client::connect(cluster).await?;
        let serving = client.wait_until_ready(cluster).await?;
        let (mut apart, mut together) = (Vec::new(), Vec::new());
        let not_together = self.not_together();
        for repetition in 1..=self.repeats {
            step(&format!("proofs one after the other, {repetition} of {}", self.repeats));
            apart.push(self.pass(&client, cluster, false).await?);
            if self.configuration.shards > 1 && not_together.is_none() {
                step(&format!("all proofs at once, {repetition} of {}", self.repeats));
                together.push(self.pass(&client, cluster, true).await?);
            }
        }
        step("offline verification");
        let run = &together.last().or(apart.last()).ok_or(BenchError::NothingMeasured)?.run;
        let (bundle_bytes, offline) = self.verify_offline(&client, run, &serving, directory).await?;
        Ok(Figures {
            parameters: self.parameters,
            setup_wall: (serving.served - started).as_secs_f64(),
            load_wall: (serving.ready - serving.served).as_secs_f64(),
            shards: self.shards(&serving),
            apart,
            together,
            not_together,
            bundle_bytes,
            offline_verification: offline.as_secs_f64(),
            processes: Vec::new(),
        })
    }

    /// Why all proofs at once are not tried.
    fn not_together(&self) -> Option<String> {
        if self.configuration.shards == 1 {
            return None;
        }
        if self.apart_only {
            return Some("all proofs at once were not asked for".to_owned());
        }
        let sum: u64 = self.predicted.iter().sum();
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        (sum > self.memory_limit).then(|| {
            format!(
                "all proofs at once were not tried: predicted to need {:.1} GiB together, {:.1} GiB are allowed",
                gibibytes(sum),
                gibibytes(self.memory_limit)
            )
        })
    }

    /// One run, proven shard after shard or all at once.
    async fn pass(&self, client: &Client, cluster: &mut Cluster, at_once: bool) -> Result<Pass, BenchError> {
        let started = Instant::now();
        let run = client.infer(self.input).await?;
        let answer = started.elapsed();
        let started = Instant::now();
        let run = if at_once {
            client.prove(&run).await?
        } else {
            let last = self.configuration.shards - 1;
            for shard in 0..last {
                client.prove_shard(&run, shard, RunState::Partial, "partial").await?;
            }
            client.prove_shard(&run, last, RunState::Verified, "verified").await?
        };
        let wall = started.elapsed();
        cluster.check_alive()?;
        Ok(Pass {
            run: Client::id(&run)?,
            answer: answer.as_secs_f64(),
            wall: wall.as_secs_f64(),
            shards: self.shard_passes(&run)?,
        })
    }

    fn shard_passes(&self, run: &Run) -> Result<Vec<ShardPass>, BenchError> {
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        let pass = |shard: &ShardProgress| ShardPass {
            witness: seconds(shard.witness_us),
            prove: seconds(shard.prove_us),
            verify: seconds(shard.verify_us),
            witness_bytes: shard.witness_bytes,
            proof_bytes: shard.proof_bytes,
        };
        let found = run.shards.len();
        if found != self.configuration.shards {
            return Err(BenchError::Shards { expected: self.configuration.shards, found });
        }
        Ok(run.shards.iter().map(pass).collect())
    }

    fn shards(&self, serving: &Serving) -> Vec<ShardFigures> {
        let figures = |(shard, &predicted): (&shardproof_proto::v1::ShardStatus, &u64)| ShardFigures {
            parameters: shard.parameters,
            setup: Duration::from_micros(shard.setup_us).as_secs_f64(),
            proving_key: shard.proving_key_bytes,
            verifying_key: shard.verifying_key_bytes,
            predicted,
        };
        serving.status.shards.iter().zip(self.predicted).map(figures).collect()
    }

    /// Has the command that anybody would use verify the bundle. Returns the bundle's size and what the command took.
    async fn verify_offline(
        &self,
        client: &Client,
        run: &str,
        serving: &Serving,
        directory: &Path,
    ) -> Result<(u64, Duration), BenchError> {
        let (bundle, card) = (directory.join("run.bundle"), directory.join("model.card"));
        let bytes = client.fetch_bundle(run, &bundle).await?;
        fs::write(&card, &serving.status.card).map_err(BenchError::io(card.display().to_string()))?;
        let mut command = Command::new(self.programs.shardproof());
        command.arg("verify").arg(&bundle).arg("--card").arg(&card);
        if self.configuration.backend == ProvenBy::Ezkl {
            command.arg("--allow-test-srs");
        }
        let started = Instant::now();
        let output = command.kill_on_drop(true).output().await;
        let took = started.elapsed();
        let output =
            output.map_err(|source| BenchError::Start { path: self.programs.shardproof().to_owned(), source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::Offline { status: output.status, said });
        }
        Ok((bytes, took))
    }
}

/// Why a connection was lost, if it was because a program ended: it gets a moment to do so.
async fn explained(cluster: &mut Cluster, lost: BenchError) -> BenchError {
    for _ in 0..LAST_WORDS_TRIES {
        if let Err(ended) = cluster.check_alive() {
            return ended;
        }
        tokio::time::sleep(LAST_WORDS_PAUSE).await;
    }
    lost
}

/// Reads the last line that a server logs.
fn traffic(stopped: &Stopped, peak_bytes: u64) -> Result<ProcessFigures, BenchError> {
    #[derive(Deserialize)]
    struct Line {
        fields: Fields,
    }
    #[derive(Deserialize)]
    struct Fields {
        message: String,
        received_bytes: u64,
        sent_bytes: u64,
    }
    let lines = stopped.log.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let Some(found) = lines.map(|line| line.fields).find(|fields| fields.message == "traffic") else {
        return Err(BenchError::Traffic { name: stopped.name.clone() });
    };
    let Fields { received_bytes, sent_bytes, .. } = found;
    Ok(ProcessFigures { name: stopped.name.clone(), peak_bytes, received_bytes, sent_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(log: &str) -> Stopped {
        Stopped { name: "worker-0".to_owned(), log: log.to_owned() }
    }

    #[test]
    fn traffic_is_read_from_the_log_or_missed() {
        let line = r#"{"level":"INFO","fields":{"message":"traffic","received_bytes":7,"sent_bytes":9},"target":"x"}"#;
        let found = traffic(&stopped(&format!("rubbish\n{line}\n")), 5).unwrap();
        assert_eq!((found.peak_bytes, found.received_bytes, found.sent_bytes), (5, 7, 9));
        assert!(matches!(traffic(&stopped("rubbish\n"), 5), Err(BenchError::Traffic { .. })));
    }
}
