//! Events that leave the system, at least once. Every implementation passes the suite in `contract.rs`.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, Data, EntryId, UserId};

#[cfg(test)]
mod contract;
pub mod file;
pub mod memory;

/// Tell one user, who has not confirmed it on any device, of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEvent {
    /// The same each time this event is sent: `<entry id>:<recipient>`. For dedupe.
    pub event_id: String,
    /// Who is to be told.
    pub recipient_id: UserId,
    /// Where it was written.
    pub conversation: ConversationId,
    /// Which entry.
    pub seq: u64,
    /// Id of the entry.
    pub entry_id: EntryId,
    /// Who wrote it.
    pub sender_id: UserId,
    /// Their display name.
    pub sender_name: Option<String>,
    /// Name of the group.
    pub group_name: Option<String>,
    /// The first 120 characters of the text.
    pub preview: String,
    /// What the application put beside the text.
    pub data: Option<Data>,
    /// The earlier entry that it answers.
    pub reply_to: Option<u64>,
    /// Time of the entry in Unix milliseconds.
    pub time_ms: u64,
}

/// Why events could not leave. They are tried again.
#[derive(Debug, thiserror::Error)]
#[error("events cannot leave: {0}")]
pub struct EventsError(pub String);

/// Where events go.
#[async_trait]
pub trait Events: Send + Sync {
    /// Returns when all events are safe outside (in a file: synced; at a broker: acknowledged by it).
    /// After an error some of them may have left.
    async fn publish(&self, events: &[PushEvent]) -> Result<(), EventsError>;

    /// Whether events can leave now, as far as it can be told without any.
    async fn health(&self) -> Result<(), EventsError>;
}
