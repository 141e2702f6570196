//! A store that keeps the appends of some conversations until it is told to go on, and notes what it is asked.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tern_protocol::{ConversationId, Entry, TempId, UserId};

use crate::store::memory::MemoryStore;
use crate::store::{AppendAnswers, AppendGroup, Conversation, Log, Marker, Order, PageLimit, StoreError};

/// One call of `append_all`: how many entries it brought for which conversations.
pub(super) type Appends = Vec<(ConversationId, usize)>;

#[derive(Default)]
pub(super) struct Gate {
    pub(super) store: Arc<MemoryStore>,
    closed: Mutex<HashSet<ConversationId>>,
    waiting: Mutex<Vec<(u64, Arc<AppendGroup>, AppendAnswers)>>,
    /// Appends of these find no room, for ever.
    pub(super) full: Mutex<HashSet<ConversationId>>,
    /// Reading one of these panics.
    pub(super) cursed: Mutex<HashSet<ConversationId>>,
    pub(super) calls: Mutex<Vec<Appends>>,
    pub(super) states_read: Mutex<usize>,
}

impl Gate {
    /// From now on appends of this conversation get no answer.
    pub(super) fn close(&self, id: ConversationId) {
        self.closed.lock().insert(id);
    }

    /// How many of them wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// All of them get their answer.
    pub(super) async fn open(&self) {
        self.closed.lock().clear();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for (ticket, group, answers) in waiting {
            self.store.append_all(vec![(ticket, group)], &answers).await;
        }
    }
}

#[async_trait]
impl Log for Gate {
    async fn append_all(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers) {
        let call = groups.iter().map(|(_, group)| (group.conversation, group.entries.len())).collect();
        self.calls.lock().push(call);
        let is_full = groups.iter().any(|(_, group)| self.full.lock().contains(&group.conversation));
        if is_full {
            std::future::pending::<()>().await;
        }
        let (kept, passed): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(_, group)| self.closed.lock().contains(&group.conversation));
        let kept = kept.into_iter().map(|(ticket, group)| (ticket, group, answers.clone()));
        self.waiting.lock().extend(kept);
        self.store.append_all(passed, answers).await;
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        *self.states_read.lock() += 1;
        assert!(!self.cursed.lock().contains(&id), "this panic belongs to the test");
        self.store.conversation(id).await
    }

    async fn marker(
        &self,
        conversation: ConversationId,
        sender: &UserId,
        temp_id: TempId,
        age_ms: u64,
    ) -> Result<Option<Marker>, StoreError> {
        self.store.marker(conversation, sender, temp_id, age_ms).await
    }

    async fn entries(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.entries(conversation, range, order, limit).await
    }

    async fn seq_at(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError> {
        self.store.seq_at(conversation, range, time_ms).await
    }

    async fn redo(
        &self,
        conversation: ConversationId,
        state: &Conversation,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        self.store.redo(conversation, state, entries).await
    }
}
