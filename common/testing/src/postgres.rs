//! A Postgres server in a temporary directory, reached over a Unix socket.
//!
//! Its programs are those on the `PATH` or where Debian puts them; where there are none, the wheel `pgserver` from the Python
//! package index, which holds them, is installed once into the cache directory. Postgres refuses to run as root: there it runs as
//! the user nobody.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

/// Version of the wheel, and the Python that it says it is for: its programs do not care.
const WHEEL: &str = "pgserver==0.1.4";
const WHEEL_PYTHON: [&str; 6] = ["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"];
/// User and group nobody.
const NOBODY: u32 = 65534;
/// Longest that the server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const READY: &str = "database system is ready to accept connections";

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a database directory and starts a server on it.
    ///
    /// # Errors
    /// When there is no Postgres and it can't be installed, with what to do about it.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("shardproof-pg-").tempdir()?;
        if is_root(directory.path())? {
            chown(directory.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let programs = programs(owned_by_nobody(directory.path())?)?;
        let mut server = Self { directory, programs, server: None };
        let mut init = server.command("initdb")?;
        init.args(["--username=shardproof", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(server.data());
        let made = init.output().context("initdb")?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        server.resume()?;
        Ok(server)
    }

    /// Where clients reach it, whether it runs or not.
    pub fn url(&self) -> String {
        format!("postgres://shardproof@localhost/postgres?host={}", self.directory.path().display())
    }

    /// Ends the server at once, without a checkpoint; its data stays.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It takes its children with it, whom a kill would leave to find out by themselves.
            let _signalled = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _reaped = server.wait();
        }
    }

    /// Starts it again on its data.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        command.args(["-h", "", "-c", "restart_after_crash=off"]);
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("postgres")?;
        let said = server.stderr.take().context("standard error is piped")?;
        self.server = Some(server);
        let (lines, heard) = mpsc::channel();
        // Reads on after the start, or the server would wait for room in the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let _nobody_listens_after_the_start = lines.send(line);
            }
        });
        let mut log = Vec::new();
        while let Ok(line) = heard.recv_timeout(PATIENCE) {
            let ready = line.contains(READY);
            log.push(line);
            if ready {
                return Ok(());
            }
        }
        bail!("postgres did not start: {}", log.join("\n"))
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.directory.path()).stdin(Stdio::null()).env("LC_ALL", "C");
        if owned_by_nobody(self.directory.path())? {
            command.uid(NOBODY).gid(NOBODY);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether what this process makes belongs to root.
fn is_root(made_here: &Path) -> anyhow::Result<bool> {
    Ok(fs::metadata(made_here)?.uid() == 0)
}

fn owned_by_nobody(path: &Path) -> anyhow::Result<bool> {
    Ok(fs::metadata(path)?.uid() == NOBODY)
}

/// The directory of the programs. `shared`: another user has to be able to read it.
fn programs(shared: bool) -> anyhow::Result<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let known = on_path.unwrap_or_default().into_iter().chain(debian);
    let complete = |directory: &PathBuf| ["postgres", "initdb"].iter().all(|name| directory.join(name).is_file());
    match known.into_iter().find(complete) {
        // Postgres looks for its libraries beside its programs, which links would hide.
        Some(directory) => Ok(fs::canonicalize(directory.join("postgres"))?
            .parent()
            .context("a program is in a directory")?
            .to_owned()),
        None => install(shared),
    }
}

/// Installs the wheel where it is missing.
fn install(shared: bool) -> anyhow::Result<PathBuf> {
    let cache = match dirs::cache_dir() {
        Some(cache) if !shared => cache.join("shardproof"),
        _ => std::env::temp_dir(),
    };
    fs::create_dir_all(&cache)?;
    let site = cache.join(format!("shardproof-{}", WHEEL.replace("==", "-")));
    let lock = fs::File::create(cache.join("shardproof-pgserver.lock"))?;
    lock.lock()?;
    if !site.is_dir() {
        let workshop = tempfile::Builder::new().prefix("pgserver-").tempdir_in(&cache)?;
        let target = workshop.path().join("site");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:"]);
        pip.args(WHEEL_PYTHON).arg("--target").arg(&target).arg(WHEEL);
        let remedy = "install PostgreSQL (on Debian and Ubuntu the package postgresql), or Python 3 with pip and access to a \
                      package index, from which these tests install the wheel `pgserver`";
        let installed = pip.output().with_context(|| format!("python3 -m pip: {remedy}"))?;
        if !installed.status.success() {
            bail!("no Postgres: {remedy}; pip said: {}", String::from_utf8_lossy(&installed.stderr));
        }
        fs::rename(&target, &site)?;
    }
    Ok(site.join("pgserver").join("pginstall").join("bin"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_server_starts_stops_and_starts_again() {
        let mut server = Postgres::start().unwrap();
        let socket = server.directory.path().join(".s.PGSQL.5432");
        UnixStream::connect(&socket).unwrap();
        server.stop();
        assert!(UnixStream::connect(&socket).is_err());
        server.resume().unwrap();
        UnixStream::connect(&socket).unwrap();
    }
}
