//! The binary form of a body: varint kind · varint length · the fields. Whoever does not know the kind keeps
//! the bytes; whoever knows it ignores what comes after the fields it knows.

use std::fmt;

use postcard::ser_flavors::Size;
use serde::de::{self, DeserializeOwned, DeserializeSeed, SeqAccess, Visitor};
use serde::ser::{Error, SerializeTuple};
use serde::{Deserializer, Serialize, Serializer};

use super::EntryBody;
use super::fields::{self, Source};

pub(super) fn serialize<S: Serializer>(body: &EntryBody, serializer: S) -> Result<S::Ok, S::Error> {
    let kind = body.kind();
    match body {
        EntryBody::Message { text, data, reply_to } => known(serializer, kind, &(text, data, reply_to)),
        EntryBody::Created { name, members } => known(serializer, kind, &(name, members)),
        EntryBody::Added { users } | EntryBody::Removed { users } => known(serializer, kind, users),
        EntryBody::Left { user } => known(serializer, kind, user),
        EntryBody::Renamed { name } => known(serializer, kind, name),
        EntryBody::RoleChanged { user, role } => known(serializer, kind, &(user, role)),
        EntryBody::Erased => known(serializer, kind, &()),
        EntryBody::Opaque { bytes, .. } => {
            let mut parts = serializer.serialize_tuple(2)?;
            parts.serialize_element(&kind)?;
            parts.serialize_element(&Bytes(bytes))?;
            parts.end()
        }
    }
}

/// The length is found by walking over the fields, so that nothing is encoded twice.
fn known<S: Serializer>(serializer: S, kind: u32, fields: &impl Serialize) -> Result<S::Ok, S::Error> {
    let length = postcard::serialize_with_flavor(fields, Size::default()).map_err(S::Error::custom)?;
    let mut parts = serializer.serialize_tuple(3)?;
    parts.serialize_element(&kind)?;
    parts.serialize_element(&length)?;
    parts.serialize_element(fields)?;
    parts.end()
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntryBody, D::Error> {
    deserializer.deserialize_tuple(2, KindAndFields)
}

/// A body of these bytes.
pub(super) fn read(kind: u32, bytes: &[u8]) -> Result<EntryBody, postcard::Error> {
    fields::read(kind, bytes).unwrap_or_else(|| Ok(EntryBody::Opaque { kind, bytes: bytes.to_vec() }))
}

impl Source for &[u8] {
    type Error = postcard::Error;

    fn fields<T: DeserializeOwned>(self) -> Result<T, postcard::Error> {
        postcard::take_from_bytes(self).map(|(fields, _later)| fields)
    }
}

struct KindAndFields;

impl<'de> Visitor<'de> for KindAndFields {
    type Value = EntryBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a body: its kind and its fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<EntryBody, A::Error> {
        let missing = |index| de::Error::invalid_length(index, &self);
        let kind = parts.next_element()?.ok_or_else(|| missing(0))?;
        parts.next_element_seed(OfKind(kind))?.ok_or_else(|| missing(1))
    }
}

struct OfKind(u32);

impl<'de> DeserializeSeed<'de> for OfKind {
    type Value = EntryBody;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EntryBody, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for OfKind {
    type Value = EntryBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a body")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<EntryBody, E> {
        read(self.0, bytes).map_err(E::custom)
    }
}
