//! What callers have stored that nothing uses.
//!
//! Content is stored before it is told what it is for, and what is for nothing stays until garbage is collected. So each caller,
//! worker or client, may have stored only so much of it: what becomes a run's input, a boundary that the next shard signed for or
//! a verified proof is no longer counted, so what an honest caller stores adds up only while runs are under way and where they fail.
//! The trade-off: the count is in memory, so a coordinator that is started again begins anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shardproof_common::ids::Digest;
use tonic::Status;

use super::limits::Counted;

/// What an upload counts as at least, bytes: one of a single byte takes room as well, here and on the disk.
const LEAST: u64 = 64 << 10;
/// How often a full account is looked through for what is gone by now.
const LOOK: Duration = Duration::from_secs(60);

/// The accounts of all callers.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Accounts>);

#[derive(Debug)]
struct Accounts {
    limit: Option<u64>,
    kept: Duration,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    unused: HashMap<Digest, Unused>,
    /// Bytes that each caller is charged with.
    charged: HashMap<Counted, u64>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Unused {
    caller: Counted,
    bytes: u64,
    since: Instant,
}

impl Uploads {
    /// Each caller may have stored `limit` bytes that nothing uses, or any number. What is unused for as long as `kept` is removed
    /// elsewhere, and forgotten here.
    pub fn new(limit: Option<u64>, kept: Duration) -> Self {
        Self(Arc::new(Accounts { limit, kept, ledger: Mutex::default() }))
    }

    /// Something refers to the artifact now, or it is gone: whoever stored it is no longer charged.
    pub fn used(&self, digest: Digest) {
        let mut ledger = self.ledger();
        if let Some(upload) = ledger.unused.remove(&digest) {
            ledger.discharge(&upload.caller, upload.bytes);
        }
    }

    /// Begins an upload, which is charged while it grows, and no longer once it is dropped.
    pub(super) fn begin(&self, caller: Counted) -> Charge {
        Charge { uploads: self.clone(), caller, received: 0, charged: 0 }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change is whole before anything can panic.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn of(&self, caller: &Counted) -> u64 {
        self.charged.get(caller).copied().unwrap_or(0)
    }

    fn discharge(&mut self, caller: &Counted, bytes: u64) {
        if let Entry::Occupied(mut charged) = self.charged.entry(caller.clone()) {
            *charged.get_mut() = charged.get().saturating_sub(bytes);
            if *charged.get() == 0 {
                charged.remove();
            }
        }
    }

    /// Forgets what has been unused for as long as it is kept.
    fn forget(&mut self, kept: Duration, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let gone = self.unused.extract_if(|_, upload| now.saturating_duration_since(upload.since) >= kept);
        for (_, upload) in gone.collect::<Vec<_>>() {
            self.discharge(&upload.caller, upload.bytes);
        }
    }
}

/// An upload under way.
#[derive(Debug)]
pub(super) struct Charge {
    uploads: Uploads,
    caller: Counted,
    received: u64,
    charged: u64,
}

impl Charge {
    /// Counts further bytes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the caller has stored as much as it may.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Status> {
        let Some(limit) = self.uploads.0.limit else { return Ok(()) };
        let received = self.received + bytes;
        let due = received.max(LEAST) - self.charged;
        let mut ledger = self.uploads.ledger();
        if ledger.of(&self.caller) + due > limit {
            ledger.forget(self.uploads.0.kept, Instant::now());
        }
        let charged = ledger.of(&self.caller);
        if charged + due > limit {
            return Err(Status::resource_exhausted(format!(
                "{} has stored what --max-unused allows, {charged} of {limit} bytes that nothing uses: wait until they are removed, \
                 or raise it",
                self.caller
            )));
        }
        *ledger.charged.entry(self.caller.clone()).or_default() += due;
        (self.received, self.charged) = (received, self.charged + due);
        Ok(())
    }

    /// The artifact was there and is young again: whoever is charged with it, if it is unused, stays so for as long as it is kept.
    pub(super) fn renew(self, digest: Digest) {
        if let Some(known) = self.uploads.ledger().unused.get_mut(&digest) {
            known.since = Instant::now();
        }
    }

    /// Charges the caller with the artifact until something uses it, unless someone is charged with it already.
    pub(super) fn keep(mut self, digest: Digest) {
        if self.uploads.0.limit.is_none() {
            return;
        }
        let mut ledger = self.uploads.ledger();
        if let Entry::Vacant(free) = ledger.unused.entry(digest) {
            free.insert(Unused { caller: self.caller.clone(), bytes: self.charged, since: Instant::now() });
            drop(ledger);
            self.charged = 0;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.uploads.ledger().discharge(&self.caller, self.charged);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn caller(n: u8) -> Counted {
        Counted::At(IpAddr::from([10, 0, 0, n]))
    }

    fn upload(uploads: &Uploads, n: u8, content: &[u8]) -> Result<(), Status> {
        let mut charge = uploads.begin(caller(n));
        charge.grow(content.len() as u64)?;
        charge.keep(Digest::of(content));
        Ok(())
    }

    #[test]
    fn what_is_used_is_not_counted_and_what_is_unused_is() {
        let uploads = Uploads::new(Some(3 * LEAST), Duration::from_secs(3600));
        for n in 0..10u8 {
            upload(&uploads, 1, &[n]).unwrap();
            uploads.used(Digest::of(&[n]));
        }
        let large = vec![7; 2 * LEAST as usize];
        upload(&uploads, 1, &large).unwrap();
        upload(&uploads, 1, b"a").unwrap();
        let refused = upload(&uploads, 1, b"b").unwrap_err();
        assert!(refused.message().contains("--max-unused"), "{refused:?}");
        upload(&uploads, 2, b"b").unwrap();
        uploads.used(Digest::of(&large));
        upload(&uploads, 1, &large).unwrap();
        let unlimited = Uploads::new(None, Duration::ZERO);
        upload(&unlimited, 1, &large).unwrap();
        assert!(unlimited.ledger().unused.is_empty(), "nothing is remembered that nothing asks for");
    }

    #[test]
    fn what_is_under_way_counts_until_it_ends() {
        let uploads = Uploads::new(Some(3 * LEAST), Duration::from_secs(3600));
        let mut one = uploads.begin(caller(1));
        let mut two = uploads.begin(caller(1));
        one.grow(2 * LEAST).unwrap();
        two.grow(LEAST).unwrap();
        assert!(one.grow(1).is_err() && two.grow(1).is_err());
        drop(one);
        two.grow(2 * LEAST).unwrap();
        // The same content a second time takes no more room.
        two.keep(Digest::of(b"content"));
        uploads.begin(caller(2)).keep(Digest::of(b"content"));
        uploads.used(Digest::of(b"content"));
        assert!(uploads.ledger().charged.is_empty() && uploads.ledger().unused.is_empty());
    }

    #[test]
    fn what_is_stored_again_counts_for_as_long_again() {
        let uploads = Uploads::new(Some(LEAST), Duration::from_secs(3600));
        upload(&uploads, 1, b"a").unwrap();
        let earlier = uploads.ledger().unused[&Digest::of(b"a")].since;
        uploads.begin(caller(1)).renew(Digest::of(b"a"));
        assert!(uploads.ledger().unused[&Digest::of(b"a")].since > earlier);
        // What something uses is nobody's, however often it is stored.
        uploads.used(Digest::of(b"a"));
        uploads.begin(caller(1)).renew(Digest::of(b"a"));
        assert!(uploads.ledger().unused.is_empty());
    }

    #[test]
    fn what_is_removed_by_now_is_forgotten() {
        let uploads = Uploads::new(Some(LEAST), Duration::ZERO);
        upload(&uploads, 1, b"a").unwrap();
        upload(&uploads, 1, b"b").unwrap();
        // Looking through everything each time would be worth an attack of its own.
        assert!(upload(&uploads, 1, b"c").is_err());
    }
}
