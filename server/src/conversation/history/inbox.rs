//! A user's list of conversations.

use std::collections::HashMap;

use tern_protocol::{
    ConversationId, ConversationKind, ConversationSummary, Entry, MemberInfo, PAGE_BYTES_MAX, UserId,
};

use super::access::Access;
use super::list_cursor::{ListCursor, Then};
use super::{History, members_of};
use crate::clock::stamp_ms;
use crate::store::{Apart, Conversation, Glance, InboxRow, StoreError, glance_apart, last_entries_apart};

/// About how many bytes a member takes in a page besides the id.
const MEMBER_BYTES: usize = 64;

/// A page of a user's conversations.
#[derive(Clone, Debug)]
pub struct SummaryPage<T> {
    /// Most recently changed first.
    pub conversations: Vec<T>,
    /// Cursor of the next page.
    pub next: Option<String>,
    cursor: ListCursor,
}

impl<T> SummaryPage<T> {
    /// Cursor of the next page if this one ends after this conversation.
    pub fn next_after(&self, summary: &ConversationSummary) -> String {
        self.cursor.past(summary).to_string()
    }
}

/// A conversation with what a list shows of it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Names, seqs and counts.
    pub summary: ConversationSummary,
    /// The members, in the order in which they joined; `None` for somebody who is gone.
    pub members: Option<Vec<MemberInfo>>,
    /// The newest entry this user may see.
    pub last_entry: Option<Entry>,
}

/// A row with what is known of its conversation.
pub(super) struct Known {
    pub(super) row: InboxRow,
    pub(super) glance: Glance,
    pub(super) access: Access,
}

impl History {
    /// A page of the user's conversations, from `cursor` on: those they are in, and those they have left as long
    /// as something of them can be read, so that a page may have fewer than `limit`. Three round trips, and
    /// one more at the end of a list of several pages.
    pub async fn list(
        &self,
        user: &UserId,
        cursor: Option<&ListCursor>,
        limit: usize,
    ) -> Result<SummaryPage<ConversationSummary>, StoreError> {
        let (known, cursor, next) = self.listed(user, cursor, limit).await?;
        let conversations = self.summaries(user, &known).await?;
        Ok(SummaryPage { conversations, next: next.map(|next| next.to_string()), cursor })
    }

    /// The same with members and last entries; fewer, if the members alone fill a page. Four round trips, and
    /// one more at the end.
    pub async fn list_described(
        &self,
        user: &UserId,
        cursor: Option<&ListCursor>,
        limit: usize,
    ) -> Result<SummaryPage<Described>, StoreError> {
        let (mut known, cursor, next) = self.listed(user, cursor, limit).await?;
        let whole = known.len();
        let mut bytes = 0;
        let fits = known.iter().take_while(|known| {
            let fits = bytes < PAGE_BYTES_MAX;
            let members = &known.glance.state.members;
            bytes += members.iter().map(|member| MEMBER_BYTES + member.user.as_str().len()).sum::<usize>();
            fits
        });
        let fits = fits.count();
        known.truncate(fits);
        let conversations = self.describe(user, known).await?;
        let mut page = SummaryPage { conversations, next: next.map(|next| next.to_string()), cursor };
        if let Some(last) = page.conversations.last().filter(|_| fits < whole) {
            page.next = Some(page.next_after(&last.summary));
        }
        Ok(page)
    }

    /// One conversation as the user sees it in a list, also of somebody who is gone; `None` whether it is
    /// absent or forbidden. Four round trips.
    pub async fn described(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Described>, StoreError> {
        let rows = self.store.inbox_rows(user, &[id]).await?.into_iter().flatten().collect();
        let (known, unreadable) = self.known(user, rows).await?;
        if unreadable.contains(&id) {
            return Err(StoreError::Corrupt(format!("{id} cannot be read")));
        }
        Ok(self.describe(user, known).await?.pop())
    }

    /// The rows of a page with what is known of them, where it began, and where it goes on.
    async fn listed(
        &self,
        user: &UserId,
        cursor: Option<&ListCursor>,
        limit: usize,
    ) -> Result<(Vec<Known>, ListCursor, Option<ListCursor>), StoreError> {
        let now_ms = stamp_ms();
        let cursor = cursor.copied().unwrap_or_else(|| ListCursor::start(now_ms));
        // One more, to know whether there is one.
        let asked = limit + 1;
        let rows = self.store.inbox(user, cursor.after(), asked).await?;
        let all = rows.len() < asked;
        let (rows, then) = cursor.take(rows, limit, all);
        let next = match then {
            Then::Page(next) => Some(next),
            Then::End => None,
            Then::Changes(since_ms) => {
                let newest = self.store.inbox(user, None, 1).await?;
                let changed = newest.first().is_some_and(|row| row.last_time_ms >= since_ms);
                changed.then(|| cursor.again(now_ms))
            }
        };
        // What cannot be read is left out of the list.
        let (mut known, _) = self.known(user, rows).await?;
        known.retain(Known::has_something);
        Ok((known, cursor, next))
    }

    /// What is known of the conversations of these rows, without those that the user may not see; and those that
    /// cannot be read.
    pub(super) async fn known(
        &self,
        user: &UserId,
        rows: Vec<InboxRow>,
    ) -> Result<(Vec<Known>, Vec<ConversationId>), StoreError> {
        if rows.is_empty() {
            return Ok(Default::default());
        }
        let ids: Vec<ConversationId> = rows.iter().map(|row| row.conversation).collect();
        let Apart { found: glances, damaged } = glance_apart(&*self.store, &ids).await?;
        let unreadable: Vec<ConversationId> = damaged.into_iter().map(|place| ids[place]).collect();
        let mut known = Vec::with_capacity(rows.len());
        for (row, mut glance) in rows.into_iter().zip(glances) {
            if unreadable.contains(&row.conversation) {
                continue;
            }
            let is_member = glance.as_ref().is_some_and(|glance| glance.state.member(user).is_some());
            if row.until_seq.is_none() && !is_member {
                glance = self.fresh(row.conversation, glance).await?;
            }
            let Some(glance) = glance else { continue };
            if let Some(access) = Access::of(user, &glance, Some(&row)) {
                known.push(Known { row, glance, access });
            }
        }
        Ok((known, unreadable))
    }

    pub(super) async fn summaries(
        &self,
        user: &UserId,
        known: &[Known],
    ) -> Result<Vec<ConversationSummary>, StoreError> {
        let peers: Vec<Option<UserId>> = known.iter().map(|known| known.peer(user)).collect();
        let names = self.names(peers.iter().flatten()).await?;
        Ok(known.iter().zip(peers).map(|(known, peer)| known.summary(user, peer, &names)).collect())
    }

    async fn describe(&self, user: &UserId, known: Vec<Known>) -> Result<Vec<Described>, StoreError> {
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let peers: Vec<Option<UserId>> = known.iter().map(|known| known.peer(user)).collect();
        let members = known.iter().flat_map(|known| &known.glance.state.members).map(|member| &member.user);
        let names = self.names(members.chain(peers.iter().flatten())).await?;
        let at: Vec<_> = known.iter().map(|known| (known.row.conversation, known.access.last_seq)).collect();
        let entries = last_entries_apart(&*self.store, &at).await?.found;
        let described = known.iter().zip(peers).zip(entries).map(|((known, peer), entry)| Described {
            summary: known.summary(user, peer, &names),
            members: known.access.role.map(|_| members_of(&known.glance.state, &names)),
            last_entry: entry.filter(|entry| entry.seq >= known.access.first_seq),
        });
        Ok(described.collect())
    }
}

impl Known {
    /// The user is in it, or something of what they may see is left.
    pub(super) fn has_something(&self) -> bool {
        self.access.role.is_some() || self.access.first_seq <= self.access.last_seq
    }

    /// The other user of a pair.
    fn peer(&self, user: &UserId) -> Option<UserId> {
        let Conversation { kind: ConversationKind::Pair, members, .. } = &*self.glance.state else {
            return None;
        };
        match members.iter().find(|member| member.user != *user) {
            Some(other) => Some(other.user.clone()),
            // Alone: notes to self, or the other user was erased.
            None => Some(user.clone()).filter(|me| ConversationId::pair(me, me) == self.row.conversation),
        }
    }

    fn summary(
        &self,
        user: &UserId,
        peer: Option<UserId>,
        names: &HashMap<UserId, String>,
    ) -> ConversationSummary {
        let Self { row, glance, access } = self;
        let name = match &peer {
            Some(peer) => names.get(peer).cloned(),
            None => glance.state.name.clone(),
        };
        let read = access.read(row.read);
        ConversationSummary {
            conversation: row.conversation,
            kind: glance.state.kind,
            name,
            peer,
            head: access.last_seq,
            head_messages: access.last_messages,
            first_seq: access.first_seq,
            read_seq: read.seq,
            read_messages: read.messages,
            unread: access.last_messages - read.messages,
            last_time_ms: row.last_time_ms,
            role: access.role,
            added_by: glance.state.member(user).and_then(|member| member.added_by.clone()),
        }
    }
}
