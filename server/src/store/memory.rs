//! The store in memory: the plainest reading of the traits, for tests and as the reference that
//! other stores are compared with. Nothing in it survives the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tern_protocol::{ConversationId, Entry, EntryBody, StoreId, TempId, UserId};
use uuid::Uuid;

use super::runs::Runs;
use super::{
    Aged, Ages, AppendAnswers, AppendGroup, Appended, Conversation, Erasure, GROUP_ENTRIES_MAX, Glance,
    Glances, Granularity, INTENT_SHARDS, Inbox, InboxCursor, InboxRow, Intent, Intents, Kept, Log, Marker,
    NewEntry, OpenErasure, Order, PageLimit, ReadPosition, Store, StoreError, Upkeep, User, UserChange,
    Users,
};

/// A store in memory, under one lock.
pub struct MemoryStore {
    store_id: StoreId,
    ages_by: Granularity,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    conversations: HashMap<ConversationId, Arc<Conversation>>,
    entries: BTreeMap<(ConversationId, u64), Arc<Entry>>,
    markers: HashMap<(ConversationId, UserId, TempId), Marker>,
    rows: BTreeMap<(UserId, ConversationId), InboxRow>,
    reads: HashMap<(UserId, ConversationId), ReadPosition>,
    users: HashMap<UserId, User>,
    /// By time, conversation and first seq.
    intents: BTreeMap<(u64, ConversationId, u64), Intent>,
    kept: HashMap<ConversationId, Kept>,
    erasures: HashMap<UserId, Erasure>,
    /// The next append writes only the log, as one does that dies half-way in a store of several parts.
    #[cfg(test)]
    is_torn: bool,
}

impl MemoryStore {
    /// An empty store with an id of its own, which lets go of single entries.
    pub fn new() -> Self {
        Self::ageing_by(Granularity::Entry)
    }

    /// An empty store that lets go of what is old in these pieces.
    pub fn ageing_by(ages_by: Granularity) -> Self {
        Self { store_id: StoreId::from_uuid(Uuid::new_v4()), ages_by, state: Mutex::default() }
    }
}

#[cfg(test)]
impl MemoryStore {
    /// The next append dies half-way: its log is written, and nothing else.
    pub(crate) fn tear(&self) {
        self.state.lock().is_torn = true;
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn store_id(&self) -> StoreId {
        self.store_id
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}
}

impl State {
    fn append(&mut self, group: &AppendGroup) -> Result<Appended, StoreError> {
        group.check()?;
        let duplicates = self.duplicates(group);
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let barred = group.barred(|user| self.erasures.get(user).cloned());
        if !barred.is_empty() {
            return Ok(Appended::Barred(barred));
        }
        let head = self.conversations.get(&group.conversation).map_or(0, |current| current.head);
        if head != group.expected_head {
            return Ok(Appended::Conflict { head });
        }
        self.write(group);
        Ok(Appended::Applied)
    }

    fn duplicates(&self, group: &AppendGroup) -> Vec<(usize, Marker)> {
        let marker = |new: &NewEntry| {
            let key = (group.conversation, new.entry.sender.clone(), new.entry.temp_id?);
            self.markers.get(&key).copied()
        };
        group.entries.iter().enumerate().filter_map(|(at, new)| Some((at, marker(new)?))).collect()
    }

    fn write(&mut self, group: &AppendGroup) {
        self.write_log(group);
        #[cfg(test)]
        if std::mem::take(&mut self.is_torn) {
            return;
        }
        self.write_marks(group);
    }

    /// Inbox rows, read positions and the push intent.
    fn write_marks(&mut self, group: &AppendGroup) {
        let AppendGroup { conversation, entries, state, departures, .. } = group;
        for gone in departures {
            let at = entries.iter().find(|new| new.entry.seq == gone.until_seq);
            let row = InboxRow {
                conversation: *conversation,
                last_seq: gone.until_seq,
                last_messages: at.map_or(state.messages, |new| new.entry.messages),
                last_time_ms: at.map_or(state.last_time_ms, |new| new.entry.time_ms),
                first_seq: gone.first_seq,
                until_seq: Some(gone.until_seq),
                read: ReadPosition::default(), // kept apart
            };
            self.rows.insert((gone.user.clone(), *conversation), row);
        }
        self.mark_members(*conversation, state);
        for (user, read) in group.reads() {
            self.reads.insert((user.clone(), *conversation), read);
        }
        if let Some(intent) = group.intent() {
            self.intents.insert((intent.time_ms, *conversation, intent.from_seq), intent);
        }
    }

    fn mark_members(&mut self, conversation: ConversationId, state: &Conversation) {
        for member in &state.members {
            let row = InboxRow {
                conversation,
                last_seq: state.head,
                last_messages: state.messages,
                last_time_ms: state.last_time_ms,
                first_seq: member.first_seq,
                until_seq: None,
                read: ReadPosition::default(), // kept apart
            };
            self.rows.insert((member.user.clone(), conversation), row);
        }
    }

    /// Writes again what of these entries is not in the log.
    fn redo(&mut self, conversation: ConversationId, state: &Conversation, entries: &[Entry]) {
        self.mark_members(conversation, state);
        for entry in entries {
            let gone: &[UserId] = match &entry.body {
                EntryBody::Removed { users } => users,
                EntryBody::Left { user } => std::slice::from_ref(user),
                _ => &[],
            };
            for user in gone.iter().filter(|user| state.member(user).is_none()) {
                if let Some(row) = self.rows.get_mut(&(user.clone(), conversation)) {
                    (row.until_seq, row.last_seq) = (Some(entry.seq), entry.seq);
                    (row.last_messages, row.last_time_ms) = (entry.messages, entry.time_ms);
                }
            }
            let joined = state.members.iter().filter(|member| member.first_seq == entry.seq);
            let before = entry.messages - u64::from(entry.body.is_message());
            let joined = joined.map(|member| (&member.user, entry.seq - 1, before));
            let wrote = entry.body.is_message().then_some((&entry.sender, entry.seq, entry.messages));
            for (user, seq, messages) in joined.chain(wrote) {
                let read = self.reads.entry((user.clone(), conversation)).or_default();
                if seq > read.seq {
                    *read = ReadPosition { seq, messages };
                }
            }
        }
        let pushed = entries.iter().filter(|entry| entry.body.is_message() && state.members.len() > 1);
        if let Some(intent) = Intent::of(conversation, pushed) {
            self.intents.insert((intent.time_ms, conversation, intent.from_seq), intent);
        }
    }

    fn write_log(&mut self, group: &AppendGroup) {
        let AppendGroup { conversation, entries, state, .. } = group;
        for new in entries {
            let entry = &new.entry;
            if let Some(temp_id) = entry.temp_id {
                let marker = Marker { seq: entry.seq, digest: new.digest };
                self.markers.insert((*conversation, entry.sender.clone(), temp_id), marker);
            }
            self.entries.insert((*conversation, entry.seq), entry.clone());
        }
        self.conversations.insert(*conversation, state.clone());
    }

    fn row(&self, user: &UserId, row: &InboxRow) -> InboxRow {
        let read = self.reads.get(&(user.clone(), row.conversation));
        InboxRow { read: read.copied().unwrap_or_default(), ..row.clone() }
    }

    /// The entries of a log in a range.
    fn log(
        &self,
        conversation: ConversationId,
        range: &RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let range =
            (!range.is_empty()).then(|| (conversation, *range.start())..=(conversation, *range.end()));
        range.into_iter().flat_map(|range| self.entries.range(range)).map(|(_, entry)| entry)
    }
}

#[async_trait]
impl Log for MemoryStore {
    async fn append_all(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers) {
        let (tickets, groups): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let owed = answers.owe(tickets);
        let mut state = self.state.lock();
        let results: Vec<_> = groups.iter().map(|group| state.append(group)).collect();
        drop(state);
        owed.settle(results);
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        Ok(self.state.lock().conversations.get(&id).cloned())
    }

    async fn marker(
        &self,
        conversation: ConversationId,
        sender: &UserId,
        temp_id: TempId,
        _age_ms: u64, // markers are found however old they are
    ) -> Result<Option<Marker>, StoreError> {
        Ok(self.state.lock().markers.get(&(conversation, sender.clone(), temp_id)).copied())
    }

    async fn entries(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        let state = self.state.lock();
        let found = state.log(conversation, &range);
        let found: Vec<&Arc<Entry>> = match order {
            Order::Ascending => found.collect(),
            Order::Descending => found.rev().collect(),
        };
        let mut bytes = 0;
        let fits = |(index, entry): &(usize, &Arc<Entry>)| {
            bytes += encoded_bytes(entry);
            *index == 0 || bytes <= limit.bytes
        };
        let page = found.into_iter().take(limit.entries).enumerate().take_while(fits);
        Ok(page.map(|(_, entry)| (**entry).clone()).collect())
    }

    async fn seq_at(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError> {
        let state = self.state.lock();
        let last = state.log(conversation, &range).rev().find(|entry| entry.time_ms <= time_ms);
        Ok(last.map_or(range.start().saturating_sub(1), |entry| entry.seq))
    }

    async fn redo(
        &self,
        conversation: ConversationId,
        state: &Conversation,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        self.state.lock().redo(conversation, state, entries);
        Ok(())
    }
}

#[async_trait]
impl Glances for MemoryStore {
    async fn glance(&self, ids: &[ConversationId]) -> Result<Vec<Option<Glance>>, StoreError> {
        let state = self.state.lock();
        let glance = |id| {
            let kept = state.kept.get(id).copied().unwrap_or_default();
            Some(Glance { state: state.conversations.get(id)?.clone(), kept })
        };
        Ok(ids.iter().map(glance).collect())
    }

    async fn runs(
        &self,
        of: &[(ConversationId, RangeInclusive<u64>)],
        limit: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        let state = self.state.lock();
        let mut runs = Runs::new(limit);
        for (id, range) in of {
            let fits =
                runs.add(state.log(*id, range).map(|entry| Ok(((**entry).clone(), encoded_bytes(entry)))))?;
            if !fits {
                break;
            }
        }
        Ok(runs.finish())
    }

    async fn last_entries(&self, at: &[(ConversationId, u64)]) -> Result<Vec<Option<Entry>>, StoreError> {
        let state = self.state.lock();
        let last = |(id, seq): &(ConversationId, u64)| state.log(*id, &(0..=*seq)).next_back();
        Ok(at.iter().map(|at| last(at).map(|entry| (**entry).clone())).collect())
    }
}

#[async_trait]
impl Inbox for MemoryStore {
    async fn inbox(
        &self,
        user: &UserId,
        after: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let state = self.state.lock();
        let first = (user.clone(), ConversationId::from_bytes([0; 16]));
        let last = (user.clone(), ConversationId::from_bytes([255; 16]));
        let mut rows: Vec<_> = state.rows.range(first..=last).map(|(_, row)| state.row(user, row)).collect();
        rows.retain(|row| after.is_none_or(|after| row.place() > after));
        rows.sort_by_key(InboxRow::place);
        rows.truncate(limit);
        Ok(rows)
    }

    async fn inbox_rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError> {
        let state = self.state.lock();
        let row = |id| state.rows.get(&(user.clone(), id)).map(|row| state.row(user, row));
        Ok(ids.iter().map(|id| row(*id)).collect())
    }

    async fn set_read(
        &self,
        user: &UserId,
        id: ConversationId,
        read: ReadPosition,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let before = state.reads.entry((user.clone(), id)).or_default();
        let rose = read.seq > before.seq;
        if rose {
            *before = read;
        }
        Ok(rose)
    }
}

#[async_trait]
impl Users for MemoryStore {
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        let state = self.state.lock();
        Ok(users.iter().map(|user| state.users.get(user).cloned()).collect())
    }

    async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        issued_ms: Option<u64>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let erasure = state.erasures.get(user);
        if issued_ms.zip(erasure).is_some_and(|(issued_ms, erasure)| erasure.bars(issued_ms)) {
            return Ok(false);
        }
        if let Some(after) = change.apply(state.users.get(user)) {
            state.users.insert(user.clone(), after);
        }
        Ok(true)
    }
}

#[async_trait]
impl Intents for MemoryStore {
    async fn intents(&self, shards: &[u8], until_ms: u64, limit: usize) -> Result<Vec<Intent>, StoreError> {
        let state = self.state.lock();
        let due = state.intents.values().take_while(|intent| intent.time_ms <= until_ms);
        Ok(due.filter(|intent| shards.contains(&intent.shard())).take(limit).cloned().collect())
    }

    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for intent in intents {
            state.intents.remove(&(intent.time_ms, intent.conversation, intent.from_seq));
        }
        Ok(())
    }

    async fn intents_waiting(&self, shards: &[u8]) -> Result<Vec<u64>, StoreError> {
        let state = self.state.lock();
        let mut waiting = [0; INTENT_SHARDS];
        for intent in state.intents.values() {
            waiting[usize::from(intent.shard())] += 1;
        }
        Ok(shards.iter().map(|shard| waiting[usize::from(*shard)]).collect())
    }
}

#[async_trait]
impl Upkeep for MemoryStore {
    fn ages_by(&self) -> Granularity {
        self.ages_by
    }

    async fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let mut ids: Vec<_> = self.state.lock().conversations.keys().copied().collect();
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort();
        ids.truncate(limit);
        Ok(ids)
    }

    async fn age(&self, conversation: ConversationId, ages: Ages, limit: usize) -> Result<Aged, StoreError> {
        let mut state = self.state.lock();
        let mut kept = state.kept.get(&conversation).copied().unwrap_or_default();
        let head = state.conversations.get(&conversation).map_or(0, |state| state.head);
        let entry = |state: &State, seq| state.entries.get(&(conversation, seq)).cloned();
        let (mut aged, mut looked_at) = (Aged::default(), 0);
        while looked_at < limit && kept.markers_until < head {
            let next = entry(&state, kept.markers_until + 1).expect("logs are dense above their markers");
            if next.time_ms >= ages.markers_before_ms {
                break;
            }
            (kept.markers_until, looked_at) = (next.seq, looked_at + 1);
            if let Some(temp_id) = next.temp_id {
                state.markers.remove(&(conversation, next.sender.clone(), temp_id));
                aged.markers += 1;
            }
        }
        let before_ms = ages.entries_before_ms.unwrap_or(0);
        while aged.entries < limit {
            // The last entry of the piece that the log begins with; its marker is the last of it to go.
            let last = match self.ages_by {
                Granularity::Entry => kept.first_seq,
                Granularity::Bucket(size) => (kept.first_seq / size + 1) * size - 1,
            };
            let is_sealed = self.ages_by == Granularity::Entry || head > last;
            if last > kept.markers_until || !is_sealed {
                break;
            }
            let entry = entry(&state, last).expect("logs are dense");
            if entry.time_ms >= before_ms {
                break;
            }
            for seq in kept.first_seq..=last {
                state.entries.remove(&(conversation, seq));
                aged.entries += 1;
            }
            (kept.first_seq, kept.messages) = (last + 1, entry.messages);
        }
        aged.more = looked_at == limit || aged.entries >= limit;
        if kept != Kept::default() {
            state.kept.insert(conversation, kept);
        }
        Ok(aged)
    }

    async fn rewrite(
        &self,
        conversation: ConversationId,
        entries: Vec<Entry>,
        erased_seq: u64,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if entries.len() > GROUP_ENTRIES_MAX {
            return Err(StoreError::Malformed("at most 128 entries are replaced at a time"));
        }
        let is_other = |entry: &Entry| {
            state.entries.get(&(conversation, entry.seq)).is_some_and(|before| before.id != entry.id)
        };
        if entries.iter().any(is_other) {
            return Err(StoreError::Malformed("an entry can only be replaced by itself"));
        }
        let markers_until = state.kept.get(&conversation).map_or(0, |kept| kept.markers_until);
        for entry in entries {
            let Some(before) = state.entries.get(&(conversation, entry.seq)).cloned() else { continue };
            if let (Some(temp_id), None) = (before.temp_id, entry.temp_id)
                && before.seq > markers_until
            {
                state.markers.remove(&(conversation, before.sender.clone(), temp_id));
            }
            state.entries.insert((conversation, entry.seq), Arc::new(entry));
        }
        if erased_seq > 0 {
            let kept = state.kept.entry(conversation).or_default();
            kept.erased_seq = kept.erased_seq.max(erased_seq);
        }
        Ok(())
    }

    async fn begin_erasure(&self, user: &UserId, became: UserId, at_ms: u64) -> Result<Erasure, StoreError> {
        let erasures = &mut self.state.lock().erasures;
        if let Some(open) = erasures.get(user).filter(|erasure| erasure.open.is_some()) {
            return Ok(open.clone());
        }
        let erasure = Erasure { at_ms, open: Some(OpenErasure { user: user.clone(), became }) };
        erasures.insert(user.clone(), erasure.clone());
        Ok(erasure)
    }

    async fn finish_erasure(&self, user: &UserId) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        if state.conversations.values().any(|conversation| conversation.member(user).is_some()) {
            return Ok(false);
        }
        state.rows.retain(|(owner, _), _| owner != user);
        state.reads.retain(|(owner, _), _| owner != user);
        state.users.remove(user);
        if let Some(erasure) = state.erasures.get_mut(user) {
            erasure.open = None;
        }
        Ok(true)
    }

    async fn erasure(&self, user: &UserId) -> Result<Option<Erasure>, StoreError> {
        Ok(self.state.lock().erasures.get(user).cloned())
    }

    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        let state = self.state.lock();
        Ok(state
            .erasures
            .iter()
            .filter(|(_, erasure)| erasure.open.is_some())
            .map(|(user, _)| user.clone())
            .collect())
    }
}

fn encoded_bytes(entry: &Entry) -> usize {
    postcard::to_stdvec(entry).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::contract::{self, Fixture};

    struct Memory(Arc<MemoryStore>);

    #[async_trait]
    impl Fixture for Memory {
        fn store(&self) -> Arc<dyn Store> {
            self.0.clone()
        }

        async fn reopen(&mut self) {} // there is nothing to open
    }

    contract::suite!(Memory(Arc::new(MemoryStore::new())));

    mod by_buckets {
        use super::*;
        contract::suite!(Memory(Arc::new(MemoryStore::ageing_by(Granularity::Bucket(4)))));
    }
}
