//! What must survive: logs, members, inboxes, users and push intents, behind small traits.
//!
//! The store decides order: an append is a compare-and-set on the head of a log, with dedupe
//! markers in the same atomic step. Every implementation passes the suite in `contract.rs`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use tern_protocol::{ConversationId, ConversationKind, Entry, Role, StoreId, TempId, UserId};

#[cfg(test)]
mod contract;
pub mod embedded;
pub mod memory;
mod upkeep;
mod users;

pub use upkeep::{Aged, Ages, Erasure, Kept, MARKERS_KEPT_MS, OpenErasure, Upkeep};
pub use users::{User, UserChange, Users};

/// Most bytes of entries in one append group: far below what any store takes in one write.
pub const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Most entries in one append group.
pub const GROUP_ENTRIES_MAX: usize = 128;

/// All that a node needs from its store.
pub trait Store: Log + Inbox + Users + Intents + Upkeep {
    /// Names this life of the store. It changes when acked data may be missing.
    fn store_id(&self) -> StoreId;
}

/// Why a store call failed. Neither case says that nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or does not answer in time; try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Something stored cannot be read back; somebody must look.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The caller broke a rule of [`AppendGroup`]; nothing was written. A bug, not a state of the store.
    #[error("the append group is malformed: {0}")]
    Malformed(&'static str),
}

/// A member of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What they may do. In a pair both are owners.
    pub role: Role,
    /// The first entry they may see: the one that added them.
    pub first_seq: u64,
}

/// The current state of a conversation, written in the same atomic step as its head.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conversation {
    /// Pair or group.
    pub kind: ConversationKind,
    /// Name of a group.
    pub name: Option<String>,
    /// Newest entry; the log is 1..=head without holes.
    pub head: u64,
    /// Messages in the log, also those that have aged out or were erased.
    pub messages: u64,
    /// Time of the newest entry in Unix milliseconds.
    pub last_time_ms: u64,
    /// At most 100, in the order they joined.
    pub members: Vec<Member>,
}

impl Conversation {
    /// The member entry of a user.
    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.iter().find(|member| member.user == *user)
    }
}

/// An entry to append, with what its dedupe marker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The entry, its seq already `expected_head + 1 + index`. With a `temp_id` it gets the marker
    /// (conversation, sender, temp_id); without one (a promotion by the server) it gets none.
    pub entry: Entry,
    /// First 16 bytes of SHA-256 over what was asked for: a retry must ask for the same.
    pub digest: [u8; 16],
    /// A push intent is written for it.
    pub push: bool,
}

/// Somebody who is no longer a member after an append group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Who.
    pub user: UserId,
    /// First entry they may see.
    pub first_seq: u64,
    /// Last entry they may see: the one that says they are gone.
    pub until_seq: u64,
}

/// One atomic append: all of it happens or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendGroup {
    /// Which log.
    pub conversation: ConversationId,
    /// The head this group builds on; 0 means the conversation must not exist.
    pub expected_head: u64,
    /// At least one; at most [`GROUP_ENTRIES_MAX`] and [`GROUP_BYTES_MAX`]. No marker twice.
    pub entries: Vec<NewEntry>,
    /// The state after the last entry. Every member's inbox row is marked with its head, time and
    /// the member's `first_seq`.
    pub state: Conversation,
    /// Members who went in this group; their inbox rows end at `until_seq`.
    pub departures: Vec<Departure>,
}

impl AppendGroup {
    /// Checks the rules above, except for bytes. Every implementation calls it before it writes: a
    /// malformed group would damage the log for good.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.entries.is_empty() || self.entries.len() > GROUP_ENTRIES_MAX {
            return Err(StoreError::Malformed("it must have 1 to 128 entries"));
        }
        let seqs = self.entries.iter().map(|new| new.entry.seq);
        if !seqs.eq(self.expected_head + 1..=self.expected_head + self.entries.len() as u64) {
            return Err(StoreError::Malformed("its seqs must go on from the expected head"));
        }
        if self.state.head != self.expected_head + self.entries.len() as u64 {
            return Err(StoreError::Malformed("the head of its state must be its last entry"));
        }
        let marked = self.entries.iter().filter_map(|new| Some((&new.entry.sender, new.entry.temp_id?)));
        let mut seen = HashSet::new();
        if !marked.into_iter().all(|marker| seen.insert(marker)) {
            return Err(StoreError::Malformed("it must not have a marker twice"));
        }
        Ok(())
    }
}

/// What is known of an earlier commit of the same change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Where it is.
    pub seq: u64,
    /// What was asked for then.
    pub digest: [u8; 16],
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All of it is durable: entries, markers, head, members, inbox rows, push intents.
    Applied,
    /// Nothing was written: these entries of the group (by index) have a marker already.
    Duplicates(Vec<(usize, Marker)>),
    /// Nothing was written: the head is not the expected one.
    Conflict {
        /// The head that stands.
        head: u64,
    },
    /// No answer in time: perhaps written, perhaps later. Settled only by the same append again.
    Unknown,
}

/// In which order entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the lowest seq up.
    Ascending,
    /// From the highest seq down.
    Descending,
}

/// Where a page ends: by count and by bytes, but never before its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of encoded entries.
    pub bytes: usize,
}

/// The logs.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends a group if the head is still the expected one and no marker of the group exists.
    /// Returns `Applied` only when all of it is durable. Markers win over the head: a group that
    /// meets both is `Duplicates`. The markers live at least 7 days.
    async fn append(&self, group: AppendGroup) -> Result<Appended, StoreError>;

    /// The state of a conversation, `None` if it does not exist. Sees every `Applied` before it.
    async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError>;

    /// The marker of an earlier commit. `age_ms` is the time since the sender's first attempt: a
    /// store may look only that far back (with a margin of 15 minutes).
    async fn marker(
        &self,
        conversation: ConversationId,
        sender: &UserId,
        temp_id: TempId,
        age_ms: u64,
    ) -> Result<Option<Marker>, StoreError>;

    /// Entries whose seq lies in `range`, cut at `limit`, with their `temp_id`. An empty range gives nothing;
    /// those that have aged out are left out.
    async fn entries(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Writes the inbox rows and push intents of committed entries again, before a retry is acked:
    /// the first attempt may have died between them. Idempotent. A store whose append is one atomic
    /// step has nothing to do.
    async fn redo(&self, conversation: ConversationId, seqs: &[u64]) -> Result<(), StoreError>;
}

/// One conversation of a user's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Which.
    pub conversation: ConversationId,
    /// Newest entry, a hint: the log's head decides.
    pub last_seq: u64,
    /// Its time in Unix milliseconds.
    pub last_time_ms: u64,
    /// First entry the user may see.
    pub first_seq: u64,
    /// Last entry the user may see, if they are no longer a member.
    pub until_seq: Option<u64>,
    /// The user has read up to here; 0: nothing.
    pub read_seq: u64,
}

/// Each user's list of conversations.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// All rows of a user, most recently changed first (then by conversation id).
    async fn inbox(&self, user: &UserId) -> Result<Vec<InboxRow>, StoreError>;

    /// One row; `None` if the user never was a member.
    async fn inbox_row(&self, user: &UserId, id: ConversationId) -> Result<Option<InboxRow>, StoreError>;

    /// Raises the read position, durably; never lowers it. True if it rose.
    async fn set_read(&self, user: &UserId, id: ConversationId, seq: u64) -> Result<bool, StoreError>;
}

/// A committed entry whose push events are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Which log.
    pub conversation: ConversationId,
    /// Which entry.
    pub seq: u64,
    /// Time of the entry in Unix milliseconds.
    pub time_ms: u64,
}

/// Push intents, kept until their events have left.
#[async_trait]
pub trait Intents: Send + Sync {
    /// The oldest intents by time, at most `limit`, whose time is at most `until_ms`.
    async fn intents(&self, until_ms: u64, limit: usize) -> Result<Vec<Intent>, StoreError>;

    /// Forgets intents. After a crash some may be seen again.
    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError>;
}
