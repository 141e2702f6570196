//! Each user's list of conversations, and how far they have read.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, UserId};

use super::StoreError;

/// How far a user has read. What was read before the first entry they may see counts as read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPosition {
    /// Up to this entry; 0: nothing.
    pub seq: u64,
    /// Messages in the log up to and including it.
    pub messages: u64,
}

/// One conversation of a user's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Which.
    pub conversation: ConversationId,
    /// Newest entry the user may see. A hint while they are a member: the log's head decides.
    pub last_seq: u64,
    /// Messages in the log up to and including it.
    pub last_messages: u64,
    /// Its time in Unix milliseconds.
    pub last_time_ms: u64,
    /// First entry the user may see.
    pub first_seq: u64,
    /// Last entry the user may see, if they are no longer a member.
    pub until_seq: Option<u64>,
    /// How far the user has read.
    pub read: ReadPosition,
}

/// A place in a user's list, which is ordered by the latest change, newest first, and within one millisecond
/// by conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxCursor {
    /// Time of the newest entry of the row at this place.
    pub last_time_ms: u64,
    /// Its conversation.
    pub conversation: ConversationId,
}

impl Ord for InboxCursor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_time = other.last_time_ms.cmp(&self.last_time_ms);
        by_time.then_with(|| self.conversation.cmp(&other.conversation))
    }
}

impl PartialOrd for InboxCursor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl InboxRow {
    /// The place of this row.
    pub fn place(&self) -> InboxCursor {
        InboxCursor { last_time_ms: self.last_time_ms, conversation: self.conversation }
    }
}

/// Each user's list of conversations.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// The first `limit` rows of a user after a place, in the order of [`InboxCursor`]. One round trip.
    /// A conversation that changes between two pages moves to the front.
    async fn inbox(
        &self,
        user: &UserId,
        after: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError>;

    /// The rows of these conversations, `None` where the user never was a member; one answer per question, in
    /// order. One round trip.
    async fn inbox_rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError>;

    /// Raises the read position, durably; never lowers it. True if it rose. The caller has seen the entry it
    /// stands on: it is not above the head.
    async fn set_read(
        &self,
        user: &UserId,
        id: ConversationId,
        read: ReadPosition,
    ) -> Result<bool, StoreError>;
}
