//! Frames by which a client learns what it missed and reads history.

use serde::{Deserialize, Serialize};

use super::group::ConversationSummary;
use super::message::Position;
use crate::entry::Entry;
use crate::id::ConversationId;
use crate::number::whole_or_none;

/// Tell me what changed since these cursors. Answered by SyncPage frames, the missing entries
/// (Deliver, and Gap where they are many) and SyncEnd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Sync {
    /// What the client has; conversations not named are new to it. At most 512 a frame.
    #[serde(default)]
    pub cursors: Vec<Position>,
    /// Another Sync frame with more cursors follows; the answer comes after the last.
    #[serde(default)]
    pub more: bool,
}

/// Changed conversations, the most recently changed first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct SyncPage {
    /// At most 64 KiB of them a frame.
    pub conversations: Vec<ConversationSummary>,
}

/// The sync is complete: everything up to each summary's head was sent or named in a Gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct SyncEnd {
    /// How many conversations had changed.
    pub changed: u32,
}

/// These entries were too many to send; history has them when someone scrolls there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Gap {
    /// Which log.
    pub conversation: ConversationId,
    /// First entry left out.
    pub from: u64,
    /// Last entry left out.
    pub to: u64,
}

/// A user was erased: what they wrote up to this entry has become tombstones. Not critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Erased {
    /// Which log.
    pub conversation: ConversationId,
    /// The entry that says so; entries before it may have changed.
    pub seq: u64,
}

/// A page of history. At most one of `before`, `after`, `around`; none: the newest.
/// Answered by Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Fetch {
    /// Which log.
    pub conversation: ConversationId,
    /// Entries below this seq.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub before: Option<u64>,
    /// Entries above this seq.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub after: Option<u64>,
    /// Entries on both sides of this seq, itself included.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub around: Option<u64>,
    /// 1 to 200; absent: 20.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub limit: Option<u32>,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Page {
    /// Which log.
    pub conversation: ConversationId,
    /// Consecutive entries, newest first.
    pub entries: Vec<Entry>,
    /// First entry this member may see.
    pub first_seq: u64,
    /// Newest entry this member may see.
    pub head: u64,
}
