//! Frames of the session itself: opening, tokens, keeping it alive, errors and the end.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::code::Code;
use crate::id::{ConversationId, DeviceId, StoreId, TempId, UserId};
use crate::limits::Limits;
use crate::number::{whole, whole_or_none};

/// A token as text. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// First frame of a session: who is there. Answered by Welcome, or by Close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Hello {
    /// JWT of the user.
    pub token: Token,
    /// The device; the server makes one up where it is absent.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Name and version of the client, for the server's logs; at most 128 bytes are kept.
    #[serde(default)]
    pub agent: Option<String>,
    /// Optional abilities of the client, as a bit set; none are defined yet.
    #[serde(default, deserialize_with = "whole")]
    pub features: u64,
}

/// The session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Welcome {
    /// Number of the session on this node, as it stands in the server's logs.
    pub session: u64,
    /// The user of the token.
    pub user: UserId,
    /// Their display name, from the token's `name` claim.
    pub name: Option<String>,
    /// The device of this session.
    pub device: DeviceId,
    /// The store this server speaks for. Saved state of another store does not apply here.
    pub store_id: StoreId,
    /// Name and version of the server.
    pub server: String,
    /// Optional abilities of the server, as a bit set; none are defined yet.
    pub features: u64,
    /// Server time in Unix milliseconds.
    pub time_ms: u64,
    /// When the token expires, in Unix milliseconds.
    pub token_expires_ms: u64,
    /// The limits of this server.
    pub limits: Limits,
}

/// A new token for the same user on the live session. Answered by Reauthed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Reauth {
    /// JWT of the same user.
    pub token: Token,
}

/// The new token counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Reauthed {
    /// When it expires, in Unix milliseconds.
    pub token_expires_ms: u64,
}

/// The token of this session expires soon: Reauth, or the session will be closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct TokenExpiring {
    /// When, in Unix milliseconds.
    pub token_expires_ms: u64,
}

/// Are you there? Answered by Pong with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Ping {
    /// Comes back in the Pong.
    #[serde(default, deserialize_with = "whole")]
    pub nonce: u64,
}

/// Answer to Ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Pong {
    /// The number of the Ping.
    #[serde(default, deserialize_with = "whole")]
    pub nonce: u64,
}

/// This node is going away. Open a new session, catch up, then close this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct GoAway {
    /// The session is closed after this many milliseconds.
    pub deadline_ms: u32,
    /// Wait a random time up to this many milliseconds before moving, so that not all move at once.
    pub spread_ms: u32,
    /// Where to go; absent: the address used before.
    pub target: Option<String>,
}

/// A request was refused. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Error {
    /// Why; the number says what to do.
    pub code: Code,
    /// The same request may succeed later.
    pub temporary: bool,
    /// Wait at least this many milliseconds before the retry.
    pub retry_after_ms: Option<u32>,
    /// For people.
    pub detail: String,
    /// The change that was refused, where the request was one.
    pub temp_id: Option<TempId>,
    /// The conversation it is about, where it is about one.
    pub conversation: Option<ConversationId>,
}

/// Last frame of a session, with the code that the transport's own close carries as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Close {
    /// Why; the number says what to do.
    #[serde(default = "normal", deserialize_with = "code")]
    pub code: Code,
    /// For people; at most 120 bytes.
    #[serde(default)]
    pub reason: String,
    /// Wait at least this many milliseconds before coming back.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub retry_after_ms: Option<u32>,
    /// Where to go instead.
    #[serde(default)]
    pub target: Option<String>,
}

fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
    whole(deserializer).map(Code)
}

fn normal() -> Code {
    Code::NORMAL
}
