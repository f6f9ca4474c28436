//! Which of several coordinators on one database serves.
//!
//! The one that holds the lease. It gives signs of life by counting `beat` up; one that waits takes the lease over when the
//! count has stood still for [`LIFETIME`] on the waiting one's own monotonic clock, or when the lease was given back. No
//! wall clock is compared with another, so a clock that jumps neither loses a lease nor makes two. Each taking counts `term` up
//! and every write names its term: a holder that was only slow, and does not know yet that it was replaced, changes nothing
//! any more. The trade-off: after a crash another machine waits out the lifetime; the same data directory, which only one
//! process can hold, does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shardproof_common::receipt::PublicKey;
use tokio_util::sync::CancellationToken;

use super::sql::{Database, Kind, Statement, StoreError};

/// A lease without a sign of life for so long is free.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10);
/// The one that a database holds: it has one service.
const SERVICE: &str = "coordinator";

/// The lease that this process holds.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    term: i64,
    lost: Arc<CancellationToken>,
}

/// Who asks for a lease.
pub(crate) struct Candidate {
    /// Owner of the service: a database serves one.
    pub(crate) owner: PublicKey,
    /// Names the data directory.
    pub(crate) holder: PublicKey,
}

/// The lease as the database has it.
struct Standing {
    owner: [u8; 32],
    holder: [u8; 32],
    term: i64,
    beat: i64,
    released: bool,
}

impl Lease {
    /// The statement that claims the lease and is a sign of life; it changes nothing once another holds it.
    pub(super) fn claim(&self) -> Statement {
        Statement::new("UPDATE leases SET beat = beat + 1 WHERE service = $1 AND term = $2")
            .bind(SERVICE)
            .bind(self.term)
    }

    /// Counts the holders of the lease up to this one.
    pub(crate) fn term(&self) -> i64 {
        self.term
    }

    /// Notes that another holds it now.
    pub(super) fn lost(&self) {
        self.lost.cancel();
    }

    /// Cancelled once it is known that another holds it.
    pub(crate) fn is_lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives signs of life until the database is closed. What it does not take is tried again: while it is away nobody else can
    /// take the lease either.
    pub(super) async fn keep(self, database: Database) {
        let mut beats = tokio::time::interval(LIFETIME / 5);
        while !database.is_closed() {
            tokio::select! {
                _ = beats.tick() => {}
                () = self.lost.cancelled() => return,
            }
            match database.execute(&self.claim()).await {
                Ok(1) => {}
                Ok(_) => self.lost(),
                Err(error) => tracing::debug!(%error, "no sign of life reached the database"),
            }
        }
    }

    /// Lets another take it at once.
    pub(crate) async fn give_back(&self, database: &Database) -> Result<(), StoreError> {
        let release = Statement::new("UPDATE leases SET released = 1 WHERE service = $1 AND term = $2");
        database.execute(&release.bind(SERVICE).bind(self.term)).await?;
        Ok(())
    }
}

/// Waits until the lease is this process's; nothing when it is told to stop before. `lifetime` is [`LIFETIME`] except in tests.
pub(crate) async fn take(
    database: &Database,
    candidate: &Candidate,
    lifetime: Duration,
    stop: &CancellationToken,
) -> Result<Option<Lease>, StoreError> {
    let mut last: Option<(i64, i64, Instant)> = None;
    loop {
        match try_take(database, candidate, lifetime, &mut last).await {
            Ok(Some(term)) => return Ok(Some(Lease { term, lost: Arc::default() })),
            Ok(None) => {}
            Err(error @ StoreError::OtherOwner) => return Err(error),
            Err(error) if last.is_none() => return Err(error),
            // One that stands by outlives a database that is away.
            Err(error) => tracing::warn!(%error, "standing by: cannot see the lease"),
        }
        tokio::select! {
            () = tokio::time::sleep(lifetime / 20) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// One look at the lease, and one try where it is free. `last` is what was seen before and since when it has been so.
pub(super) async fn try_take(
    database: &Database,
    candidate: &Candidate,
    lifetime: Duration,
    last: &mut Option<(i64, i64, Instant)>,
) -> Result<Option<i64>, StoreError> {
    let Some(standing) = look(database).await? else {
        let first = Statement::new(
            "INSERT INTO leases (service, owner, holder, term, beat, released) VALUES ($1, $2, $3, 1, 0, 0)
             ON CONFLICT DO NOTHING",
        );
        let first = first.bind(SERVICE).bind(&candidate.owner.as_bytes()[..]).bind(&candidate.holder.as_bytes()[..]);
        return Ok((database.execute(&first).await? == 1).then_some(1));
    };
    if standing.owner != *candidate.owner.as_bytes() {
        return Err(StoreError::OtherOwner);
    }
    // A data directory has one process: whoever held the lease with this one is gone.
    let own = standing.holder == *candidate.holder.as_bytes() || database.is_private();
    let seen = (standing.term, standing.beat);
    let since = match *last {
        Some((term, beat, since)) if (term, beat) == seen => since,
        earlier => {
            if earlier.is_none() && !standing.released && !own {
                tracing::info!(term = standing.term, "standing by: another coordinator may be serving");
            }
            Instant::now()
        }
    };
    *last = Some((seen.0, seen.1, since));
    if !standing.released && !own && since.elapsed() < lifetime {
        return Ok(None);
    }
    let take = Statement::new(
        "UPDATE leases SET term = term + 1, beat = beat + 1, released = 0, holder = $1
         WHERE service = $2 AND term = $3 AND beat = $4",
    );
    let take = take.bind(&candidate.holder.as_bytes()[..]).bind(SERVICE).bind(standing.term).bind(standing.beat);
    if database.execute(&take).await? != 1 {
        return Ok(None);
    }
    if !own {
        let why = if standing.released { "it was given back" } else { "its holder gave no sign of life" };
        tracing::info!(term = standing.term + 1, "the lease is this coordinator's: {why}");
    }
    Ok(Some(standing.term + 1))
}

async fn look(database: &Database) -> Result<Option<Standing>, StoreError> {
    let query = Statement::new("SELECT owner, holder, term, beat, released FROM leases WHERE service = $1");
    let columns = [Kind::Bytes, Kind::Bytes, Kind::Int, Kind::Int, Kind::Int];
    let Some(mut row) = database.fetch(&query.bind(SERVICE), &columns).await?.pop() else { return Ok(None) };
    Ok(Some(Standing {
        owner: row.array()?,
        holder: row.array()?,
        term: row.int()?,
        beat: row.int()?,
        released: row.int()? != 0,
    }))
}
