//! The Tern wire protocol: frames, codec, close codes, limits and ids.
//!
//! This crate does no I/O, reads no clock and is not async. The server, the Rust client and the
//! test tools all speak through it; `docs/protocol.md` is the same protocol in prose.

mod about;
mod body;
mod code;
mod codec;
mod data;
mod entry;
mod envelope;
mod frame;
mod id;
mod json;
mod limits;
pub mod number;
pub mod resume;
mod role;
#[cfg(feature = "openapi")]
mod schema;
mod surrogate;
mod text;
mod varint;

pub use about::About;
pub use body::{EntryBody, KIND_LOST, KIND_NAMED};
pub use code::{Class, Code};
pub use codec::{Decoder, Incoming, encode, encode_deliver, encode_into};
pub use data::{Data, DataError};
pub use entry::Entry;
pub use envelope::{DecodeError, Envelope};
pub use frame::*;
pub use id::{ConversationId, DeviceId, EntryId, IdError, StoreId, Target, TempId, UserId};
pub use json::{from_json, to_json};
pub use limits::*;
pub use role::Role;
pub use surrogate::without_lone_surrogates;
pub use text::{NameError, TextFault, check_name, name_of};

/// ALPN of native QUIC; its number is the major version of the protocol.
pub const ALPN: &[u8] = b"tern/1";
/// WebSocket and WebTransport subprotocol with the binary codec.
pub const SUBPROTOCOL_BINARY: &str = "tern.v1";
/// WebSocket subprotocol with JSON text frames; also what no subprotocol at all means.
pub const SUBPROTOCOL_JSON: &str = "tern.v1.json";
/// Path of the WebSocket endpoint.
pub const CONNECT_PATH: &str = "/v1/connect";

/// First byte of every server-opened QUIC stream: what the frames on it are for.
///
/// Streams are only lanes: a frame means the same on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Live entries of one conversation; 16 bytes of conversation id follow the kind.
    Conversation = 1,
    /// Live entries of the conversations that have no stream of their own.
    Inbox = 2,
    /// Sync pages, catch-up entries and history pages.
    Backlog = 3,
}

impl StreamKind {
    /// Reads the kind byte; `None` for a kind this version does not know (stop reading that stream).
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Conversation),
            2 => Some(Self::Inbox),
            3 => Some(Self::Backlog),
            _ => None,
        }
    }
}
