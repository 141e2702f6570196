//! What outlives a client: the promises of the trait, and the records it keeps.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, Data, DeviceId, Position, StoreId, Target, TempId, UserId};

mod file;

pub use file::FilePersistence;

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Native QUIC.
    Quic,
    /// A WebTransport session over HTTP/3.
    WebTransport,
    /// WebSocket over TCP.
    WebSocket,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::WebTransport => "WebTransport",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// A message that was accepted and is not resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSend {
    /// Its id, the same for every attempt.
    pub temp_id: TempId,
    /// User or conversation.
    pub to: Target,
    /// The text.
    pub text: String,
    /// What is beside the text.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub data: Option<Data>,
    /// The entry that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<u64>,
    /// When it was accepted, in Unix milliseconds.
    pub created_ms: u64,
}

/// Data as the text it is: records that are told apart by a field of theirs cannot hold any JSON value.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use tern_protocol::Data;

    #[expect(clippy::ref_option, reason = "serde asks for this form")]
    pub(super) fn serialize<S: Serializer>(data: &Option<Data>, serializer: S) -> Result<S::Ok, S::Error> {
        data.as_ref().map(Data::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Data::new(&text).map_err(de::Error::custom)).transpose()
    }
}

/// The transport that won the last race.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTransport {
    /// The winner.
    pub transport: Transport,
    /// Why the preferred one lost, if the winner is the fallback.
    pub cause: Option<String>,
    /// When, in Unix milliseconds.
    pub time_ms: u64,
}

/// Everything that is kept for one user on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// Whose state it is.
    pub user: Option<UserId>,
    /// The store that the cursors belong to.
    pub store_id: Option<StoreId>,
    /// The device.
    pub device: Option<DeviceId>,
    /// The seq of the last confirmed entry of each conversation.
    pub cursors: BTreeMap<ConversationId, u64>,
    /// Unresolved messages in the order they were accepted.
    pub sends: Vec<SavedSend>,
    /// The transport that won the last race.
    pub transport: Option<SavedTransport>,
    /// Damage was found: what is lost and where the damaged original is kept, for people.
    /// Set by `load`, never saved.
    pub damage: Option<String>,
}

/// One change of the saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum SavedChange {
    /// The device of this state.
    Device {
        /// It.
        device: DeviceId,
    },
    /// Whose state it is and which store its cursors belong to. Cursors saved before are dropped
    /// if the store differs.
    Store {
        /// The user.
        user: UserId,
        /// The store.
        store_id: StoreId,
    },
    /// The last confirmed entry of a conversation.
    Cursor(Position),
    /// A conversation's cursor does not hold any more.
    CursorDropped {
        /// Which.
        conversation: ConversationId,
    },
    /// A message was accepted.
    Send(SavedSend),
    /// A message is durable at the server, or failed for good.
    Resolved {
        /// Which.
        temp_id: TempId,
    },
    /// A race was won.
    Transport(SavedTransport),
}

impl SavedState {
    /// Applies one change: what `load` gives after `save` returned.
    pub fn apply(&mut self, change: SavedChange) {
        match change {
            SavedChange::Device { device } => self.device = Some(device),
            SavedChange::Store { user, store_id } => {
                if self.store_id != Some(store_id) {
                    self.cursors.clear();
                }
                self.user = Some(user);
                self.store_id = Some(store_id);
            }
            SavedChange::Cursor(position) => {
                self.cursors.insert(position.conversation, position.seq);
            }
            SavedChange::CursorDropped { conversation } => {
                self.cursors.remove(&conversation);
            }
            // Saved again, it keeps its place.
            SavedChange::Send(send) if self.sends.iter().any(|old| old.temp_id == send.temp_id) => {}
            SavedChange::Send(send) => self.sends.push(send),
            SavedChange::Resolved { temp_id } => self.sends.retain(|send| send.temp_id != temp_id),
            SavedChange::Transport(transport) => self.transport = Some(transport),
        }
    }
}

/// Why state could not be loaded or saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PersistenceError(pub String);

/// Keeps the state of one user on one device over restarts.
///
/// One client uses it at a time. It need not be fast: calls come one after the other, with
/// everything that gathered meanwhile in one batch.
#[async_trait]
pub trait Persistence: Send + Sync {
    /// Everything saved so far; the default state if there is nothing. Called once, first.
    ///
    /// Damaged state is not an error: what can be read is given and `damage` says the rest.
    async fn load(&self) -> Result<SavedState, PersistenceError>;

    /// Applies changes in order. When it returns `Ok` all of them are durable: the client then
    /// counts a message as accepted and an entry as confirmed. After `Err` any number of them,
    /// from the first on, may have been applied; the client saves all of them again later.
    async fn save(&self, changes: &[SavedChange]) -> Result<(), PersistenceError>;
}
