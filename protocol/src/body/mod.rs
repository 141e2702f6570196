//! What an entry says. Bodies carry their kind and length, so that a reader lives with kinds that it
//! does not know.

use crate::data::Data;
use crate::id::UserId;
use crate::role::Role;

mod binary;
mod fields;
mod form;
mod json;

/// The number that no kind is given: an [`EntryBody::Opaque`] of it was read from JSON, where kinds have
/// names, and its bytes are the JSON text of the body.
pub const KIND_NAMED: u32 = u32::MAX;
/// The number that stands for an entry whose kind nobody knows any more, since a damaged store lost it: an
/// [`EntryBody::Opaque`] of it keeps the seq. No kind is given it.
pub const KIND_LOST: u32 = u32::MAX - 1;

/// What an entry says. Append-only: a kind never changes and never goes away; it may get more fields at
/// its end, which readers of earlier versions ignore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// Somebody wrote.
    Message {
        /// UTF-8 text; empty only beside `data`.
        text: String,
        /// What the application put beside the text; at most 16 KiB together with it.
        data: Option<Data>,
        /// The earlier entry of the same log that this one answers.
        reply_to: Option<u64>,
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
    /// A tombstone: here was a message whose author was erased.
    Erased,
    /// Something of a later version. It has its place in the log like any other entry.
    Opaque {
        /// The number of its kind, or [`KIND_NAMED`].
        kind: u32,
        /// Its fields as they came.
        bytes: Vec<u8>,
    },
}

impl EntryBody {
    /// A message of text only.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Message { text: text.into(), data: None, reply_to: None }
    }

    /// Somebody wrote it: such entries count as unread. Changes of the conversation itself do not, nor do
    /// tombstones and what this version does not know.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }

    /// Number of its kind on the wire.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Message { .. } => 0,
            Self::Created { .. } => 1,
            Self::Added { .. } => 2,
            Self::Removed { .. } => 3,
            Self::Left { .. } => 4,
            Self::Renamed { .. } => 5,
            Self::RoleChanged { .. } => 6,
            Self::Erased => 7,
            Self::Opaque { kind, .. } => *kind,
        }
    }
}
