//! Group commit: the writes that wait are made in one transaction, and each is acknowledged after it.
//!
//! A change is shown only once it is on the disk, and the disk takes a millisecond or more to say so. One writer that gathers
//! what has come meanwhile makes many changes cost hardly more than one. Every transaction first claims the lease that this
//! process serves under, so that nothing is written by a coordinator that another has replaced. The trade-off: all writes of
//! a transaction wait for the slowest, and one that the database refuses makes the others go through it once more alone.

use tokio::sync::{mpsc, oneshot};

use super::lease::Lease;
use super::sql::{Database, Statement, StoreError};

/// Most writes in one transaction.
const MOST: usize = 512;
/// Writes that may wait before writers do.
const QUEUE: usize = 1024;

/// Statements that belong together, and who waits for them.
struct Write {
    statements: Vec<Statement>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Where writes are handed in.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Write>,
}

impl Writer {
    /// Starts the writer of a process that holds `lease`; it ends when nobody is left to hand anything in.
    pub(super) fn start(database: Database, lease: Lease) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(database, lease, waiting));
        Self { queue }
    }

    /// Returns once `statements` are durable, all of them, or none are.
    pub(super) async fn write(&self, statements: Vec<Statement>) -> Result<(), StoreError> {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Write { statements, done }).await.map_err(|_| StoreError::Stopping)?;
        outcome.await.map_err(|_| StoreError::Stopping)?
    }
}

async fn write_all(database: Database, lease: Lease, mut waiting: mpsc::Receiver<Write>) {
    let fence = lease.claim();
    while let Some(first) = waiting.recv().await {
        let mut batch = vec![first];
        while batch.len() < MOST
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        let outcome = database.transact(&fence, batch.iter().flat_map(|write| &write.statements)).await;
        if let Err(StoreError::Fenced) = outcome {
            lease.lost();
        }
        match outcome {
            Err(error) if batch.len() > 1 && error.is_about_a_statement() => {
                for write in batch {
                    let alone = database.transact(&fence, write.statements.iter()).await;
                    acknowledge(write, alone);
                }
            }
            outcome => batch.into_iter().for_each(|write| acknowledge(write, outcome.clone())),
        }
    }
}

fn acknowledge(write: Write, outcome: Result<(), StoreError>) {
    // A writer that no longer waits was stopped; what it wrote stays written.
    let _unheard = write.done.send(outcome);
}
