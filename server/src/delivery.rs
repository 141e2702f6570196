//! Takes committed entries to the sessions that are to have them, and remembers who has confirmed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{ConversationId, Deliver, Entry, Erased, Read, UserId, UserTyping};

use crate::cluster::SessionRef;
use crate::hub::{Hub, Outgoing, Pushed, Session};
use crate::ops::metrics::{Metrics, record};

/// Confirmed positions remembered to keep pushes quiet; the least used are forgotten first, which
/// costs a push event for something already seen.
const CONFIRMED_MAX: u64 = 1_000_000;
/// A confirmed position is of use until the push of its entry was decided: seconds, with a margin.
const CONFIRMED_KEPT: Duration = Duration::from_secs(600);

/// An entry that was just committed.
#[derive(Debug)]
pub struct Fresh {
    /// The entry.
    pub entry: Entry,
    /// The session that made it. Its SendAck stands for a message; it gets any other entry.
    pub origin: Option<SessionRef>,
    /// When its Send arrived.
    pub arrived: Option<Instant>,
}

/// Handle to delivery. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    hub: Hub,
    confirmed: moka::sync::Cache<(ConversationId, UserId), u64, foldhash::fast::RandomState>,
    metrics: Metrics,
}

impl Delivery {
    /// Delivers to the sessions of `hub`.
    pub fn new(hub: Hub, metrics: Metrics) -> Self {
        let confirmed = moka::sync::Cache::builder()
            .max_capacity(CONFIRMED_MAX)
            .time_to_live(CONFIRMED_KEPT)
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { hub, confirmed, metrics }
    }

    /// Queues durable entries, ascending, for every session of `users`. Never waits: a session
    /// without room is told that it lags and pulls.
    pub fn fan_out(
        &self,
        conversation: ConversationId,
        entries: impl Iterator<Item = Fresh>,
        users: &[UserId],
    ) {
        let sessions = self.sessions(users);
        for fresh in entries {
            let seq = fresh.entry.seq;
            let skipped = fresh.origin.filter(|_| fresh.entry.body.is_message());
            let outgoing = Outgoing::new(Deliver { conversation, entries: vec![fresh.entry] });
            for session in sessions.iter().filter(|session| Some(&session.at) != skipped.as_ref()) {
                match session.outbox.push_entry(conversation, seq, &outgoing) {
                    Pushed::Queued => {
                        if let Some(arrived) = fresh.arrived {
                            session.delivered(conversation, seq, arrived);
                        }
                    }
                    Pushed::Lagged => self.metrics.messages.lagged.increment(1),
                    Pushed::Closed => {}
                }
            }
        }
    }

    /// A session has everything up to `seq`.
    pub fn confirm(&self, session: &Session, conversation: ConversationId, seq: u64) {
        session.acked(conversation, seq, |took| record(&self.metrics.messages.delivery_seconds, took));
        let key = (conversation, session.user.clone());
        if self.confirmed.get(&key).is_none_or(|known| known < seq) {
            self.confirmed.insert(key, seq);
        }
    }

    /// What the user has confirmed on any device, as far as this node knows; 0: nothing.
    pub fn confirmed(&self, conversation: ConversationId, user: &UserId) -> u64 {
        self.confirmed.get(&(conversation, user.clone())).unwrap_or(0)
    }

    /// Tells members that one is typing. May be lost.
    pub fn typing(&self, conversation: ConversationId, user: &UserId, members: &[UserId]) {
        let outgoing = Outgoing::new(UserTyping { conversation, user: user.clone() });
        for session in self.sessions(members).iter().filter(|session| session.user != *user) {
            let _ = session.outbox.push_datagram(&outgoing);
        }
    }

    /// Tells the user's other sessions what they have read.
    pub fn read(&self, origin: &SessionRef, user: &UserId, read: Read) {
        let outgoing = Outgoing::new(read);
        for session in self.sessions(std::slice::from_ref(user)) {
            if session.at != *origin {
                let _ = session.outbox.push_control(&outgoing);
            }
        }
    }

    /// Tells the sessions of these users that entries of a log have become tombstones.
    pub fn erased(&self, conversation: ConversationId, seq: u64, users: &[UserId]) {
        let outgoing = Outgoing::new(Erased { conversation, seq });
        for session in self.sessions(users) {
            let _ = session.outbox.push_control(&outgoing);
        }
    }

    /// The sessions of these users in this process.
    pub fn sessions(&self, users: &[UserId]) -> Vec<Arc<Session>> {
        let mut sessions = Vec::with_capacity(users.len());
        for user in users {
            self.hub.sessions_of(user, &mut sessions);
        }
        sessions
    }
}
