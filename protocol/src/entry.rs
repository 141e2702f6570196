//! The entries of a conversation's log.

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, TempId, UserId};

/// What a member may do in a group. Everyone reads and sends; admins add, remove and rename;
/// owners also change roles and remove admins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Reads and sends.
    Member,
    /// Also adds and removes members and renames the group.
    Admin,
    /// Also changes roles.
    Owner,
}

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
    /// What was done.
    pub body: EntryBody,
}

/// What an entry says. Append-only: a variant never changes and never goes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EntryBody {
    /// Somebody wrote.
    Message {
        /// UTF-8 text, 1 byte to 16 KiB; empty: a tombstone, the message was erased.
        text: String,
    },
    /// A group was created by its sender; always entry 1 of a group.
    Created {
        /// Name of the group.
        name: String,
        /// First members, the creator included.
        members: Vec<UserId>,
    },
    /// Members were added.
    Added {
        /// Who joined.
        users: Vec<UserId>,
    },
    /// Members were removed.
    Removed {
        /// Who is gone.
        users: Vec<UserId>,
    },
    /// The sender left.
    Left {
        /// Who is gone: the sender.
        user: UserId,
    },
    /// The group has a new name.
    Renamed {
        /// The new name.
        name: String,
    },
    /// A member has a new role. Also written when the last owner leaves and another is promoted.
    RoleChanged {
        /// Whose.
        user: UserId,
        /// The new role.
        role: Role,
    },
}

impl EntryBody {
    /// Messages count as unread; changes of the conversation itself and tombstones do not.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { text } if !text.is_empty())
    }
}
