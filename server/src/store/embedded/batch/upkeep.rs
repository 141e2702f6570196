//! Ageing and erasure as operations of a batch: each alone in its commit.

use tern_protocol::UserId;

use super::super::op::{Age, KeptOf, Rewrite};
use super::super::{keys, values};
use super::Batch;
use crate::store::{Erasure, Kept, OpenErasure, Standing, StoreError};

impl Batch<'_> {
    /// True if it was done, false if the log has changed since it was looked at.
    pub(super) fn age(&mut self, age: Age) -> Result<bool, StoreError> {
        let key = keys::kept(age.conversation);
        let mut kept = values::decode_kept(self.get(&key)?.as_deref())?;
        if (kept.first_seq, kept.markers_until) != (age.before.first_seq, age.before.markers_until) {
            return Ok(false);
        }
        kept = Kept { erased_seq: kept.erased_seq, ..age.after };
        self.writes.extend(age.removed.into_iter().map(|key| (key, None)));
        self.writes.insert(key, Some(values::encode(&kept)));
        self.kept = Some((age.conversation, kept));
        Ok(true)
    }

    pub(super) fn rewrite(&mut self, rewrite: Rewrite) -> Result<(), StoreError> {
        let Rewrite { conversation, entries, erased_seq } = rewrite;
        let key_of_kept = keys::kept(conversation);
        let kept = values::decode_kept(self.get(&key_of_kept)?.as_deref())?;
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
            let kept = Kept { erased_seq, ..kept };
            self.writes.insert(key_of_kept, Some(values::encode(&kept)));
            self.kept = Some((conversation, kept));
        }
        Ok(())
    }

    pub(super) fn begin_erasure(
        &mut self,
        user: UserId,
        became: UserId,
        at_ms: u64,
    ) -> Result<Erasure, StoreError> {
        let standing = self.disk.standings.get(&user);
        if let Some(open) = standing.erasure.clone().filter(|erasure| erasure.open.is_some()) {
            return Ok(open);
        }
        let erasure = Erasure { at_ms, open: Some(OpenErasure { user: user.clone(), became }) };
        self.writes.insert(keys::erasure(&user), Some(values::encode(&erasure)));
        self.standing = Some((user, Standing { erasure: Some(erasure.clone()), ..standing }));
        Ok(erasure)
    }

    pub(super) fn refuse_before(&mut self, user: UserId, before_ms: u64) {
        let standing = self.disk.standings.get(&user);
        if before_ms > standing.refused_before_ms {
            self.writes.insert(keys::revocation(&user), Some(values::encode(&before_ms)));
            self.standing = Some((user, Standing { refused_before_ms: before_ms, ..standing }));
        }
    }

    pub(super) fn finish_erasure(&mut self, user: &UserId, kept: KeptOf) -> Result<bool, StoreError> {
        let KeptOf { conversations, intents } = kept;
        for id in &conversations {
            if self.conversation(*id)?.is_some_and(|state| state.member(user).is_some()) {
                return Ok(false);
            }
        }
        for id in &conversations {
            self.writes.insert(keys::row(user, *id), None);
            self.writes.insert(keys::read(user, *id), None);
        }
        self.writes.insert(keys::user(user), None);
        self.clear_intents(intents)?;
        self.writes.insert(keys::tally(user), None);
        let standing = self.disk.standings.get(user);
        if let Some(erasure) = standing.erasure {
            let erasure = Erasure { open: None, ..erasure };
            self.writes.insert(keys::erasure(user), Some(values::encode(&erasure)));
            self.standing = Some((user.clone(), Standing { erasure: Some(erasure), ..standing }));
        }
        Ok(true)
    }
}
