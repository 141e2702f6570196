//! The entries of a conversation's log.

use serde::{Deserialize, Serialize};

use crate::body::EntryBody;
use crate::id::{EntryId, TempId, UserId};

/// One entry of a log: a message or a change of the conversation itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Entry {
    /// Place in the conversation: dense, from 1.
    pub seq: u64,
    /// Id given by the server.
    pub id: EntryId,
    /// Server time in Unix milliseconds; never decreases within a conversation. For display only.
    pub time_ms: u64,
    /// Who did it.
    pub sender: UserId,
    /// The sender's display name at that time, if their token had one.
    #[serde(default)]
    pub sender_name: Option<String>,
    /// The sender's `temp_id`, by which the sender's other devices recognise what they have pending.
    #[serde(default)]
    pub temp_id: Option<TempId>,
    /// Messages in the log up to and including this entry, erased ones too: what is unread is the
    /// difference of two such numbers.
    pub messages: u64,
    /// What was done.
    pub body: EntryBody,
}
