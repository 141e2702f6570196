//! Presence: what users see of each other. Derived from sessions, asked for by watching.
//!
//! [`Presence`] is the handle. Who comes and goes is read from the roster, without a queue that could be
//! full; one task tells the watchers what is due and stores when users were last seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tern_protocol::{UserId, UserPresence, WATCH_USERS_MAX};
use tokio::sync::{Notify as Wake, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::stamp_ms;
use crate::roster::{Edges, Judge, Roster, Seat};
use crate::store::{Store, StoreError, users_apart};

mod judging;
mod last_seen;
#[cfg(test)]
mod relations_tests;
mod state;
#[cfg(test)]
mod tests;
mod visibility;

pub use judging::Judgement;
pub use state::{Due, Full, Notice, State, Timing, Watched};
pub use visibility::{CONVERSATIONS_READ_MAX, visible};

use last_seen::LastSeen;

/// The `[presence]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PresenceConfig {
    /// A user whose last session ended is offline after this time, in milliseconds.
    pub grace_ms: u64,
    /// Changes go to watchers at most once in this time, in milliseconds.
    pub batch_ms: u64,
    /// Most (session, watched user) pairs on this node.
    pub watches_max: usize,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { grace_ms: 10_000, batch_ms: 1_000, watches_max: 2_000_000 }
    }
}

/// Looks watch under numbers from here on, far above those of sessions.
const LOOKS_FROM: u64 = 1 << 63;
/// After a store error judging goes on after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A notice waits this long for the last-seen times in it to be durable.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// Clocks of nodes may differ by so much, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 60_000;

/// Where the notices of one watch go. Called by the presence task, one notice at a time: it must not
/// block. It may still be called once after the session has unwatched.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// Why a watch is refused. Nothing changed; the watch before it stands.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// More than [`WATCH_USERS_MAX`] users.
    #[error("{0} users, at most {WATCH_USERS_MAX} can be watched at a time")]
    TooMany(usize),
    /// This node watches as many users as it can.
    #[error("this node cannot watch more users now")]
    Full,
    /// Who is visible could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Handle of the presence service; cheap to clone.
#[derive(Clone)]
pub struct Presence {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State<Notify>>,
    /// The state has something new that may be due.
    wake: Wake,
    /// It has something to judge.
    to_judge: Wake,
    roster: Roster,
    edges: Edges,
    last_seen: LastSeen,
    store: Arc<dyn Store>,
    /// Looks so far, for their numbers.
    looks: AtomicU64,
}

/// A watch that is being read; dropped, it does not come any more, if it has not.
struct Coming<'a> {
    presence: &'a Presence,
    session: u64,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.presence.shared.state.lock().not_coming(self.session);
    }
}

/// Ends a look's watch, also if nobody waits for its answer any more.
struct Look<'a> {
    presence: &'a Presence,
    number: u64,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.presence.shared.state.lock().unwatch(self.number);
    }
}

/// The running service. Dropping it stops it without storing anything; better call
/// [`PresenceTasks::stop`].
pub struct PresenceTasks {
    presence: Presence,
    tasks: [JoinHandle<()>; 3],
}

impl Presence {
    /// Starts the service for the sessions of `roster`.
    pub fn start(config: &PresenceConfig, roster: Roster, store: Arc<dyn Store>) -> (Self, PresenceTasks) {
        let timing = Timing {
            grace: Duration::from_millis(config.grace_ms),
            batch: Duration::from_millis(config.batch_ms),
        };
        let state = Mutex::new(State::new(timing, config.watches_max));
        let shared = Arc::new(Shared {
            state,
            wake: Wake::new(),
            to_judge: Wake::new(),
            edges: roster.edges(),
            roster,
            last_seen: LastSeen::default(),
            store,
            looks: AtomicU64::new(0),
        });
        let tasks = [
            tokio::spawn(tell(shared.clone())),
            tokio::spawn(record(shared.clone())),
            tokio::spawn(judge(shared.clone())),
        ];
        let presence = Self { shared };
        (presence.clone(), PresenceTasks { presence, tasks })
    }

    /// A session watches these users and no others. `notify` gets one [`Notice::Answer`] with all of them
    /// in this order (those whom its user may not see read as unknown), then changes. The end of the
    /// session is the end of the watch; a watch that comes after it is dropped without a word.
    pub async fn watch(&self, seat: &Seat, users: Vec<UserId>, notify: Notify) -> Result<(), WatchError> {
        // First of all: from here on it is told what may change.
        if !self.shared.roster.mark(seat) {
            return Ok(());
        }
        self.shared.state.lock().coming(seat.id(), &seat.user, &users);
        let _coming = Coming { presence: self, session: seat.id() };
        let mut watched = self.shared.read(&seat.user, users).await?;
        let mut state = self.shared.state.lock();
        self.shared.look_who_is_here(&mut state, &mut watched);
        // Last of all: an end that is told from here on is looked at when the watch is in the state.
        if !self.shared.roster.mark(seat) {
            return Ok(());
        }
        self.shared.enter(&mut state, (seat.id(), &seat.user), watched, notify)
    }

    /// How it is with these users now, as [`Presence::watch`] would answer `me`: a watch that ends with
    /// its answer.
    pub async fn look(&self, me: &UserId, users: Vec<UserId>) -> Result<Vec<UserPresence>, WatchError> {
        let number = LOOKS_FROM | self.shared.looks.fetch_add(1, Ordering::Relaxed);
        let _watch = Look { presence: self, number };
        let (answer, answered) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let notify: Notify = Arc::new(move |notice| {
            if let (Notice::Answer(users), Some(answer)) = (notice, answer.lock().take()) {
                let _ = answer.send(users);
            }
        });
        let mut watched = self.shared.read(me, users).await?;
        {
            let mut state = self.shared.state.lock();
            self.shared.look_who_is_here(&mut state, &mut watched);
            self.shared.enter(&mut state, (number, me), watched, notify)?;
        }
        answered.await.map_err(|_| WatchError::Full)
    }
}

impl Shared {
    /// What the store says of them.
    async fn read(&self, me: &UserId, users: Vec<UserId>) -> Result<Vec<Watched>, WatchError> {
        if users.len() > WATCH_USERS_MAX {
            return Err(WatchError::TooMany(users.len()));
        }
        let store = &*self.store;
        let visible = visible(store, me, &users).await?;
        let stored = users_apart(store, &users).await?.found;
        let now_ms = stamp_ms();
        let watched = users.into_iter().zip(visible).zip(stored).map(|((user, visible), stored)| {
            // One that has not come was told by a clock that was ahead: nobody knows the right one.
            let seen_ms = stored.map_or(0, |stored| stored.last_seen_ms);
            let last_seen_ms = (1..=now_ms + CLOCKS_DIFFER_MS).contains(&seen_ms).then_some(seen_ms);
            Watched { user, visible, here: false, last_seen_ms }
        });
        Ok(watched.collect())
    }

    /// Takes over who has come and gone.
    fn catch_up(&self, state: &mut State<Notify>) {
        let changes = self.edges.take();
        for (user, edge) in changes.users {
            if edge.here {
                state.came(&user);
            } else {
                state.went(&user, edge.at, edge.at_ms);
            }
        }
        for (by, judge) in changes.judge {
            match judge {
                Judge::All => state.relations(&by, &|_| true),
                Judge::Some(users) => state.relations(&by, &|user| users.contains(user)),
            }
        }
        for session in changes.ended {
            state.unwatch(session);
        }
        if state.judgements_due(Instant::now().into_std()).is_some() {
            self.to_judge.notify_one();
        }
    }

    /// Who of those that can be seen has a session, as the state knows it then or newer.
    fn look_who_is_here(&self, state: &mut State<Notify>, watched: &mut [Watched]) {
        loop {
            self.catch_up(state);
            for watched in &mut *watched {
                watched.here = watched.visible && self.roster.is_here(&watched.user);
            }
            // Who went in between was not here, and is not known to have gone.
            if !self.edges.concern(watched.iter().map(|watched| &watched.user)) {
                return;
            }
        }
    }

    fn enter(
        &self,
        state: &mut State<Notify>,
        (session, by): (u64, &UserId),
        watched: Vec<Watched>,
        notify: Notify,
    ) -> Result<(), WatchError> {
        state.watch(session, by, watched, notify).map_err(|Full| WatchError::Full)?;
        self.wake.notify_one();
        Ok(())
    }
}

impl PresenceTasks {
    /// Stops, and stores of everybody still online that they were last seen now. Call it when all
    /// sessions have ended.
    pub async fn stop(mut self) {
        for task in &mut self.tasks {
            task.abort();
            let _ = task.await;
        }
        let shared = &self.presence.shared;
        let left = {
            let mut state = shared.state.lock();
            shared.catch_up(&mut state);
            state.leave_all(shared.roster.users(), stamp_ms())
        };
        shared.last_seen.note(left);
        shared.last_seen.store_all(&*shared.store).await;
    }
}

impl Drop for PresenceTasks {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Tells watchers what is due, when it is due.
async fn tell(shared: Arc<Shared>) {
    loop {
        let now = Instant::now().into_std();
        let (due, next) = {
            let mut state = shared.state.lock();
            shared.catch_up(&mut state);
            (state.advance(now), state.due(now))
        };
        if !due.left.is_empty() {
            // Who is told that somebody was last seen then finds the same after a crash.
            shared.last_seen.note(due.left);
            let stored = tokio::time::timeout(STORE_WAIT, shared.last_seen.store_all(&*shared.store)).await;
            if stored != Ok(true) {
                shared.last_seen.try_later();
            }
        }
        for (notify, notice) in due.notices {
            notify(notice);
        }
        let due = async {
            match next {
                None => std::future::pending().await,
                Some(next) => tokio::time::sleep_until(next.into()).await,
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = shared.edges.changed() => {}
            () = due => {}
        }
    }
}

/// Reads again who may be seen, where it may have changed. One watch at a time: it costs a watcher a second at
/// most, and the store no more than a watch.
async fn judge(shared: Arc<Shared>) {
    loop {
        let now = Instant::now().into_std();
        let (judgements, next) = {
            let mut state = shared.state.lock();
            shared.catch_up(&mut state);
            (state.take_judgements(now), state.judgements_due(now))
        };
        for judgement in judgements {
            let Judgement { session, watch, by, users } = judgement.clone();
            match shared.read(&by, users.clone()).await {
                Ok(mut watched) => {
                    let mut state = shared.state.lock();
                    shared.look_who_is_here(&mut state, &mut watched);
                    state.judged(session, watch, watched);
                }
                Err(WatchError::Store(error @ StoreError::Corrupt(_))) => {
                    // Something has changed between them: whoever may not be seen any more is not.
                    tracing::warn!(%error, "who sees whom cannot be read, since stored data is damaged: nobody");
                    let hidden = users.into_iter().map(Watched::hidden).collect();
                    shared.state.lock().judged(session, watch, hidden);
                }
                Err(error) => {
                    tracing::warn!(%error, "who sees whom cannot be read; trying again");
                    shared.state.lock().judge_later(judgement);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            shared.wake.notify_one();
        }
        let due = async {
            match next {
                None => std::future::pending().await,
                Some(next) => tokio::time::sleep_until(next.into()).await,
            }
        };
        tokio::select! {
            () = shared.to_judge.notified() => {}
            () = due => {}
        }
    }
}

/// Stores last-seen times that could not be stored at once; a slow store delays notices only so long.
async fn record(shared: Arc<Shared>) {
    shared.last_seen.run(&*shared.store).await;
}
