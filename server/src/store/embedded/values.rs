//! The layout of values: a version byte, then postcard. A version this program does not know is
//! refused, never guessed at.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationKind, Entry, UserId};

use super::identity::Salt;
use super::keys;
use crate::store::{Conversation, Intent, Kept, Marker, Member, STORED_VERSION, StoreError};

/// Version of every value written by this program.
const VERSION: u8 = STORED_VERSION;

/// One commit: its number, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) number: u64,
    pub(super) salt: Salt,
}

impl Commit {
    /// Reads a commit.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode("a commit number", bytes)
    }
}

/// Head of a log: newest seq, the messages up to it and its time in Unix milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) messages: u64,
    pub(super) time_ms: u64,
}

/// A conversation without its head.
#[derive(Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) kind: ConversationKind,
    pub(super) name: Option<String>,
    pub(super) members: Vec<Member>,
    pub(super) blocked_by: Vec<UserId>,
}

impl Shape {
    /// All of a state but its head.
    pub(super) fn of(state: &Conversation) -> Self {
        Self {
            kind: state.kind,
            name: state.name.clone(),
            members: state.members.clone(),
            blocked_by: state.blocked_by.clone(),
        }
    }
}

/// The inbox row of a member.
pub(super) fn member_row(first_seq: u64) -> Bytes {
    encode(&Row { first_seq, until: None })
}

/// What a user may see of a conversation. The newest seq of a member's row is the head of the log,
/// so that a message need not write to each member's inbox.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) first_seq: u64,
    /// The last entry a former member may see.
    pub(super) until: Option<Head>,
}

#[derive(Serialize, Deserialize)]
struct StoredMarker {
    seq: u64,
    digest: [u8; 16],
}

/// The state of a conversation from its two values.
pub(super) fn conversation(head: Head, shape: Shape) -> Conversation {
    let Shape { kind, name, members, blocked_by } = shape;
    let Head { seq, messages, time_ms } = head;
    Conversation { kind, name, head: seq, messages, last_time_ms: time_ms, members, blocked_by }
}

/// A value in its stored form.
pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_extend(value, vec![VERSION]).expect("stored types have no unsized sequences").into()
}

/// Reads a value; `what` names it in the error.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(StoreError::Corrupt(format!("{what} has bytes too many"))),
            Err(error) => Err(StoreError::Corrupt(format!("{what} cannot be decoded: {error}"))),
        },
        Some((&version, _)) => Err(StoreError::Corrupt(format!(
            "{what} has version {version}; this program reads version {VERSION}: use the newer one that wrote it"
        ))),
        None => Err(StoreError::Corrupt(format!("{what} is empty"))),
    }
}

/// What is left of a log; without a value all of it is.
pub(super) fn decode_kept(bytes: Option<&[u8]>) -> Result<Kept, StoreError> {
    bytes.map_or(Ok(Kept::default()), |bytes| decode("the start of a log", bytes))
}

/// An entry, and its encoded bytes without the version.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<(Entry, usize), StoreError> {
    Ok((decode("an entry", bytes)?, bytes.len().saturating_sub(1)))
}

/// A marker in its stored form.
pub(super) fn encode_marker(seq: u64, digest: [u8; 16]) -> Bytes {
    encode(&StoredMarker { seq, digest })
}

/// Reads a marker.
pub(super) fn decode_marker(bytes: &[u8]) -> Result<Marker, StoreError> {
    let StoredMarker { seq, digest } = decode("a dedupe marker", bytes)?;
    Ok(Marker { seq, digest })
}

/// What of an intent is not in its key.
#[derive(Serialize, Deserialize)]
struct StoredIntent {
    to_seq: u64,
    sender: Option<UserId>,
}

/// An intent in its stored form, without what its key says.
pub(super) fn encode_intent(intent: &Intent) -> Bytes {
    encode(&StoredIntent { to_seq: intent.to_seq, sender: intent.sender.clone() })
}

/// The intent of a key and its value.
pub(super) fn decode_intent(key: &[u8], bytes: &[u8]) -> Result<Intent, StoreError> {
    let (time_ms, conversation, from_seq) = keys::parse_intent(key)?;
    let StoredIntent { to_seq, sender } = decode("a push intent", bytes)?;
    Ok(Intent { conversation, from_seq, to_seq, time_ms, sender })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_newer_version_is_refused_by_name() {
        let mut bytes = encode(&7_u64).to_vec();
        assert_eq!(decode::<u64>("a number", &bytes).unwrap(), 7);
        bytes[0] = 2;
        let error = decode::<u64>("a number", &bytes).unwrap_err().to_string();
        assert!(error.contains("a number has version 2"), "{error}");
    }

    #[test]
    fn a_value_with_bytes_missing_or_too_many_is_refused() {
        let bytes = encode(&(7_u64, [1_u8; 16]));
        assert!(decode::<(u64, [u8; 16])>("a pair", &bytes[..bytes.len() - 1]).is_err());
        assert!(decode::<u64>("a number", &bytes).is_err());
        assert!(decode::<u64>("a number", &[]).is_err());
    }
}
