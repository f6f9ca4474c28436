//! A process that waits for the job that will use it.
//!
//! Python takes about 0.1 s to start and load ezkl: several times a small witness, a fifth of a small proof. At most one
//! process waits, for at most the idle time, and takes memory meanwhile that no job's limit counts. One that has died is
//! found out when it is wanted, and the job starts its own.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use shardproof_common::backend::BackendError;

use crate::wheel::WheelRunner;

/// Place for one process that waits for a job; what waits is killed when this is dropped.
#[derive(Default)]
pub(crate) struct Nest {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Option<WheelRunner>,
    /// How many have waited: the number of the one that does.
    count: u64,
}

impl Nest {
    /// Lets the process that `bring` brings wait for `idle` at most, unless one waits already.
    pub(crate) fn keep(&self, idle: Duration, bring: impl FnOnce() -> Result<WheelRunner, BackendError>) {
        let mut state = self.shared.lock();
        if state.waiting.as_mut().is_some_and(WheelRunner::is_alive) {
            return;
        }
        let brought = bring().and_then(|process| {
            let (shared, number) = (self.shared.clone(), state.count + 1);
            let give_up = move || shared.give_up(number, idle);
            let thread = thread::Builder::new().name("ezkl-idle".to_owned()).spawn(give_up);
            thread.map_err(BackendError::io(Path::new("ezkl-idle"))).map(|_detached| process)
        });
        match brought {
            Ok(process) => {
                state.count += 1;
                state.waiting = Some(process);
            }
            // The next job starts its own, and says what is wrong.
            Err(error) => tracing::debug!(%error, "no process waits for the next job"),
        }
    }

    /// The process that waits, if it is still alive.
    pub(crate) fn take(&self) -> Option<WheelRunner> {
        let taken = self.shared.lock().waiting.take();
        self.shared.changed.notify_all();
        taken.and_then(|mut process| process.is_alive().then_some(process))
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl std::fmt::Debug for Nest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nest").field("waiting", &self.shared.lock().waiting.is_some()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until process `number` is taken, and ends it after `idle`.
    fn give_up(&self, number: u64, idle: Duration) {
        let still_waits = |state: &mut State| state.count == number && state.waiting.is_some();
        let waited = self.changed.wait_timeout_while(self.lock(), idle, still_waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if still_waits(&mut state) {
            let given_up = state.waiting.take();
            drop(state);
            drop(given_up);
        }
    }
}
