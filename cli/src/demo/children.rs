//! The coordinator and the workers of a demo: real processes, this program re-executed.
//!
//! None of them outlives the demo. Each holds the reading end of a pipe whose writing end is here, and ends when that
//! closes: that covers a demo that is killed. A demo that ends in any other way closes the pipes, waits, and kills what is
//! left. Children are in process groups of their own, so that Ctrl-C reaches the demo alone and it decides the order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shardproof_common::options;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long children have to end by themselves.
const GRACE: Duration = Duration::from_secs(10);
/// How long a child may take until it listens.
const START: Duration = Duration::from_secs(60);
/// How often, and with what pause, it is asked whether a child ended when something failed.
const LAST_WORDS_TRIES: u32 = 10;
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(50);
/// How much of a log is shown when something fails.
const TAIL_LINES: usize = 15;

/// One child process with its log.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Service {
    /// Starts `shardproof ARGS --exit-with-parent`, logging to `DIRECTORY/NAME.log`, and waits until it listens. Returns it
    /// with its address, `host:port`.
    pub(super) async fn start(name: &str, args: &[String], directory: &Path) -> Result<(Self, String)> {
        let log = directory.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| format!("{}: cannot write the log", log.display()))?;
        let program = std::env::current_exe().context("where this program is")?;
        let mut command = Command::new(&program);
        // The demo decides what its processes do, not the shell that it runs in.
        for variable in options::variables() {
            command.env_remove(variable);
        }
        let mut child = command
            .args(args)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: cannot start the {name}", program.display()))?;
        let stdout = child.stdout.take().context("the child's standard output is a pipe")?;
        let mut service = Self { name: name.to_owned(), log, child };
        let mut lines = BufReader::new(stdout).lines();
        let announced = tokio::time::timeout(START, lines.next_line()).await;
        let line = match announced {
            Ok(line) => line.with_context(|| format!("reading what the {name} says"))?,
            Err(_) => bail!("the {name} did not listen within {} s\n{}", START.as_secs(), service.log_tail()),
        };
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        match address {
            Some(address) => Ok((service, address.to_owned())),
            None => {
                let status = service.child.wait().await.context("waiting for the child")?;
                bail!("the {name} ended at once ({status})\n{}", service.log_tail())
            }
        }
    }

    /// The child's process id while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error if the child is gone.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("asking for the child's state")? {
            None => Ok(()),
            Some(status) => bail!("the {} ended ({status})\n{}", self.name, self.log_tail()),
        }
    }

    /// The end of the log and where the whole is.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        format!("the end of {}:\n  {tail}", self.log.display())
    }

    /// Asks the child to end, by closing its standard input.
    fn ask_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    async fn end(&mut self) {
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        if ended.is_err() {
            // It ignores the closed pipe: nothing but force is left. What cannot be killed is gone already.
            let _already_gone = self.child.kill().await;
        }
    }
}

/// All children of a demo.
#[derive(Debug, Default)]
pub(super) struct Services(Vec<Service>);

impl Services {
    /// Takes charge of a child.
    pub(super) fn push(&mut self, service: Service) {
        self.0.push(service);
    }

    /// An error if any child is gone.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Service::check_alive)
    }

    /// Adds to `error` what the services say: which of them ended and how, and the end of the first one's log, whose end
    /// the others may only follow. A service that is about to end gets a moment to do so.
    pub(super) async fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let mut text = format!("{error:#}");
        for _ in 0..LAST_WORDS_TRIES {
            if let Err(ended) = self.check_alive() {
                text = format!("{ended:#}");
                break;
            }
            tokio::time::sleep(LAST_WORDS_PAUSE).await;
        }
        let tail = self.0.first().map(Service::log_tail).filter(|tail| !text.contains(tail.as_str()));
        anyhow::anyhow!("{text}\n{}", tail.unwrap_or_default())
    }

    /// Process ids of those that run.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.0.iter().filter_map(Service::id).collect()
    }

    /// Ends all children, the workers before the coordinator that they would otherwise try to find again.
    pub(super) async fn stop(&mut self) {
        for service in self.0.iter_mut().rev() {
            service.ask_to_end();
        }
        for service in self.0.iter_mut().rev() {
            service.end().await;
        }
        self.0.clear();
    }
}
