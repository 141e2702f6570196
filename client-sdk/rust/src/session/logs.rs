//! All logs of the user: who has holes, when they are fetched, and what all logs share.

use std::collections::BTreeMap;

use tern_protocol::{
    ConversationId, Entry, Error, Fetch, PAGE_ENTRIES_MAX, Page, Position, SYNC_CURSORS_MAX,
    SYNC_CURSORS_TOTAL_MAX, Sync,
};

use super::log::{Ahead, Log, Out, Room};

/// Entries that wait for earlier ones, over all conversations: at most 4 MiB. What does not fit is
/// dropped and fetched in its turn.
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A hole is given this long to close by itself: streams overtake each other all the time.
const HOLE_WAIT_MS: u64 = 100;
/// Wait after a fetch that was refused without a hint or brought nothing.
const FETCH_RETRY_MS: u64 = 500;
/// Most fetches of holes that are open at a time.
const FETCHES_MAX: usize = 4;
/// Fewest entries that a fetch asks for.
const FETCH_ENTRIES_MIN: usize = 16;

/// What came of an input: for one conversation, in order.
pub(super) type Outs = Vec<Out>;

/// The logs.
#[derive(Debug)]
pub(super) struct Logs {
    logs: BTreeMap<ConversationId, Log>,
    /// Conversations with something missing or waiting for room, and when to fetch it.
    holes: BTreeMap<ConversationId, u64>,
    room: Room,
    fetches_open: usize,
}

impl Logs {
    pub(super) fn new(cursors: BTreeMap<ConversationId, u64>) -> Self {
        let logs = cursors.into_iter().map(|(id, seq)| (id, Log::restored(seq))).collect();
        let room = Room { events: 0, early_bytes: EARLY_BYTES_MAX };
        Self { logs, holes: BTreeMap::new(), room, fetches_open: 0 }
    }

    /// Room for entries at the application, counted by it.
    pub(super) fn set_room(&mut self, events: usize) {
        self.room.events = events;
    }

    /// Applies an input to one log and notes what is missing afterwards.
    fn with<R>(
        &mut self,
        conversation: ConversationId,
        now: u64,
        apply: impl FnOnce(&mut Log, &mut Room, &mut Outs) -> R,
    ) -> (Outs, R) {
        let mut outs = Vec::new();
        let log = self.logs.entry(conversation).or_default();
        log.touch(now);
        let result = apply(log, &mut self.room, &mut outs);
        if log.wants_fetch() {
            let wait = match log.handed() {
                _ if log.was_futile() => FETCH_RETRY_MS,
                Some(_) => HOLE_WAIT_MS,
                // Nothing will say where this log starts, unless a sync does.
                None => 0,
            };
            self.holes.entry(conversation).or_insert(now + wait);
        } else {
            self.holes.remove(&conversation);
        }
        (outs, result)
    }

    pub(super) fn offer(&mut self, conversation: ConversationId, entry: Entry, now: u64) -> Outs {
        self.with(conversation, now, |log, room, outs| log.offer(entry, room, outs)).0
    }

    pub(super) fn gap(&mut self, conversation: ConversationId, from: u64, to: u64, now: u64) -> Outs {
        self.with(conversation, now, |log, room, outs| log.gap(from, to, room, outs)).0
    }

    /// The log reaches at least this far; `urgent`: what is missing does not come by itself.
    pub(super) fn hear(&mut self, conversation: ConversationId, seq: u64, urgent: bool, now: u64) {
        self.with(conversation, now, |log, _, _| log.hear(seq));
        if urgent && let Some(due) = self.holes.get_mut(&conversation) {
            *due = now;
        }
    }

    /// The highest seq heard of in a log, if it is known at all.
    pub(super) fn heard(&self, conversation: ConversationId) -> Option<u64> {
        self.logs.get(&conversation).map(Log::heard)
    }

    /// The user has read up to here; `true` if that is news.
    pub(super) fn read_to(&mut self, conversation: ConversationId, seq: u64) -> bool {
        self.logs.get_mut(&conversation).is_none_or(|log| log.read_to(seq))
    }

    /// A summary of the sync tells where the visible part starts and ends.
    pub(super) fn summary(
        &mut self,
        conversation: ConversationId,
        first_seq: u64,
        head: u64,
        now: u64,
    ) -> Outs {
        self.with(conversation, now, |log, room, outs| {
            log.hear(head);
            log.starts_at(first_seq, room, outs);
        })
        .0
    }

    /// The page that a fetch asked for.
    pub(super) fn page(&mut self, page: Page, request: u64, now: u64) -> (Outs, Result<(), Ahead>) {
        self.fetches_open = self.fetches_open.saturating_sub(1);
        let conversation = page.conversation;
        self.holes.remove(&conversation);
        let (outs, result) =
            self.with(conversation, now, |log, room, outs| log.page(page, request, room, outs));
        // More of the same hole does not come by itself.
        if !self.logs.get(&conversation).is_some_and(Log::was_futile)
            && let Some(due) = self.holes.get_mut(&conversation)
        {
            *due = now;
        }
        (outs, result)
    }

    /// A fetch has no page.
    pub(super) fn fetch_failed(
        &mut self,
        conversation: ConversationId,
        request: u64,
        refusal: Option<(&Error, bool)>,
        now: u64,
    ) {
        self.fetches_open = self.fetches_open.saturating_sub(1);
        let ((_, ours), wait) = match refusal {
            Some((_, false)) => {
                let failed = self.with(conversation, now, |log, room, _| {
                    let ours = log.fetch_failed(request);
                    if ours {
                        log.forget_missing(room);
                    }
                    ours
                });
                (failed, 0)
            }
            Some((error, true)) => {
                let wait = error.retry_after_ms.map_or(FETCH_RETRY_MS, u64::from);
                (self.with(conversation, now, |log, _, _| log.fetch_failed(request)), wait)
            }
            None => (self.with(conversation, now, |log, _, _| log.fetch_failed(request)), 0),
        };
        if ours && let Some(due) = self.holes.get_mut(&conversation) {
            *due = now + wait;
        }
    }

    /// Something that waited for room and can be handed out now.
    pub(super) fn drain(&mut self, now: u64) -> Option<(ConversationId, Outs)> {
        if self.room.events == 0 {
            return None;
        }
        let ready = |id: &&ConversationId| self.logs.get(*id).is_some_and(Log::ready);
        let conversation = *self.holes.keys().find(ready)?;
        Some((conversation, self.with(conversation, now, Log::drain).0))
    }

    /// The next fetch that is due, to be sent under this request id.
    pub(super) fn next_fetch(&mut self, now: u64, request: u64) -> Option<Fetch> {
        if self.fetches_open >= FETCHES_MAX || self.room.events == 0 {
            return None;
        }
        let due = |(id, due): &(&ConversationId, &u64)| {
            **due <= now && self.logs.get(*id).is_some_and(Log::wants_fetch)
        };
        let conversation = *self.holes.iter().find(due)?.0;
        let log = self.logs.get_mut(&conversation)?;
        let after = log.fetching(request);
        self.holes.remove(&conversation);
        self.fetches_open += 1;
        let limit = self.room.events.clamp(FETCH_ENTRIES_MIN, PAGE_ENTRIES_MAX) as u32;
        Some(Fetch { conversation, before: None, after: Some(after), around: None, limit: Some(limit) })
    }

    /// When `next_fetch` may have something that it does not have now.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let blocked = self.fetches_open >= FETCHES_MAX || self.room.events == 0;
        if blocked { None } else { self.holes.values().min().copied() }
    }

    /// The application confirmed; `true` if that is news about an entry that was handed out.
    pub(super) fn confirm(&mut self, position: Position) -> bool {
        match self.logs.get_mut(&position.conversation) {
            Some(log) if log.handed() >= Some(position.seq) && position.seq > log.confirmed => {
                log.confirmed = position.seq;
                true
            }
            _ => false,
        }
    }

    /// The session has ended.
    pub(super) fn offline(&mut self) {
        self.fetches_open = 0;
        for log in self.logs.values_mut() {
            log.offline();
        }
    }

    /// What this client has, in frames.
    pub(super) fn sync(&self) -> Vec<Sync> {
        let mut cursors: Vec<(u64, Position)> = self
            .logs
            .iter()
            .filter_map(|(conversation, log)| {
                let seq = log.handed().filter(|seq| *seq > 0)?;
                Some((log.touched(), Position { conversation: *conversation, seq }))
            })
            .collect();
        if cursors.len() > SYNC_CURSORS_TOTAL_MAX {
            // More are refused: those that changed last, as far as is known. Of the others the server tells anew.
            cursors.sort_by_key(|(touched, _)| std::cmp::Reverse(*touched));
            cursors.truncate(SYNC_CURSORS_TOTAL_MAX);
        }
        let cursors: Vec<Position> = cursors.into_iter().map(|(_, position)| position).collect();
        let mut frames: Vec<_> = cursors
            .chunks(SYNC_CURSORS_MAX)
            .map(|part| Sync { cursors: part.to_vec(), more: true })
            .collect();
        match frames.last_mut() {
            Some(last) => last.more = false,
            None => frames.push(Sync { cursors: Vec::new(), more: false }),
        }
        frames
    }

    /// The cursor of one conversation does not hold: it starts from nothing.
    pub(super) fn reset(&mut self, conversation: ConversationId, now: u64) {
        self.with(conversation, now, |log, room, _| log.reset(room));
        if let Some(due) = self.holes.get_mut(&conversation) {
            *due = now;
        }
    }

    /// No cursor holds: everything starts from nothing. Gives the conversations there were.
    pub(super) fn clear(&mut self) -> Vec<ConversationId> {
        let events = self.room.events;
        let old = std::mem::replace(self, Self::new(BTreeMap::new()));
        self.room.events = events;
        old.logs.into_keys().collect()
    }
}
