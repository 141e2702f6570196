//! Who is online and who watches whom. Pure: input and time go in, what to tell and to store comes out.
//!
//! A user is online at once with their first session. After the last one they stay online for a
//! grace, so that a device which merely reconnects is not seen to leave. What changed goes to
//! watchers at most once per batch interval, and only if it is still a change by then. Of users who are
//! here and whom nobody watches, nothing is known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tern_protocol::{PresenceState, UserId, UserPresence};

use super::judging::{Judgement, Judging};
use crate::store::last_seen;

/// A user who went offline is remembered for this long, so that a watch whose read of the store was
/// under way at that moment is still answered with the newer time.
const REMEMBER: Duration = Duration::from_secs(60);

/// Timing of [`State`].
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the end of the last session until a user is offline.
    pub grace: Duration,
    /// Between two batches of changes.
    pub batch: Duration,
}

/// A user whom a session wants to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whom.
    pub user: UserId,
    /// The watcher may see them. If not, they read as unknown until [`State::judged`] says otherwise.
    pub visible: bool,
    /// They have a session, by all that was told so far with [`State::came`] and [`State::went`], or newer.
    pub here: bool,
    /// When they were last seen by what is stored, in Unix milliseconds.
    pub last_seen_ms: Option<u64>,
}

impl Watched {
    /// One whom the watcher may not see.
    pub fn hidden(user: UserId) -> Self {
        Self { user, visible: false, here: false, last_seen_ms: None }
    }
}

/// What is to be told to one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The answer to its watch: every user it named, in that order.
    Answer(Vec<UserPresence>),
    /// Users whose presence changed since.
    Change(Vec<UserPresence>),
}

/// What [`State::advance`] found due. `N` is where the notices of a watch go.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<N> {
    /// Notices in order: of one watch, the answer comes before changes.
    pub notices: Vec<(N, Notice)>,
    /// Users who are offline now, with the time they were last seen in Unix milliseconds.
    pub left: Vec<(UserId, u64)>,
}

/// Why a watch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A user whom somebody watches, or who has just gone.
#[derive(Debug, Default)]
struct Known {
    here: bool,
    /// Watches of them, with what each was told last: online or not.
    watchers: BTreeMap<u64, bool>,
    /// No session, and still online until the deadline.
    grace: bool,
    /// End of the grace, or of remembering.
    deadline: Option<Instant>,
    last_seen_ms: Option<u64>,
}

impl Known {
    fn online(&self) -> bool {
        self.grace || self.here
    }

    fn presence(&self, user: &UserId) -> UserPresence {
        if self.online() {
            UserPresence { user: user.clone(), state: PresenceState::Online, last_seen_ms: None }
        } else {
            let last_seen_ms = self.last_seen_ms;
            UserPresence { user: user.clone(), state: PresenceState::Offline, last_seen_ms }
        }
    }
}

/// What one session watches.
#[derive(Debug)]
struct Watch<N> {
    /// Whose session it is.
    by: UserId,
    /// Watches are numbered.
    number: u64,
    /// Whom its user may see.
    users: BTreeSet<UserId>,
    /// Whom they may not.
    hidden: BTreeSet<UserId>,
    notify: N,
}

impl<N> Watch<N> {
    fn len(&self) -> usize {
        self.users.len() + self.hidden.len()
    }

    fn named(&self) -> impl Iterator<Item = &UserId> {
        self.users.iter().chain(&self.hidden)
    }
}

/// All that this node knows of presence. `N` is where the notices of a watch go.
#[derive(Debug)]
pub struct State<N> {
    timing: Timing,
    watches_max: usize,
    users: HashMap<UserId, Known>,
    watches: HashMap<u64, Watch<N>>,
    next_watch: u64,
    judging: Judging,
    /// What was judged differently, by session: to be told in the next batch.
    judged: BTreeMap<u64, BTreeMap<UserId, UserPresence>>,
    /// Sum of the users in `watches`.
    watched: usize,
    /// Watches to answer, those of one session oldest first.
    answers: BTreeMap<u64, Vec<(N, Vec<UserPresence>)>>,
    /// Users to look at in the next batch.
    changed: BTreeSet<UserId>,
    /// The earliest time of the next batch.
    batch_from: Option<Instant>,
    deadlines: BTreeSet<(Instant, UserId)>,
}

impl<N: Clone> State<N> {
    /// Nobody is there. `watches_max` bounds (session, watched user) pairs.
    pub fn new(timing: Timing, watches_max: usize) -> Self {
        Self {
            timing,
            watches_max,
            users: HashMap::new(),
            watches: HashMap::new(),
            next_watch: 0,
            judging: Judging::default(),
            judged: BTreeMap::new(),
            watched: 0,
            answers: BTreeMap::new(),
            changed: BTreeSet::new(),
            batch_from: None,
            deadlines: BTreeSet::new(),
        }
    }

    /// The first session of a user has begun.
    pub fn came(&mut self, user: &UserId) {
        let Some(known) = self.users.get_mut(user) else { return };
        (known.here, known.grace) = (true, false);
        if let Some(deadline) = known.deadline.take() {
            self.deadlines.remove(&(deadline, user.clone()));
        }
        self.note_change(user);
        self.forget_if_idle(user);
    }

    /// The last session of a user ended at `at`, which is `seen_ms` in Unix milliseconds. Perhaps it was
    /// not told that they came.
    pub fn went(&mut self, user: &UserId, at: Instant, seen_ms: u64) {
        let known = self.users.entry(user.clone()).or_default();
        let was_online = known.online();
        (known.here, known.grace) = (false, true);
        known.last_seen_ms = Some(last_seen(known.last_seen_ms.unwrap_or(0), seen_ms));
        self.set_deadline(user, at + self.timing.grace);
        if !was_online {
            self.note_change(user);
        }
    }

    /// A session watches these users and no others; [`State::advance`] gives the answer. At the
    /// limit nothing changes.
    pub fn watch(&mut self, session: u64, by: &UserId, users: Vec<Watched>, notify: N) -> Result<(), Full> {
        let before = self.watches.get(&session).map_or(0, Watch::len);
        let of = |visible| {
            let users = users.iter().filter(move |watched| watched.visible == visible);
            users.map(|watched| watched.user.clone()).collect::<BTreeSet<UserId>>()
        };
        self.next_watch += 1;
        let (number, seen, hidden) = (self.next_watch, of(true), of(false));
        let watch = Watch { by: by.clone(), number, users: seen, hidden, notify: notify.clone() };
        if self.watched - before + watch.len() > self.watches_max {
            return Err(Full);
        }
        let replaced = self.watches.remove(&session);
        let answer = users.iter().map(|watched| self.watch_one(session, watched)).collect();
        self.answers.entry(session).or_default().push((notify, answer));
        if let Some(replaced) = replaced {
            self.drop_watch(session, replaced, &watch.users);
        }
        self.watched += watch.len();
        if watch.len() > 0 {
            self.judging.begins(session, by);
            self.watches.insert(session, watch);
        } else {
            self.judging.not_coming(session);
        }
        Ok(())
    }

    /// A session is about to watch these users: what the store says of them is being read. It ends with
    /// [`State::watch`] or [`State::not_coming`].
    pub fn coming(&mut self, session: u64, by: &UserId, users: &[UserId]) {
        self.judging.coming(session, by, users);
    }

    /// A watch that was coming does not come.
    pub fn not_coming(&mut self, session: u64) {
        self.judging.not_coming(session);
    }

    /// Whether `by` may see those of whom it is `is_about` may have changed.
    pub fn relations(&mut self, by: &UserId, is_about: &dyn Fn(&UserId) -> bool) {
        for session in self.judging.sessions_of(by) {
            let Some(watch) = self.watches.get(&session) else { continue };
            self.judging.put(session, watch.named().filter(|user| is_about(user)).cloned());
        }
        self.judging.miss(by, is_about);
    }

    /// When [`State::take_judgements`] has something.
    pub fn judgements_due(&self, now: Instant) -> Option<Instant> {
        self.judging.due(now)
    }

    /// Of whom is to be read again whether they may be seen; at most once in the time of a batch.
    pub fn take_judgements(&mut self, now: Instant) -> Vec<Judgement> {
        let taken = self.judging.take(now, self.timing.batch).into_iter();
        let judgement = |(session, users): (u64, BTreeSet<UserId>)| {
            let watch = self.watches.get(&session)?;
            let users = users.into_iter().collect();
            Some(Judgement { session, watch: watch.number, by: watch.by.clone(), users })
        };
        taken.filter_map(judgement).collect()
    }

    /// It could not be read: later.
    pub fn judge_later(&mut self, judgement: Judgement) {
        let is_current = |watch: &Watch<N>| watch.number == judgement.watch;
        if self.watches.get(&judgement.session).is_some_and(is_current) {
            self.judging.put(judgement.session, judgement.users);
        }
    }

    /// What came of a judgement. Whoever may be seen now, or not any more, is told so in the next batch.
    pub fn judged(&mut self, session: u64, watch: u64, users: Vec<Watched>) {
        for watched in users {
            let Some(current) = self.watches.get_mut(&session).filter(|current| current.number == watch)
            else {
                return;
            };
            let user = &watched.user;
            if watched.visible == current.users.contains(user) {
                continue;
            }
            let (from, to) = match watched.visible {
                true => (&mut current.hidden, &mut current.users),
                false => (&mut current.users, &mut current.hidden),
            };
            if !from.remove(user) {
                continue; // not named by it
            }
            to.insert(user.clone());
            if !watched.visible
                && let Some(known) = self.users.get_mut(user)
            {
                known.watchers.remove(&session);
                self.forget_if_idle(user);
            }
            let presence = self.watch_one(session, &watched);
            self.judged.entry(session).or_default().insert(watched.user, presence);
        }
    }

    fn watch_one(&mut self, session: u64, watched: &Watched) -> UserPresence {
        let user = &watched.user;
        if !watched.visible {
            return UserPresence { user: user.clone(), state: PresenceState::Unknown, last_seen_ms: None };
        }
        let known = self.users.entry(user.clone()).or_default();
        known.here = watched.here;
        // Both may know a time; the newer one is right.
        known.last_seen_ms = known.last_seen_ms.max(watched.last_seen_ms);
        known.watchers.insert(session, known.online());
        known.presence(user)
    }

    /// A session watches nobody any more, and is owed no answer.
    pub fn unwatch(&mut self, session: u64) {
        self.answers.remove(&session);
        self.judging.not_coming(session);
        if let Some(watch) = self.watches.remove(&session) {
            self.drop_watch(session, watch, &BTreeSet::new());
        }
    }

    /// Takes a session off the users of a watch, except those in `kept`.
    fn drop_watch(&mut self, session: u64, watch: Watch<N>, kept: &BTreeSet<UserId>) {
        self.watched -= watch.len();
        self.judged.remove(&session);
        self.judging.ends(session, &watch.by);
        for user in watch.users {
            if !kept.contains(&user)
                && let Some(known) = self.users.get_mut(&user)
            {
                known.watchers.remove(&session);
                self.forget_if_idle(&user);
            }
        }
    }

    /// When [`State::advance`] has something to do: at once if the time has passed.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if !self.answers.is_empty() {
            return Some(now);
        }
        let has_changes = !self.changed.is_empty() || !self.judged.is_empty();
        let batch = has_changes.then(|| self.batch_from.unwrap_or(now));
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        batch.into_iter().chain(deadline).min()
    }

    /// Everything that is due by `now`.
    pub fn advance(&mut self, now: Instant) -> Due<N> {
        let mut due = Due { notices: Vec::new(), left: Vec::new() };
        while let Some((deadline, user)) = self.deadlines.pop_first() {
            if deadline > now {
                self.deadlines.insert((deadline, user));
                break;
            }
            self.deadline_passed(&user, now, &mut due);
        }
        let answers = std::mem::take(&mut self.answers).into_values().flatten();
        due.notices.extend(answers.map(|(notify, users)| (notify, Notice::Answer(users))));
        let has_changes = !self.changed.is_empty() || !self.judged.is_empty();
        if has_changes && self.batch_from.is_none_or(|from| from <= now) {
            self.batch_from = Some(now + self.timing.batch);
            self.take_changes(&mut due);
        }
        due
    }

    /// The node stops at `seen_ms` (Unix milliseconds), while these users are still here: everybody who is
    /// online, with the time to store for them.
    pub fn leave_all(&mut self, here: Vec<UserId>, seen_ms: u64) -> Vec<(UserId, u64)> {
        let graced = self.users.iter().filter(|(_, known)| known.grace);
        let mut left: Vec<(UserId, u64)> =
            graced.map(|(user, known)| (user.clone(), known.last_seen_ms.unwrap_or(seen_ms))).collect();
        left.extend(here.into_iter().map(|user| (user, seen_ms)));
        *self = Self::new(self.timing, self.watches_max);
        left
    }

    /// Somebody watches somebody.
    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Nothing is known of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.watches.is_empty()
            && self.deadlines.is_empty()
            && self.judging.is_empty()
            && self.judged.is_empty()
            && self.watched == 0
    }

    fn deadline_passed(&mut self, user: &UserId, now: Instant, due: &mut Due<N>) {
        let Some(known) = self.users.get_mut(user) else { return };
        known.deadline = None;
        if known.grace {
            known.grace = false;
            due.left.push((user.clone(), known.last_seen_ms.unwrap_or_default()));
            self.set_deadline(user, now + REMEMBER);
            self.note_change(user);
        } else {
            self.forget_if_idle(user);
        }
    }

    /// Tells each watcher what differs from what it was told last.
    fn take_changes(&mut self, due: &mut Due<N>) {
        let judged = std::mem::take(&mut self.judged).into_iter();
        let mut by_session: BTreeMap<u64, Vec<UserPresence>> =
            judged.map(|(session, users)| (session, users.into_values().collect())).collect();
        for user in std::mem::take(&mut self.changed) {
            let Some(known) = self.users.get_mut(&user) else { continue };
            let (online, presence) = (known.online(), known.presence(&user));
            for (session, told_online) in &mut known.watchers {
                if *told_online != online {
                    *told_online = online;
                    by_session.entry(*session).or_default().push(presence.clone());
                }
            }
        }
        for (session, users) in by_session {
            if let Some(watch) = self.watches.get(&session) {
                due.notices.push((watch.notify.clone(), Notice::Change(users)));
            }
        }
    }

    fn note_change(&mut self, user: &UserId) {
        if self.users.get(user).is_some_and(|known| !known.watchers.is_empty()) {
            self.changed.insert(user.clone());
        }
    }

    fn set_deadline(&mut self, user: &UserId, deadline: Instant) {
        let Some(known) = self.users.get_mut(user) else { return };
        if let Some(before) = known.deadline.replace(deadline) {
            self.deadlines.remove(&(before, user.clone()));
        }
        self.deadlines.insert((deadline, user.clone()));
    }

    fn forget_if_idle(&mut self, user: &UserId) {
        let idle = |known: &Known| known.watchers.is_empty() && known.deadline.is_none();
        if self.users.get(user).is_some_and(idle) {
            self.users.remove(user);
            self.changed.remove(user);
        }
    }
}

#[cfg(test)]
mod tests;
