//! Who is connected here: a seat for each session of this process, with its outbox.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tern_protocol::{ConversationId, DeviceId, UserId};

pub mod outbox;

pub use outbox::{Format, Outbox, OutboxConfig, Outgoing, Pushed};

use crate::cluster::SessionRef;

/// Maps of sessions, to keep their locks apart.
const SHARDS: usize = 32;
/// Deliveries per session whose time to the Ack is measured; the oldest is forgotten.
const TIMED_MAX: usize = 64;

/// One live session, as the rest of the server sees it.
pub struct Seat {
    /// Its number on this node.
    pub id: u64,
    /// The same for the whole fleet.
    pub at: SessionRef,
    /// Whose.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// What it is to be sent.
    pub outbox: Arc<Outbox>,
    timed: Mutex<VecDeque<(ConversationId, u64, Instant)>>,
}

impl Seat {
    /// A session with nothing to measure yet.
    pub fn new(at: SessionRef, user: UserId, device: DeviceId, outbox: Arc<Outbox>) -> Self {
        Self { id: at.session, at, user, device, outbox, timed: Mutex::default() }
    }

    /// An entry whose Send arrived at `arrived` was queued for this session.
    pub fn delivered(&self, conversation: ConversationId, seq: u64, arrived: Instant) {
        let mut timed = self.timed.lock();
        if timed.len() == TIMED_MAX {
            timed.pop_front();
        }
        timed.push_back((conversation, seq, arrived));
    }

    /// The session has acked up to `seq`: how long each measured entry took.
    pub fn acked(&self, conversation: ConversationId, seq: u64, mut took: impl FnMut(Duration)) {
        self.timed.lock().retain(|(of, place, arrived)| {
            let done = *of == conversation && *place <= seq;
            if done {
                took(arrived.elapsed());
            }
            !done
        });
    }
}

type Seats = SmallVec<[Arc<Seat>; 2]>;

/// The sessions of this process by user. Cheap to clone.
#[derive(Clone)]
pub struct Roster {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<RwLock<HashMap<UserId, Seats>>>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Roster {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { inner: Arc::new(Inner { shards, hasher: foldhash::fast::RandomState::default() }) }
    }
}

/// A taken seat; dropping it is the only way to leave it.
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
        let mut shard = self.roster.shard(&self.seat.user).write();
        if let Some(seats) = shard.get_mut(&self.seat.user) {
            seats.retain(|seat| seat.id != self.seat.id);
            if seats.is_empty() {
                shard.remove(&self.seat.user);
            }
        }
    }
}

impl Roster {
    /// Gives a session its seat. Says which is the user's oldest if there are now more than `seats_max`.
    pub fn register(&self, seat: Seat, seats_max: usize) -> (SeatGuard, Option<Arc<Seat>>) {
        let seat = Arc::new(seat);
        let mut shard = self.shard(&seat.user).write();
        let seats = shard.entry(seat.user.clone()).or_default();
        seats.push(Arc::clone(&seat));
        let replaced = (seats.len() > seats_max).then(|| Arc::clone(&seats[0]));
        drop(shard);
        (SeatGuard { roster: self.clone(), seat }, replaced)
    }

    /// Adds the seats of a user to `into`.
    pub fn seats_of(&self, user: &UserId, into: &mut Vec<Arc<Seat>>) {
        if let Some(seats) = self.shard(user).read().get(user) {
            into.extend(seats.iter().cloned());
        }
    }

    /// Whether the user has a session here.
    pub fn is_here(&self, user: &UserId) -> bool {
        self.shard(user).read().contains_key(user)
    }

    /// Every session of this process.
    pub fn all(&self) -> Vec<Arc<Seat>> {
        let shards = self.inner.shards.iter();
        shards.flat_map(|shard| shard.read().values().flatten().cloned().collect::<Vec<_>>()).collect()
    }

    fn shard(&self, user: &UserId) -> &RwLock<HashMap<UserId, Seats>> {
        &self.inner.shards[self.inner.hasher.hash_one(user) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;

    fn seat(id: u64, user: &str) -> Seat {
        let device = DeviceId::new("phone").unwrap();
        let outbox = Outbox::new(Format::Binary, OutboxConfig::default());
        let at = SessionRef { node: NodeId::new("here").unwrap(), boot: 1, session: id };
        Seat::new(at, UserId::new(user).unwrap(), device, outbox)
    }

    fn ids(roster: &Roster, user: &str) -> Vec<u64> {
        let mut seats = Vec::new();
        roster.seats_of(&UserId::new(user).unwrap(), &mut seats);
        seats.iter().map(|seat| seat.id).collect()
    }

    #[test]
    fn a_dropped_guard_removes_exactly_its_session() {
        let roster = Roster::default();
        let (first, _) = roster.register(seat(1, "alice"), 20);
        let (_second, _) = roster.register(seat(2, "alice"), 20);
        assert_eq!(ids(&roster, "alice"), [1, 2]);
        drop(first);
        assert_eq!(ids(&roster, "alice"), [2]);
    }

    #[test]
    fn one_session_too_many_names_the_oldest() {
        let roster = Roster::default();
        let (_first, none) = roster.register(seat(1, "alice"), 2);
        let (_second, none_again) = roster.register(seat(2, "alice"), 2);
        assert!(none.is_none() && none_again.is_none());
        let (_third, replaced) = roster.register(seat(3, "alice"), 2);
        assert_eq!(replaced.map(|seat| seat.id), Some(1));
    }

    #[test]
    fn an_ack_measures_each_entry_once() {
        let seat = seat(1, "alice");
        let conversation = ConversationId::from_bytes([1; 16]);
        for seq in 1..=3 {
            seat.delivered(conversation, seq, Instant::now());
        }
        let mut measured = 0;
        seat.acked(conversation, 2, |_| measured += 1);
        seat.acked(conversation, 2, |_| measured += 1);
        assert_eq!(measured, 2);
        seat.acked(conversation, 9, |_| measured += 1);
        assert_eq!(measured, 3);
    }
}
