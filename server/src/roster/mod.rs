//! Who is connected here: a seat for each session of this process, with its outbox. The one place where a
//! session begins and ends, and where it is decided who may stay and what newcomers are told.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tern_protocol::UserId;

mod edges;
mod limit;
pub mod outbox;
mod outgoing;
mod seat;
#[cfg(test)]
pub(crate) mod tests;

pub use edges::{Changes, Edge, Edges, Judge};
pub use outbox::{Outbox, OutboxConfig, Pushed};
pub use outgoing::{Format, Outgoing};
pub use seat::{Origin, Seat, SessionInfo};

use crate::clock::{now, stamp_ms};
use crate::drain::Leaving;
use limit::{Candidate, victim};

/// Maps of seats, to keep their locks apart. All that is decided about a user is decided under one lock.
const SHARDS: usize = 32;

/// The seats of a user in the order in which they were taken.
type Seats = SmallVec<[Arc<Seat>; 2]>;

/// The sessions of this process by user. Cheap to clone.
#[derive(Clone)]
pub struct Roster {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    readers: RwLock<Vec<Edges>>,
}

#[derive(Default)]
struct Shard {
    users: HashMap<UserId, Seats, RandomState>,
    stage: Stage,
}

/// Whether newcomers may stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// As long as they like.
    #[default]
    Open,
    /// The node goes: they are to be told at once.
    Leaving(Leaving),
    /// The node has closed its sessions.
    Over,
}

/// A session has begun.
pub struct Begun {
    /// Its seat.
    pub guard: SeatGuard,
    /// Who had to leave for it: off the roster already, and to be closed.
    pub replaced: Option<Arc<Seat>>,
    /// What it is to be told.
    pub stage: Stage,
}

/// A taken seat; dropping it is the end of the session, and the only one.
pub struct SeatGuard {
    roster: Roster,
    seat: Arc<Seat>,
}

impl SeatGuard {
    /// The seat.
    pub fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.roster.end(&self.seat);
    }
}

impl Default for Roster {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let inner = Inner { shards, hasher: RandomState::default(), readers: RwLock::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Roster {
    /// Gives a session its seat. A user has at most `seats_max`, whatever happens at the same time: one more
    /// takes the place of another.
    pub fn begin(&self, seat: Seat, seats_max: usize) -> Begun {
        let seat = Arc::new(seat);
        let mut shard = self.shard(&seat.user).write();
        let stage = shard.stage;
        let seats = shard.users.entry(seat.user.clone()).or_default();
        let first = seats.is_empty();
        let replaced = (seats.len() >= seats_max.max(1)).then(|| {
            let candidate = |other: &Arc<Seat>| Candidate {
                same_device: other.device == seat.device,
                heard: other.last_heard(),
            };
            seats.remove(victim(&seats.iter().map(candidate).collect::<SmallVec<[_; 32]>>()))
        });
        seats.push(Arc::clone(&seat));
        if let Some(replaced) = &replaced {
            self.tell_end(replaced);
        }
        if first {
            self.tell_edge(&seat.user, true);
        }
        drop(shard);
        Begun { guard: SeatGuard { roster: self.clone(), seat }, replaced, stage }
    }

    fn end(&self, seat: &Arc<Seat>) {
        let mut shard = self.shard(&seat.user).write();
        let Some(seats) = shard.users.get_mut(&seat.user) else { return };
        // One that had to make room is not there any more.
        let Some(place) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) else { return };
        seats.remove(place);
        self.tell_end(seat);
        if seats.is_empty() {
            shard.users.remove(&seat.user);
            self.tell_edge(&seat.user, false);
        }
    }

    /// Adds the seats of a user to `into`.
    pub fn seats_of(&self, user: &UserId, into: &mut Vec<Arc<Seat>>) {
        if let Some(seats) = self.shard(user).read().users.get(user) {
            into.extend(seats.iter().cloned());
        }
    }

    /// Whether the user has a session here.
    pub fn is_here(&self, user: &UserId) -> bool {
        self.shard(user).read().users.contains_key(user)
    }

    /// All users who have a session here.
    pub fn users(&self) -> Vec<UserId> {
        let shards = self.inner.shards.iter();
        shards.flat_map(|shard| shard.read().users.keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Has it told in [`Changes`] when this session ends, and when its user may see others anew. False if it has
    /// ended already, and then nothing more is told of it.
    pub fn mark(&self, seat: &Seat) -> bool {
        let shard = self.shard(&seat.user).read();
        let mut seats = shard.users.get(&seat.user).into_iter().flatten();
        let here = seats.any(|other| other.at == seat.at);
        if here {
            seat.watching.store(true, Ordering::Relaxed);
        }
        here
    }

    /// A user may see these others anew, or not any more. Told to those who want to know, if a session of the user
    /// is marked.
    pub fn judge<'a>(&self, user: &UserId, about: impl Iterator<Item = &'a UserId> + Clone) {
        let shard = self.shard(user).read();
        let mut seats = shard.users.get(user).into_iter().flatten();
        if seats.any(|seat| seat.watching.load(Ordering::Relaxed)) {
            for reader in &*self.inner.readers.read() {
                reader.judge(user, about.clone());
            }
        }
    }

    /// For somebody who wants to know who comes and goes; begins with everybody who is here.
    pub fn edges(&self) -> Edges {
        let edges = Edges::default();
        self.inner.readers.write().push(edges.clone());
        let here = Edge { here: true, at: now(), at_ms: stamp_ms() };
        for shard in &self.inner.shards {
            let shard = shard.read();
            shard.users.keys().for_each(|user| edges.user(user, here));
        }
        edges
    }

    /// From now on newcomers are to be told that the node goes. Everybody who is not told by that is in the
    /// list.
    pub fn leave(&self, leaving: Leaving) -> Vec<Arc<Seat>> {
        self.enter(Stage::Leaving(leaving))
    }

    /// From now on nobody stays. Everybody else is in the list.
    pub fn shut(&self) -> Vec<Arc<Seat>> {
        self.enter(Stage::Over)
    }

    fn enter(&self, stage: Stage) -> Vec<Arc<Seat>> {
        let mut all = Vec::new();
        for shard in &self.inner.shards {
            let mut shard = shard.write();
            shard.stage = stage;
            all.extend(shard.users.values().flatten().cloned());
        }
        all
    }

    fn tell_edge(&self, user: &UserId, here: bool) {
        let edge = Edge { here, at: now(), at_ms: stamp_ms() };
        self.inner.readers.read().iter().for_each(|edges| edges.user(user, edge));
    }

    fn tell_end(&self, seat: &Seat) {
        if seat.watching.load(Ordering::Relaxed) {
            self.inner.readers.read().iter().for_each(|edges| edges.ended(seat.id()));
        }
    }

    fn shard(&self, user: &UserId) -> &RwLock<Shard> {
        &self.inner.shards[self.inner.hasher.hash_one(user) as usize % SHARDS]
    }
}
