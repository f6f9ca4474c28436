//! Which worker holds which shard. Pure bookkeeping: every change returns the orders that follow from it, for the caller to
//! send.
//!
//! FIRST takes shard 0, LAST the last, SOLO the only one, MIDDLE the lowest free one between, except that a worker gets the
//! shard back that it held before, because its spool is there. A worker whose places are taken is a spare and steps in when
//! one becomes vacant: of several the one with the best record. One that failed hands its shard to a spare with a better one;
//! what it had spooled is then out of reach, which is the price of not asking it again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::receipt::PublicKey;
use thiserror::Error;

/// A worker that could not take its shard is no better than another that cannot for so long.
const TROUBLE_LASTS: Duration = Duration::from_secs(600);

/// Names one connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// How a worker's record compares with that of another that could take the same shard; the lesser goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rank {
    /// What it failed or refused.
    pub(crate) failures: u64,
    pub(crate) proved: u64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.failures.cmp(&other.failures).then(other.proved.cmp(&self.proved))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A connected worker.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: PublicKey,
    pub(crate) role: Role,
    pub(crate) address: String,
    /// The shard it has, or none for a spare.
    pub(crate) shard: Option<ShardIndex>,
    /// Whether it has fetched its shard.
    pub(crate) ready: bool,
    /// Why it cannot take it.
    pub(crate) trouble: Option<String>,
    /// Whether that is its own doing.
    failing: bool,
    /// Whether it is to stop: what is under way passes through it, nothing new is begun with it.
    pub(crate) leaving: bool,
    pub(crate) since: Instant,
    pub(crate) last_seen: Instant,
    rank: Rank,
    neighbours: Option<Neighbours>,
}

impl Member {
    /// Whether new runs may count on it. Those under way pass through it for as long as it is ready: it waits for them before it
    /// leaves.
    pub(crate) fn serves(&self) -> bool {
        self.ready && !self.leaving
    }
}

/// Who stands before and after a worker in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// Where outputs go; none while the next shard has no ready worker.
    pub(crate) next: Option<String>,
    /// Whose outputs are taken; none for shard 0 and while the previous shard is vacant.
    pub(crate) previous: Option<PublicKey>,
}

/// What a worker is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take this shard.
    Take(SessionId, ShardIndex),
    /// These are its neighbours.
    Route(SessionId, Neighbours),
    /// Close the connection.
    Close(SessionId),
}

/// A worker that was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) session: SessionId,
    /// The shard that it had.
    pub(crate) shard: Option<ShardIndex>,
    /// What follows for the others.
    pub(crate) orders: Vec<Order>,
}

/// The workers of one plan.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: usize,
    coordinator: String,
    members: BTreeMap<SessionId, Member>,
    remembered: HashMap<PublicKey, ShardIndex>,
    /// When workers last could not take their shard.
    troubled: HashMap<PublicKey, Instant>,
    next_session: u64,
}

impl Registry {
    /// For a plan of `shards` shards whose last outputs go to `coordinator`; `remembered` is who held what before.
    pub(crate) fn new(shards: usize, coordinator: String, remembered: HashMap<PublicKey, ShardIndex>) -> Self {
        // Sessions of an earlier process must not be taken for those of this one.
        let next_session = rand::random::<u32>().into();
        let (members, troubled) = (BTreeMap::new(), HashMap::new());
        Self { shards, coordinator, members, remembered, troubled, next_session }
    }

    /// Whether the plan has a place for `role`.
    pub(crate) fn check_role(&self, role: Role) -> Result<(), RoleError> {
        let shards = self.shards;
        match role {
            Role::Solo if shards != 1 => Err(RoleError::Solo { shards }),
            Role::First | Role::Last if shards < 2 => Err(RoleError::NotSolo { role }),
            Role::Middle if shards < 3 => Err(RoleError::NoMiddle { shards }),
            _ => Ok(()),
        }
    }

    /// Of the plan.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// Adds a worker. One that is already connected under the same key is closed: it has reconnected.
    pub(crate) fn join(
        &mut self,
        key: PublicKey,
        role: Role,
        address: String,
        rank: Rank,
    ) -> Result<(SessionId, Vec<Order>), RoleError> {
        self.check_role(role)?;
        let earlier = self.members.iter().find(|(_, member)| member.key == key).map(|(&id, _)| id);
        let mut orders = Vec::new();
        if let Some(id) = earlier {
            self.members.remove(&id);
            orders.push(Order::Close(id));
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let now = Instant::now();
        let member = Member {
            key,
            role,
            address,
            shard: None,
            ready: false,
            trouble: None,
            failing: false,
            leaving: false,
            since: now,
            last_seen: now,
            rank,
            neighbours: None,
        };
        self.members.insert(session, member);
        orders.extend(self.fill());
        Ok((session, orders))
    }

    /// Removes a worker; a spare steps in where there is one.
    pub(crate) fn leave(&mut self, session: SessionId) -> Vec<Order> {
        match self.members.remove(&session) {
            Some(_) => self.fill(),
            None => Vec::new(),
        }
    }

    /// Removes the worker with this key, which is not expected back.
    pub(crate) fn expel(&mut self, key: &PublicKey) -> Option<Removed> {
        self.remembered.remove(key);
        let (session, _) = self.by_key(key)?;
        let shard = self.members.remove(&session)?.shard;
        Some(Removed { session, shard, orders: self.fill() })
    }

    /// Notes a worker's record as it is now. One that failed more often than a spare for its place, or cannot take its shard where the
    /// spare may, is removed, so that the spare takes over; when it joins again it is a spare itself.
    pub(crate) fn rerank(&mut self, key: &PublicKey, rank: Rank) -> Option<Removed> {
        let (session, _) = self.by_key(key)?;
        let member = self.members.get_mut(&session)?;
        member.rank = rank;
        let role = member.shard.map(|_| member.role)?;
        let failing = member.failing;
        // Two that cannot take it would hand it back and forth.
        let was_troubled = |key: &PublicKey| self.troubled.get(key).is_some_and(|at| at.elapsed() < TROUBLE_LASTS);
        let better = |spare: &Member| spare.rank.failures < rank.failures || failing && !was_troubled(&spare.key);
        let takes_over = |spare: &Member| spare.role == role && spare.shard.is_none() && better(spare);
        if self.members.values().any(takes_over) { self.expel(key) } else { None }
    }

    /// Notes that a worker has its shard.
    pub(crate) fn ready(&mut self, session: SessionId, shard: ShardIndex) -> Vec<Order> {
        match self.members.get_mut(&session) {
            Some(member) if member.shard == Some(shard) => {
                (member.ready, member.trouble, member.failing) = (true, None, false);
                self.troubled.remove(&member.key);
            }
            _ => return Vec::new(),
        }
        self.routes()
    }

    /// Notes why a worker cannot take its shard through its own doing; true when it could until now, as far as anyone knew.
    pub(crate) fn troubled(&mut self, session: SessionId, reason: String) -> bool {
        let Some(member) = self.members.get_mut(&session) else { return false };
        self.troubled.insert(member.key, Instant::now());
        member.trouble = Some(reason);
        !std::mem::replace(&mut member.failing, true)
    }

    /// Notes why a worker cannot take its shard where that is not its doing: it is shown, and another would fare no better.
    pub(crate) fn hindered(&mut self, session: SessionId, reason: String) {
        if let Some(member) = self.members.get_mut(&session) {
            member.trouble = Some(reason);
        }
    }

    /// Notes that a worker is to stop; which shard it holds, if any.
    pub(crate) fn leaving(&mut self, session: SessionId) -> Option<ShardIndex> {
        let member = self.members.get_mut(&session)?;
        member.leaving = true;
        member.shard
    }

    /// Notes a heartbeat; false when the session is not known.
    pub(crate) fn seen(&mut self, session: SessionId) -> bool {
        match self.members.get_mut(&session) {
            Some(member) => {
                member.last_seen = Instant::now();
                true
            }
            None => false,
        }
    }

    /// Sessions whose last heartbeat is older than `age`.
    pub(crate) fn silent(&self, age: Duration) -> Vec<SessionId> {
        let silent = self.members.iter().filter(|(_, member)| member.last_seen.elapsed() > age);
        silent.map(|(&id, _)| id).collect()
    }

    /// The worker that holds a shard, ready or not.
    pub(crate) fn holder(&self, shard: ShardIndex) -> Option<(SessionId, &Member)> {
        self.members.iter().find(|(_, member)| member.shard == Some(shard)).map(|(&id, member)| (id, member))
    }

    /// Who holds the shards, in their order; shards without a worker are left out.
    pub(crate) fn holders(&self) -> Vec<PublicKey> {
        let all = (0..self.shards as u32).map(ShardIndex);
        all.filter_map(|shard| self.holder(shard)).map(|(_, member)| member.key).collect()
    }

    /// The worker with this key.
    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<(SessionId, &Member)> {
        self.members.iter().find(|(_, member)| member.key == *key).map(|(&id, member)| (id, member))
    }

    /// The member behind a session.
    pub(crate) fn member(&self, session: SessionId) -> Option<&Member> {
        self.members.get(&session)
    }

    /// All members by the time of joining.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// All shards that are given out.
    pub(crate) fn assigned(&self) -> Vec<(SessionId, ShardIndex)> {
        self.members.iter().filter_map(|(&id, member)| Some((id, member.shard?))).collect()
    }

    /// Shards that no worker holds on whom new runs may count.
    pub(crate) fn vacant(&self) -> Vec<ShardIndex> {
        self.without(Member::serves)
    }

    /// Shards that no worker is ready for, be it one that is to stop.
    pub(crate) fn unready(&self) -> Vec<ShardIndex> {
        self.without(|member| member.ready)
    }

    fn without(&self, holds: impl Fn(&Member) -> bool) -> Vec<ShardIndex> {
        let all = (0..self.shards as u32).map(ShardIndex);
        all.filter(|&shard| !self.holder(shard).is_some_and(|(_, member)| holds(member))).collect()
    }

    /// Gives vacant shards to workers without one: those with the best records first, and of equals those that joined first.
    fn fill(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        let idle = self.members.iter().filter(|(_, member)| member.shard.is_none());
        let mut idle: Vec<(Rank, SessionId)> = idle.map(|(&id, member)| (member.rank, id)).collect();
        idle.sort_unstable();
        for (_, session) in idle {
            let Some(shard) = self.place_for(session) else { continue };
            if let Some(member) = self.members.get_mut(&session) {
                member.shard = Some(shard);
                self.remembered.insert(member.key, shard);
                orders.push(Order::Take(session, shard));
            }
        }
        orders.extend(self.routes());
        orders
    }

    /// The shard for a worker: the one it held before, else the lowest vacant one, preferring those that nobody is expected
    /// back for.
    fn place_for(&self, session: SessionId) -> Option<ShardIndex> {
        let member = self.members.get(&session)?;
        let places =
            (0..self.shards as u32).map(ShardIndex).filter(|&shard| Role::of(shard, self.shards) == member.role);
        let vacant: Vec<ShardIndex> = places.filter(|&shard| self.holder(shard).is_none()).collect();
        let before = self.remembered.get(&member.key).copied();
        let expected_back =
            |shard: &ShardIndex| self.remembered.iter().any(|(key, at)| at == shard && *key != member.key);
        let own = before.filter(|shard| vacant.contains(shard));
        own.or_else(|| vacant.iter().copied().find(|shard| !expected_back(shard))).or_else(|| vacant.first().copied())
    }

    /// Neighbours that changed: each holder sends to the next shard's ready holder, the last one to the coordinator.
    fn routes(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for index in 0..self.shards as u32 {
            let next = if index as usize + 1 == self.shards {
                Some(self.coordinator.clone())
            } else {
                self.holder(ShardIndex(index + 1))
                    .filter(|(_, member)| member.ready)
                    .map(|(_, member)| member.address.clone())
            };
            let previous =
                index.checked_sub(1).and_then(|before| self.holder(ShardIndex(before))).map(|(_, member)| member.key);
            let neighbours = Neighbours { next, previous };
            let Some((session, _)) = self.holder(ShardIndex(index)) else { continue };
            if let Some(member) = self.members.get_mut(&session)
                && member.neighbours.as_ref() != Some(&neighbours)
            {
                member.neighbours = Some(neighbours.clone());
                orders.push(Order::Route(session, neighbours));
            }
        }
        orders
    }
}

/// A role that the plan has no place for.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum RoleError {
    #[error("role SOLO makes no sense with {shards} shards: use {}", if *shards == 2 { "FIRST or LAST" } else { "FIRST, MIDDLE or LAST" })]
    Solo { shards: usize },
    #[error("role {role} makes no sense with 1 shard: use SOLO")]
    NotSolo { role: Role },
    #[error("role MIDDLE makes no sense with {shards} shards: use {}", if *shards == 1 { "SOLO" } else { "FIRST or LAST" })]
    NoMiddle { shards: usize },
}

#[cfg(test)]
mod tests;
