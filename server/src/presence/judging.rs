//! Of whom is to be judged again whether a session may see them, and when. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use tern_protocol::UserId;

/// What is to be read again of one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The session.
    pub session: u64,
    /// Which of its watches: one that took its place knows better.
    pub watch: u64,
    /// Whose session it is.
    pub by: UserId,
    /// Whom they watch.
    pub users: Vec<UserId>,
}

/// A watch whose read is under way.
#[derive(Debug)]
struct Coming {
    by: UserId,
    users: HashSet<UserId>,
    /// With whom it may have changed since the read began.
    missed: BTreeSet<UserId>,
}

/// What is to be judged again.
#[derive(Debug, Default)]
pub(super) struct Judging {
    /// Sessions that watch, by user.
    sessions: HashMap<UserId, BTreeSet<u64>>,
    coming: HashMap<u64, Coming>,
    due: BTreeMap<u64, BTreeSet<UserId>>,
    /// The earliest time of the next round.
    from: Option<Instant>,
}

impl Judging {
    /// A session is about to watch these users.
    pub(super) fn coming(&mut self, session: u64, by: &UserId, users: &[UserId]) {
        let users = users.iter().cloned().collect();
        self.coming.insert(session, Coming { by: by.clone(), users, missed: BTreeSet::new() });
    }

    /// It is not any more, or does.
    pub(super) fn not_coming(&mut self, session: u64) {
        self.coming.remove(&session);
    }

    /// A watch begins, in the place of one before. What it has missed is to be judged.
    pub(super) fn begins(&mut self, session: u64, by: &UserId) {
        self.due.remove(&session);
        let missed = self.coming.remove(&session).map(|coming| coming.missed).unwrap_or_default();
        if !missed.is_empty() {
            self.due.insert(session, missed);
        }
        self.sessions.entry(by.clone()).or_default().insert(session);
    }

    /// A watch ends.
    pub(super) fn ends(&mut self, session: u64, by: &UserId) {
        self.due.remove(&session);
        if let Some(sessions) = self.sessions.get_mut(by) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.sessions.remove(by);
            }
        }
    }

    /// The sessions of a user that watch.
    pub(super) fn sessions_of(&self, by: &UserId) -> Vec<u64> {
        self.sessions.get(by).into_iter().flatten().copied().collect()
    }

    /// These of whom a session watches are to be judged.
    pub(super) fn put(&mut self, session: u64, users: impl IntoIterator<Item = UserId>) {
        let mut users = users.into_iter().peekable();
        if users.peek().is_some() {
            self.due.entry(session).or_default().extend(users);
        }
    }

    /// The same for watches of this user that are on their way.
    pub(super) fn miss(&mut self, by: &UserId, is_about: &dyn Fn(&UserId) -> bool) {
        for coming in self.coming.values_mut().filter(|coming| coming.by == *by) {
            coming.missed.extend(coming.users.iter().filter(|user| is_about(user)).cloned());
        }
    }

    /// When there is something to judge.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (!self.due.is_empty()).then(|| self.from.unwrap_or(now))
    }

    /// What is to be judged now; the next round not before `pause` is over.
    pub(super) fn take(&mut self, now: Instant, pause: Duration) -> BTreeMap<u64, BTreeSet<UserId>> {
        if self.due.is_empty() || self.from.is_some_and(|from| from > now) {
            return BTreeMap::new();
        }
        self.from = Some(now + pause);
        std::mem::take(&mut self.due)
    }

    /// Nothing is known of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.coming.is_empty() && self.due.is_empty()
    }
}
