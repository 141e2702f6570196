//! Pages of one log.

use std::ops::RangeInclusive;

use tern_protocol::{ConversationId, Entry, PAGE_BYTES_MAX, UserId};

use super::History;
use super::access::Access;
use crate::store::{Order, PageLimit, StoreError};

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
    /// Entries at or before this time in Unix milliseconds.
    Until(u64),
}

/// Entries newest first, with what the user may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Consecutive, newest first.
    pub entries: Vec<Entry>,
    /// What the user may see.
    pub access: Access,
    /// Where it lies: never [`Anchor::Until`], which has become a seq.
    pub anchor: Anchor,
}

impl History {
    /// A page of history, `None` whether the conversation is absent or forbidden. Two round trips for a
    /// member; three around a seq or until a time.
    pub async fn page(
        &self,
        user: &UserId,
        id: ConversationId,
        anchor: Anchor,
        limit: usize,
    ) -> Result<Option<HistoryPage>, StoreError> {
        let Some(access) = self.access(user, id).await? else { return Ok(None) };
        let anchor = match anchor {
            Anchor::Until(time_ms) => {
                let range = access.first_seq..=access.last_seq;
                let seq = match range.is_empty() {
                    true => access.last_seq,
                    false => self.store.seq_at(id, range, time_ms).await?,
                };
                Anchor::Before(seq + 1)
            }
            anchor => anchor,
        };
        let whole = PageLimit { entries: limit, bytes: PAGE_BYTES_MAX };
        let down = |to: u64| (access.first_seq..=to.min(access.last_seq), Order::Descending, whole);
        let (range, order, limit) = match anchor {
            Anchor::Latest | Anchor::Until(_) => down(access.last_seq),
            Anchor::Before(seq) => down(seq.saturating_sub(1)),
            Anchor::After(seq) => {
                let from = seq.saturating_add(1).max(access.first_seq);
                (from..=access.last_seq, Order::Ascending, whole)
            }
            Anchor::Around(seq) => {
                let entries = self.around(id, access, seq, limit).await?;
                return Ok(Some(HistoryPage { entries, access, anchor }));
            }
        };
        let mut entries = self.read(id, range, order, limit).await?;
        if order == Order::Ascending {
            entries.reverse();
        }
        Ok(Some(HistoryPage { entries, access, anchor }))
    }

    async fn around(
        &self,
        id: ConversationId,
        access: Access,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let half = PageLimit { entries: limit / 2, bytes: PAGE_BYTES_MAX / 2 };
        let mut entries = match half.entries {
            0 => Vec::new(),
            _ => {
                let range = seq.saturating_add(1).max(access.first_seq)..=access.last_seq;
                self.read(id, range, Order::Ascending, half).await?
            }
        };
        entries.reverse();
        let rest = PageLimit { entries: limit - entries.len(), bytes: PAGE_BYTES_MAX / 2 };
        let range = access.first_seq..=seq.min(access.last_seq);
        entries.extend(self.read(id, range, Order::Descending, rest).await?);
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
