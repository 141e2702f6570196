//! The store in memory: the plainest reading of the traits, for tests and as the reference that
//! other stores are compared with. Nothing in it survives the process.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tern_protocol::{ConversationId, Entry, StoreId, TempId, UserId};
use uuid::Uuid;

mod people;
mod state;
mod upkeep;

use self::state::State;
use super::runs::Runs;
use super::{
    AppendAnswers, AppendGroup, Conversation, Glance, Glances, Granularity, INTENT_SHARDS, Inbox,
    InboxCursor, InboxRow, Intent, Intents, Log, Marker, Order, PageLimit, ReadPosition, Right, Standing,
    Store, StoreError, User, UserChange, Users,
};

/// A store in memory, under one lock.
pub struct MemoryStore {
    store_id: StoreId,
    ages_by: Granularity,
    state: Mutex<State>,
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
    /// The same with other limits for people.
    pub(crate) fn with_people(self, people: super::PeopleConfig) -> Self {
        self.state.lock().people = people;
        self
    }

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
        right: Option<Right>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        if right.is_some_and(|right| right.lost(user, |user| state.standing(user)).is_some()) {
            return Ok(false);
        }
        if let Some(after) = change.apply(state.users.get(user)) {
            state.users.insert(user.clone(), after);
        }
        Ok(true)
    }

    async fn standing(&self, user: &UserId) -> Result<Standing, StoreError> {
        Ok(self.state.lock().standing(user))
    }

    async fn refuse_before(&self, user: &UserId, before_ms: u64) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let standing = state.standings.entry(user.clone()).or_default();
        standing.refused_before_ms = standing.refused_before_ms.max(before_ms);
        Ok(())
    }
}

#[async_trait]
impl Intents for MemoryStore {
    async fn intents(
        &self,
        shards: &[u8],
        times_ms: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        let state = self.state.lock();
        let due = state.intents.values().filter(|intent| times_ms.contains(&intent.time_ms));
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

    contract::suite!(Memory(Arc::new(MemoryStore::new().with_people(contract::few()))));

    mod by_buckets {
        use super::*;
        contract::suite!(Memory(Arc::new(
            MemoryStore::ageing_by(Granularity::Bucket(4)).with_people(contract::few())
        )));
    }
}
