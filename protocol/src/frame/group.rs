//! Frames that change conversations and list them.

use serde::{Deserialize, Serialize};

use crate::id::{ConversationId, TempId, UserId};
use crate::number::whole_or_none;
use crate::role::Role;

/// What kind of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConversationKind {
    /// 1-on-1.
    Pair,
    /// A group.
    Group,
}

/// A conversation as somebody who is or was in it sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct ConversationSummary {
    /// Which.
    pub conversation: ConversationId,
    /// 1-on-1 or group.
    pub kind: ConversationKind,
    /// Name of the group; of a pair, the display name of the other user.
    pub name: Option<String>,
    /// The other user of a pair.
    pub peer: Option<UserId>,
    /// Newest entry this member may see.
    pub head: u64,
    /// Messages in the log up to `head`.
    pub head_messages: u64,
    /// First entry this member may see.
    pub first_seq: u64,
    /// The user has read up to here; their own messages count as read.
    pub read_seq: u64,
    /// Messages in the log up to `read_seq`.
    pub read_messages: u64,
    /// Messages after `read_seq`: `head_messages` − `read_messages`.
    pub unread: u64,
    /// Time of the newest entry in Unix milliseconds.
    pub last_time_ms: u64,
    /// The user's role; absent: the user is no longer a member, and their history ends at `head`.
    pub role: Option<Role>,
    /// Who put the user in it; absent once they have written in it or kept it, and of what they made themselves.
    pub added_by: Option<UserId>,
}

/// Make a group of these users and the sender. Its id derives from the sender and `temp_id`.
/// Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct CreateGroup {
    /// 1 to 128 bytes of UTF-8.
    pub name: String,
    /// Members besides the sender; at most 100 with the sender.
    #[serde(default)]
    pub members: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Add members (admins and owners). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct AddMembers {
    /// The group.
    pub conversation: ConversationId,
    /// Who joins; members already there are left as they are, but somebody must be new.
    pub users: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Remove members (admins remove members, owners anyone). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct RemoveMembers {
    /// The group.
    pub conversation: ConversationId,
    /// Who goes.
    pub users: Vec<UserId>,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Leave a group. The last owner's leaving promotes the oldest admin, else the oldest member.
/// Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct LeaveGroup {
    /// The group.
    pub conversation: ConversationId,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Rename a group (admins and owners). Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct RenameGroup {
    /// The group.
    pub conversation: ConversationId,
    /// 1 to 128 bytes of UTF-8.
    pub name: String,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// Change a member's role (owners). The last owner cannot step down. Answered by SendAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct SetRole {
    /// The group.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// The new role.
    pub role: Role,
    /// The same for every retry.
    pub temp_id: TempId,
}

/// The user's conversations, also those they have left as long as they may read some of them, most recently
/// changed first. Answered by ConversationPage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct ListConversations {
    /// `next` of the page before; absent: from the start.
    #[serde(default)]
    pub cursor: Option<String>,
    /// 1 to 200; absent: 20.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub limit: Option<u32>,
}

/// A page of the user's conversations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct ConversationPage {
    /// Most recently changed first.
    pub conversations: Vec<ConversationSummary>,
    /// Cursor of the next page; absent: this was the last.
    pub next: Option<String>,
}

/// The members of a conversation. Answered by MemberList.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct ListMembers {
    /// Which.
    pub conversation: ConversationId,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct MemberInfo {
    /// Who.
    pub user: UserId,
    /// Their display name, if known.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
}

/// The members of a conversation, in the order they joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct MemberList {
    /// Which.
    pub conversation: ConversationId,
    /// At most 100.
    pub members: Vec<MemberInfo>,
}
