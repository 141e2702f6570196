//! Frames that carry messages and say how far somebody is.

use serde::{Deserialize, Serialize};

use crate::data::Data;
use crate::entry::Entry;
use crate::id::{ConversationId, EntryId, Target, TempId};
use crate::number::{age_or_none, whole, whole_or_none};

/// A message. Answered by SendAck once it is durable, or by Error.
///
/// In JSON this is the frame without a `"type"`: `{"to":"bob","text":"hi","temp_id":"<uuid>"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Send {
    /// User or conversation.
    pub to: Target,
    /// UTF-8, 1 byte to 16 KiB; may be empty or left out beside `data`.
    #[serde(default)]
    pub text: String,
    /// The same for every retry of the same message.
    pub temp_id: TempId,
    /// Milliseconds since the first attempt: 0 for the first, at most 7 days; absent counts as 24 h.
    #[serde(default, deserialize_with = "age_or_none")]
    pub age_ms: Option<u64>,
    /// What the application puts beside the text; at most 16 KiB together with it.
    #[serde(default)]
    pub data: Option<Data>,
    /// The earlier entry of the same log that this message answers.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub reply_to: Option<u64>,
}

/// The change is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct SendAck {
    /// The change that is acked.
    pub temp_id: TempId,
    /// Where it is.
    pub conversation: ConversationId,
    /// Its place in the log.
    pub seq: u64,
    /// Its id.
    pub id: EntryId,
    /// Server time of the entry in Unix milliseconds.
    pub time_ms: u64,
    /// Messages in the log up to and including it.
    pub messages: u64,
    /// It was durable before this attempt.
    pub duplicate: bool,
    /// A recipient whom this server has never seen: perhaps a typo. They get it if they ever arrive.
    pub recipient_unknown: bool,
}

/// The client gives an unresolved send up, so that later ones need not wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Abandon {
    /// User or conversation of the send.
    pub to: Target,
    /// The send given up. It may still have become durable if it was tried.
    pub temp_id: TempId,
}

/// Consecutive entries of one conversation, ascending: live or catching up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Deliver {
    /// Which log.
    pub conversation: ConversationId,
    /// At least one entry.
    pub entries: Vec<Entry>,
}

/// A position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Position {
    /// Which log.
    pub conversation: ConversationId,
    /// Up to and including this entry.
    #[serde(deserialize_with = "whole")]
    pub seq: u64,
}

/// The application has everything up to these positions (cumulative).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Ack {
    /// At most 100.
    pub positions: Vec<Position>,
}

/// The user has read up to here. Private to the user: the server tells their other sessions with
/// HaveRead. An own message says the same of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Read {
    /// Which log.
    pub conversation: ConversationId,
    /// Up to and including this entry; never goes back.
    #[serde(deserialize_with = "whole")]
    pub seq: u64,
}

/// The user has read up to here, in another session or by writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct HaveRead {
    /// Which log.
    pub conversation: ConversationId,
    /// Up to and including this entry; never goes back.
    pub seq: u64,
    /// Messages in the log up to there.
    pub messages: u64,
}

/// Entries of this conversation were dropped from the session's queue: fetch what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Lagged {
    /// Which log.
    pub conversation: ConversationId,
    /// Its newest entry known to the queue.
    pub head: u64,
}
