//! Long work of a backend on a thread of its own: shown while it lasts, ended by Ctrl-C or SIGTERM, its temporary files
//! removed.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use shardproof_common::backend::{Job, Limits};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output::Output;
use crate::progress::Phase;

/// How long work has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Runs `work` and shows `title` and the steps that it reports. The work is cancelled at a signal, and when the returned
/// future is dropped.
///
/// # Errors
/// The work's own, or that it was interrupted.
pub(crate) async fn run<T, W>(title: &str, output: Output, work: W) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce(&Job<'_>) -> Result<T> + Send + 'static,
{
    let cancel = CancellationToken::new();
    let _cancel_when_dropped = cancel.clone().drop_guard();
    let scratch = tempfile::tempdir().context("making a temporary directory")?;
    let phase = Mutex::new(Phase::begin(title, output.verbose()));
    let (title, cancelled) = (title.to_owned(), cancel.clone());
    let mut working = tokio::task::spawn_blocking(move || {
        let progress = |step: &str| {
            // A poisoned lock means that showing a step panicked; the work goes on unseen.
            if let Ok(mut phase) = phase.lock() {
                phase.step(&format!("{title}: {step}"));
            }
        };
        work(&Job { directory: scratch.path(), limits: Limits::default(), cancel: &cancelled, progress: &progress })
    });
    let interruption = tokio::select! {
        result = &mut working => return result.context("the work ended abnormally")?,
        interruption = interruption() => interruption,
    };
    cancel.cancel();
    match tokio::time::timeout(GRACE, working).await {
        Ok(_) => Err(interruption),
        Err(_) => Err(interruption.context("the work did not stop in time")),
    }
}

/// Ends with an error at Ctrl-C or SIGTERM.
pub(crate) async fn interruption() -> anyhow::Error {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the default applies: the process ends at once.
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    };
    anyhow!(name)
}
