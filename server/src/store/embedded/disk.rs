//! Reads of what is durable: single keys, states of conversations, pages and inboxes.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Snapshot};
use tern_protocol::{ConversationId, Entry, UserId};

use super::failures::read_failed;
use super::intents::IntentShards;
use super::keys;
use super::recent::RecentMarkers;
use super::seen::Seen;
use super::space::Room;
use super::standings::Standings;
use super::states::{Known, States};
use super::values::{self, Head, Row, Shape};
use crate::store::runs::Runs;
use crate::store::{
    Conversation, Glance, INTENT_SHARDS, InboxCursor, InboxRow, Intent, Marker, Order, PageLimit,
    PeopleConfig, ReadPosition, StoreError,
};

/// The database, with one keyspace for everything: its parts then reach tables together, so the
/// commit count can never be ahead of the data it counts. Beside it what is kept of it in memory, as of the
/// last commit.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) db: Database,
    pub(super) space: Keyspace,
    pub(super) states: Arc<States>,
    pub(super) recent: Arc<RecentMarkers>,
    pub(super) standings: Arc<Standings>,
    pub(super) intents: Arc<IntentShards>,
    pub(super) room: Arc<Room>,
    pub(super) seen: Arc<Seen>,
    /// Limits of what is written of people.
    pub(super) people: Arc<PeopleConfig>,
}

impl Disk {
    pub(super) fn new(db: Database, space: Keyspace) -> Self {
        Self {
            db,
            space,
            states: Arc::default(),
            recent: Arc::new(RecentMarkers::new(Some(Instant::now()))),
            standings: Arc::default(),
            intents: Arc::default(),
            room: Arc::default(),
            seen: Arc::default(),
            people: Arc::default(),
        }
    }

    /// An error once the database has given up: it could not write a table or its journal, and takes no more.
    pub(super) fn alive(&self) -> Result<(), StoreError> {
        self.db.persist(PersistMode::Buffer).map_err(read_failed)
    }

    /// A value as of the last commit.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.space.get(key).map_err(read_failed)?.map(Bytes::from))
    }

    /// A state as of the last commit.
    pub(super) fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        match self.states.get(id) {
            Some(known) => Ok(known.state),
            None => self.fill(id).map(|known| known.state),
        }
    }

    /// State and what is kept, if that can be told from memory.
    pub(super) fn glance_warm(&self, id: ConversationId) -> Option<Option<Glance>> {
        match self.states.get(id)? {
            Known { state: None, .. } => Some(None),
            Known { state: Some(state), kept: Some(kept) } => Some(Some(Glance { state, kept })),
            Known { .. } => None,
        }
    }

    /// State and what is kept, from memory or from disk.
    pub(super) fn glance(&self, id: ConversationId) -> Result<Option<Glance>, StoreError> {
        if let Some(glance) = self.glance_warm(id) {
            return Ok(glance);
        }
        let Known { state, kept } = self.fill(id)?;
        Ok(state.map(|state| Glance { state, kept: kept.unwrap_or_default() }))
    }

    /// Reads a conversation from disk, for the next who asks too.
    fn fill(&self, id: ConversationId) -> Result<Known, StoreError> {
        let filling = self.states.begin(id);
        let read = self.read(id);
        self.states.finish(id, filling, read.as_ref().ok().cloned());
        read
    }

    fn read(&self, id: ConversationId) -> Result<Known, StoreError> {
        let snapshot = self.db.snapshot();
        let get = |key: Bytes| snapshot.get(&self.space, key).map_err(read_failed);
        let Some(head) = self.head(&snapshot, id)? else { return Ok(Known::default()) };
        let shape = get(keys::shape(id))?;
        let shape = shape.ok_or_else(|| StoreError::Corrupt(format!("{id} has a head but no members")))?;
        let shape: Shape = values::decode("a conversation", &shape)?;
        let kept = values::decode_kept(get(keys::kept(id))?.as_deref())?;
        Ok(Known { state: Some(Arc::new(values::conversation(head, shape))), kept: Some(kept) })
    }

    /// A marker by its key. One that is older than `age_ms`, with a margin, may go unseen.
    pub(super) fn marker(&self, key: &[u8], age_ms: u64, now: Instant) -> Result<Option<Marker>, StoreError> {
        if self.recent.surely_absent(key, age_ms, now) {
            return Ok(None);
        }
        self.get(key)?.map(|bytes| values::decode_marker(&bytes)).transpose()
    }

    fn head(&self, snapshot: &Snapshot, id: ConversationId) -> Result<Option<Head>, StoreError> {
        let bytes = snapshot.get(&self.space, keys::head(id)).map_err(read_failed)?;
        bytes.map(|bytes| values::decode("a head", &bytes)).transpose()
    }

    /// Entries of a log in `range`, cut at `limit`.
    pub(super) fn entries(
        &self,
        id: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        if range.is_empty() || limit.entries == 0 {
            return Ok(Vec::new());
        }
        // Of one moment: a commit that removes entries while they are read must not look like a hole.
        let found = self.range(&self.db.snapshot(), id, &range);
        let mut page = Runs::new(limit);
        let mut check = Dense::new(order);
        match order {
            Order::Ascending => page.add(found.map(|item| check.entry(item)))?,
            Order::Descending => page.add(found.rev().map(|item| check.entry(item)))?,
        };
        Ok(page.finish().pop().unwrap_or_default())
    }

    fn range(&self, snapshot: &Snapshot, id: ConversationId, range: &RangeInclusive<u64>) -> fjall::Iter {
        snapshot.range(&self.space, keys::entry(id, *range.start())..=keys::entry(id, *range.end()))
    }

    /// The first `limit` rows of a user after a place, most recently changed first.
    pub(super) fn inbox(
        &self,
        user: &UserId,
        after: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let snapshot = self.db.snapshot();
        let mut reads = Vec::new();
        for (key, value) in self.around_damage(snapshot.prefix(&self.space, keys::reads(user)))? {
            let read = values::decode("a read position", &value);
            // Without it more counts as unread.
            if let Some(read) = self.unless_damaged(read)? {
                reads.push((keys::row_conversation(&key)?, read));
            }
        }
        let mut rows = Vec::new();
        for (key, value) in self.around_damage(snapshot.prefix(&self.space, keys::rows(user)))? {
            let conversation = keys::row_conversation(&key)?;
            // Both scans are in key order, that is, by conversation.
            let read = reads.binary_search_by_key(&conversation, |(id, _)| *id);
            let read = read.map_or_else(|_| ReadPosition::default(), |place| reads[place].1);
            let Some(row) = self.unless_damaged(values::decode("an inbox row", &value))? else { continue };
            let row = match self.unless_damaged(self.row(&snapshot, conversation, row, read))? {
                Some(row) => row,
                // Its head cannot be read: whoever looks at the conversation meets the same.
                None => listed(conversation, row, Head { seq: 0, messages: 0, time_ms: 0 }, read),
            };
            if after.is_none_or(|after| row.place() > after) {
                rows.push(row);
            }
        }
        if rows.len() > limit && limit > 0 {
            rows.select_nth_unstable_by_key(limit - 1, InboxRow::place);
        }
        rows.truncate(limit);
        rows.sort_unstable_by_key(InboxRow::place);
        Ok(rows)
    }

    /// Rows of a user.
    pub(super) fn inbox_rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError> {
        let snapshot = self.db.snapshot();
        let one = |id: &ConversationId| {
            let row = snapshot.get(&self.space, keys::row(user, *id)).map_err(read_failed)?;
            let Some(row) = row else { return Ok(None) };
            let read = snapshot.get(&self.space, keys::read(user, *id)).map_err(read_failed)?;
            let read = read.map(|bytes| values::decode("a read position", &bytes)).transpose()?;
            let row = values::decode("an inbox row", &row)?;
            self.row(&snapshot, *id, row, read.unwrap_or_default()).map(Some)
        };
        ids.iter().map(one).collect()
    }

    fn row(
        &self,
        snapshot: &Snapshot,
        conversation: ConversationId,
        row: Row,
        read: ReadPosition,
    ) -> Result<InboxRow, StoreError> {
        let last = match row.until {
            Some(until) => until,
            None => self.head(snapshot, conversation)?.ok_or_else(|| {
                StoreError::Corrupt(format!("{conversation} is in an inbox but has no head"))
            })?,
        };
        Ok(listed(conversation, row, last, read))
    }

    /// The rows of a scan. Where a block of them cannot be read, those before and those behind it.
    fn around_damage(&self, mut rows: fjall::Iter) -> Result<Vec<(fjall::Slice, fjall::Slice)>, StoreError> {
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        while let Some(item) = rows.next() {
            match self.unless_damaged(item.into_inner().map_err(read_failed))? {
                Some(row) => before.push(row),
                None => {
                    while let Some(item) = rows.next_back() {
                        let Some(row) = self.unless_damaged(item.into_inner().map_err(read_failed))? else {
                            break;
                        };
                        behind.push(row);
                    }
                    break;
                }
            }
        }
        // A block may have been met from both sides.
        let last = before.last().map(|(key, _)| key.clone());
        before
            .extend(behind.into_iter().rev().filter(|(key, _)| last.as_ref().is_none_or(|last| key > last)));
        Ok(before)
    }

    /// `None` for what is damaged, which is noted.
    pub(super) fn unless_damaged<T>(&self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error @ StoreError::Corrupt(_)) => {
                self.seen.note(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Intents of a shard with a time in `times`, oldest first, at most `limit`.
    pub(super) fn intents(
        &self,
        shard: u8,
        times: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        if times.is_empty() {
            return Ok(Vec::new());
        }
        // A prefix sorts before all that it starts, so the end is the prefix after the last time.
        let after = times.end().checked_add(1).map(|after| keys::intents_from(shard, after));
        let end = after.unwrap_or_else(|| keys::intents_end(shard));
        let found = self.space.range(keys::intents_from(shard, *times.start())..end);
        let mut intents = Vec::new();
        for item in found {
            if intents.len() == limit {
                break;
            }
            match self.unless_damaged(item.into_inner().map_err(read_failed))? {
                // One that says nothing keeps no other from being told.
                Some((key, value)) => {
                    intents.extend(self.unless_damaged(values::decode_intent(&key, &value))?)
                }
                None => return self.intents_behind_damage(shard, times, limit),
            }
        }
        Ok(intents)
    }

    /// The same where a block of them cannot be read: those before and behind it.
    fn intents_behind_damage(
        &self,
        shard: u8,
        times: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        let after = times.end().checked_add(1).map(|after| keys::intents_from(shard, after));
        let end = after.unwrap_or_else(|| keys::intents_end(shard));
        let rows = self.around_damage(self.space.range(keys::intents_from(shard, *times.start())..end))?;
        let mut intents = Vec::new();
        for (key, value) in rows {
            intents.extend(self.unless_damaged(values::decode_intent(&key, &value))?);
        }
        intents.truncate(limit);
        Ok(intents)
    }

    /// The same where a block of them cannot be read: a shard with such a block has one more, so that it is
    /// looked at.
    pub(super) fn count_around_damage(&self) -> Result<Vec<u64>, StoreError> {
        let mut counts = Vec::with_capacity(INTENT_SHARDS);
        for shard in 0..=u8::MAX {
            let range = || self.space.range(keys::intents_from(shard, 0)..keys::intents_end(shard));
            let damaged = range().any(|item| item.key().is_err());
            counts.push(self.around_damage(range())?.len() as u64 + u64::from(damaged));
        }
        Ok(counts)
    }

    /// Entries of several logs, cut at `limit` over all of them.
    pub(super) fn runs(
        &self,
        of: &[(ConversationId, RangeInclusive<u64>)],
        limit: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        let snapshot = self.db.snapshot();
        let mut runs = Runs::new(limit);
        for (id, range) in of {
            let found = (!range.is_empty()).then(|| self.range(&snapshot, *id, range));
            let mut check = Dense::new(Order::Ascending);
            let entries = found.into_iter().flatten().map(|item| check.entry(item));
            if !runs.add(entries)? {
                break;
            }
        }
        Ok(runs.finish())
    }

    /// The newest entry of a log up to `seq`.
    pub(super) fn last_entry(&self, id: ConversationId, seq: u64) -> Result<Option<Entry>, StoreError> {
        let one = PageLimit { entries: 1, bytes: 0 };
        Ok(self.entries(id, 0..=seq, Order::Descending, one)?.pop())
    }

    /// The newest entry in a range that is not later than `time_ms`, as a seq.
    pub(super) fn seq_at(
        &self,
        id: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError> {
        let (mut low, mut high) = (range.start().saturating_sub(1), *range.end());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.last_entry(id, middle)? {
                Some(entry) if entry.seq > low && entry.time_ms > time_ms => high = entry.seq - 1,
                // Nothing is between it and the middle: it is the last of the log.
                Some(entry) if entry.seq > low && entry.seq < middle => return Ok(entry.seq),
                // It is old enough, or has aged out.
                Some(_) | None => low = middle,
            }
        }
        Ok(low)
    }
}

fn listed(conversation: ConversationId, row: Row, last: Head, read: ReadPosition) -> InboxRow {
    InboxRow {
        conversation,
        last_seq: last.seq,
        last_messages: last.messages,
        last_time_ms: last.time_ms,
        first_seq: row.first_seq,
        until_seq: row.until.map(|until| until.seq),
        read,
    }
}

/// A log has no holes: one found while it is read is damage, and must not look like the end of the log.
struct Dense {
    order: Order,
    last: Option<u64>,
}

impl Dense {
    fn new(order: Order) -> Self {
        Self { order, last: None }
    }

    /// The next entry that was read, and its encoded bytes.
    fn entry(&mut self, item: fjall::Guard) -> Result<(Entry, usize), StoreError> {
        let (key, value) = item.into_inner().map_err(read_failed)?;
        let key = keys::entry_seq(&key)?;
        let (entry, bytes) = values::decode_entry(&value)?;
        let expected = match (self.last, self.order) {
            (None, _) => key,
            (Some(last), Order::Ascending) => last + 1,
            (Some(last), Order::Descending) => last - 1,
        };
        if key != expected || entry.seq != key {
            return Err(StoreError::Corrupt(format!("entry {expected} of a log is missing")));
        }
        self.last = Some(key);
        Ok((entry, bytes))
    }
}
