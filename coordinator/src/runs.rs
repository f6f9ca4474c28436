//! The runs: each change is saved before anyone sees it, and whoever watches sees every state.
//!
//! A run that can't be saved is not shown as if it were. A new one is refused; a change of one that was accepted is tried until
//! the database takes it, because what it is about (a receipt, a proof, a verdict) has happened and must not be lost. While the
//! database is away, accepted runs therefore stand still and new ones are refused, and afterwards all go on.
//!
//! Changes of one run are made in the order in which they come, each on the one before, and whatever has come while the disk was
//! busy is stored with the next write: receipts that come in close together cost one write and not one each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use dashmap::DashMap;
use shardproof_common::clock;
use shardproof_common::ids::RunId;
use tokio::sync::{Mutex, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::metrics::{self, Step};
use crate::record::RunRecord;
use crate::store::{Store, StoreError};

/// Longest pause between two tries to save a change.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    clock::now().0
}

/// What whoever asks for another run is told.
pub(crate) fn no_run(run: RunId) -> Status {
    Status::not_found(format!("there is no run {run}"))
}

/// The runs in memory, backed by the store.
pub(crate) struct Runs {
    live: DashMap<RunId, Arc<LiveRun>>,
    keeper: Arc<Keeper>,
    /// Held while a run enters or leaves memory, so that there is never more than one copy of it.
    loading: Mutex<()>,
    /// How many runs are about to be created.
    entering: std::sync::Mutex<usize>,
    /// Runs that were refused because the database did not say that it took them.
    refused: std::sync::Mutex<Vec<RunId>>,
}

/// A place among the runs under way for one that is about to be created.
pub(crate) struct Place<'a>(&'a std::sync::Mutex<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(self.0) -= 1;
    }
}

struct LiveRun {
    /// As stored.
    record: watch::Sender<RunRecord>,
    ahead: std::sync::Mutex<Ahead>,
}

/// A run with the changes that are not stored yet.
struct Ahead {
    record: RunRecord,
    /// Who waits for a change that no write has begun with.
    waiting: Vec<oneshot::Sender<()>>,
    /// What is counted of those changes once they are stored.
    steps: Vec<Step>,
    /// Whether a task is writing, which goes on until nobody waits.
    storing: bool,
}

/// The store, tried until it answers.
struct Keeper {
    store: Store,
    /// Whether the last write failed.
    away: AtomicBool,
    /// Ends what waits for the database.
    stop: CancellationToken,
}

impl Runs {
    /// Over `store`; what waits for the database ends with `stop`.
    pub(crate) fn new(store: Store, stop: CancellationToken) -> Self {
        let keeper = Arc::new(Keeper { store, away: AtomicBool::new(false), stop });
        Self {
            live: DashMap::new(),
            keeper,
            loading: Mutex::new(()),
            entering: Default::default(),
            refused: Default::default(),
        }
    }

    /// Loads what was under way when the program ended.
    pub(crate) async fn restore(&self) -> Result<(), StoreError> {
        for record in self.keeper.store.under_way().await? {
            self.live.insert(record.id, LiveRun::new(record));
        }
        Ok(())
    }

    /// Adds a run, which is saved when this returns.
    pub(crate) async fn create(&self, record: RunRecord) -> Result<(), StoreError> {
        let saved = self.keeper.store.save(&record, None).await;
        self.keeper.note(saved.as_ref().err());
        if let Err(error) = saved {
            // It may be there although the database did not say so.
            lock(&self.refused).push(record.id);
            return Err(error);
        }
        metrics::note_submitted();
        self.live.insert(record.id, LiveRun::new(record));
        Ok(())
    }

    /// Runs that have something still to happen.
    pub(crate) fn under_way(&self) -> Vec<RunRecord> {
        let under_way = self.live.iter().filter(|run| run.record.borrow().under_way());
        under_way.map(|run| run.record.borrow().clone()).collect()
    }

    /// How many those are.
    pub(crate) fn count_under_way(&self) -> usize {
        self.live.iter().filter(|run| run.record.borrow().under_way()).count()
    }

    /// Whether the last attempt to store something failed.
    pub(crate) fn are_away(&self) -> bool {
        self.keeper.away.load(Ordering::Relaxed)
    }

    /// Where the last attempt failed, makes one that stores nothing: that the database is back is not to be found out by the next run
    /// alone. Runs that were refused and may be stored all the same are taken back.
    pub(crate) async fn look_for_database(&self) {
        let mut refused = std::mem::take(&mut *lock(&self.refused));
        if refused.is_empty() && !self.are_away() {
            return;
        }
        let tried = self.keeper.store.take_back(&refused).await;
        self.keeper.note(tried.as_ref().err());
        if tried.is_err() {
            lock(&self.refused).append(&mut refused);
        }
    }

    /// Whether there is such a run among them.
    pub(crate) fn any_under_way(&self, described: impl Fn(&RunRecord) -> bool) -> bool {
        let is_one = |run: &RunRecord| run.under_way() && described(run);
        self.live.iter().any(|run| is_one(&run.record.borrow()))
    }

    /// Keeps a place for a run until it is created, where fewer than `most` are under way; else says how many are.
    pub(crate) fn reserve(&self, most: usize) -> Result<Place<'_>, usize> {
        let mut entering = lock(&self.entering);
        let taken = *entering + self.count_under_way();
        if taken >= most {
            return Err(taken);
        }
        *entering += 1;
        Ok(Place(&self.entering))
    }

    /// The run as it is now, if there is one.
    pub(crate) async fn get(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        match self.live.get(&run).map(|live| live.record.borrow().clone()) {
            Some(record) => Ok(Some(record)),
            None => self.keeper.store.load(run).await,
        }
    }

    /// The run from now on.
    pub(crate) async fn watch(&self, run: RunId) -> Result<Option<watch::Receiver<RunRecord>>, StoreError> {
        Ok(self.find(run).await?.map(|live| live.record.subscribe()))
    }

    pub(crate) async fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        self.keeper.store.latest(limit).await
    }

    /// Changes a run, which is saved when this returns; nothing when there is no such run, or the program stops before the
    /// database has taken the change.
    pub(crate) async fn change<T>(&self, run: RunId, change: impl FnOnce(&mut RunRecord) -> T) -> Option<T> {
        let live = self.keeper.until_stored(run, || self.find(run)).await??;
        let (done, stored) = oneshot::channel();
        let result = {
            let mut ahead = live.ahead();
            let mut record = ahead.record.clone();
            let result = change(&mut record);
            let steps = metrics::steps(&ahead.record, &record);
            ahead.steps.extend(steps);
            ahead.record = record;
            ahead.waiting.push(done);
            if !std::mem::replace(&mut ahead.storing, true) {
                // A task of its own: what has been changed is stored even when whoever asked for it no longer waits.
                tokio::spawn(store_changes(live.clone(), self.keeper.clone()));
            }
            result
        };
        stored.await.ok().map(|()| result)
    }

    /// Shows a passing detail to whoever watches; it is not saved.
    pub(crate) fn mention(&self, run: RunId, change: impl FnOnce(&mut RunRecord)) {
        let Some(live) = self.live.get(&run) else { return };
        let mut ahead = live.ahead();
        // What is being stored is shown in a moment, and would hide the detail.
        if !ahead.storing {
            change(&mut ahead.record);
            live.record.send_replace(ahead.record.clone());
        }
    }

    /// Lets finished runs that nobody is watching leave memory.
    pub(crate) async fn sweep(&self) {
        let _loading = self.loading.lock().await;
        self.live.retain(|_, live| !live.is_idle());
    }

    /// Removes finished runs that nobody is looking at; returns which.
    pub(crate) async fn remove(&self, runs: Vec<RunId>) -> Result<Vec<RunId>, StoreError> {
        // Held to the end: none of them may be loaded while it is removed.
        let _loading = self.loading.lock().await;
        let unused =
            |run: &RunId| self.live.remove_if(run, |_, live| live.is_idle()).is_some() || !self.live.contains_key(run);
        let runs: Vec<RunId> = runs.into_iter().filter(unused).collect();
        self.keeper.store.remove(&runs).await?;
        Ok(runs)
    }

    async fn find(&self, run: RunId) -> Result<Option<Arc<LiveRun>>, StoreError> {
        if let Some(live) = self.live.get(&run) {
            return Ok(Some(live.clone()));
        }
        let _loading = self.loading.lock().await;
        if let Some(live) = self.live.get(&run) {
            return Ok(Some(live.clone()));
        }
        let Some(record) = self.keeper.store.load(run).await? else { return Ok(None) };
        let found = LiveRun::new(record);
        self.live.insert(run, found.clone());
        Ok(Some(found))
    }
}

impl LiveRun {
    fn new(record: RunRecord) -> Arc<Self> {
        let ahead = Ahead { record: record.clone(), waiting: Vec::new(), steps: Vec::new(), storing: false };
        Arc::new(Self { record: watch::Sender::new(record), ahead: std::sync::Mutex::new(ahead) })
    }

    /// Held for the time of a change.
    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        lock(&self.ahead)
    }

    /// Whether it is finished and nobody holds or watches it.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.record.receiver_count() == 0 && !self.record.borrow().under_way()
    }
}

/// Writes the changes of a run, all that have come at a time, until there are no more; then shows them. Ends early when the
/// program stops before the database has taken them.
async fn store_changes(live: Arc<LiveRun>, keeper: Arc<Keeper>) {
    loop {
        let (record, waiting, steps) = {
            let mut ahead = live.ahead();
            if ahead.waiting.is_empty() {
                ahead.storing = false;
                return;
            }
            (ahead.record.clone(), std::mem::take(&mut ahead.waiting), std::mem::take(&mut ahead.steps))
        };
        let saved = live.record.borrow().clone();
        let stored = keeper.until_stored(record.id, || keeper.store.save(&record, Some(&saved))).await;
        if stored.is_none() {
            let mut ahead = live.ahead();
            ahead.waiting.clear();
            ahead.storing = false;
            return;
        }
        keeper.note(None);
        steps.into_iter().for_each(metrics::note_step);
        live.record.send_replace(record);
        for waits in waiting {
            // One that no longer waits was stopped.
            let _unheard = waits.send(());
        }
    }
}

impl Keeper {
    /// Tries until the database answers; nothing when the program stops before.
    async fn until_stored<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        run: RunId,
        attempt: impl Fn() -> F,
    ) -> Option<T> {
        let mut pauses = pauses();
        loop {
            let error = match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            self.note(Some(&error));
            if matches!(error, StoreError::Fenced | StoreError::Stopping) {
                return None;
            }
            tracing::debug!(%run, %error, "the run waits for the database");
            tokio::select! {
                () = tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)) => {}
                () = self.stop.cancelled() => {
                    tracing::error!(%run, %error, "stopping without having stored a change of the run");
                    return None;
                }
            }
        }
    }

    /// Says once when the database goes away, and once when it is back.
    fn note(&self, error: Option<&StoreError>) {
        let was_away = self.away.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_away => {
                tracing::error!(%error, "state cannot be stored: new runs are refused, those under way wait");
            }
            None if was_away => tracing::info!("state is stored again"),
            _ => {}
        }
    }
}

/// What is locked here is replaced whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunState;
    use crate::store::testing::{self, TestDatabase};

    #[tokio::test]
    async fn changes_are_seen_saved_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = testing::in_file(&directory.path().join("state.sqlite")).await;
        let runs = Runs::new(store, CancellationToken::new());
        let record = testing::run(1);
        runs.create(record.clone()).await.unwrap();
        let mut watch = runs.watch(record.id).await.unwrap().unwrap();
        runs.change(record.id, |run| run.fail(None, None, "gone".into())).await.unwrap();
        watch.changed().await.unwrap();
        assert_eq!(watch.borrow().reason, "gone");
        runs.sweep().await;
        assert_eq!(runs.live.len(), 1, "a watched run stays");
        drop(watch);
        runs.sweep().await;
        assert!(runs.live.is_empty(), "a finished run that nobody watches leaves memory");
        assert_eq!(runs.get(record.id).await.unwrap().unwrap().reason, "gone");
        assert!(runs.change(RunId::generate(), |_| ()).await.is_none());
    }

    #[tokio::test]
    async fn changes_that_come_together_are_made_one_on_the_other_and_all_stored() {
        let directory = tempfile::tempdir().unwrap();
        let store = testing::in_file(&directory.path().join("state.sqlite")).await;
        let runs = Runs::new(store, CancellationToken::new());
        let record = testing::run(1);
        runs.create(record.clone()).await.unwrap();
        let add = |digit: usize| runs.change(record.id, move |run| run.reason.push_str(&digit.to_string()));
        let changes = futures::future::join_all((0..10).map(add)).await;
        assert!(changes.iter().all(Option::is_some));
        assert_eq!(runs.get(record.id).await.unwrap().unwrap().reason, "0123456789");
        assert_eq!(runs.keeper.store.load(record.id).await.unwrap().unwrap().reason, "0123456789");
    }

    #[tokio::test]
    async fn what_lies_between_changes_that_are_stored_together_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let store = testing::in_file(&directory.path().join("state.sqlite")).await;
        let runs = Runs::new(store, CancellationToken::new());
        let record = testing::run(1);
        runs.create(record.clone()).await.unwrap();
        let come_to = |state| runs.change(record.id, move |run| run.state = state);
        let (answered, verified) = (come_to(RunState::Answered), come_to(RunState::Verified));
        let (mut answered, mut verified) = (std::pin::pin!(answered), std::pin::pin!(verified));
        assert!(futures::poll!(answered.as_mut()).is_pending() && futures::poll!(verified.as_mut()).is_pending());
        let steps = runs.live.get(&record.id).unwrap().ahead().steps.clone();
        let submitted_ms = record.submitted_ms;
        let expected = [Step::To(RunState::Answered), Step::Answered { submitted_ms }, Step::To(RunState::Verified)];
        assert_eq!(steps, expected);
        assert!(answered.await.is_some() && verified.await.is_some());
        assert!(runs.live.get(&record.id).unwrap().ahead().steps.is_empty(), "counted once");
    }

    #[tokio::test]
    async fn nothing_is_shown_or_lost_while_the_database_is_away() {
        let mut database = TestDatabase::server();
        let stop = CancellationToken::new();
        let runs = Arc::new(Runs::new(database.store(1).await, stop.clone()));
        let (accepted, refused) = (testing::run(1), testing::run(1));
        runs.create(accepted.clone()).await.unwrap();
        let TestDatabase::Server(server) = &mut database else { panic!("expected a server") };
        server.stop();
        assert!(runs.create(refused.clone()).await.is_err());
        runs.look_for_database().await;
        assert!(runs.are_away());
        server.resume().unwrap();
        // As if the database had taken it without saying so.
        runs.keeper.store.save(&refused, None).await.unwrap();
        runs.look_for_database().await;
        assert!(!runs.are_away(), "nothing else was stored since");
        assert!(runs.get(refused.id).await.unwrap().is_none(), "what was refused is taken back");
        let TestDatabase::Server(server) = &mut database else { panic!("expected a server") };
        server.stop();
        let changing = {
            let (runs, id) = (runs.clone(), accepted.id);
            tokio::spawn(async move { runs.change(id, |run| run.fail(None, None, "gone".into())).await })
        };
        while !runs.keeper.away.load(Ordering::Relaxed) || !runs.live.get(&accepted.id).unwrap().ahead().storing {
            tokio::task::yield_now().await;
        }
        assert_eq!(runs.get(accepted.id).await.unwrap().unwrap().reason, "", "shown before it was stored");
        server.resume().unwrap();
        changing.await.unwrap().unwrap();
        assert_eq!(runs.get(accepted.id).await.unwrap().unwrap().reason, "gone");
        assert_eq!(runs.keeper.store.load(accepted.id).await.unwrap().unwrap().reason, "gone");
        assert!(runs.get(refused.id).await.unwrap().is_none());
        runs.create(refused).await.unwrap();

        // One that stops meanwhile shows nothing either.
        let TestDatabase::Server(server) = &mut database else { panic!("expected a server") };
        server.stop();
        stop.cancel();
        assert!(runs.change(accepted.id, |run| run.reason = "lost".into()).await.is_none());
        assert_eq!(runs.get(accepted.id).await.unwrap().unwrap().reason, "gone");
    }
}
