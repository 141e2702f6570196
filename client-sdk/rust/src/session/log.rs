//! One conversation as this client has it: what was handed out, what waits, what is missing.

use std::collections::BTreeMap;

use tern_protocol::resume::{CatchUp, Placement, catch_up, place};
use tern_protocol::{Entry, EntryBody, Page};

/// Fetches in a row that find nothing of what was heard of, before it counts as not to be had.
const FUTILE_MAX: u32 = 3;
/// What an entry costs in a buffer besides its texts, in bytes.
const ENTRY_COST: usize = 160;

/// What the application gets.
#[derive(Debug, PartialEq)]
pub(super) enum Out {
    Entry(Entry),
    Gap { from: u64, to: u64 },
}

/// What is left of the limits shared by all logs.
#[derive(Debug)]
pub(super) struct Room {
    /// Entries that the application has room for.
    pub(super) events: usize,
    /// Bytes of entries that may wait for earlier ones.
    pub(super) early_bytes: usize,
}

/// A log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Everything up to here was handed out or named in a gap; absent: not known where the
    /// visible part starts.
    handed: Option<u64>,
    /// The application confirmed everything up to here.
    pub(super) confirmed: u64,
    /// The highest seq heard of.
    heard: u64,
    /// The user has read up to here, as far as is known.
    read: u64,
    /// Entries after the next one.
    early: BTreeMap<u64, Entry>,
    fetch: Option<Asked>,
    /// Fetches in a row that brought nothing.
    futile: u32,
    /// The missing part found last is fetched whole up to here.
    until: u64,
    /// When something was last heard of it, in milliseconds; 0: not since the start.
    touched: u64,
}

/// An open fetch.
#[derive(Debug)]
struct Asked {
    request: u64,
    /// `handed` and `heard` when it left: an older answer must not be held against a newer state.
    handed: u64,
    heard: u64,
}

/// The log of the server ends before what was handed out.
#[derive(Debug, PartialEq)]
pub(super) struct Ahead;

impl Log {
    pub(super) fn restored(seq: u64) -> Self {
        Self { handed: Some(seq), confirmed: seq, heard: seq, ..Self::default() }
    }

    /// Something is heard of it.
    pub(super) fn touch(&mut self, now: u64) {
        self.touched = now;
    }

    /// When something was last heard of it.
    pub(super) fn touched(&self) -> u64 {
        self.touched
    }

    pub(super) fn handed(&self) -> Option<u64> {
        self.handed
    }

    /// Something is missing, and no answer that may bring it is awaited.
    pub(super) fn wants_fetch(&self) -> bool {
        self.fetch.is_none() && self.heard > self.handed.unwrap_or(0)
    }

    /// The next entry is here already and only waits for room.
    pub(super) fn ready(&self) -> bool {
        self.handed.is_some_and(|handed| self.early.contains_key(&(handed + 1)))
    }

    /// The highest seq heard of.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    pub(super) fn hear(&mut self, seq: u64) {
        self.heard = self.heard.max(seq);
    }

    /// The user has read up to here; `true` if that is news.
    pub(super) fn read_to(&mut self, seq: u64) -> bool {
        let is_news = seq > self.read;
        self.read = self.read.max(seq);
        is_news
    }

    /// The visible part starts here, as a summary says it.
    pub(super) fn starts_at(&mut self, first_seq: u64, room: &mut Room, out: &mut Vec<Out>) {
        if self.handed.is_none() {
            self.skip_to(first_seq.saturating_sub(1), room);
            self.drain(room, out);
        }
    }

    /// An entry came, from wherever.
    pub(super) fn offer(&mut self, entry: Entry, room: &mut Room, out: &mut Vec<Out>) {
        self.hear(entry.seq);
        if self.handed.is_none() && entry.seq == 1 {
            self.handed = Some(0);
        }
        match self.handed.map(|handed| place(handed, entry.seq)) {
            Some(Placement::Old) => {}
            Some(Placement::Next) if room.events > 0 => {
                self.hand_out(entry, room, out);
                self.drain(room, out);
            }
            Some(Placement::Next | Placement::Early { .. }) | None => self.keep(entry, room),
        }
    }

    /// Hands out what waited for its turn or for room.
    pub(super) fn drain(&mut self, room: &mut Room, out: &mut Vec<Out>) {
        while room.events > 0
            && let Some(entry) = self.handed.and_then(|handed| self.early.remove(&(handed + 1)))
        {
            room.early_bytes += cost(&entry);
            self.hand_out(entry, room, out);
        }
    }

    fn hand_out(&mut self, entry: Entry, room: &mut Room, out: &mut Vec<Out>) {
        room.events -= 1;
        self.handed = Some(entry.seq);
        out.push(Out::Entry(entry));
    }

    fn keep(&mut self, entry: Entry, room: &mut Room) {
        let cost = cost(&entry);
        if cost <= room.early_bytes && !self.early.contains_key(&entry.seq) {
            room.early_bytes -= cost;
            self.early.insert(entry.seq, entry);
        }
    }

    /// The server left entries out. A gap that does not begin at the next entry only says how far
    /// the log goes: what is before it must come first.
    pub(super) fn gap(&mut self, from: u64, to: u64, room: &mut Room, out: &mut Vec<Out>) {
        self.hear(to);
        match self.handed {
            Some(handed) if to <= handed || from > handed + 1 => return,
            Some(handed) => out.push(Out::Gap { from: handed + 1, to }),
            None => out.push(Out::Gap { from, to }),
        }
        self.skip_to(to, room);
        self.drain(room, out);
    }

    fn skip_to(&mut self, seq: u64, room: &mut Room) {
        self.handed = Some(seq);
        let kept = self.early.split_off(&(seq + 1));
        let gone = std::mem::replace(&mut self.early, kept);
        room.early_bytes += gone.values().map(cost).sum::<usize>();
    }

    /// A fetch of what is missing leaves, for entries after the returned seq; the answer is read
    /// by [`Log::page`].
    pub(super) fn fetching(&mut self, request: u64) -> u64 {
        let handed = self.handed.unwrap_or(0);
        self.fetch = Some(Asked { request, handed, heard: self.heard });
        handed
    }

    /// The open fetch has no answer.
    pub(super) fn fetch_failed(&mut self, request: u64) -> bool {
        self.fetch.take_if(|asked| asked.request == request).is_some()
    }

    /// The session has ended; the next sync decides anew what is missing.
    pub(super) fn offline(&mut self) {
        self.fetch = None;
        self.until = 0;
    }

    /// The answer to the open fetch.
    pub(super) fn page(
        &mut self,
        page: Page,
        request: u64,
        room: &mut Room,
        out: &mut Vec<Out>,
    ) -> Result<(), Ahead> {
        let Some(asked) = self.fetch.take_if(|asked| asked.request == request) else { return Ok(()) };
        if page.head < asked.handed {
            return Err(Ahead);
        }
        self.hear(page.head);
        let before = self.handed;
        self.bounds(page.first_seq, page.head, room, out);
        for entry in page.entries.into_iter().rev() {
            self.offer(entry, room, out);
        }
        self.drain(room, out);
        let futile = self.handed == before && page.head < asked.heard && !self.ready();
        self.futile = if futile { self.futile + 1 } else { 0 };
        if self.futile >= FUTILE_MAX {
            // Asked after the higher seq was heard of, the server still ends here: it is not for us.
            self.forget_missing(room);
        }
        Ok(())
    }

    /// Decides by the rule of catching up what is skipped. A missing part that was once found
    /// small enough is then fetched whole, however much the log grows meanwhile.
    fn bounds(&mut self, first_seq: u64, head: u64, room: &mut Room, out: &mut Vec<Out>) {
        let first_seq = first_seq.max(1);
        self.starts_at(first_seq, room, out);
        let handed = self.handed.unwrap_or(0);
        if handed < self.until && first_seq <= handed + 1 {
            return;
        }
        let skip = match catch_up(handed, first_seq, head) {
            // Live entries have overtaken the page, or nothing is left to be seen.
            CatchUp::Ahead | CatchUp::UpToDate => first_seq - 1,
            CatchUp::Whole { from, to } => {
                self.until = to;
                from - 1
            }
            CatchUp::Tail { gap_to, to, .. } => {
                self.until = to;
                gap_to
            }
        };
        if skip > handed {
            out.push(Out::Gap { from: handed + 1, to: skip });
            self.skip_to(skip, room);
            self.drain(room, out);
        }
    }

    /// The last fetch brought nothing new.
    pub(super) fn was_futile(&self) -> bool {
        self.futile > 0
    }

    /// What is missing is not to be had.
    pub(super) fn forget_missing(&mut self, room: &mut Room) {
        self.clear_early(room);
        self.futile = 0;
        self.heard = self.handed.unwrap_or(0);
    }

    /// Starts from nothing.
    pub(super) fn reset(&mut self, room: &mut Room) {
        self.clear_early(room);
        *self = Self { heard: self.heard, ..Self::default() };
    }

    fn clear_early(&mut self, room: &mut Room) {
        room.early_bytes += std::mem::take(&mut self.early).values().map(cost).sum::<usize>();
    }
}

fn cost(entry: &Entry) -> usize {
    let body = match &entry.body {
        EntryBody::Message { text, data, .. } => {
            text.len() + data.as_ref().map_or(0, |data| data.as_str().len())
        }
        EntryBody::Created { name, members } => name.len() + members.len() * 64,
        EntryBody::Added { users } | EntryBody::Removed { users } => users.len() * 64,
        EntryBody::Renamed { name } => name.len(),
        EntryBody::Left { .. } | EntryBody::RoleChanged { .. } => 64,
        EntryBody::Erased => 0,
        EntryBody::Opaque { bytes, .. } => bytes.len(),
    };
    ENTRY_COST + body
}
