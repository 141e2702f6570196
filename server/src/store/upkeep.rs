//! The life of data: what ages out of the logs, and how a user is erased.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, Entry, UserId};

use super::StoreError;

/// Dedupe markers are kept this long after their entry, in milliseconds: the 7 days for which a retry
/// is recognised, and an hour for clocks that differ.
pub const MARKERS_KEPT_MS: u64 = (7 * 24 + 1) * 3600 * 1000;

/// What is left of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// First entry there is; head + 1 if none is left. The seqs before it are never given again.
    pub first_seq: u64,
    /// No entry up to here has a marker.
    pub markers_until: u64,
    /// The newest entry that says that somebody was erased; 0: nobody was.
    pub erased_seq: u64,
    /// Messages in the log before its first entry: they are gone, so nobody has them unread.
    pub messages: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { first_seq: 1, markers_until: 0, erased_seq: 0, messages: 0 }
    }
}

/// In what pieces a store lets go of what is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Each entry and each marker goes by its own time.
    Entry,
    /// Entry `seq` is in bucket `seq / n`. The entries of a bucket go together, once the log has gone on to
    /// the next one and all of them are old enough; a marker goes with its time, at the latest with its bucket.
    Bucket(u64),
}

/// What is old enough to go; times of entries in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Markers of entries before this time go.
    pub markers_before_ms: u64,
    /// Entries before this time go once their markers have gone; `None`: entries stay.
    pub entries_before_ms: Option<u64>,
}

/// What went in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    /// Entries.
    pub entries: usize,
    /// Markers.
    pub markers: usize,
    /// There may be more to go: call again.
    pub more: bool,
}

/// That a user was erased. Of a finished one only a hash of the user id is kept, to know them by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// When, in Unix milliseconds: tokens issued before are not accepted.
    pub at_ms: u64,
    /// The erasure has begun and not ended.
    pub open: Option<OpenErasure>,
}

impl Erasure {
    /// A token issued at this time, in Unix milliseconds, gives no right any more: while the erasure is open
    /// none does.
    pub fn bars(&self, issued_ms: u64) -> bool {
        self.open.is_some() || issued_ms <= self.at_ms
    }
}

/// An erasure that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenErasure {
    /// Who.
    pub user: UserId,
    /// What stands in their place in the logs.
    pub became: UserId,
}

/// Work on what is stored already. All of it goes through the one writer of a store.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// In what pieces it lets go of what is old.
    fn ages_by(&self) -> Granularity;

    /// Ids of conversations after `after` in the order of their bytes, at most `limit`.
    async fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Removes markers and entries that are old enough from the start of a log, in pieces of
    /// [`ages_by`](Self::ages_by), at most `limit` of each or one piece. An entry never goes before its marker.
    /// Head, members and what is newer stay. Idempotent; one step is atomic.
    async fn age(&self, conversation: ConversationId, ages: Ages, limit: usize) -> Result<Aged, StoreError>;

    /// Puts these entries in the place of those with their seq and id; others are left out. Where an
    /// entry loses its `temp_id` its marker goes too. At most [`GROUP_ENTRIES_MAX`](super::GROUP_ENTRIES_MAX)
    /// entries. Raises [`Kept::erased_seq`]. One atomic step.
    async fn rewrite(
        &self,
        conversation: ConversationId,
        entries: Vec<Entry>,
        erased_seq: u64,
    ) -> Result<(), StoreError>;

    /// Notes that the erasure of a user has begun. One that is open already goes on as it is; a
    /// finished one is followed by a new one. Once this has returned, what bears an older token of the user is
    /// [`Barred`](super::Barred) and so is what makes them a member of anything: where they are found to be no
    /// member they stay none until the erasure is finished.
    async fn begin_erasure(&self, user: &UserId, became: UserId, at_ms: u64) -> Result<Erasure, StoreError>;

    /// Forgets the user: list, read positions, name, last-seen, push intents of what they wrote, and who the
    /// erasure was about. False, and
    /// the erasure stays open, if their list has a conversation of which they are still a member. Need not be
    /// one atomic step: it can be done again.
    async fn finish_erasure(&self, user: &UserId) -> Result<bool, StoreError>;

    /// Users whose erasure is open.
    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_issued_after_the_erasure_count() {
        let done = Erasure { at_ms: 1_000, open: None };
        assert_eq!([0, 1_000, 2_000].map(|issued_ms| done.bars(issued_ms)), [true, true, false]);
        let (user, became) = (UserId::new("bob").unwrap(), UserId::erased([1; 16]));
        let open = Erasure { open: Some(OpenErasure { user, became }), ..done };
        assert!(open.bars(2_000), "while it is open none does");
    }
}
