//! Who may see which part of a log, and how far they have read it.

use std::collections::HashMap;

use tern_protocol::{ConversationId, Role, UserId};

use super::History;
use crate::store::{Apart, Glance, InboxRow, ReadPosition, StoreError, glance_apart};

/// The part of a log that a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// First entry: the one that added the user, or the first that has not aged out; `last_seq` + 1 if
    /// none is left.
    pub first_seq: u64,
    /// Last entry: the head, or for somebody who is gone the entry that says so.
    pub last_seq: u64,
    /// Messages in the log up to the last entry.
    pub last_messages: u64,
    /// Messages that nobody has unread any more, since they have aged out.
    pub aged_messages: u64,
    /// What the user may do; `None` for somebody who is gone.
    pub role: Option<Role>,
}

/// What became of a read position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// No such conversation, or not for this user.
    NotFound,
    /// It is above this, the newest entry that the user may see.
    Ahead(u64),
    /// It is stored.
    Rose(ReadPosition),
    /// It was there, or beyond, before.
    Stood,
}

impl Access {
    /// What the state says; for somebody who is no member the row of their list.
    pub(super) fn of(user: &UserId, glance: &Glance, row: Option<&InboxRow>) -> Option<Self> {
        let Glance { state, kept } = glance;
        let (first_seq, last_seq, last_messages, role) = match (state.member(user), row) {
            (Some(member), _) => (member.first_seq, state.head, state.messages, Some(member.role)),
            (None, Some(row)) => (row.first_seq, row.until_seq?, row.last_messages, None),
            (None, None) => return None,
        };
        // Ageing removes from the start, so this is still true of whatever is read afterwards.
        let first_seq = first_seq.max(kept.first_seq.min(last_seq + 1));
        let aged_messages = kept.messages.min(last_messages);
        Some(Self { first_seq, last_seq, last_messages, aged_messages, role })
    }

    /// How far the user has read: what they cannot see any more counts as read.
    pub(super) fn read(&self, read: ReadPosition) -> ReadPosition {
        ReadPosition {
            seq: read.seq.max(self.first_seq - 1).min(self.last_seq),
            messages: read.messages.max(self.aged_messages).min(self.last_messages),
        }
    }
}

impl History {
    /// What `user` may see of a conversation; `None` whether it is absent or forbidden. One round trip for a
    /// member.
    pub async fn access(&self, user: &UserId, id: ConversationId) -> Result<Option<Access>, StoreError> {
        self.accesses(user, &[id]).await?.pop().unwrap_or(Ok(None))
    }

    /// The same for many, in order; an error for one that cannot be read. One round trip, and one for all of
    /// which the user is no member.
    pub async fn accesses(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Result<Option<Access>, StoreError>>, StoreError> {
        let Apart { found: glances, damaged } = glance_apart(&*self.store, ids).await?;
        let strange = |(id, glance): (&ConversationId, &Option<Glance>)| {
            let is_member = glance.as_ref().is_some_and(|glance| glance.state.member(user).is_some());
            (!is_member).then_some(*id)
        };
        let readable = ids.iter().zip(&glances).enumerate().filter(|(place, _)| !damaged.contains(place));
        let strange: Vec<ConversationId> = readable.filter_map(|(_, one)| strange(one)).collect();
        let rows = match strange.is_empty() {
            true => HashMap::new(),
            false => self.rows(user, &strange).await?,
        };
        let mut accesses = Vec::with_capacity(ids.len());
        for (place, (id, glance)) in ids.iter().zip(glances).enumerate() {
            if damaged.contains(&place) {
                accesses.push(Err(StoreError::Corrupt(format!("{id} cannot be read"))));
                continue;
            }
            let row = rows.get(id);
            let glance = match row {
                // The list says member and the glance does not: the glance is behind.
                Some(row) if row.until_seq.is_none() => self.fresh(*id, glance).await?,
                _ => glance,
            };
            accesses.push(Ok(glance.and_then(|glance| Access::of(user, &glance, row))));
        }
        Ok(accesses)
    }

    /// Moves the read position of a user to an entry that they may see. At most four round trips.
    pub async fn mark_read(&self, user: &UserId, id: ConversationId, seq: u64) -> Result<Marked, StoreError> {
        let Some(access) = self.access_up_to(user, id, seq).await? else { return Ok(Marked::NotFound) };
        if seq > access.last_seq {
            return Ok(Marked::Ahead(access.last_seq));
        }
        let messages = if seq == access.last_seq {
            access.last_messages
        } else if seq < access.first_seq {
            access.aged_messages
        } else {
            let entry = self.store.last_entries(&[(id, seq)]).await?.pop().flatten();
            entry.map_or(access.aged_messages, |entry| entry.messages)
        };
        let read = ReadPosition { seq, messages };
        Ok(if self.store.set_read(user, id, read).await? { Marked::Rose(read) } else { Marked::Stood })
    }

    /// What `user` may see, certain where a position above a glance would be refused.
    pub async fn access_up_to(
        &self,
        user: &UserId,
        id: ConversationId,
        seq: u64,
    ) -> Result<Option<Access>, StoreError> {
        let access = self.access(user, id).await?;
        match access {
            Some(access) if access.role.is_some() && seq > access.last_seq => {
                let glance = self.fresh(id, None).await?;
                Ok(glance.and_then(|glance| Access::of(user, &glance, None)).or(Some(access)))
            }
            access => Ok(access),
        }
    }

    /// A glance in which `user` is a member, if they are one: also of who has just become one.
    pub(super) async fn glance_as(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Glance>, StoreError> {
        let glance = self.store.glance(&[id]).await?.pop().flatten();
        match glance {
            Some(glance) if glance.state.member(user).is_some() => Ok(Some(glance)),
            glance => self.fresh(id, glance).await,
        }
    }

    /// The state that is certain now, with what was known to be kept.
    pub(super) async fn fresh(
        &self,
        id: ConversationId,
        glance: Option<Glance>,
    ) -> Result<Option<Glance>, StoreError> {
        let Some(state) = self.store.conversation(id).await? else { return Ok(glance) };
        let kept = glance.map(|glance| glance.kept).unwrap_or_default();
        Ok(Some(Glance { state, kept }))
    }

    pub(super) async fn rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<HashMap<ConversationId, InboxRow>, StoreError> {
        let rows = self.store.inbox_rows(user, ids).await?;
        Ok(ids.iter().zip(rows).filter_map(|(id, row)| Some((*id, row?))).collect())
    }
}
