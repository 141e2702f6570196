//! Ageing and erasure: finds what is to go, and has the committer make it so.

use async_trait::async_trait;
use bytes::Bytes;
use fjall::Readable;
use tern_protocol::{ConversationId, Entry, UserId};

use super::disk::Disk;
use super::failures::read_failed;
use super::op::{Age, KeptOf, Op, Rewrite};
use super::{EmbeddedStore, USER_BYTES, keys, values};
use crate::store::{
    Aged, Ages, Erasure, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Granularity, Order, PageLimit, StoreError,
    Upkeep,
};

/// The first step over ids that cannot be read: of a store with millions of conversations some few.
const FIRST_STEP_BITS: u32 = 96;

impl Disk {
    fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let (mut found, is_damaged) = self.ids(keys::head, after, limit)?;
        if is_damaged && found.is_empty() {
            // Each has a members' list too, and it can be aged without its head.
            (found, _) = self.ids(keys::shape, after, limit)?;
        }
        if is_damaged && found.is_empty() {
            found.extend(self.behind_damage(after)?);
        }
        Ok(found)
    }

    /// Conversations after `after` by the rows with these keys, up to one that cannot be read, if there is one. The
    /// database reads ahead: it may also not give the last two before that.
    fn ids(
        &self,
        key_of: fn(ConversationId) -> Bytes,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<(Vec<ConversationId>, bool), StoreError> {
        use std::ops::Bound::{Excluded, Included};
        let [first, last] = [[0; 16], [255; 16]].map(|id| key_of(ConversationId::from_bytes(id)));
        let rows = match after.map(key_of) {
            Some(after) if after == last => return Ok((Vec::new(), false)),
            Some(after) => self.space.range((Excluded(after), Included(last))),
            None => self.space.range((Included(first), Included(last))),
        };
        let mut found = Vec::new();
        for item in rows.take(limit) {
            match self.unless_damaged(item.key().map_err(read_failed))? {
                Some(key) => found.push(keys::conversation(&key)?),
                None => return Ok((found, true)),
            }
        }
        Ok((found, false))
    }

    /// The first conversation behind a block of heads that cannot be read and comes after `after`: ids are spread
    /// evenly, so steps that double get behind it soon, and halves of the last of them to where it ends.
    fn behind_damage(&self, after: Option<ConversationId>) -> Result<Option<ConversationId>, StoreError> {
        let mut damaged = after.map_or(0, |after| u128::from_be_bytes(*after.as_bytes()));
        let mut landed = None;
        for step in (FIRST_STEP_BITS..u128::BITS).map(|shift| 1 << shift).chain([u128::MAX]) {
            let from = damaged.saturating_add(step);
            if let Some(first) = self.first_from(from)? {
                landed = Some((from, first));
                break;
            }
            damaged = from;
        }
        let Some((mut behind, mut first)) = landed else { return Ok(None) };
        while behind - damaged > 1 {
            let middle = damaged + (behind - damaged) / 2;
            match self.first_from(middle)? {
                Some(found) => (behind, first) = (middle, found),
                None => damaged = middle,
            }
        }
        Ok(first)
    }

    /// The first conversation from this id on, if there is one; `None` if what is there cannot be read.
    fn first_from(&self, id: u128) -> Result<Option<Option<ConversationId>>, StoreError> {
        let last = keys::head(ConversationId::from_bytes([255; 16]));
        let from = keys::head(ConversationId::from_bytes(id.to_be_bytes()));
        match self.space.range(from..=last).next().map(|item| item.key().map_err(read_failed)) {
            None => Ok(Some(None)),
            Some(Ok(key)) => keys::conversation(&key).map(|id| Some(Some(id))),
            Some(Err(StoreError::Corrupt(_))) => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }

    /// What is old enough in a log, `None` if nothing is.
    fn find_aged(
        &self,
        conversation: ConversationId,
        ages: Ages,
        limit: usize,
    ) -> Result<Option<(Age, Aged)>, StoreError> {
        let before = values::decode_kept(self.get(&keys::kept(conversation))?.as_deref())?;
        let (mut after, mut removed, mut aged) = (before, Vec::new(), Aged::default());
        let page = PageLimit { entries: limit, bytes: GROUP_BYTES_MAX };
        let old = |from: u64, until: u64, before_ms: u64| {
            let found = self.entries(conversation, from..=until, Order::Ascending, page)?;
            let all = found.len();
            let old: Vec<Entry> = found.into_iter().take_while(|entry| entry.time_ms < before_ms).collect();
            let more = old.len() == all && all > 0;
            Ok::<_, StoreError>((old, more))
        };
        let from = before.first_seq.max(before.markers_until + 1);
        let (unmarked, mut more) = old(from, u64::MAX, ages.markers_before_ms)?;
        for entry in &unmarked {
            after.markers_until = entry.seq;
            if let Some(temp_id) = entry.temp_id {
                removed.push(keys::marker(conversation, &entry.sender, temp_id));
                aged.markers += 1;
            }
        }
        if let Some(before_ms) = ages.entries_before_ms {
            let (gone, more_gone) = old(before.first_seq, after.markers_until, before_ms)?;
            aged.entries = gone.len();
            more |= more_gone;
            for entry in &gone {
                (after.first_seq, after.messages) = (entry.seq + 1, entry.messages);
                removed.push(keys::entry(conversation, entry.seq));
            }
        }
        aged.more = more;
        Ok((after != before).then(|| {
            let age = Age { conversation, before, after, removed };
            (age, aged)
        }))
    }
}

#[async_trait]
impl Upkeep for EmbeddedStore {
    fn ages_by(&self) -> Granularity {
        Granularity::Entry
    }

    async fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.scan(&self.scans, move |disk| disk.conversations(after, limit)).await
    }

    async fn age(&self, conversation: ConversationId, ages: Ages, limit: usize) -> Result<Aged, StoreError> {
        let found = self.scan(&self.scans, move |disk| disk.find_aged(conversation, ages, limit)).await?;
        let Some((age, aged)) = found else { return Ok(Aged::default()) };
        let bytes = age.removed.iter().map(Bytes::len).sum();
        let done = self.submit(bytes, |reply| Op::Age { age, reply }).await?;
        Ok(if done { aged } else { Aged { more: true, ..Aged::default() } })
    }

    async fn rewrite(
        &self,
        conversation: ConversationId,
        entries: Vec<Entry>,
        erased_seq: u64,
    ) -> Result<(), StoreError> {
        if entries.len() > GROUP_ENTRIES_MAX {
            return Err(StoreError::Malformed("at most 128 entries are replaced at a time"));
        }
        let entries: Vec<_> =
            entries.into_iter().map(|entry| (keys::entry(conversation, entry.seq), entry)).collect();
        let bytes = entries.len() * USER_BYTES;
        let rewrite = Rewrite { conversation, entries, erased_seq };
        self.submit(bytes, |reply| Op::Rewrite { rewrite, reply }).await
    }

    async fn begin_erasure(&self, user: &UserId, became: UserId, at_ms: u64) -> Result<Erasure, StoreError> {
        let user = user.clone();
        self.submit(USER_BYTES, |reply| Op::BeginErasure { user, became, at_ms, reply }).await
    }

    async fn finish_erasure(&self, user: &UserId) -> Result<bool, StoreError> {
        let of = user.clone();
        let find = move |disk: &Disk| {
            let snapshot = disk.db.snapshot();
            let mut found = KeptOf::default();
            for prefix in [keys::rows(&of), keys::reads(&of)] {
                for item in snapshot.prefix(&disk.space, prefix) {
                    found.conversations.push(keys::row_conversation(&item.key().map_err(read_failed)?)?);
                }
            }
            for item in snapshot.prefix(&disk.space, keys::INTENTS) {
                let (key, value) = item.into_inner().map_err(read_failed)?;
                if values::decode_intent(&key, &value).is_ok_and(|intent| intent.sender.as_ref() == Some(&of))
                {
                    found.intents.push((keys::intent_shard(&key)?, key.to_vec().into()));
                }
            }
            Ok(found)
        };
        let kept = self.scan(&self.scans, find).await?;
        let (user, bytes) = (user.clone(), (kept.conversations.len() + kept.intents.len()) * USER_BYTES);
        self.submit(bytes, |reply| Op::FinishErasure { user, kept, reply }).await
    }

    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        Ok(self.disk.standings.open_erasures())
    }
}
