//! The one way to a session: takes what is to be told, as data, to the sessions that are to have it, and
//! remembers who has confirmed.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{ConversationId, Frame, UserId};

mod confirmed;

pub use confirmed::Confirmed;

use crate::cluster::SessionRef;
use crate::ops::metrics::{Metrics, record};
use crate::roster::{Outgoing, Pushed, Roster, Seat, SessionInfo};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The frame is a Close: these of their sessions end with it.
    Close(Which),
}

/// Which sessions of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// The one of this id.
    Session(String),
    /// Those whose token was issued before this time, in Unix milliseconds.
    IssuedBefore(u64),
}

impl Which {
    /// It is one of them.
    pub fn is(&self, session: &SessionInfo) -> bool {
        match self {
            Self::All => true,
            Self::Session(id) => session.id == *id,
            Self::IssuedBefore(time_ms) => session.token_issued_ms < *time_ms,
        }
    }
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

/// Who in a conversation, or which two users, may see others anew, or not any more. Plain data, like a parcel: in
/// a fleet it goes where the watchers are.
#[derive(Clone, Debug)]
pub struct Relations {
    /// Everybody in it now.
    pub members: Arc<[UserId]>,
    /// Who of them, or of those who have gone, came, went, showed themselves or blocked.
    pub moved: Arc<[UserId]>,
}

impl Relations {
    /// How it is between two users has changed.
    pub fn between(one: &UserId, other: &UserId) -> Self {
        let both: Arc<[UserId]> = [one.clone(), other.clone()].into();
        Self { members: Arc::clone(&both), moved: both }
    }
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

    /// Whoever watches others and is in it is to look again at those with whom it may have changed.
    pub fn judge_again(&self, relations: &Relations) {
        let Relations { members, moved } = relations;
        for user in moved.iter() {
            self.roster.judge(user, members.iter().chain(moved.iter()).filter(|other| *other != user));
        }
        for user in members.iter().filter(|user| !moved.contains(user)) {
            self.roster.judge(user, moved.iter());
        }
    }

    fn put(&self, seat: &Seat, parcel: &Parcel) {
        let pushed = match &parcel.class {
            &Class::Entry { conversation, seq } => {
                let pushed = seat.outbox.push_entry(conversation, seq, &parcel.body);
                if let (Pushed::Queued, Some(arrived)) = (pushed, parcel.arrived) {
                    seat.delivered(conversation, seq, arrived);
                }
                pushed
            }
            Class::Control => seat.outbox.push_control(&parcel.body),
            Class::Datagram => seat.outbox.push_datagram(&parcel.body),
            Class::Close(which) => {
                if which.is(&seat.info())
                    && let Some(Frame::Close(close)) = parcel.body.envelope().map(|envelope| &envelope.frame)
                {
                    seat.outbox.close(close.clone());
                }
                return;
            }
        };
        if pushed == Pushed::Lagged {
            self.metrics.messages.lagged.increment(1);
        }
    }

    /// The user's sessions on this node, the oldest first.
    pub fn sessions(&self, user: &UserId) -> Vec<SessionInfo> {
        let mut seats = Vec::new();
        self.roster.seats_of(user, &mut seats);
        seats.iter().map(|seat| seat.info()).collect()
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

#[cfg(test)]
mod tests {
    use tern_protocol::{Close, Code, Ping};

    use super::*;
    use crate::roster::SeatGuard;
    use crate::roster::outbox::TakeLimit;
    use crate::roster::tests::seat;

    const ALL: TakeLimit = TakeLimit { frames: usize::MAX, bytes: usize::MAX };
    const HERE: ConversationId = ConversationId::from_bytes([1; 16]);

    struct Bench {
        delivery: Delivery,
        roster: Roster,
    }

    impl Bench {
        fn new() -> Self {
            let roster = Roster::default();
            Self { delivery: Delivery::new(roster.clone(), Metrics::none()), roster }
        }

        fn begin(&self, number: u64, name: &str) -> SeatGuard {
            self.roster.begin(seat(number, name, "phone"), 20).guard
        }
    }

    fn parcel(class: Class, except: Except) -> Parcel {
        let to = ["alice", "bob", "nobody"].map(|name| UserId::new(name).unwrap());
        Parcel { to: to.into(), class, body: Outgoing::new(Ping { nonce: 1 }), except, arrived: None }
    }

    /// How many frames wait for each of them.
    fn waiting(guards: &[&SeatGuard]) -> Vec<usize> {
        let frames = |guard: &&SeatGuard| {
            let outbox = &guard.seat().outbox;
            std::iter::from_fn(|| outbox.take_any(ALL)).map(|batch| batch.frames.len()).sum()
        };
        guards.iter().map(frames).collect()
    }

    #[test]
    fn a_parcel_reaches_every_session_of_its_users_but_those_that_know() {
        let bench = Bench::new();
        let [a, b, c, d] =
            [(1, "alice"), (2, "alice"), (3, "bob"), (4, "carol")].map(|(id, name)| bench.begin(id, name));
        let all = [&a, &b, &c, &d];
        for class in [Class::Entry { conversation: HERE, seq: 1 }, Class::Control, Class::Datagram] {
            bench.delivery.hand_out(parcel(class.clone(), Except::Nobody));
            assert_eq!(waiting(&all), [1, 1, 1, 0], "{class:?}");
            bench.delivery.hand_out(parcel(class.clone(), Except::Session(a.seat().at.clone())));
            assert_eq!(waiting(&all), [0, 1, 1, 0], "{class:?}");
            bench.delivery.hand_out(parcel(class.clone(), Except::User(UserId::new("alice").unwrap())));
            assert_eq!(waiting(&all), [0, 0, 1, 0], "{class:?}");
        }
        // A session of the same number on an earlier start of the node is another one.
        let elsewhere = SessionRef { boot: 0, ..a.seat().at.clone() };
        bench.delivery.hand_out(parcel(Class::Control, Except::Session(elsewhere)));
        assert_eq!(waiting(&all), [1, 1, 1, 0]);
    }

    #[test]
    fn sessions_end_with_the_close_they_are_handed() {
        let bench = Bench::new();
        let [alice, carol] = [(1, "alice"), (2, "carol")].map(|(id, name)| bench.begin(id, name));
        let close =
            Close { code: Code::TOKEN_INVALID, reason: "erased".into(), retry_after_ms: None, target: None };
        let body = Outgoing::new(close.clone());
        bench.delivery.hand_out(Parcel { body, ..parcel(Class::Close(Which::All), Except::Nobody) });
        assert_eq!(alice.seat().outbox.closing(), Some(close));
        assert_eq!(carol.seat().outbox.closing(), None);
    }
}
