//! The sessions of this process: who is connected here, and the outbox of each.

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
pub struct Session {
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

impl Session {
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

type Sessions = SmallVec<[Arc<Session>; 2]>;

/// The sessions of this process by user. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<RwLock<HashMap<UserId, Sessions>>>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Hub {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { inner: Arc::new(Inner { shards, hasher: foldhash::fast::RandomState::default() }) }
    }
}

/// A registered session; dropping it is the only way to unregister.
pub struct HubGuard {
    hub: Hub,
    session: Arc<Session>,
}

impl HubGuard {
    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for HubGuard {
    fn drop(&mut self) {
        let mut shard = self.hub.shard(&self.session.user).write();
        if let Some(sessions) = shard.get_mut(&self.session.user) {
            sessions.retain(|session| session.id != self.session.id);
            if sessions.is_empty() {
                shard.remove(&self.session.user);
            }
        }
    }
}

impl Hub {
    /// Adds a session. Says which is the user's oldest if there are now more than `sessions_max`.
    pub fn register(&self, session: Session, sessions_max: usize) -> (HubGuard, Option<Arc<Session>>) {
        let session = Arc::new(session);
        let mut shard = self.shard(&session.user).write();
        let sessions = shard.entry(session.user.clone()).or_default();
        sessions.push(Arc::clone(&session));
        let replaced = (sessions.len() > sessions_max).then(|| Arc::clone(&sessions[0]));
        drop(shard);
        (HubGuard { hub: self.clone(), session }, replaced)
    }

    /// Adds the sessions of a user to `into`.
    pub fn sessions_of(&self, user: &UserId, into: &mut Vec<Arc<Session>>) {
        if let Some(sessions) = self.shard(user).read().get(user) {
            into.extend(sessions.iter().cloned());
        }
    }

    /// Every session of this process.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let shards = self.inner.shards.iter();
        shards.flat_map(|shard| shard.read().values().flatten().cloned().collect::<Vec<_>>()).collect()
    }

    fn shard(&self, user: &UserId) -> &RwLock<HashMap<UserId, Sessions>> {
        &self.inner.shards[self.inner.hasher.hash_one(user) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;

    fn session(id: u64, user: &str) -> Session {
        let device = DeviceId::new("phone").unwrap();
        let outbox = Outbox::new(Format::Binary, OutboxConfig::default());
        let at = SessionRef { node: NodeId::new("here").unwrap(), boot: 1, session: id };
        Session::new(at, UserId::new(user).unwrap(), device, outbox)
    }

    fn ids(hub: &Hub, user: &str) -> Vec<u64> {
        let mut sessions = Vec::new();
        hub.sessions_of(&UserId::new(user).unwrap(), &mut sessions);
        sessions.iter().map(|session| session.id).collect()
    }

    #[test]
    fn a_dropped_guard_removes_exactly_its_session() {
        let hub = Hub::default();
        let (first, _) = hub.register(session(1, "alice"), 20);
        let (_second, _) = hub.register(session(2, "alice"), 20);
        assert_eq!(ids(&hub, "alice"), [1, 2]);
        drop(first);
        assert_eq!(ids(&hub, "alice"), [2]);
    }

    #[test]
    fn one_session_too_many_names_the_oldest() {
        let hub = Hub::default();
        let (_first, none) = hub.register(session(1, "alice"), 2);
        let (_second, none_again) = hub.register(session(2, "alice"), 2);
        assert!(none.is_none() && none_again.is_none());
        let (_third, replaced) = hub.register(session(3, "alice"), 2);
        assert_eq!(replaced.map(|session| session.id), Some(1));
    }

    #[test]
    fn an_ack_measures_each_entry_once() {
        let hub_session = session(1, "alice");
        let conversation = ConversationId::from_bytes([1; 16]);
        for seq in 1..=3 {
            hub_session.delivered(conversation, seq, Instant::now());
        }
        let mut measured = 0;
        hub_session.acked(conversation, 2, |_| measured += 1);
        hub_session.acked(conversation, 2, |_| measured += 1);
        assert_eq!(measured, 2);
        hub_session.acked(conversation, 9, |_| measured += 1);
        assert_eq!(measured, 3);
    }
}
