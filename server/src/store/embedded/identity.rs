//! Whose files these are: the id of a store, and the salt that each of its commits carries. Both are in
//! `store.json` and, a second time, in the commit count.

use serde::{Deserialize, Serialize};
use tern_protocol::StoreId;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Format of the whole directory; raised by a change that older versions must not touch.
pub(super) const FORMAT: u32 = 2;

/// A random number that stays with a store for life. A file of another store has another one, and nobody
/// who sends messages knows it, so no text can pass for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Salt([u8; 8]);

/// Id and salt of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Clients key what they know by it.
    pub(super) store_id: StoreId,
    pub(super) salt: Salt,
}

/// Why `store.json` says nothing.
pub(super) enum Unreadable {
    /// Another version of the program wrote it.
    Format(u32),
    /// What is wrong with it.
    Damaged(&'static str),
}

/// What `store.json` holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    store_id: StoreId,
    /// In hex.
    salt: String,
    /// Hash of the other fields, in hex: an id changed by damage would be taken for a new store.
    check: String,
}

impl Stored {
    fn identity(&self) -> Option<Identity> {
        let salt = data_encoding::HEXLOWER.decode(self.salt.as_bytes()).ok()?.try_into().ok()?;
        let identity = Identity { store_id: self.store_id, salt: Salt(salt) };
        (self.check == identity.check()).then_some(identity)
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Identity {
    /// Bytes it takes in the commit count.
    pub(super) const BYTES: usize = 24;

    /// That of a new store.
    pub(super) fn new() -> Self {
        let random = *Uuid::new_v4().as_bytes();
        let mut salt = [0; 8];
        salt.copy_from_slice(&random[8..]);
        Self { store_id: StoreId::from_uuid(Uuid::new_v4()), salt: Salt(salt) }
    }

    /// The same store to itself, a new one to its clients.
    pub(super) fn renewed(salt: Salt) -> Self {
        Self { store_id: StoreId::from_uuid(Uuid::new_v4()), salt }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(self.store_id.as_bytes());
        bytes[16..].copy_from_slice(&self.salt.0);
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (id, salt) = bytes.split_at(16);
        Self {
            store_id: StoreId::from_bytes(id.try_into().expect("16 bytes")),
            salt: Salt(salt.try_into().expect("24 bytes less 16")),
        }
    }

    pub(super) fn to_json(self) -> String {
        let stored = Stored {
            format: FORMAT,
            store_id: self.store_id,
            salt: data_encoding::HEXLOWER.encode(&self.salt.0),
            check: self.check(),
        };
        serde_json::to_string(&stored).expect("strings and numbers are JSON")
    }

    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, Unreadable> {
        let unreadable = "store.json cannot be read";
        let format = match serde_json::from_slice(bytes) {
            Ok(FormatOnly { format }) => format,
            Err(_) => return Err(Unreadable::Damaged(unreadable)),
        };
        // A check sum of this format over another number is damage to the number.
        match serde_json::from_slice::<Stored>(bytes).ok().and_then(|stored| stored.identity()) {
            Some(identity) if format == FORMAT => Ok(identity),
            None if format != FORMAT => Err(Unreadable::Format(format)),
            _ => Err(Unreadable::Damaged("store.json does not match its check sum")),
        }
    }

    fn check(self) -> String {
        let salt = data_encoding::HEXLOWER.encode(&self.salt.0);
        format!("{:016x}", xxh3_64(format!("{FORMAT} {} {salt}", self.store_id).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_as_it_was_written() {
        let identity = Identity::new();
        assert_eq!(Identity::from_bytes(identity.to_bytes()), identity);
        assert_eq!(Identity::from_json(identity.to_json().as_bytes()).ok(), Some(identity));
        assert_ne!(Identity::new().salt, identity.salt);
        assert_eq!(Identity::renewed(identity.salt).salt, identity.salt);
    }
}
