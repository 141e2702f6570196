//! The one way to a session: takes what is to be told, as data, to the sessions that are to have it, and
//! remembers who has confirmed.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{ConversationId, Frame, UserId};

mod confirmed;

pub use confirmed::Confirmed;

use crate::cluster::SessionRef;
use crate::ops::metrics::{Metrics, record};
use crate::roster::{Outgoing, Pushed, Roster, Seat};

/// Something to be told to all sessions of some users, wherever they are.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Whose sessions.
    pub to: Arc<[UserId]>,
    /// How it is treated on the way.
    pub class: Class,
    /// The frame.
    pub body: Outgoing,
    /// Who of them does not get it.
    pub except: Except,
    /// When the Send arrived that it came of; for the delivery time.
    pub arrived: Option<Instant>,
}

/// How a parcel is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Durable entries of one log. The caller hands them out ascending; a session without room is told
    /// that it lags, and pulls.
    Entry {
        /// Which log.
        conversation: ConversationId,
        /// The last of them.
        seq: u64,
    },
    /// A notice, ahead of entries. A session that does not even take these is closed.
    Control,
    /// What may be lost.
    Datagram,
    /// The frame is a Close: their sessions end with it.
    Close,
}

/// Who does not get a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Except {
    /// Everybody gets it.
    Nobody,
    /// One session, which knows already.
    Session(SessionRef),
    /// All sessions of one user.
    User(UserId),
}

impl Parcel {
    /// A notice for all sessions of these users.
    pub fn control(to: impl Into<Arc<[UserId]>>, body: Outgoing) -> Self {
        Self { to: to.into(), class: Class::Control, body, except: Except::Nobody, arrived: None }
    }

    /// The same, but not for these.
    pub fn except(self, except: Except) -> Self {
        Self { except, ..self }
    }
}

/// Handle to delivery. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    roster: Roster,
    confirmed: Confirmed,
    metrics: Metrics,
}

impl Delivery {
    /// Delivers to the sessions of `roster`.
    pub fn new(roster: Roster, metrics: Metrics) -> Self {
        Self { roster, confirmed: Confirmed::new(Instant::now()), metrics }
    }

    /// Queues a parcel for every session it is for. Never waits.
    pub fn hand_out(&self, parcel: Parcel) {
        let (session, user) = match &parcel.except {
            Except::Nobody => (None, None),
            Except::Session(session) => (Some(session), None),
            Except::User(user) => (None, Some(user)),
        };
        let mut seats = Vec::with_capacity(parcel.to.len());
        for to in parcel.to.iter().filter(|to| Some(*to) != user) {
            self.roster.seats_of(to, &mut seats);
        }
        for seat in seats.iter().filter(|seat| Some(&seat.at) != session) {
            self.put(seat, &parcel);
        }
    }

    fn put(&self, seat: &Seat, parcel: &Parcel) {
        let pushed = match parcel.class {
            Class::Entry { conversation, seq } => {
                let pushed = seat.outbox.push_entry(conversation, seq, &parcel.body);
                if let (Pushed::Queued, Some(arrived)) = (pushed, parcel.arrived) {
                    seat.delivered(conversation, seq, arrived);
                }
                pushed
            }
            Class::Control => seat.outbox.push_control(&parcel.body),
            Class::Datagram => seat.outbox.push_datagram(&parcel.body),
            Class::Close => {
                if let Some(Frame::Close(close)) = parcel.body.envelope().map(|envelope| &envelope.frame) {
                    seat.outbox.close(close.clone());
                }
                return;
            }
        };
        if pushed == Pushed::Lagged {
            self.metrics.messages.lagged.increment(1);
        }
    }

    /// Whether the user has a session here.
    pub fn is_here(&self, user: &UserId) -> bool {
        self.roster.is_here(user)
    }

    /// A session has everything up to `seq`.
    pub fn confirm(&self, seat: &Seat, conversation: ConversationId, seq: u64) {
        seat.acked(conversation, seq, |took| record(&self.metrics.messages.delivery_seconds, took));
        self.confirmed.note(conversation, &seat.user, seq);
    }

    /// Who has seen what, as far as this node knows.
    pub fn confirmed(&self) -> &Confirmed {
        &self.confirmed
    }
}
