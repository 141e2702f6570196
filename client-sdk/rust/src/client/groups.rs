//! Changes of groups. Like messages they are retried under one `temp_id` until they are durable
//! or refused, in order with the messages of the same conversation; they do not survive a restart.

use tern_protocol::{ConversationId, Role, UserId};

use super::Client;
use crate::command::Ack;
use crate::error::SendError;
use crate::session::Change;

impl Client {
    /// Makes a group of these users and the own one, who becomes its owner. The ack names it.
    ///
    /// # Errors
    /// Refused (a name of 0 or more than 128 bytes, more than 100 members), or the client has stopped.
    pub async fn create_group(
        &self,
        name: impl Into<String>,
        members: Vec<UserId>,
    ) -> Result<Ack, SendError> {
        self.change(Change::CreateGroup { name: name.into(), members }).await
    }

    /// Adds members to a group (admins and owners).
    ///
    /// # Errors
    /// Refused, or the client has stopped.
    pub async fn add_members(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Ack, SendError> {
        self.change(Change::AddMembers { conversation, users }).await
    }

    /// Removes members from a group (admins remove members, owners anyone).
    ///
    /// # Errors
    /// Refused, or the client has stopped.
    pub async fn remove_members(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Ack, SendError> {
        self.change(Change::RemoveMembers { conversation, users }).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// Refused, or the client has stopped.
    pub async fn leave(&self, conversation: ConversationId) -> Result<Ack, SendError> {
        self.change(Change::Leave { conversation }).await
    }

    /// Renames a group (admins and owners); 1 to 128 bytes.
    ///
    /// # Errors
    /// Refused, or the client has stopped.
    pub async fn rename(
        &self,
        conversation: ConversationId,
        name: impl Into<String>,
    ) -> Result<Ack, SendError> {
        self.change(Change::Rename { conversation, name: name.into() }).await
    }

    /// Changes a member's role (owners).
    ///
    /// # Errors
    /// Refused, or the client has stopped.
    pub async fn set_role(
        &self,
        conversation: ConversationId,
        user: UserId,
        role: Role,
    ) -> Result<Ack, SendError> {
        self.change(Change::SetRole { conversation, user, role }).await
    }
}
