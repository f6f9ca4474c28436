//! The runs: each change is saved before anyone sees it, and whoever watches sees every state.

use std::sync::Arc;

use dashmap::DashMap;
use shardproof_common::clock;
use shardproof_common::ids::RunId;
use tokio::sync::{Mutex, watch};

use crate::record::RunRecord;
use crate::store::{Store, StoreError};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    clock::now().0
}

/// The runs in memory, backed by the store.
pub(crate) struct Runs {
    live: DashMap<RunId, Arc<LiveRun>>,
    store: Store,
    /// Held while a run enters or leaves memory, so that there is never more than one copy of it.
    loading: Mutex<()>,
}

struct LiveRun {
    record: watch::Sender<RunRecord>,
    /// Held over a change and its write, so that writes happen in the order of the changes.
    writing: Mutex<()>,
}

impl Runs {
    pub(crate) fn new(store: Store) -> Self {
        Self { live: DashMap::new(), store, loading: Mutex::new(()) }
    }

    /// Loads what was under way when the program ended.
    pub(crate) async fn restore(&self) -> Result<(), StoreError> {
        for record in self.store.under_way().await? {
            self.live.insert(record.id, live(record));
        }
        Ok(())
    }

    /// Adds a run, which is saved when this returns.
    pub(crate) async fn create(&self, record: RunRecord) -> Result<(), StoreError> {
        self.store.save(&record).await?;
        self.live.insert(record.id, live(record));
        Ok(())
    }

    /// Runs that have something still to happen.
    pub(crate) fn under_way(&self) -> Vec<RunRecord> {
        let under_way = self.live.iter().filter(|run| run.record.borrow().under_way());
        under_way.map(|run| run.record.borrow().clone()).collect()
    }

    /// The run as it is now, if there is one.
    pub(crate) async fn get(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        match self.live.get(&run).map(|live| live.record.borrow().clone()) {
            Some(record) => Ok(Some(record)),
            None => self.store.load(run).await,
        }
    }

    /// The run from now on.
    pub(crate) async fn watch(&self, run: RunId) -> Result<Option<watch::Receiver<RunRecord>>, StoreError> {
        Ok(self.find(run).await?.map(|live| live.record.subscribe()))
    }

    pub(crate) async fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        self.store.latest(limit).await
    }

    /// Changes a run; nothing when there is no such run. A write that fails is made up for by the next one.
    pub(crate) async fn change<T>(&self, run: RunId, change: impl FnOnce(&mut RunRecord) -> T) -> Option<T> {
        let live = match self.find(run).await {
            Ok(live) => live?,
            Err(error) => {
                tracing::error!(%run, %error, "cannot read the run");
                return None;
            }
        };
        let writing = live.writing.lock().await;
        let mut record = live.record.borrow().clone();
        let result = change(&mut record);
        if let Err(error) = self.store.save(&record).await {
            tracing::error!(%run, %error, "cannot save the run");
        }
        live.record.send_replace(record);
        drop(writing);
        Some(result)
    }

    /// Shows a passing detail to whoever watches; it is not saved.
    pub(crate) fn mention(&self, run: RunId, change: impl FnOnce(&mut RunRecord)) {
        if let Some(live) = self.live.get(&run)
            && let Ok(_writing) = live.writing.try_lock()
        {
            live.record.send_modify(change);
        }
    }

    /// Lets finished runs that nobody is watching leave memory.
    pub(crate) async fn sweep(&self) {
        let _loading = self.loading.lock().await;
        let idle = |live: &Arc<LiveRun>| {
            Arc::strong_count(live) == 1 && live.record.receiver_count() == 0 && !live.record.borrow().under_way()
        };
        self.live.retain(|_, live| !idle(live));
    }

    async fn find(&self, run: RunId) -> Result<Option<Arc<LiveRun>>, StoreError> {
        if let Some(live) = self.live.get(&run) {
            return Ok(Some(live.clone()));
        }
        let _loading = self.loading.lock().await;
        if let Some(live) = self.live.get(&run) {
            return Ok(Some(live.clone()));
        }
        let Some(record) = self.store.load(run).await? else { return Ok(None) };
        let found = live(record);
        self.live.insert(run, found.clone());
        Ok(Some(found))
    }
}

fn live(record: RunRecord) -> Arc<LiveRun> {
    Arc::new(LiveRun { record: watch::Sender::new(record), writing: Mutex::new(()) })
}

#[cfg(test)]
mod tests {
    use shardproof_common::artifacts::Artifact;
    use shardproof_common::ids::Digest;

    use super::*;

    #[tokio::test]
    async fn changes_are_seen_saved_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.sqlite")).await.unwrap();
        let runs = Runs::new(store.clone());
        let input = Artifact { digest: Digest::of(b"x"), size: 1 };
        let record = RunRecord::new(RunId::generate(), Digest::of(b"plan"), 1, input, now_ms());
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
}
