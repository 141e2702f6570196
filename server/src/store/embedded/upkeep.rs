//! Ageing and erasure: finds what is to go, and has the committer make it so.

use async_trait::async_trait;
use bytes::Bytes;
use fjall::Readable;
use tern_protocol::{ConversationId, Entry, UserId};

use super::batch::{Batch, Op};
use super::disk::{Disk, read_failed};
use super::{EmbeddedStore, USER_BYTES, keys, values};
use crate::store::{
    Aged, Ages, Erasure, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Granularity, Kept, OpenErasure, Order,
    PageLimit, StoreError, Upkeep,
};

/// A piece of ageing, found by a reader; the writer drops it if the log has aged since.
pub(super) struct Age {
    key: Bytes,
    before: Kept,
    after: Kept,
    removed: Vec<Bytes>,
}

/// Entries to be put in the place of others.
pub(super) struct Rewrite {
    conversation: ConversationId,
    entries: Vec<(Bytes, Entry)>,
    erased_seq: u64,
}

impl Disk {
    pub(super) fn kept(&self, conversation: ConversationId) -> Result<Kept, StoreError> {
        decode_kept(self.get(&keys::kept(conversation))?)
    }

    fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        use std::ops::Bound::{Excluded, Included};
        let last = keys::head(ConversationId::from_bytes([255; 16]));
        let heads = match after.map(keys::head) {
            Some(after) if after == last => return Ok(Vec::new()),
            Some(after) => self.space.range((Excluded(after), Included(last))),
            None => self.space.range::<Bytes, _>((Included(keys::HEADS.into()), Included(last))),
        };
        heads.take(limit).map(|item| keys::conversation(&item.key().map_err(read_failed)?)).collect()
    }

    /// What is old enough in a log, `None` if nothing is.
    fn find_aged(
        &self,
        conversation: ConversationId,
        ages: Ages,
        limit: usize,
    ) -> Result<Option<(Age, Aged)>, StoreError> {
        let before = self.kept(conversation)?;
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
                after.first_seq = entry.seq + 1;
                removed.push(keys::entry(conversation, entry.seq));
            }
        }
        aged.more = more;
        Ok((after != before).then(|| {
            let age = Age { key: keys::kept(conversation), before, after, removed };
            (age, aged)
        }))
    }
}

impl Batch<'_> {
    /// True if it was done, false if the log has changed since it was looked at.
    pub(super) fn age(&mut self, age: Age) -> Result<bool, StoreError> {
        let mut kept = decode_kept(self.get(&age.key)?)?;
        if (kept.first_seq, kept.markers_until) != (age.before.first_seq, age.before.markers_until) {
            return Ok(false);
        }
        kept = Kept { erased_seq: kept.erased_seq, ..age.after };
        self.writes.extend(age.removed.into_iter().map(|key| (key, None)));
        self.writes.insert(age.key, Some(values::encode(&kept)));
        Ok(true)
    }

    pub(super) fn rewrite(&mut self, rewrite: Rewrite) -> Result<(), StoreError> {
        let Rewrite { conversation, entries, erased_seq } = rewrite;
        let key_of_kept = keys::kept(conversation);
        let kept = decode_kept(self.get(&key_of_kept)?)?;
        for (key, entry) in entries {
            // One that has aged out meanwhile must not come back.
            let Some(before) = self.get(&key)? else { continue };
            let (before, _) = values::decode_entry(&before)?;
            if before.id != entry.id {
                return Err(StoreError::Malformed("an entry can only be replaced by itself"));
            }
            // The marker of one that has lost it already may be that of a later entry.
            if let (Some(temp_id), None) = (before.temp_id, entry.temp_id)
                && before.seq > kept.markers_until
            {
                self.writes.insert(keys::marker(conversation, &before.sender, temp_id), None);
            }
            self.writes.insert(key, Some(values::encode(&entry)));
        }
        if erased_seq > kept.erased_seq {
            self.writes.insert(key_of_kept, Some(values::encode(&Kept { erased_seq, ..kept })));
        }
        Ok(())
    }

    pub(super) fn begin_erasure(
        &mut self,
        user: UserId,
        became: UserId,
        at_ms: u64,
    ) -> Result<Erasure, StoreError> {
        let key = keys::erasure(&user);
        if let Some(open) = self.erasure(&user)?.filter(|erasure| erasure.open.is_some()) {
            return Ok(open);
        }
        let erasure = Erasure { at_ms, open: Some(OpenErasure { user, became }) };
        self.writes.insert(key, Some(values::encode(&erasure)));
        Ok(erasure)
    }

    pub(super) fn finish_erasure(
        &mut self,
        user: &UserId,
        conversations: &[ConversationId],
    ) -> Result<bool, StoreError> {
        for id in conversations {
            if self.conversation(*id)?.is_some_and(|state| state.member(user).is_some()) {
                return Ok(false);
            }
        }
        for id in conversations {
            self.writes.insert(keys::row(user, *id), None);
            self.writes.insert(keys::read(user, *id), None);
        }
        self.writes.insert(keys::user(user), None);
        let key = keys::erasure(user);
        if let Some(bytes) = self.get(&key)? {
            let erasure: Erasure = values::decode("an erasure", &bytes)?;
            self.writes.insert(key, Some(values::encode(&Erasure { open: None, ..erasure })));
        }
        Ok(true)
    }
}

fn decode_kept(bytes: Option<Bytes>) -> Result<Kept, StoreError> {
    bytes.map_or(Ok(Kept::default()), |bytes| values::decode("the start of a log", &bytes))
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
            let mut found = Vec::new();
            for prefix in [keys::rows(&of), keys::reads(&of)] {
                for item in snapshot.prefix(&disk.space, prefix) {
                    found.push(keys::row_conversation(&item.key().map_err(read_failed)?)?);
                }
            }
            Ok(found)
        };
        let conversations = self.scan(&self.scans, find).await?;
        let (user, bytes) = (user.clone(), conversations.len() * USER_BYTES);
        self.submit(bytes, |reply| Op::FinishErasure { user, conversations, reply }).await
    }

    async fn erasure(&self, user: &UserId) -> Result<Option<Erasure>, StoreError> {
        let bytes = self.disk.get(&keys::erasure(user))?;
        bytes.map(|bytes| values::decode("an erasure", &bytes)).transpose()
    }

    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        let find = |disk: &Disk| {
            let mut found = Vec::new();
            for item in disk.space.prefix(keys::ERASURES) {
                let value = item.value().map_err(read_failed)?;
                let erasure: Erasure = values::decode("an erasure", &value)?;
                found.extend(erasure.open.map(|open| open.user));
            }
            Ok(found)
        };
        self.scan(&self.scans, find).await
    }
}
