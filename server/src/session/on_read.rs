//! Frames that read: sync, history, lists. They are queued for the session's reader.

use std::time::Instant;

use tern_protocol::{
    Code, Fetch, ListConversations, ListMembers, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX, Position,
    SYNC_CURSORS_MAX, SYNC_CURSORS_TOTAL_MAX, Sync,
};

use super::active::Active;
use super::hello::SESSION_BYTES;
use super::quota::Allowance;
use super::reads::Job;
use super::refused::Refused;
use super::step::Handled;
use crate::conversation::history::{Anchor, ListCursor};

impl Active {
    pub(super) fn on_sync(
        &mut self,
        request: Option<u64>,
        sync: Sync,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let total = self.cursors.len() + sync.cursors.len();
        if sync.cursors.len() > SYNC_CURSORS_MAX || total > SYNC_CURSORS_TOTAL_MAX {
            self.cursors = Vec::new();
            let detail = format!(
                "at most {SYNC_CURSORS_MAX} cursors a frame and {SYNC_CURSORS_TOTAL_MAX} a sync are allowed; all of \
                 this sync are dropped: begin again with those of the conversations that changed last"
            );
            return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
        }
        if !self.memory.try_resize(SESSION_BYTES + total * size_of::<Position>()) {
            self.cursors = Vec::new();
            self.memory.try_resize(SESSION_BYTES);
            return Err(Refused::short_of_memory());
        }
        self.cursors.extend(sync.cursors);
        if sync.more {
            return Ok(Handled::Silent);
        }
        let cursors = std::mem::take(&mut self.cursors);
        self.memory.try_resize(SESSION_BYTES);
        self.allow_fetch(now)?;
        self.ask_store(Job::Sync { request, cursors })
    }

    pub(super) fn on_fetch(
        &mut self,
        request: Option<u64>,
        fetch: Fetch,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.allow_fetch(now)?;
        let limit = page_limit(fetch.limit)?;
        let anchor = match (fetch.before, fetch.after, fetch.around) {
            (None, None, None) => Anchor::Latest,
            (Some(seq), None, None) => Anchor::Before(seq),
            (None, Some(seq), None) => Anchor::After(seq),
            (None, None, Some(seq)) => Anchor::Around(seq),
            _ => {
                let detail = "give at most one of before, after and around";
                return Err(Refused::new(Code::INVALID_ARGUMENT, detail));
            }
        };
        self.ask_store(Job::Fetch { request, conversation: fetch.conversation, anchor, limit })
    }

    pub(super) fn on_list_conversations(
        &mut self,
        request: Option<u64>,
        list: ListConversations,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.allow_fetch(now)?;
        let limit = page_limit(list.limit)?;
        let cursor = match list.cursor.map(|text| text.parse::<ListCursor>()).transpose() {
            Ok(cursor) => cursor,
            Err(()) => {
                let detail = "cursor must be the `next` of an earlier page";
                return Err(Refused::new(Code::INVALID_ARGUMENT, detail));
            }
        };
        self.ask_store(Job::List { request, cursor, limit })
    }

    pub(super) fn on_list_members(
        &mut self,
        request: Option<u64>,
        list: ListMembers,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.allow_fetch(now)?;
        self.ask_store(Job::Members { request, conversation: list.conversation })
    }

    /// Queues what the store is asked; the answer comes behind everything live.
    pub(super) fn ask_store(&self, job: Job) -> Result<Handled, Refused> {
        self.reads.push(job)?;
        Ok(Handled::Pending)
    }

    pub(super) fn allow_fetch(&self, now: Instant) -> Result<(), Refused> {
        match self.gateway.quota.fetch(&self.seat.user, now) {
            Allowance::Allowed => Ok(()),
            Allowance::Refused { retry_after } => {
                Err(Refused::rate_limited(retry_after, "reads of this user"))
            }
        }
    }
}

fn page_limit(asked: Option<u32>) -> Result<usize, Refused> {
    let limit = asked.map_or(PAGE_ENTRIES_DEFAULT, |limit| limit as usize);
    if !(1..=PAGE_ENTRIES_MAX).contains(&limit) {
        let detail = format!("limit must be 1 to {PAGE_ENTRIES_MAX}, not {limit}");
        return Err(Refused::new(Code::INVALID_ARGUMENT, detail));
    }
    Ok(limit)
}
