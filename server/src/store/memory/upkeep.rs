//! Ageing and erasure in memory.

use std::sync::Arc;

use async_trait::async_trait;
use tern_protocol::{ConversationId, Entry, UserId};

use super::MemoryStore;
use super::state::State;
use crate::store::{
    Aged, Ages, Erasure, GROUP_ENTRIES_MAX, Granularity, Kept, OpenErasure, StoreError, Upkeep,
};

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
        let mut state = self.state.lock();
        let last = &mut state.standings.entry(user.clone()).or_default().erasure;
        if let Some(open) = last.as_ref().filter(|erasure| erasure.open.is_some()) {
            return Ok(open.clone());
        }
        let erasure = Erasure { at_ms, open: Some(OpenErasure { user: user.clone(), became }) };
        *last = Some(erasure.clone());
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
        state.intents.retain(|_, intent| intent.sender.as_ref() != Some(user));
        state.tallies.remove(user);
        if let Some(erasure) = state.standings.get_mut(user).and_then(|standing| standing.erasure.as_mut()) {
            erasure.open = None;
        }
        Ok(true)
    }

    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        let state = self.state.lock();
        let erasures = state.standings.values().filter_map(|standing| standing.erasure.as_ref());
        let open = erasures.filter_map(|erasure| erasure.open.as_ref());
        Ok(open.map(|open| open.user.clone()).collect())
    }
}
