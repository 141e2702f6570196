//! The store in memory: the plainest reading of the traits, for tests and as the reference that
//! other stores are compared with. Nothing in it survives the process.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use async_trait::async_trait;
use parking_lot::Mutex;
use tern_protocol::{ConversationId, Entry, StoreId, TempId, UserId};
use uuid::Uuid;

use super::{
    Aged, Ages, AppendGroup, Appended, Conversation, Erasure, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Inbox,
    InboxRow, Intent, Intents, Kept, Log, Marker, NewEntry, OpenErasure, Order, PageLimit, Store, StoreError,
    Upkeep, User, UserChange, Users,
};

/// A store in memory, under one lock.
pub struct MemoryStore {
    store_id: StoreId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    conversations: HashMap<ConversationId, Conversation>,
    entries: BTreeMap<(ConversationId, u64), Entry>,
    markers: HashMap<(ConversationId, UserId, TempId), Marker>,
    rows: BTreeMap<(UserId, ConversationId), InboxRow>,
    reads: HashMap<(UserId, ConversationId), u64>,
    users: HashMap<UserId, User>,
    /// Time, conversation and seq.
    intents: BTreeSet<(u64, ConversationId, u64)>,
    kept: HashMap<ConversationId, Kept>,
    erasures: HashMap<UserId, Erasure>,
}

impl MemoryStore {
    /// An empty store with an id of its own.
    pub fn new() -> Self {
        Self { store_id: StoreId::from_uuid(Uuid::new_v4()), state: Mutex::default() }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn store_id(&self) -> StoreId {
        self.store_id
    }
}

impl State {
    fn duplicates(&self, group: &AppendGroup) -> Vec<(usize, Marker)> {
        let marker = |new: &NewEntry| {
            self.markers.get(&(group.conversation, new.entry.sender.clone(), new.entry.temp_id?)).copied()
        };
        group.entries.iter().enumerate().filter_map(|(at, new)| Some((at, marker(new)?))).collect()
    }

    fn write(&mut self, group: AppendGroup) {
        let AppendGroup { conversation, entries, state, departures, .. } = group;
        for gone in departures {
            let at = entries.iter().find(|new| new.entry.seq == gone.until_seq);
            let row = InboxRow {
                conversation,
                last_seq: gone.until_seq,
                last_time_ms: at.map_or(state.last_time_ms, |new| new.entry.time_ms),
                first_seq: gone.first_seq,
                until_seq: Some(gone.until_seq),
                read_seq: 0, // kept apart
            };
            self.rows.insert((gone.user, conversation), row);
        }
        for member in &state.members {
            let row = InboxRow {
                conversation,
                last_seq: state.head,
                last_time_ms: state.last_time_ms,
                first_seq: member.first_seq,
                until_seq: None,
                read_seq: 0, // kept apart
            };
            self.rows.insert((member.user.clone(), conversation), row);
        }
        for NewEntry { entry, digest, push } in entries {
            if let Some(temp_id) = entry.temp_id {
                let marker = Marker { seq: entry.seq, digest };
                self.markers.insert((conversation, entry.sender.clone(), temp_id), marker);
            }
            if push {
                self.intents.insert((entry.time_ms, conversation, entry.seq));
            }
            self.entries.insert((conversation, entry.seq), entry);
        }
        self.conversations.insert(conversation, state);
    }

    fn row(&self, user: &UserId, row: &InboxRow) -> InboxRow {
        let read = self.reads.get(&(user.clone(), row.conversation));
        InboxRow { read_seq: read.copied().unwrap_or(0), ..row.clone() }
    }
}

#[async_trait]
impl Log for MemoryStore {
    async fn append(&self, group: AppendGroup) -> Result<Appended, StoreError> {
        group.check()?;
        if group.entries.iter().map(|new| encoded_bytes(&new.entry)).sum::<usize>() > GROUP_BYTES_MAX {
            return Err(StoreError::Malformed("its entries must not exceed 1 MiB"));
        }
        let mut state = self.state.lock();
        let duplicates = state.duplicates(&group);
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let head = state.conversations.get(&group.conversation).map_or(0, |current| current.head);
        if head != group.expected_head {
            return Ok(Appended::Conflict { head });
        }
        state.write(group);
        Ok(Appended::Applied)
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
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
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.state.lock();
        let found = state.entries.range((conversation, *range.start())..=(conversation, *range.end()));
        let found: Vec<&Entry> = match order {
            Order::Ascending => found.map(|(_, entry)| entry).collect(),
            Order::Descending => found.rev().map(|(_, entry)| entry).collect(),
        };
        let mut bytes = 0;
        let fits = |(index, entry): &(usize, &Entry)| {
            bytes += encoded_bytes(entry);
            *index == 0 || bytes <= limit.bytes
        };
        let page = found.into_iter().take(limit.entries).enumerate().take_while(fits);
        Ok(page.map(|(_, entry)| entry.clone()).collect())
    }

    async fn redo(&self, _conversation: ConversationId, _seqs: &[u64]) -> Result<(), StoreError> {
        Ok(()) // an append is one step
    }
}

#[async_trait]
impl Inbox for MemoryStore {
    async fn inbox(&self, user: &UserId) -> Result<Vec<InboxRow>, StoreError> {
        let state = self.state.lock();
        let first = (user.clone(), ConversationId::from_bytes([0; 16]));
        let last = (user.clone(), ConversationId::from_bytes([255; 16]));
        let mut rows: Vec<_> = state.rows.range(first..=last).map(|(_, row)| state.row(user, row)).collect();
        rows.sort_by_key(|row| (Reverse(row.last_time_ms), row.conversation));
        Ok(rows)
    }

    async fn inbox_row(&self, user: &UserId, id: ConversationId) -> Result<Option<InboxRow>, StoreError> {
        let state = self.state.lock();
        Ok(state.rows.get(&(user.clone(), id)).map(|row| state.row(user, row)))
    }

    async fn set_read(&self, user: &UserId, id: ConversationId, seq: u64) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let read = state.reads.entry((user.clone(), id)).or_insert(0);
        let rose = seq > *read;
        *read = seq.max(*read);
        Ok(rose)
    }
}

#[async_trait]
impl Users for MemoryStore {
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        let state = self.state.lock();
        Ok(users.iter().map(|user| state.users.get(user).cloned()).collect())
    }

    async fn change_user(&self, user: &UserId, change: UserChange) -> Result<(), StoreError> {
        let users = &mut self.state.lock().users;
        if let Some(after) = change.apply(users.get(user)) {
            users.insert(user.clone(), after);
        }
        Ok(())
    }
}

#[async_trait]
impl Intents for MemoryStore {
    async fn intents(&self, until_ms: u64, limit: usize) -> Result<Vec<Intent>, StoreError> {
        let state = self.state.lock();
        let due = state.intents.iter().take_while(|(time_ms, ..)| *time_ms <= until_ms).take(limit);
        Ok(due.map(|&(time_ms, conversation, seq)| Intent { conversation, seq, time_ms }).collect())
    }

    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for intent in intents {
            state.intents.remove(&(intent.time_ms, intent.conversation, intent.seq));
        }
        Ok(())
    }
}

#[async_trait]
impl Upkeep for MemoryStore {
    async fn kept(&self, conversation: ConversationId) -> Result<Kept, StoreError> {
        Ok(self.state.lock().kept.get(&conversation).copied().unwrap_or_default())
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
                state.markers.remove(&(conversation, next.sender, temp_id));
                aged.markers += 1;
            }
        }
        let before_ms = ages.entries_before_ms.unwrap_or(0);
        while aged.entries < limit && kept.first_seq <= kept.markers_until {
            let first = entry(&state, kept.first_seq).expect("logs are dense");
            if first.time_ms >= before_ms {
                break;
            }
            state.entries.remove(&(conversation, first.seq));
            (kept.first_seq, aged.entries) = (first.seq + 1, aged.entries + 1);
        }
        aged.more = looked_at == limit || aged.entries == limit;
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
                state.markers.remove(&(conversation, before.sender, temp_id));
            }
            state.entries.insert((conversation, entry.seq), entry);
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
}
