//! What a batch does to people: blocks, and groups that others put them in.

use std::collections::BTreeMap;
use std::sync::Arc;

use tern_protocol::{ConversationId, UserId};

use super::super::{keys, values};
use super::{Batch, NewState};
use crate::store::people::Accepting;
use crate::store::{
    AppendGroup, Barred, BlockChange, BlockOutcome, Conversation, Grounds, Standing, StoreError, Tally,
};

/// Whom a batch knows while it looks at one append.
struct Known<'a> {
    batch: &'a Batch<'a>,
    /// The pair that it is about, if there is one: it says itself who blocks whom.
    pair: Option<&'a Conversation>,
}

impl Grounds for Known<'_> {
    fn standing(&self, user: &UserId) -> Standing {
        self.batch.disk.standings.get(user)
    }

    fn blocks(&self, by: &UserId, user: &UserId) -> Result<bool, StoreError> {
        match self.pair {
            Some(pair) => Ok(pair.blocked_by.contains(by)),
            None => Ok(self.batch.get(&keys::block(by, user))?.is_some()),
        }
    }

    fn tally(&self, user: &UserId) -> Result<Tally, StoreError> {
        self.batch.tally(user)
    }
}

impl Batch<'_> {
    /// Why entries of a group must not be written, as of the operations before it. Of a pair that exists
    /// nothing is read for it.
    pub(super) fn barred(
        &self,
        group: &AppendGroup,
        current: Option<&Conversation>,
    ) -> Result<Vec<(usize, Barred)>, StoreError> {
        let pair = current.filter(|state| state.kind == tern_protocol::ConversationKind::Pair);
        group.barred(&Known { batch: self, pair }, &self.disk.people)
    }

    /// Counts whom others have put in a group by an append, and who has accepted one or gone.
    pub(super) fn count_added(
        &mut self,
        before: Option<&Conversation>,
        after: &Conversation,
    ) -> Result<(), StoreError> {
        let Accepting { joined, settled } = Accepting::between(before, after);
        // All are read before the first is written: an append counts for everybody or for nobody.
        let mut tallies = BTreeMap::new();
        for user in joined.iter().chain(&settled) {
            tallies.insert(user, self.tally(user)?);
        }
        let people = Arc::clone(&self.disk.people);
        for user in &joined {
            tallies.entry(user).and_modify(|tally| *tally = tally.joined(after.last_time_ms, &people));
        }
        for user in &settled {
            tallies.entry(user).and_modify(|tally| *tally = tally.settled());
        }
        for (user, tally) in tallies {
            self.put_tally(user, tally);
        }
        Ok(())
    }

    pub(super) fn set_block(&mut self, change: BlockChange) -> Result<BlockOutcome, StoreError> {
        let BlockChange { by, user, blocked, at_ms, right } = change;
        let standing = |user: &UserId| self.disk.standings.get(user);
        if let Some(lost) = right.and_then(|right| right.lost(&by, standing)) {
            return Ok(BlockOutcome::Barred(Barred::Sender(lost)));
        }
        if blocked && standing(&user).erasure.is_some_and(|erasure| erasure.open.is_some()) {
            return Ok(BlockOutcome::Barred(Barred::Joining));
        }
        if self.get(&keys::block(&by, &user))?.is_some() == blocked {
            return Ok(BlockOutcome::Stood);
        }
        let most = self.disk.people.blocks;
        if blocked && self.tally(&by)?.blocks >= most {
            return Ok(BlockOutcome::Full(most));
        }
        self.write_block(&by, &user, blocked.then_some(at_ms))?;
        Ok(BlockOutcome::Changed)
    }

    /// The rows of a block, its count, and the pair of the two if there is one: all of them or, where one cannot
    /// be read, none.
    fn write_block(&mut self, by: &UserId, user: &UserId, since_ms: Option<u64>) -> Result<(), StoreError> {
        let tally = self.tally(by)?;
        let id = ConversationId::pair(by, user);
        let pair = self.conversation(id)?;
        let blocks = match since_ms {
            Some(_) => tally.blocks.saturating_add(1),
            None => tally.blocks.saturating_sub(1),
        };
        self.put_tally(by, Tally { blocks, ..tally });
        let value = since_ms.map(|since_ms| values::encode(&since_ms));
        self.writes.insert(keys::block(by, user), value.clone());
        self.writes.insert(keys::block_of(user, by), value);
        if let Some(state) = pair {
            let mut state = (*state).clone();
            state.blocked_by.retain(|other| other != by);
            state.blocked_by.extend(since_ms.map(|_| by.clone()));
            self.put_state(id, NewState { state: Arc::new(state), is_new: false, is_shape_new: true });
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, user: &UserId, id: ConversationId) -> Result<bool, StoreError> {
        let Some(state) = self.conversation(id)? else { return Ok(false) };
        let Some(at) = state.members.iter().position(|member| member.user == *user) else {
            return Ok(false);
        };
        if state.members[at].added_by.is_some() {
            let mut accepted = (*state).clone();
            accepted.members[at].added_by = None;
            self.count_added(Some(&state), &accepted)?;
            self.put_state(id, NewState { state: Arc::new(accepted), is_new: false, is_shape_new: true });
        }
        Ok(true)
    }

    pub(super) fn forget_blocks(&mut self, blocks: &[(UserId, UserId)]) -> Result<(), StoreError> {
        for (by, user) in blocks {
            // Damage may have left the row of one side.
            if self.get(&keys::block(by, user))?.is_some() || self.get(&keys::block_of(user, by))?.is_some() {
                self.write_block(by, user, None)?;
            }
        }
        Ok(())
    }

    fn tally(&self, user: &UserId) -> Result<Tally, StoreError> {
        let tally = self.get(&keys::tally(user))?;
        Ok(tally.map(|bytes| values::decode("a tally", &bytes)).transpose()?.unwrap_or_default())
    }

    fn put_tally(&mut self, user: &UserId, tally: Tally) {
        let value = (tally != Tally::default()).then(|| values::encode(&tally));
        self.writes.insert(keys::tally(user), value);
    }
}
