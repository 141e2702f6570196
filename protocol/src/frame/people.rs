//! Frames by which a user decides who reaches them: blocks, and groups that others put them in.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::{ConversationId, TempId, UserId};

/// Leave many groups at once, each as by LeaveGroup. Answered by GroupsLeft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct LeaveGroups {
    /// Which; at most `leave_groups` of them, each once.
    pub conversations: Vec<ConversationId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// What became of one group of a LeaveGroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct GroupLeft {
    /// Which.
    pub conversation: ConversationId,
    /// Why the user is still in it; absent: they have left.
    pub code: Option<Code>,
}

/// Answer to LeaveGroups, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct GroupsLeft {
    /// One for each that was asked for.
    pub groups: Vec<GroupLeft>,
}

/// Stay in a group into which somebody else has put the user, without writing in it: it does not count any more
/// towards the groups that others may put them in. Answered by GroupKept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct KeepGroup {
    /// Which.
    pub conversation: ConversationId,
}

/// The user has accepted the group. To all their sessions; the answer to KeepGroup in the one that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct GroupKept {
    /// Which.
    pub conversation: ConversationId,
}

/// Block a user: between the two no messages in their 1-on-1 conversation, nobody of the two puts the other
/// in a group, and neither sees whether the other is there. Answered by BlockChanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Block {
    /// Whom. They are not told.
    pub user: UserId,
}

/// Take a block back. Answered by BlockChanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Unblock {
    /// Whose.
    pub user: UserId,
}

/// How it is with a block now. To all sessions of the user; the answer in the one that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct BlockChanged {
    /// About whom.
    pub user: UserId,
    /// They are blocked.
    pub blocked: bool,
}

/// Whom does the user block? Answered by BlockList.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct ListBlocks {
    /// `next` of the page before; absent: from the start.
    #[serde(default)]
    pub after: Option<UserId>,
}

/// Somebody whom the user blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct BlockedUser {
    /// Who.
    pub user: UserId,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// A page of the user's blocks, in the order of the bytes of the ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct BlockList {
    /// At most 200.
    pub users: Vec<BlockedUser>,
    /// `after` of the next page; absent: this was the last.
    pub next: Option<UserId>,
}
