//! Reading logs: who may see what, pages of history, lists of conversations, catching up.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tern_protocol::resume::{CatchUp, catch_up};
use tern_protocol::{
    ConversationId, ConversationKind, ConversationSummary, Entry, MemberInfo, PAGE_BYTES_MAX, Role, UserId,
};

use crate::store::{Conversation, Glance, InboxRow, Kept, Member, Order, PageLimit, Store, StoreError};

/// The part of a log that a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// First entry: the one that added the user, or the first that has not aged out; `last_seq` + 1 if
    /// none is left.
    pub first_seq: u64,
    /// Last entry: the head, or for somebody who is gone the entry that says so.
    pub last_seq: u64,
    /// What the user may do; `None` for somebody who is gone.
    pub role: Option<Role>,
}

/// Where a page of history lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The newest entries.
    Latest,
    /// Entries below this seq.
    Before(u64),
    /// Entries above this seq.
    After(u64),
    /// Entries on both sides of this seq, itself included.
    Around(u64),
}

/// Entries newest first, with what the user may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Consecutive, newest first.
    pub entries: Vec<Entry>,
    /// What the user may see.
    pub access: Access,
}

/// What somebody misses in one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which log.
    pub conversation: ConversationId,
    /// Entries after the cursor that the user may not see, first and last: they are to be named.
    pub hidden: Option<(u64, u64)>,
    /// What is to be named and sent of the others.
    pub catch_up: CatchUp,
    /// The newest entry that says that somebody was erased, if it is after the cursor.
    pub erased_seq: Option<u64>,
}

/// A page of a user's conversations.
#[derive(Clone, Debug)]
pub struct SummaryPage {
    /// Most recently changed first.
    pub conversations: Vec<ConversationSummary>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// Handle for reading. Cheap to clone.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
}

impl History {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// What `user` may see of a conversation; `None` whether it is absent or forbidden.
    pub async fn access(&self, user: &UserId, id: ConversationId) -> Result<Option<Access>, StoreError> {
        let Some(Glance { state, kept }) = self.glance(id).await? else { return Ok(None) };
        let access = match state.member(user) {
            Some(member) => {
                Some(Access { first_seq: member.first_seq, last_seq: state.head, role: Some(member.role) })
            }
            None => self.store.inbox_row(user, id).await?.and_then(|row| gone(&row)),
        };
        let Some(access) = access else { return Ok(None) };
        // Ageing removes from the start, so this is still true of whatever is read afterwards.
        let kept = kept.first_seq.min(access.last_seq + 1);
        Ok(Some(Access { first_seq: access.first_seq.max(kept), ..access }))
    }

    async fn glance(&self, id: ConversationId) -> Result<Option<Glance>, StoreError> {
        Ok(self.store.glance(&[id]).await?.pop().flatten())
    }

    /// The members' ids, if `user` is one of them.
    pub async fn fellow_members(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Arc<Conversation>>, StoreError> {
        let state = self.glance(id).await?.map(|glance| glance.state);
        Ok(state.filter(|state| state.member(user).is_some()))
    }

    /// A page of history, `None` whether the conversation is absent or forbidden.
    pub async fn page(
        &self,
        user: &UserId,
        id: ConversationId,
        anchor: Anchor,
        limit: usize,
    ) -> Result<Option<HistoryPage>, StoreError> {
        let Some(access) = self.access(user, id).await? else { return Ok(None) };
        let entries = match anchor {
            Anchor::Latest => self.down(id, access, access.last_seq, limit).await?,
            Anchor::Before(seq) => self.down(id, access, seq.saturating_sub(1), limit).await?,
            Anchor::After(seq) => self.up(id, access, seq.saturating_add(1), limit).await?,
            Anchor::Around(seq) => {
                let half = PageLimit { entries: limit / 2, bytes: PAGE_BYTES_MAX / 2 };
                let mut entries = if half.entries == 0 {
                    Vec::new()
                } else {
                    let range = seq.saturating_add(1).max(access.first_seq)..=access.last_seq;
                    self.read(id, range, Order::Ascending, half).await?
                };
                entries.reverse();
                let rest = PageLimit { entries: limit - entries.len(), bytes: PAGE_BYTES_MAX / 2 };
                let range = access.first_seq..=seq.min(access.last_seq);
                entries.extend(self.read(id, range, Order::Descending, rest).await?);
                entries
            }
        };
        Ok(Some(HistoryPage { entries, access }))
    }

    /// The newest entry at or before a time, as a seq; 0 if all are later. Entry times never decrease.
    pub async fn seq_at(&self, id: ConversationId, access: Access, time_ms: u64) -> Result<u64, StoreError> {
        self.store.seq_at(id, access.first_seq..=access.last_seq, time_ms).await
    }

    /// Consecutive entries from `from` up to `to`, ascending, at most one frame of them.
    pub async fn chunk(&self, id: ConversationId, from: u64, to: u64) -> Result<Vec<Entry>, StoreError> {
        let limit = PageLimit { entries: tern_protocol::PAGE_ENTRIES_MAX, bytes: PAGE_BYTES_MAX };
        self.read(id, from..=to, Order::Ascending, limit).await
    }

    /// The user's conversations with what each lacks after its cursor, most recently changed first;
    /// only those that changed. A cursor above the head is in the second list.
    pub async fn changed(
        &self,
        user: &UserId,
        cursors: &HashMap<ConversationId, u64>,
    ) -> Result<(Vec<(InboxRow, Missing)>, Vec<Ahead>), StoreError> {
        let (mut changed, mut ahead) = (Vec::new(), Vec::new());
        for row in self.store.inbox(user, None, usize::MAX).await? {
            let known = cursors.get(&row.conversation).copied();
            let last = row.until_seq.unwrap_or(row.last_seq);
            if known == Some(last) || (known.is_none() && row.until_seq.is_some()) {
                continue;
            }
            // The row is a hint; the log decides.
            let Some(access) = self.access(user, row.conversation).await? else { continue };
            let start = access.first_seq - 1;
            let mut from = known.unwrap_or(start);
            if from > access.last_seq {
                ahead.push(Ahead { conversation: row.conversation, cursor: from, head: access.last_seq });
                from = start;
            }
            let catch_up = catch_up(from, access.first_seq, access.last_seq);
            let hidden = (from < start).then_some((from + 1, start));
            // Who has no cursor must learn of the conversation even if nothing of it is left.
            if catch_up == CatchUp::UpToDate && hidden.is_none() && known == Some(from) {
                continue;
            }
            let kept = self.glance(row.conversation).await?.map_or_else(Kept::default, |glance| glance.kept);
            let erased_seq = kept.erased_seq;
            let erased_seq = known.and(Some(erased_seq).filter(|seq| *seq > from));
            let conversation = row.conversation;
            changed.push((row, Missing { conversation, hidden, catch_up, erased_seq }));
        }
        Ok((changed, ahead))
    }

    /// A page of the user's conversations, those they are still in, after `cursor`.
    pub async fn list(
        &self,
        user: &UserId,
        cursor: Option<&ListCursor>,
        limit: usize,
    ) -> Result<SummaryPage, StoreError> {
        let mut rows = self.store.inbox(user, None, usize::MAX).await?;
        rows.retain(|row| row.until_seq.is_none() && cursor.is_none_or(|cursor| cursor.precedes(row)));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| ListCursor::at(last).to_string());
        let mut conversations = Vec::with_capacity(rows.len());
        for row in &rows {
            conversations.extend(self.summary(user, row).await?);
        }
        Ok(SummaryPage { conversations, next })
    }

    /// One conversation as the user sees it in a list, also of somebody who is gone; `None` whether it is
    /// absent or forbidden.
    pub async fn one(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<ConversationSummary>, StoreError> {
        match self.store.inbox_row(user, id).await? {
            Some(row) => self.summary(user, &row).await,
            None => Ok(None),
        }
    }

    /// A conversation as the user sees it in a list.
    pub async fn summary(
        &self,
        user: &UserId,
        row: &InboxRow,
    ) -> Result<Option<ConversationSummary>, StoreError> {
        let Some(Glance { state, .. }) = self.glance(row.conversation).await? else { return Ok(None) };
        let Some(access) = self.access(user, row.conversation).await? else { return Ok(None) };
        let peer = match state.members.iter().find(|member| member.user != *user) {
            _ if state.kind == ConversationKind::Group => None,
            Some(other) => Some(other.user.clone()),
            // Alone: notes to self, or the other user was erased.
            None => Some(user.clone()).filter(|me| ConversationId::pair(me, me) == row.conversation),
        };
        let name = match &peer {
            Some(peer) => self.names(std::slice::from_ref(peer)).await?.pop().flatten(),
            None => state.name.clone(),
        };
        let head_messages = match access.role {
            Some(_) => state.messages,
            None => self.messages_at(row.conversation, access.last_seq).await?,
        };
        let unread = self.unread(user, row, access).await?;
        Ok(Some(ConversationSummary {
            conversation: row.conversation,
            kind: state.kind,
            name,
            peer,
            head: access.last_seq,
            head_messages,
            first_seq: access.first_seq,
            read_seq: row.read.seq,
            read_messages: head_messages - unread,
            unread,
            last_time_ms: row.last_time_ms,
            role: access.role,
        }))
    }

    /// The members with their display names, `None` whether absent or forbidden.
    pub async fn members(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Vec<MemberInfo>>, StoreError> {
        let Some(state) = self.fellow_members(user, id).await? else { return Ok(None) };
        let users: Vec<UserId> = state.members.iter().map(|member| member.user.clone()).collect();
        let names = self.names(&users).await?;
        let members = state.members.iter().zip(names);
        let info =
            |(member, name): (&Member, _)| MemberInfo { user: member.user.clone(), name, role: member.role };
        Ok(Some(members.map(info).collect()))
    }

    async fn names(&self, users: &[UserId]) -> Result<Vec<Option<String>>, StoreError> {
        let known = self.store.users(users).await?;
        Ok(known.into_iter().map(|user| user.and_then(|user| user.name)).collect())
    }

    /// Messages in the log up to an entry; 0 if it has aged out.
    pub async fn messages_at(&self, id: ConversationId, seq: u64) -> Result<u64, StoreError> {
        Ok(self.chunk(id, seq, seq).await?.first().map_or(0, |entry| entry.messages))
    }

    /// Messages of others after the read position.
    async fn unread(&self, user: &UserId, row: &InboxRow, access: Access) -> Result<u64, StoreError> {
        let mut unread = 0;
        let mut from = row.read.seq.saturating_add(1).max(access.first_seq);
        while from <= access.last_seq {
            let entries = self.chunk(row.conversation, from, access.last_seq).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq + 1;
            unread += entries.iter().filter(|entry| entry.body.is_message() && entry.sender != *user).count()
                as u64;
        }
        Ok(unread)
    }

    async fn down(
        &self,
        id: ConversationId,
        access: Access,
        to: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let range = access.first_seq..=to.min(access.last_seq);
        self.read(id, range, Order::Descending, PageLimit { entries: limit, bytes: PAGE_BYTES_MAX }).await
    }

    async fn up(
        &self,
        id: ConversationId,
        access: Access,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let range = from.max(access.first_seq)..=access.last_seq;
        let limit = PageLimit { entries: limit, bytes: PAGE_BYTES_MAX };
        let mut entries = self.read(id, range, Order::Ascending, limit).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn read(
        &self,
        id: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.store.entries(id, range, order, limit).await
    }
}

/// A cursor above the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Which log.
    pub conversation: ConversationId,
    /// What the client has.
    pub cursor: u64,
    /// What there is.
    pub head: u64,
}

fn gone(row: &InboxRow) -> Option<Access> {
    let last_seq = row.until_seq?;
    Some(Access { first_seq: row.first_seq, last_seq, role: None })
}

/// Place in a user's list: the last row of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor {
    last_time_ms: u64,
    conversation: ConversationId,
}

impl ListCursor {
    /// After this one.
    pub fn after(summary: &ConversationSummary) -> Self {
        Self { last_time_ms: summary.last_time_ms, conversation: summary.conversation }
    }

    fn at(row: &InboxRow) -> Self {
        Self { last_time_ms: row.last_time_ms, conversation: row.conversation }
    }

    /// The row comes after the cursor in the list's order.
    fn precedes(&self, row: &InboxRow) -> bool {
        row.last_time_ms < self.last_time_ms
            || (row.last_time_ms == self.last_time_ms && row.conversation > self.conversation)
    }
}

impl std::fmt::Display for ListCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.last_time_ms, self.conversation)
    }
}

impl std::str::FromStr for ListCursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (time, conversation) = text.split_once('.').ok_or(())?;
        Ok(Self {
            last_time_ms: time.parse().map_err(|_| ())?,
            conversation: conversation.parse().map_err(|_| ())?,
        })
    }
}
