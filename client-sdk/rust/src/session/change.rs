//! The changes a client can make to a conversation, and the frames that ask for them.

use tern_protocol::{
    AddMembers, Code, ConversationId, CreateGroup, Frame, GROUP_MEMBERS_MAX, LeaveGroup, NAME_BYTES_MAX,
    RemoveMembers, RenameGroup, Role, Send, SetRole, Target, TempId, UserId,
};

use crate::draft::Draft;
use crate::error::SendError;

/// A change of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Message { to: Target, draft: Draft },
    CreateGroup { name: String, members: Vec<UserId> },
    AddMembers { conversation: ConversationId, users: Vec<UserId> },
    RemoveMembers { conversation: ConversationId, users: Vec<UserId> },
    Leave { conversation: ConversationId },
    Rename { conversation: ConversationId, name: String },
    SetRole { conversation: ConversationId, user: UserId, role: Role },
}

impl Change {
    /// Refuses what the server would refuse by its fixed limits, before it is queued.
    pub(crate) fn check(&self) -> Result<(), SendError> {
        let (code, detail) = match self {
            Self::Message { draft, .. } => return draft.check(),
            Self::CreateGroup { name, .. } | Self::Rename { name, .. }
                if name.is_empty() || name.len() > NAME_BYTES_MAX =>
            {
                (Code::INVALID_ARGUMENT, format!("name: {} bytes, 1 to {NAME_BYTES_MAX} allowed", name.len()))
            }
            Self::CreateGroup { members: users, .. }
            | Self::AddMembers { users, .. }
            | Self::RemoveMembers { users, .. }
                if users.len() > GROUP_MEMBERS_MAX =>
            {
                (Code::GROUP_FULL, format!("group_members: {} of at most {GROUP_MEMBERS_MAX}", users.len()))
            }
            _ => return Ok(()),
        };
        Err(SendError::Refused { code, detail })
    }

    /// The conversation it changes.
    pub(crate) fn conversation(&self, me: &UserId, temp_id: &TempId) -> ConversationId {
        match self {
            Self::Message { to, .. } => to.conversation(me),
            Self::CreateGroup { .. } => ConversationId::group(me, temp_id),
            Self::AddMembers { conversation, .. }
            | Self::RemoveMembers { conversation, .. }
            | Self::Leave { conversation }
            | Self::Rename { conversation, .. }
            | Self::SetRole { conversation, .. } => *conversation,
        }
    }

    /// Where it goes, as the application said it.
    pub(crate) fn target(&self, me: &UserId, temp_id: &TempId) -> Target {
        match self {
            Self::Message { to, .. } => to.clone(),
            other => other.conversation(me, temp_id).into(),
        }
    }

    /// The frame of an attempt; `age_ms` is the time since the first one, 0 for the first.
    pub(crate) fn frame(&self, temp_id: TempId, age_ms: u64) -> Frame {
        match self.clone() {
            Self::Message { to, draft: Draft { text, data, reply_to } } => {
                Send { to, text, temp_id, age_ms: Some(age_ms), data, reply_to }.into()
            }
            Self::CreateGroup { name, members } => CreateGroup { name, members, temp_id }.into(),
            Self::AddMembers { conversation, users } => AddMembers { conversation, users, temp_id }.into(),
            Self::RemoveMembers { conversation, users } => {
                RemoveMembers { conversation, users, temp_id }.into()
            }
            Self::Leave { conversation } => LeaveGroup { conversation, temp_id }.into(),
            Self::Rename { conversation, name } => RenameGroup { conversation, name, temp_id }.into(),
            Self::SetRole { conversation, user, role } => {
                SetRole { conversation, user, role, temp_id }.into()
            }
        }
    }
}
