//! What somebody misses who comes back.

use std::collections::{HashMap, HashSet};

use tern_protocol::resume::{CatchUp, catch_up};
use tern_protocol::{ConversationId, ConversationSummary, Entry, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, UserId};

use super::History;
use super::access::Access;
use super::inbox::Known;
use crate::store::{Apart, InboxRow, PageLimit, StoreError, runs_apart};

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

/// A conversation that has changed since somebody was here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As the user sees it in a list.
    pub summary: ConversationSummary,
    /// What they miss of it.
    pub missing: Missing,
}

/// What somebody misses who comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Conversations that changed, most recently changed first.
    pub changed: Vec<Changed>,
    /// Cursors above their heads.
    pub ahead: Vec<Ahead>,
    /// Conversations that cannot be read, since stored data is damaged: nothing is told of them.
    pub unreadable: Vec<ConversationId>,
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

/// Consecutive entries of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which log.
    pub conversation: ConversationId,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

impl History {
    /// The user's conversations, also those they have left, with what each lacks after its cursor, most recently
    /// changed first; only those that changed. A cursor above the head is in the second list, and so is one of
    /// a conversation that is not theirs: of another life as well. Three round trips.
    pub async fn changed(
        &self,
        user: &UserId,
        cursors: &HashMap<ConversationId, u64>,
    ) -> Result<Changes, StoreError> {
        let mut rows = self.store.inbox(user, None, usize::MAX).await?;
        let foreign = foreign(&rows, cursors);
        rows.retain(|row| may_differ(row, cursors.get(&row.conversation).copied()));
        let (mut known, unreadable) = self.known(user, rows).await?;
        known.retain(Known::has_something);
        let (mut changed, mut ahead) = (Vec::with_capacity(known.len()), foreign);
        for known in &mut known {
            let conversation = known.row.conversation;
            let cursor = cursors.get(&conversation).copied();
            if known.access.role.is_some() && cursor.is_some_and(|cursor| cursor > known.access.last_seq) {
                // Before anybody is told that their state is of another life: a glance may be behind.
                self.refresh(user, known).await?;
            }
            let head = known.access.last_seq;
            if let Some(cursor) = cursor.filter(|cursor| *cursor > head) {
                ahead.push(Ahead { conversation, cursor, head });
            }
            changed.push(missing(known, cursor));
        }
        let known: Vec<Known> =
            known.into_iter().zip(&changed).filter_map(|(known, missing)| missing.map(|_| known)).collect();
        let summaries = self.summaries(user, &known).await?;
        let changed = summaries.into_iter().zip(changed.into_iter().flatten());
        let changed = changed.map(|(summary, missing)| Changed { summary, missing }).collect();
        Ok(Changes { changed, ahead, unreadable })
    }

    async fn refresh(&self, user: &UserId, known: &mut Known) -> Result<(), StoreError> {
        let glance = self.fresh(known.row.conversation, Some(known.glance.clone())).await?;
        let access = glance.as_ref().and_then(|glance| Access::of(user, glance, Some(&known.row)));
        if let Some((glance, access)) = glance.zip(access) {
            (known.glance, known.access) = (glance, access);
        }
        Ok(())
    }

    /// The entries of these runs, ascending, together at most one frame of them: answers for the first runs,
    /// the last of them perhaps cut, at least one entry if there is one. One that cannot be read is the only one
    /// answered for. One round trip.
    pub async fn runs(&self, runs: &[Run]) -> Result<Apart<Vec<Entry>>, StoreError> {
        let limit = PageLimit { entries: PAGE_ENTRIES_MAX, bytes: PAGE_BYTES_MAX };
        let ranges: Vec<_> = runs.iter().map(|run| (run.conversation, run.from..=run.to)).collect();
        runs_apart(&*self.store, &ranges, limit).await
    }
}

/// The cursors of conversations that the user has never been in, by conversation. 0 says that there is nothing.
fn foreign(rows: &[InboxRow], cursors: &HashMap<ConversationId, u64>) -> Vec<Ahead> {
    let theirs: HashSet<ConversationId> = rows.iter().map(|row| row.conversation).collect();
    let of_others = cursors.iter().filter(|(conversation, seq)| **seq > 0 && !theirs.contains(conversation));
    let ahead = |(conversation, cursor): (&ConversationId, &u64)| Ahead {
        conversation: *conversation,
        cursor: *cursor,
        head: 0,
    };
    let mut foreign: Vec<Ahead> = of_others.map(ahead).collect();
    foreign.sort_by_key(|ahead| ahead.conversation);
    foreign
}

/// The row, which is a hint, does not say that nothing has changed.
fn may_differ(row: &InboxRow, cursor: Option<u64>) -> bool {
    cursor != Some(row.until_seq.unwrap_or(row.last_seq))
}

/// What is missing after a cursor, `None` if nothing is.
fn missing(known: &Known, cursor: Option<u64>) -> Option<Missing> {
    let Known { row, glance, access } = known;
    let start = access.first_seq - 1;
    let from = cursor.filter(|cursor| *cursor <= access.last_seq).unwrap_or(start);
    let catch_up = catch_up(from, access.first_seq, access.last_seq);
    let hidden = (from < start).then_some((from + 1, start));
    // Who has no cursor must learn of the conversation even if nothing of it is left.
    if catch_up == CatchUp::UpToDate && hidden.is_none() && cursor == Some(from) {
        return None;
    }
    let erased_seq = cursor.and(Some(glance.kept.erased_seq).filter(|seq| *seq > from));
    Some(Missing { conversation: row.conversation, hidden, catch_up, erased_seq })
}
