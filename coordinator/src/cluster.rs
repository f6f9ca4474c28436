//! The connected workers: the registry's orders become messages on their streams.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use dashmap::DashMap;
use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::receipt::PublicKey;
use shardproof_proto::v1::coordinator_message::Message;
use shardproof_proto::v1::{CoordinatorMessage, Route, Welcome};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::registry::{Member, Order, Rank, Registry, Removed, RoleError, SessionId};

/// A worker's stream as the coordinator writes it.
pub(crate) type Stream = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// The workers of one plan with their streams.
pub(crate) struct Cluster {
    registry: Mutex<Registry>,
    connections: DashMap<SessionId, Connection>,
    /// Tells when a worker became ready or left.
    changes: watch::Sender<()>,
}

/// How one worker is reached.
struct Connection {
    stream: Stream,
    /// Cancelled when the coordinator is done with the worker.
    closed: CancellationToken,
}

/// What a worker that was taken out leaves.
pub(crate) struct Departure {
    /// The shard that it had.
    pub(crate) shard: Option<ShardIndex>,
    /// What spares take over.
    pub(crate) given: Vec<(SessionId, ShardIndex)>,
}

impl Cluster {
    pub(crate) fn new(shards: usize, coordinator: String, remembered: HashMap<PublicKey, ShardIndex>) -> Self {
        Self {
            registry: Mutex::new(Registry::new(shards, coordinator, remembered)),
            connections: DashMap::new(),
            changes: watch::Sender::new(()),
        }
    }

    /// Sees every change of who is ready from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Looks at the registry.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.lock())
    }

    /// Adds a worker and welcomes it; returns its session and the shards that were given out. `closed` is cancelled when the
    /// session is to end.
    pub(crate) fn join(
        &self,
        key: PublicKey,
        role: Role,
        address: String,
        rank: Rank,
        stream: Stream,
        closed: CancellationToken,
    ) -> Result<(SessionId, Vec<(SessionId, ShardIndex)>), RoleError> {
        let (session, orders) = {
            // Both under one lock, or an order for the new session could find no connection.
            let mut registry = self.lock();
            let joined = registry.join(key, role, address, rank)?;
            self.connections.insert(joined.0, Connection { stream, closed });
            joined
        };
        self.send(session, Message::Welcome(Welcome { session: session.0 }));
        Ok((session, self.carry_out(orders)))
    }

    /// Removes a worker; returns the shards that spares took over.
    pub(crate) fn leave(&self, session: SessionId) -> Vec<(SessionId, ShardIndex)> {
        self.connections.remove(&session);
        let orders = self.lock().leave(session);
        self.changes.send_replace(());
        self.carry_out(orders)
    }

    /// Ends the connection of a worker whose key is refused from now on.
    pub(crate) fn expel(&self, key: PublicKey, why: &str) -> Option<Departure> {
        let removed = self.lock().expel(&key);
        removed.map(|removed| self.see_off(removed, Status::permission_denied(why)))
    }

    /// Notes a worker's record; one that failed makes room for a spare with a better one.
    pub(crate) fn rerank(&self, key: PublicKey, rank: Rank) -> Option<Departure> {
        let removed = self.lock().rerank(&key, rank);
        let status = Status::aborted("a worker with a better record has taken the shard over");
        removed.map(|removed| self.see_off(removed, status))
    }

    fn see_off(&self, removed: Removed, status: Status) -> Departure {
        self.close(removed.session, status);
        Departure { shard: removed.shard, given: self.carry_out(removed.orders) }
    }

    pub(crate) fn ready(&self, session: SessionId, shard: ShardIndex) {
        let orders = self.lock().ready(session, shard);
        self.carry_out(orders);
        self.changes.send_replace(());
    }

    /// Notes why a worker cannot take its shard through its own doing; true when it could until now, as far as anyone knew.
    pub(crate) fn troubled(&self, session: SessionId, reason: String) -> bool {
        self.lock().troubled(session, reason)
    }

    /// Notes why a worker cannot take its shard where that is not its doing.
    pub(crate) fn hindered(&self, session: SessionId, reason: String) {
        self.lock().hindered(session, reason);
    }

    /// Gives a worker that is to stop no further runs; which shard it holds, if any.
    pub(crate) fn leaving(&self, session: SessionId) -> Option<ShardIndex> {
        self.lock().leaving(session)
    }

    /// Ends the session of a worker that is to stop.
    pub(crate) fn dismiss(&self, session: SessionId) {
        self.close(session, Status::unavailable("no run needs the worker any more"));
    }

    pub(crate) fn seen(&self, session: SessionId) -> bool {
        self.lock().seen(session)
    }

    /// Closes the streams of workers that have been silent for longer than `age`.
    pub(crate) fn close_silent(&self, age: Duration) {
        let silent = self.lock().silent(age);
        for session in silent {
            tracing::warn!(session = session.0, "no heartbeat, closing the worker's session");
            self.close(session, Status::unavailable("no heartbeat arrived"));
        }
    }

    /// Ends the streams of all workers, because the coordinator ends: its server waits for them. No worker is lost by this.
    pub(crate) fn hang_up(&self) {
        self.connections.clear();
    }

    /// Sends a message; false when the worker is gone or does not read.
    pub(crate) fn send(&self, session: SessionId, message: Message) -> bool {
        let message = CoordinatorMessage { message: Some(message) };
        let sent =
            self.connections.get(&session).is_some_and(|connection| connection.stream.try_send(Ok(message)).is_ok());
        if !sent {
            self.close(session, Status::resource_exhausted("the worker does not read its messages"));
        }
        sent
    }

    /// The member behind a session.
    pub(crate) fn member(&self, session: SessionId) -> Option<Member> {
        self.lock().member(session).cloned()
    }

    /// Ends a worker's stream; its session task then removes the worker.
    fn close(&self, session: SessionId, status: Status) {
        if let Some((_, connection)) = self.connections.remove(&session) {
            // A stream that is full or closed ends all the same: its senders are dropped.
            let _unread = connection.stream.try_send(Err(status));
            connection.closed.cancel();
        }
    }

    fn carry_out(&self, orders: Vec<Order>) -> Vec<(SessionId, ShardIndex)> {
        let mut given = Vec::new();
        for order in orders {
            match order {
                Order::Take(session, shard) => given.push((session, shard)),
                Order::Route(session, neighbours) => {
                    let previous = neighbours.previous.map(|key| key.as_bytes().to_vec().into());
                    let route =
                        Route { next: neighbours.next.unwrap_or_default(), previous: previous.unwrap_or_default() };
                    self.send(session, Message::Route(route));
                }
                Order::Close(session) => self.close(session, Status::aborted("the worker joined again")),
            }
        }
        given
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // The registry's methods leave it consistent even when a caller's closure panics.
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
