//! Blocks in memory, and groups that others put somebody in.

use std::sync::Arc;

use async_trait::async_trait;
use tern_protocol::{ConversationId, UserId};

use super::MemoryStore;
use super::state::State;
use crate::store::people::Accepting;
use crate::store::{
    Barred, BlockChange, BlockOutcome, Blocked, Conversation, Grounds, People, Standing, StoreError, Tally,
};

impl Grounds for State {
    fn standing(&self, user: &UserId) -> Standing {
        self.standings.get(user).cloned().unwrap_or_default()
    }

    fn blocks(&self, by: &UserId, user: &UserId) -> Result<bool, StoreError> {
        Ok(self.blocks.contains_key(&(by.clone(), user.clone())))
    }

    fn tally(&self, user: &UserId) -> Result<Tally, StoreError> {
        Ok(self.tallies.get(user).copied().unwrap_or_default())
    }
}

impl State {
    pub(super) fn count_added(&mut self, before: Option<&Conversation>, after: &Conversation) {
        let Accepting { joined, settled } = Accepting::between(before, after);
        for user in joined {
            let tally = self.tallies.entry(user).or_default();
            *tally = tally.joined(after.last_time_ms, &self.people);
        }
        for user in settled {
            let tally = self.tallies.entry(user).or_default();
            *tally = tally.settled();
        }
    }

    fn write_block(&mut self, by: &UserId, user: &UserId, since_ms: Option<u64>) {
        let key = (by.clone(), user.clone());
        let blocks = &mut self.tallies.entry(by.clone()).or_default().blocks;
        match since_ms {
            Some(since_ms) => {
                *blocks += 1;
                self.blocks.insert(key, since_ms);
            }
            None => {
                *blocks -= 1;
                self.blocks.remove(&key);
            }
        }
        if let Some(pair) = self.conversations.get_mut(&ConversationId::pair(by, user)) {
            let pair = Arc::make_mut(pair);
            pair.blocked_by.retain(|other| other != by);
            pair.blocked_by.extend(since_ms.map(|_| by.clone()));
        }
    }
}

#[async_trait]
impl People for MemoryStore {
    async fn set_block(&self, change: BlockChange) -> Result<BlockOutcome, StoreError> {
        let BlockChange { by, user, blocked, at_ms, right } = change;
        let mut state = self.state.lock();
        if let Some(lost) = right.and_then(|right| right.lost(&by, |user| state.standing(user))) {
            return Ok(BlockOutcome::Barred(Barred::Sender(lost)));
        }
        if blocked && state.standing(&user).erasure.is_some_and(|erasure| erasure.open.is_some()) {
            return Ok(BlockOutcome::Barred(Barred::Joining));
        }
        if state.blocks.contains_key(&(by.clone(), user.clone())) == blocked {
            return Ok(BlockOutcome::Stood);
        }
        let most = state.people.blocks;
        if blocked && state.tally(&by)?.blocks >= most {
            return Ok(BlockOutcome::Full(most));
        }
        state.write_block(&by, &user, blocked.then_some(at_ms));
        Ok(BlockOutcome::Changed)
    }

    async fn blocks(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Blocked>, StoreError> {
        let state = self.state.lock();
        let of_user = state.blocks.iter().filter(|((by, _), _)| by == user);
        let behind = of_user.filter(|((_, user), _)| after.is_none_or(|after| user > after));
        let blocked = behind.map(|((_, user), since_ms)| Blocked { user: user.clone(), since_ms: *since_ms });
        Ok(blocked.take(limit).collect())
    }

    async fn blocked_between(&self, user: &UserId, others: &[UserId]) -> Result<Vec<bool>, StoreError> {
        let state = self.state.lock();
        others.iter().map(|other| Ok(state.blocks(user, other)? || state.blocks(other, user)?)).collect()
    }

    async fn accept(&self, user: &UserId, id: ConversationId) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let Some(before) = state.conversations.get(&id).cloned() else { return Ok(false) };
        let Some(at) = before.members.iter().position(|member| member.user == *user) else {
            return Ok(false);
        };
        let mut after = (*before).clone();
        after.members[at].added_by = None;
        state.count_added(Some(&before), &after);
        state.conversations.insert(id, Arc::new(after));
        Ok(true)
    }

    async fn forget_blocks(&self, user: &UserId, limit: usize) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let about = state.blocks.keys().filter(|(by, of)| by == user || of == user);
        let about: Vec<_> = about.take(limit).cloned().collect();
        for (by, user) in &about {
            state.write_block(by, user, None);
        }
        Ok(about.len() == limit)
    }
}
