//! Who came and who went, for those who want to know: never more than one row for a user, however often
//! they come and go before somebody looks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tern_protocol::UserId;
use tokio::sync::Notify;

/// The first session of a user began here, or the last one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// They have a session now.
    pub here: bool,
    /// Since when.
    pub at: Instant,
    /// The same in Unix milliseconds.
    pub at_ms: u64,
}

/// Of whom a user is to be judged anew who watches others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judge {
    /// Of these.
    Some(HashSet<UserId, RandomState>),
    /// Of so many that they are not listed.
    All,
}

/// Users that are listed for one who watches; beyond it, all whom they watch are meant.
const JUDGED_MAX: usize = 512;

/// What has changed since it was last taken.
#[derive(Debug, Default)]
pub struct Changes {
    /// Users whose first session began or whose last one ended: how it is now.
    pub users: HashMap<UserId, Edge, RandomState>,
    /// Who may see others anew, or not any more: users with sessions marked by [`Roster::mark`](super::Roster::mark).
    pub judge: HashMap<UserId, Judge, RandomState>,
    /// Numbers of sessions that have ended, of those marked by [`Roster::mark`](super::Roster::mark).
    pub ended: Vec<u64>,
}

/// What one reader has not taken yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    changes: Mutex<Changes>,
    wake: Notify,
}

impl Edges {
    pub(super) fn user(&self, user: &UserId, edge: Edge) {
        self.inner.changes.lock().users.insert(user.clone(), edge);
        self.inner.wake.notify_one();
    }

    pub(super) fn ended(&self, session: u64) {
        self.inner.changes.lock().ended.push(session);
        self.inner.wake.notify_one();
    }

    pub(super) fn judge<'a>(&self, user: &UserId, about: impl IntoIterator<Item = &'a UserId>) {
        let mut changes = self.inner.changes.lock();
        let judge = changes.judge.entry(user.clone()).or_insert_with(|| Judge::Some(HashSet::default()));
        if let Judge::Some(users) = judge {
            users.extend(about.into_iter().cloned());
            if users.len() > JUDGED_MAX {
                *judge = Judge::All;
            }
        }
        drop(changes);
        self.inner.wake.notify_one();
    }

    /// Takes everything.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut *self.inner.changes.lock())
    }

    /// Whether there is something about one of these users.
    pub fn concern<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) -> bool {
        let changes = self.inner.changes.lock();
        !changes.users.is_empty() && users.into_iter().any(|user| changes.users.contains_key(user))
    }

    /// Waits until there may be something. Cancel-safe; for one waiter.
    pub async fn changed(&self) {
        self.inner.wake.notified().await;
    }
}
