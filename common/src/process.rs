//! What a long-running program of this project does the same everywhere: it owns its data directory, ends on signals, and
//! says on standard output where it listens.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a program that is told to stop waits for its connections and tasks. Anyone can hold a connection open, and whoever needs
/// more comes again after the restart; a coordinator that stands by would wait twice as long for one that crashed.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// A data directory that this process alone uses for as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, which is made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or another process holds it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let root = root.into();
        let io_error = |source| DataDirError::Io { path: root.clone(), source };
        std::fs::create_dir_all(&root).map_err(io_error)?;
        let lock = File::create(root.join("lock")).map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: root }),
            Err(TryLockError::Error(source)) => Err(DataDirError::Io { path: root, source }),
        }
    }

    /// A directory inside that is empty now: what a process that was killed left half done is gone, because it was made here
    /// and nothing else is.
    ///
    /// # Errors
    /// When it cannot be emptied or made.
    pub fn scratch(&self) -> Result<PathBuf, DataDirError> {
        let path = self.root.join("scratch");
        let emptied = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir(&path),
        };
        emptied.map_err(|source| DataDirError::Io { path: path.clone(), source })?;
        Ok(path)
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }
}

/// Where programs keep their data unless told otherwise: `shardproof` in the user's data directory, else here.
pub fn default_data_dir() -> PathBuf {
    dirs::data_dir().unwrap_or_else(|| PathBuf::from(".")).join("shardproof")
}

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("{path} is in use by another process: stop it, or choose another directory with --data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Cancels the returned token at the first SIGTERM or SIGINT and exits at once at the second. Needs a tokio runtime.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stopping_on_signals() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            tracing::info!("stopping; a second signal stops at once");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// Waits for `work`, no longer than [`FAREWELL`] once `shutdown` is cancelled; nothing where it has not ended by then.
pub async fn until_farewell<T>(shutdown: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    until_given_up(shutdown, FAREWELL, work).await
}

async fn until_given_up<T>(
    shutdown: &CancellationToken,
    patience: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let given_up = async {
        shutdown.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = given_up => {
            tracing::warn!("stopping with connections or tasks that did not end within {} s", patience.as_secs());
            None
        }
    }
}

/// Runs a program to its end. What still works on a thread of its own then is no reason to stay for longer than [`FAREWELL`].
///
/// # Errors
/// When there can be no runtime, and what the program fails with.
pub fn run<E: From<io::Error>>(program: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(program);
    runtime.shutdown_timeout(FAREWELL);
    ended
}

/// Ends this process when its standard input closes, which happens when the parent that holds the other end dies.
pub fn exit_with_parent(shutdown: CancellationToken) {
    let watch = move || {
        // Whatever arrives is ignored: only the end matters.
        let _bytes_ignored = io::copy(&mut io::stdin().lock(), &mut io::sink());
        shutdown.cancel();
        std::thread::sleep(std::time::Duration::from_secs(5));
        std::process::exit(1);
    };
    std::thread::spawn(watch);
}

/// Prints the one line on standard output that tells whoever started the program where it listens.
///
/// # Errors
/// When standard output is closed.
pub fn announce(address: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let owner = DataDir::open(directory.path()).unwrap();
        assert!(matches!(DataDir::open(directory.path()), Err(DataDirError::InUse { .. })));
        drop(owner);
        DataDir::open(directory.path()).unwrap();
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_is_under_way_and_not_for_ever() {
        let (shutdown, never) = (CancellationToken::new(), std::future::pending::<()>());
        let ends = async {
            shutdown.cancel();
            tokio::task::yield_now().await;
        };
        assert_eq!(until_farewell(&shutdown, ends).await, Some(()));
        assert_eq!(until_given_up(&shutdown, Duration::from_millis(1), never).await, None);
    }

    #[test]
    fn a_thread_that_works_on_does_not_hold_a_program_up() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let program = async move {
            tokio::task::spawn_blocking(move || ended.recv());
            io::Result::Ok(())
        };
        run(program).unwrap();
        drop(end);
    }

    #[test]
    fn what_a_killed_process_left_half_done_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let owner = DataDir::open(directory.path()).unwrap();
        let scratch = owner.scratch().unwrap();
        std::fs::create_dir(scratch.join("job")).unwrap();
        std::fs::write(scratch.join("job/half"), b"ha").unwrap();
        std::fs::write(directory.path().join("kept"), b"whole").unwrap();
        assert_eq!(std::fs::read_dir(owner.scratch().unwrap()).unwrap().count(), 0);
        assert!(directory.path().join("kept").exists());
    }
}
