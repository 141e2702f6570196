//! What must survive: logs, members, inboxes, users and push intents, behind small traits.
//!
//! The store decides order: an append is a compare-and-set on the head of a log, with dedupe
//! markers in the same atomic step. Every implementation passes the suite in `contract.rs`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tern_protocol::{ConversationId, ConversationKind, Entry, Role, StoreId, TempId, UserId};

mod answers;
mod apart;
mod barred;
#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
mod grounds;
mod inbox;
mod intents;
pub mod memory;
mod people;
mod rights;
mod runs;
#[cfg(test)]
pub(crate) mod shaky;
mod upkeep;
mod users;

pub use answers::{Answers, AppendAnswers, Owed};
pub use apart::{Apart, glance_apart, has_profile, last_entries_apart, runs_apart, users_apart};
pub use barred::Barred;
pub use grounds::Grounds;
pub use inbox::{Inbox, InboxCursor, InboxRow, ReadPosition};
pub use intents::{INTENT_SHARDS, Intent, Intents, intent_shard};
pub use people::{BlockChange, BlockOutcome, Blocked, People, PeopleConfig, Tally};
pub use rights::{Lost, Right, Standing};
pub use upkeep::{Aged, Ages, Erasure, Granularity, Kept, MARKERS_KEPT_MS, OpenErasure, Upkeep};
pub use users::{User, UserChange, Users, last_seen};

/// Most bytes of entries in one append group: far below what any store takes in one write.
pub const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Most entries in one append group.
pub const GROUP_ENTRIES_MAX: usize = 128;
/// Version of a stored entry, the byte before it.
const STORED_VERSION: u8 = 1;

/// All that a node needs from its store. Who needs less takes the narrow trait.
#[async_trait]
pub trait Store: Log + Glances + Inbox + Users + People + Intents + Upkeep {
    /// Names this life of the store. It changes when acked data may be missing.
    fn store_id(&self) -> StoreId;

    /// Whether it can take a write and answer a read now.
    async fn health(&self) -> Result<(), StoreError>;

    /// What stored data was found damaged since it was opened, and what to do about it. It goes on: what is
    /// damaged is left out.
    fn damage(&self) -> Option<String> {
        None
    }

    /// Ends in order: refuses new writes, finishes those it has taken. Reads may still work. Once more is fine.
    async fn close(&self);
}

/// Why a store call failed. Only [`Full`](Self::Full) says that nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or does not answer in time; try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// There is no room for it. Nothing was written; try again later.
    #[error("{0}")]
    Full(String),
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
    /// Who brought them in, until they accept it: by writing in it, or by keeping it ([`People::accept`]).
    pub added_by: Option<UserId>,
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
    /// Of a pair: who of the two blocks the other. The store's own, by [`People::set_block`]: an append does not
    /// change it, whatever the state of its group says, nor does it take back what was accepted meanwhile.
    pub blocked_by: Vec<UserId>,
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
    pub entry: Arc<Entry>,
    /// See [`stored`](Self::stored).
    stored: Bytes,
    /// First 16 bytes of SHA-256 over what was asked for: a retry must ask for the same.
    pub digest: [u8; 16],
    /// Its push events are due: the intent of the group covers it.
    pub push: bool,
    /// By which token it was asked for. `None`: the server itself asks.
    pub right: Option<Right>,
    /// Time since the sender's first attempt in milliseconds: a marker that is older, with a margin of 15
    /// minutes, may go unseen. `u64::MAX`, as it is made: nobody knows.
    pub age_ms: u64,
}

impl NewEntry {
    /// An entry to append, with what the fields say. It is encoded here, once for the store and for delivery.
    pub fn new(entry: Entry, digest: [u8; 16], push: bool, right: Option<Right>) -> Self {
        let stored = postcard::to_extend(&entry, vec![STORED_VERSION]);
        let stored = stored.expect("entries have no unsized sequences").into();
        Self { entry: Arc::new(entry), stored, digest, push, right, age_ms: u64::MAX }
    }

    /// The same, first tried so many milliseconds ago.
    pub fn aged(self, age_ms: u64) -> Self {
        Self { age_ms, ..self }
    }

    /// The entry as postcard, as it stands in a frame. Shared, not copied.
    pub fn encoded(&self) -> Bytes {
        self.stored.slice(1..)
    }

    /// The entry in its stored form: a byte for the version, then [`encoded`](Self::encoded).
    pub fn stored(&self) -> Bytes {
        self.stored.clone()
    }
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
    /// the member's `first_seq`. Who has joined in this group (`first_seq` above the expected head) has read
    /// up to the entry before that; who has sent a message in it has read up to that message.
    pub state: Arc<Conversation>,
    /// Members who went in this group; their inbox rows end at `until_seq`.
    pub departures: Vec<Departure>,
}

impl AppendGroup {
    /// Checks the rules above. Every implementation calls it before it writes: a malformed group would
    /// damage the log for good.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.entries.is_empty() || self.entries.len() > GROUP_ENTRIES_MAX {
            return Err(StoreError::Malformed("it must have 1 to 128 entries"));
        }
        if self.bytes() > GROUP_BYTES_MAX {
            return Err(StoreError::Malformed("its entries must not exceed 1 MiB"));
        }
        let seqs = self.entries.iter().map(|new| new.entry.seq);
        if !seqs.eq(self.expected_head + 1..=self.expected_head + self.entries.len() as u64) {
            return Err(StoreError::Malformed("its seqs must go on from the expected head"));
        }
        let last = self.entries.last().map_or(0, |new| new.entry.messages);
        if self.state.head != self.expected_head + self.entries.len() as u64 || self.state.messages != last {
            return Err(StoreError::Malformed("the head of its state must be its last entry"));
        }
        let counts = self.entries.windows(2).all(|two| {
            let counted = two[0].entry.messages + u64::from(two[1].entry.body.is_message());
            two[1].entry.messages == counted
        });
        if !counts || last < self.entries.iter().filter(|new| new.entry.body.is_message()).count() as u64 {
            return Err(StoreError::Malformed("its entries must count the messages"));
        }
        let marked = self.entries.iter().filter_map(|new| Some((&new.entry.sender, new.entry.temp_id?)));
        let mut seen = HashSet::new();
        if !marked.into_iter().all(|marker| seen.insert(marker)) {
            return Err(StoreError::Malformed("it must not have a marker twice"));
        }
        Ok(())
    }

    /// Bytes of its encoded entries.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|new| new.stored.len() - 1).sum()
    }

    /// The push intent that is written with it, if one of its entries is to be pushed.
    pub fn intent(&self) -> Option<Intent> {
        let pushed = self.entries.iter().filter(|new| new.push).map(|new| &*new.entry);
        Intent::of(self.conversation, pushed)
    }

    /// The read positions that it moves: of who joins, to where they begin, and of who writes a message, to
    /// that. All are above what was read before. The last of a user counts.
    pub fn reads(&self) -> Vec<(&UserId, ReadPosition)> {
        let mut reads = Vec::new();
        for member in self.state.members.iter().filter(|member| member.first_seq > self.expected_head) {
            let index = (member.first_seq - self.expected_head - 1) as usize;
            let Some(first) = self.entries.get(index) else { continue };
            let messages = first.entry.messages - u64::from(first.entry.body.is_message());
            reads.push((&member.user, ReadPosition { seq: member.first_seq - 1, messages }));
        }
        for Entry { sender, seq, messages, .. } in self.messages() {
            reads.push((sender, ReadPosition { seq: *seq, messages: *messages }));
        }
        reads.retain(|(_, read)| read.seq > 0);
        reads
    }

    fn messages(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|new| &*new.entry).filter(|entry| entry.body.is_message())
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
    /// Nothing was written: these entries of the group (by index, ascending) must not be, since a user was
    /// erased or a token revoked. Markers win over it, it wins over the head.
    Barred(Vec<(usize, Barred)>),
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

/// The logs, as their owner needs them.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends each group if the head of its log is still the expected one, none of its markers exists and
    /// nothing in it is [`Barred`]; the groups are of different conversations. Returns when they are queued:
    /// it waits for room, never for an answer, and groups never wait for each other beyond one commit. If it
    /// is dropped before, those not queued are answered as `Unavailable`.
    ///
    /// Each group is answered by its ticket, exactly once, whatever happens: `Applied` only when all of it is
    /// durable. Markers win over the head: a group that meets both is `Duplicates`. The markers live at least
    /// 7 days.
    async fn append_all(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers);

    /// Appends one group and waits for the answer.
    async fn append(&self, group: &Arc<AppendGroup>) -> Result<Appended, StoreError> {
        let (answers, mut answered) = AppendAnswers::new(1);
        self.append_all(vec![(0, Arc::clone(group))], &answers).await;
        drop(answers);
        let first = answered.recv().await.and_then(|mut answers| answers.pop());
        first.map_or_else(|| Err(answers::unanswered()), |(_, answer)| answer)
    }

    /// The state of a conversation, `None` if it does not exist. Sees every `Applied` before it.
    async fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError>;

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

    /// The newest entry in `range` that is not later than `time_ms`, as a seq; the one before the range if
    /// all are later. Times never decrease within a log.
    async fn seq_at(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError>;

    /// Writes the inbox rows, read positions and push intents of committed entries again, before a retry is
    /// acked: the first attempt may have died between them. `state` is that of the conversation. Idempotent.
    /// A store whose append is one atomic step has nothing to do.
    async fn redo(
        &self,
        conversation: ConversationId,
        state: &Conversation,
        entries: &[Entry],
    ) -> Result<(), StoreError>;
}

/// A conversation at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its state.
    pub state: Arc<Conversation>,
    /// What is left of its log.
    pub kept: Kept,
}

/// Reads of many conversations at once, for lists, catching up, visibility and typing. They may be behind
/// the log, by seconds at most, and are never ahead of it; a node sees its own appends once it is answered.
#[async_trait]
pub trait Glances: Send + Sync {
    /// State and what is kept of each, `None` for one that does not exist; one answer per question, in order.
    /// `kept` is not older than `state`. One round trip however many they are.
    async fn glance(&self, ids: &[ConversationId]) -> Result<Vec<Option<Glance>>, StoreError>;

    /// Entries of several logs, ascending, one log after the other, cut at `limit` over all of them: answers for
    /// the first of the ranges, the last one perhaps cut. At least one entry, if there is one. Those that have
    /// aged out are left out.
    async fn runs(
        &self,
        of: &[(ConversationId, RangeInclusive<u64>)],
        limit: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError>;

    /// The newest entry up to this seq of each log, `None` if nothing up to there is left; one answer per
    /// question, in order.
    async fn last_entries(&self, at: &[(ConversationId, u64)]) -> Result<Vec<Option<Entry>>, StoreError>;
}
