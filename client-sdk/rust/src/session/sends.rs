//! Unresolved changes: one line per conversation, go-back-N within a line.
//!
//! In a line the first `sent` changes are in flight, in order. A temporary refusal of one takes it
//! and everything after it back; after the wait they are sent again in the same order. So a later
//! change never overtakes an unresolved one, whatever the server refuses.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use tern_protocol::{ConversationId, Entry, Error, Fetch, Frame, Page, SendAck, TempId, UserId};

use super::change::Change;
use super::lookup::{Lookup, Progress};
use crate::error::SendError;

/// Changes older than this are looked for in the log instead of being sent again: 24 h.
pub(super) const RESEND_AGE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Wait after the first temporary refusal that has no hint; it doubles with each further one.
const HOLD_MS_FIRST: u64 = 200;
/// Longest such wait.
const HOLD_MS_MAX: u64 = 30_000;

/// A change that is neither durable nor refused.
#[derive(Debug)]
struct Pending {
    change: Change,
    created_ms: u64,
    /// An attempt has been made, in this process or perhaps in one before.
    tried: bool,
    /// It may leave: it is saved, or nothing is ever saved.
    saved: bool,
    /// Request id of the attempt in flight in this session.
    attempt: Option<u64>,
}

/// What a page of the search for old changes settled: those found, with their acks, and those given up.
type Searched = (Vec<(SendAck, Change)>, Vec<(TempId, Change)>);

impl Pending {
    fn expired(&self, now: u64) -> bool {
        now.saturating_sub(self.created_ms) > RESEND_AGE_MS_MAX
    }
}

#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<TempId>,
    /// This many from the front are in flight.
    sent: usize,
    /// Most in flight: halved by a temporary refusal, plus one with each ack.
    window: usize,
    /// Temporary refusals since the last ack.
    refusals: u32,
    hold_until: Option<u64>,
    lookup: Option<Lookup>,
}

/// What became of a refusal.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// It answers an attempt that does not count any more.
    Stale,
    /// The change and those after it will be sent again.
    Temporary,
    /// The change is resolved.
    Final(Change),
}

/// Something to send now.
#[derive(Debug)]
pub(super) enum Step {
    /// An attempt of a change.
    Attempt(TempId, Frame),
    /// A page of the log, to look for old changes.
    Search(ConversationId, Frame),
}

/// All unresolved changes of the client.
#[derive(Debug, Default)]
pub(super) struct Sends {
    pending: BTreeMap<TempId, Pending>,
    lines: BTreeMap<ConversationId, Line>,
    /// Accepted before the user was known, in order.
    unrouted: VecDeque<TempId>,
    me: Option<UserId>,
    in_flight: usize,
    in_flight_max: usize,
    /// The line that sent last: the next one has its turn.
    turn: Option<ConversationId>,
    /// Server clock minus ours.
    skew_ms: i64,
}

impl Sends {
    pub(super) fn contains(&self, temp_id: &TempId) -> bool {
        self.pending.contains_key(temp_id)
    }

    pub(super) fn add(&mut self, temp_id: TempId, change: Change, created_ms: u64, saved: bool, tried: bool) {
        self.pending.insert(temp_id, Pending { change, created_ms, tried, saved, attempt: None });
        self.unrouted.push_back(temp_id);
        self.route();
    }

    fn route(&mut self) {
        let Some(me) = &self.me else { return };
        for temp_id in self.unrouted.drain(..) {
            let Some(pending) = self.pending.get(&temp_id) else { continue };
            let line = self.lines.entry(pending.change.conversation(me, &temp_id)).or_default();
            line.queue.push_back(temp_id);
            if line.window == 0 {
                line.window = self.in_flight_max;
            }
        }
    }

    pub(super) fn saved(&mut self, temp_id: &TempId) {
        if let Some(pending) = self.pending.get_mut(temp_id) {
            pending.saved = true;
        }
    }

    /// A session is open: everything is sent again from the front of each line.
    pub(super) fn open(&mut self, me: &UserId, in_flight_max: usize, skew_ms: i64) {
        self.me = Some(me.clone());
        self.in_flight_max = in_flight_max.max(1);
        self.skew_ms = skew_ms;
        self.offline();
        self.route();
    }

    /// The session has ended: nothing is in flight.
    pub(super) fn offline(&mut self) {
        self.in_flight = 0;
        for pending in self.pending.values_mut() {
            pending.attempt = None;
        }
        for line in self.lines.values_mut() {
            let queue = std::mem::take(&mut line.queue);
            *line = Line { queue, window: self.in_flight_max, ..Line::default() };
        }
    }

    /// The next thing to send, if any, to be sent under this request id.
    pub(super) fn next(&mut self, now: u64, request: u64) -> Option<Step> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = self.turn.map_or(Bound::Unbounded, Bound::Included);
        let order: Vec<ConversationId> = self
            .lines
            .range((after, Bound::Unbounded))
            .chain(self.turn.iter().flat_map(|_| self.lines.range((Bound::Unbounded, up_to))))
            .map(|(id, _)| *id)
            .collect();
        for conversation in order {
            if let Some(step) = self.next_in(conversation, now, request) {
                self.turn = Some(conversation);
                return Some(step);
            }
        }
        None
    }

    fn next_in(&mut self, conversation: ConversationId, now: u64, request: u64) -> Option<Step> {
        let line = self.lines.get_mut(&conversation)?;
        if line.hold_until.is_some_and(|until| until > now) {
            return None;
        }
        line.hold_until = None;
        let temp_id = *line.queue.get(line.sent)?;
        let pending = self.pending.get_mut(&temp_id)?;
        if !pending.saved {
            return None;
        }
        if pending.expired(now) {
            // Those ahead are resolved first; then the log is searched for all old ones at once.
            if line.sent > 0 {
                return None;
            }
            let fetch = line.lookup.get_or_insert_default().ask(conversation, request)?;
            return Some(Step::Search(conversation, Fetch::into(fetch)));
        }
        if line.sent >= line.window || self.in_flight >= self.in_flight_max {
            return None;
        }
        let age_ms = if pending.tried { now.saturating_sub(pending.created_ms).max(1) } else { 0 };
        pending.tried = true;
        pending.attempt = Some(request);
        line.sent += 1;
        self.in_flight += 1;
        Some(Step::Attempt(temp_id, pending.change.frame(temp_id, age_ms)))
    }

    /// A change is durable. `None` if it was not pending (any more).
    pub(super) fn acked(&mut self, temp_id: &TempId) -> Option<Change> {
        let conversation = self.conversation_of(temp_id)?;
        let change = self.remove(temp_id)?;
        if let Some(line) = self.lines.get_mut(&conversation) {
            line.refusals = 0;
            line.window = (line.window + 1).min(self.in_flight_max);
        }
        Some(change)
    }

    /// An entry that the search for old changes came by: the one it comes from, if that is pending.
    ///
    /// Entries that arrive otherwise resolve nothing: an attempt in flight has an answer of its
    /// own, and if that is a refusal, the server waits for the retry before it takes later ones.
    fn found(&mut self, conversation: ConversationId, entry: &Entry) -> Option<(SendAck, Change)> {
        let temp_id = entry.temp_id?;
        if self.me.as_ref() != Some(&entry.sender) || self.conversation_of(&temp_id) != Some(conversation) {
            return None;
        }
        let change = self.acked(&temp_id)?;
        let ack = SendAck {
            temp_id,
            conversation,
            seq: entry.seq,
            id: entry.id,
            time_ms: entry.time_ms,
            messages: entry.messages,
            duplicate: true,
            recipient_unknown: false,
        };
        Some((ack, change))
    }

    /// The server refused an attempt (`request` absent: whichever is in flight).
    pub(super) fn refused(
        &mut self,
        temp_id: &TempId,
        request: Option<u64>,
        error: &Error,
        temporary: bool,
        now: u64,
    ) -> Refusal {
        let Some(pending) = self.pending.get(temp_id) else { return Refusal::Stale };
        if pending.attempt.is_none() || request.is_some_and(|id| pending.attempt != Some(id)) {
            return Refusal::Stale;
        }
        if !temporary {
            return self.remove(temp_id).map_or(Refusal::Stale, Refusal::Final);
        }
        self.go_back(temp_id, error.retry_after_ms, now);
        Refusal::Temporary
    }

    fn go_back(&mut self, temp_id: &TempId, hint_ms: Option<u32>, now: u64) {
        let Some(line) = self.conversation_of(temp_id).and_then(|id| self.lines.get_mut(&id)) else { return };
        let Some(index) = line.queue.iter().position(|id| id == temp_id) else { return };
        for id in line.queue.range(index..line.sent) {
            if let Some(pending) = self.pending.get_mut(id) {
                pending.attempt = None;
                self.in_flight -= 1;
            }
        }
        line.sent = index;
        line.window = (line.window / 2).max(1);
        line.hold(hint_ms, now);
    }

    fn conversation_of(&self, temp_id: &TempId) -> Option<ConversationId> {
        Some(self.pending.get(temp_id)?.change.conversation(self.me.as_ref()?, temp_id))
    }

    /// Takes a change out of its line.
    pub(super) fn remove(&mut self, temp_id: &TempId) -> Option<Change> {
        self.unrouted.retain(|id| id != temp_id);
        let conversation = self.conversation_of(temp_id);
        let pending = self.pending.remove(temp_id)?;
        let Some(conversation) = conversation else { return Some(pending.change) };
        if let Some(line) = self.lines.get_mut(&conversation) {
            if let Some(index) = line.queue.iter().position(|id| id == temp_id) {
                line.queue.remove(index);
                if index < line.sent {
                    line.sent -= 1;
                    self.in_flight -= 1;
                }
            }
            if line.queue.is_empty() {
                self.lines.remove(&conversation);
            }
        }
        Some(pending.change)
    }

    /// A page of the search for old changes: those found, with their acks, and those given up.
    pub(super) fn searched(&mut self, page: &Page, request: u64, now: u64) -> Searched {
        let conversation = page.conversation;
        let searching = |line: &Line| line.lookup.as_ref().is_some_and(|lookup| lookup.waits_for(request));
        if !self.lines.get(&conversation).is_some_and(searching) {
            return (Vec::new(), Vec::new());
        }
        let acks = page.entries.iter().filter_map(|entry| self.found(conversation, entry)).collect();
        let oldest_ms = self.expired_in(conversation, now).iter().map(|(_, ms)| *ms).min();
        let oldest_ms = oldest_ms.map(|ms| ms.saturating_add_signed(self.skew_ms));
        let Some(line) = self.lines.get_mut(&conversation) else { return (acks, Vec::new()) };
        let done = match (oldest_ms, &mut line.lookup) {
            (Some(oldest_ms), Some(lookup)) => lookup.read(page, oldest_ms) == Progress::Done,
            _ => true,
        };
        let lost = if done { self.give_up(conversation, now) } else { Vec::new() };
        (acks, lost)
    }

    /// The search was refused: waits, or gives up if it will always be refused.
    pub(super) fn search_refused(
        &mut self,
        conversation: ConversationId,
        error: &Error,
        temporary: bool,
        now: u64,
    ) -> Vec<(TempId, Change)> {
        if !temporary {
            return self.give_up(conversation, now);
        }
        if let Some(line) = self.lines.get_mut(&conversation) {
            line.lookup = None;
            line.hold(error.retry_after_ms, now);
        }
        Vec::new()
    }

    fn expired_in(&self, conversation: ConversationId, now: u64) -> Vec<(TempId, u64)> {
        let Some(line) = self.lines.get(&conversation) else { return Vec::new() };
        let old = |id: &TempId| {
            let pending = self.pending.get(id)?;
            pending.expired(now).then_some((*id, pending.created_ms))
        };
        line.queue.iter().filter_map(old).collect()
    }

    fn give_up(&mut self, conversation: ConversationId, now: u64) -> Vec<(TempId, Change)> {
        if let Some(line) = self.lines.get_mut(&conversation) {
            line.lookup = None;
        }
        let expired = self.expired_in(conversation, now);
        expired.into_iter().filter_map(|(id, _)| Some((id, self.remove(&id)?))).collect()
    }

    /// When `next` may have something that it does not have now.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.lines.values().filter_map(|line| line.hold_until).min()
    }

    /// Everything still unresolved ends with this error.
    pub(super) fn fail_all(&mut self, error: &SendError) -> Vec<(TempId, Result<SendAck, SendError>)> {
        let pending = std::mem::take(&mut self.pending);
        *self = Self::default();
        pending.into_keys().map(|temp_id| (temp_id, Err(error.clone()))).collect()
    }
}

impl Line {
    fn hold(&mut self, hint_ms: Option<u32>, now: u64) {
        let doubled = HOLD_MS_FIRST.saturating_mul(1 << self.refusals.min(10)).min(HOLD_MS_MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.hold_until = Some(now + hint_ms.map_or(doubled, u64::from).max(1));
    }
}
