//! Frames about who is there and who is typing.

use serde::{Deserialize, Serialize};

use crate::id::{ConversationId, Target, UserId};

/// Tell me about the presence of these users, and of these only. Answered by Presence with all
/// of them; changes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Watch {
    /// At most 200; an empty list ends all watching.
    pub users: Vec<UserId>,
}

/// Whether a user is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PresenceState {
    /// Not known, or not visible: the two users share no conversation in which the other has shown themselves,
    /// or one of them blocks the other.
    Unknown,
    /// At least one session.
    Online,
    /// No session.
    Offline,
}

/// Presence of one user, over all their devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct UserPresence {
    /// Who.
    pub user: UserId,
    /// There or not.
    pub state: PresenceState,
    /// When they were last seen, in Unix milliseconds; only with `offline`.
    pub last_seen_ms: Option<u64>,
}

/// Presence of watched users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Presence {
    /// Those that changed, or all of them in the answer to Watch.
    pub users: Vec<UserPresence>,
}

/// The user is typing. A datagram where there are datagrams; may be lost; never answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Typing {
    /// User or conversation.
    pub to: Target,
}

/// A member is typing. Show it for some 5 s unless it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct UserTyping {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
}
