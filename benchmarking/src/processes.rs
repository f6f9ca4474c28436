//! The programs under measurement as processes that cannot outlive it.
//!
//! Each child reads from a pipe whose other end is here and ends when that closes, which covers a benchmark that is killed.
//! On every other way out the children are asked to end, workers first, and killed when they do not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use shardproof_common::options;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::BenchError;

const START: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 15;
/// Linux counts processor time for programs in these, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    coordinator: PathBuf,
    worker: PathBuf,
    shardproof: PathBuf,
}

impl Programs {
    /// Those of the same profile as this program.
    ///
    /// # Errors
    /// [`BenchError::NotBuilt`] when one is not there.
    pub fn find() -> Result<Self, BenchError> {
        let own = std::env::current_exe().map_err(BenchError::io("where this program is"))?;
        let directory = own.parent().unwrap_or(Path::new("."));
        // Tests run from a folder below.
        let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
        Self::in_directory(directory)
    }

    /// Those in `directory`.
    ///
    /// # Errors
    /// [`BenchError::NotBuilt`] when one is not there.
    pub fn in_directory(directory: &Path) -> Result<Self, BenchError> {
        let program = |name: &str| {
            let path = directory.join(name);
            if path.is_file() { Ok(path) } else { Err(BenchError::NotBuilt { path }) }
        };
        Ok(Self {
            coordinator: program("coordinator")?,
            worker: program("worker")?,
            shardproof: program("shardproof")?,
        })
    }

    /// The command for people.
    pub fn shardproof(&self) -> &Path {
        &self.shardproof
    }
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// `coordinator`, or `worker-` with its number.
    pub name: String,
    /// All that it logged; empty where that cannot be read.
    pub log: String,
}

/// One child process with its log.
#[derive(Debug)]
pub struct Service {
    name: String,
    log: PathBuf,
    address: String,
    child: Child,
}

impl Service {
    async fn start(
        program: &Path,
        name: &str,
        args: &[String],
        environment: &[(&str, &str)],
        directory: &Path,
    ) -> Result<Self, BenchError> {
        let log = directory.join(format!("{name}.log"));
        let log_file = File::create(&log).map_err(BenchError::io(log.display().to_string()))?;
        let mut command = Command::new(program);
        // What is measured and read from the logs must not depend on who measures.
        for variable in options::variables() {
            command.env_remove(variable);
        }
        let mut child = command
            .args(args)
            .arg("--exit-with-parent")
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| BenchError::Start { path: program.to_owned(), source })?;
        let stdout = child.stdout.take();
        let mut service = Self { name: name.to_owned(), log, address: String::new(), child };
        let Some(stdout) = stdout else { return Err(service.failed("has no standard output")) };
        let mut lines = BufReader::new(stdout).lines();
        let Ok(line) = tokio::time::timeout(START, lines.next_line()).await else {
            return Err(service.failed(&format!("did not listen within {} s", START.as_secs())));
        };
        let line = line.map_err(BenchError::io(format!("reading what the {name} says")))?;
        match line.as_deref().and_then(|line| line.strip_prefix("listening on ")) {
            Some(address) => service.address = address.to_owned(),
            None => return Err(service.failed("ended, or said something else than where it listens")),
        }
        Ok(service)
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its log so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String, BenchError> {
        fs::read_to_string(&self.log).map_err(BenchError::io(self.log.display().to_string()))
    }

    fn check_alive(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("ended with {status}"))),
            Err(source) => Err(BenchError::Io { what: format!("the state of the {}", self.name), source }),
        }
    }

    fn failed(&self, what: &str) -> BenchError {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        // What a program says last if it ends with an error.
        let told = lines.iter().rev().find_map(|line| line.strip_prefix("Error: "));
        let what = told.map_or_else(|| what.to_owned(), |told| format!("{what}: {told}"));
        BenchError::Service { name: self.name.clone(), what, log: tail }
    }

    async fn stop(mut self) -> Stopped {
        drop(self.child.stdin.take());
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            // It ignores the closed pipe; what cannot be killed is gone already.
            let _already_gone = self.child.kill().await;
        }
        Stopped { log: self.log().unwrap_or_default(), name: self.name }
    }
}

/// What every worker of a cluster is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerOptions<'a> {
    /// Options before its address.
    pub arguments: &'a [&'a str],
    /// Variables of its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A coordinator with its workers, one per shard, in the order of the chain.
#[derive(Debug)]
pub struct Cluster {
    coordinator: Service,
    workers: Vec<Service>,
}

impl Cluster {
    /// Starts a coordinator with `options` for `model` in `shards` shards and a worker with `worker` for each, on free
    /// ports; data and logs go below `directory`. Returns once all of them listen.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(
        programs: &Programs,
        directory: &Path,
        model: &str,
        shards: usize,
        options: &[&str],
        worker: WorkerOptions<'_>,
    ) -> Result<Self, BenchError> {
        let data = |name: &str| directory.join(name).display().to_string();
        let mut args: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        args.extend(["--log-format", "json", "--data-dir"].map(str::to_owned));
        args.push(data("coordinator"));
        // One client that asks as fast as it can is what is measured.
        args.extend(["--client-rate", "0"].map(str::to_owned));
        args.extend(["127.0.0.1".to_owned(), "0".to_owned(), shards.to_string(), model.to_owned()]);
        let coordinator = Service::start(&programs.coordinator, "coordinator", &args, &[], directory).await?;
        let mut cluster = Self { coordinator, workers: Vec::new() };
        let (host, port) = cluster.coordinator.address.rsplit_once(':').unwrap_or(("127.0.0.1", ""));
        let (host, port) = (host.to_owned(), port.to_owned());
        for shard in 0..shards {
            let name = format!("worker-{shard}");
            let mut args: Vec<String> = worker.arguments.iter().map(|&option| option.to_owned()).collect();
            args.extend(["--log-format", "json", "--data-dir"].map(str::to_owned));
            args.push(data(&name));
            args.extend(["127.0.0.1".to_owned(), "0".to_owned(), host.clone(), port.clone()]);
            args.push(role(shard, shards).to_owned());
            let worker = Service::start(&programs.worker, &name, &args, worker.environment, directory).await?;
            cluster.workers.push(worker);
        }
        Ok(cluster)
    }

    /// Where clients connect, `host:port`.
    pub fn address(&self) -> &str {
        self.coordinator.address()
    }

    /// The workers in the order in which they were started. Two with the role MIDDLE may hold each other's shard.
    pub fn workers(&self) -> &[Service] {
        &self.workers
    }

    /// Process ids of the coordinator and of the workers, in their order; 0 for one that is gone.
    pub fn process_ids(&self) -> Vec<u32> {
        let services = std::iter::once(&self.coordinator).chain(&self.workers);
        services.map(|service| service.child.id().unwrap_or(0)).collect()
    }

    /// # Errors
    /// [`BenchError::Service`] when one of the programs is gone.
    pub fn check_alive(&mut self) -> Result<(), BenchError> {
        self.coordinator.check_alive()?;
        self.workers.iter_mut().try_for_each(Service::check_alive)
    }

    /// Ends all of them, the workers before the coordinator that they would otherwise look for. Returns the coordinator and
    /// the workers in their order.
    pub async fn stop(self) -> Vec<Stopped> {
        let mut stopped = Vec::with_capacity(self.workers.len() + 1);
        for worker in self.workers {
            stopped.push(worker.stop().await);
        }
        stopped.insert(0, self.coordinator.stop().await);
        stopped
    }
}

/// Processor time that a process has used so far on all cores, s; 0 where it is gone or the system doesn't tell.
pub fn processor_seconds(process: u32) -> f64 {
    // Fields are counted behind the name, which is in parentheses and may hold anything.
    const USER: usize = 11;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(USER) + ticks(USER + 1)) / TICKS_PER_SECOND
}

fn role(shard: usize, shards: usize) -> &'static str {
    match (shard, shards) {
        (_, 1) => "SOLO",
        (0, _) => "FIRST",
        (shard, shards) if shard + 1 == shards => "LAST",
        _ => "MIDDLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_make_a_chain() {
        assert_eq!((0..4).map(|shard| role(shard, 4)).collect::<Vec<_>>(), ["FIRST", "MIDDLE", "MIDDLE", "LAST"]);
        assert_eq!(role(0, 1), "SOLO");
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = processor_seconds(std::process::id());
        let started = std::time::Instant::now();
        while processor_seconds(std::process::id()) <= before {
            assert!(started.elapsed() < Duration::from_secs(30), "no processor time is counted");
        }
        assert_eq!(processor_seconds(u32::MAX), 0.0);
    }

    #[test]
    fn programs_that_are_not_built_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Programs::in_directory(directory.path()).unwrap_err().to_string();
        assert!(error.contains("coordinator is not there") && error.contains("cargo build"), "{error}");
    }
}
