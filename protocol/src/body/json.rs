//! The JSON form of a body: `{"kind":"message","text":"hi"}`, fields without a value left out.
//!
//! What this version does not know is `{"kind":"opaque","number":200,"bytes":"<base64url>"}`; a body whose
//! kind has a name that it does not know is kept as the text it came as.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::fields::{self, Source};
use super::{EntryBody, KIND_NAMED, binary};
use crate::data::{Data, compact};
use crate::id::UserId;
use crate::role::Role;

/// Name of the kind that stands for those without one.
const OPAQUE: &str = "opaque";

/// What an entry says, told by its `kind`. Later versions add kinds and fields: an entry of a kind that is
/// not known is kept at its place like any other.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = EntryBody))]
pub(super) enum Written<'a> {
    /// Somebody wrote.
    Message {
        /// UTF-8 text; empty only beside `data`.
        text: Cow<'a, str>,
        /// What the application put beside the text.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(nullable = false))]
        data: Option<Cow<'a, Data>>,
        /// The earlier entry that this one answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(nullable = false))]
        reply_to: Option<u64>,
    },
    /// The group was made.
    Created {
        /// Its name.
        name: Cow<'a, str>,
        /// First members, the creator included.
        members: Cow<'a, [UserId]>,
    },
    /// Members were added.
    Added {
        /// Who joined.
        users: Cow<'a, [UserId]>,
    },
    /// Members were removed.
    Removed {
        /// Who is gone.
        users: Cow<'a, [UserId]>,
    },
    /// The sender left.
    Left {
        /// Who is gone: the sender.
        user: Cow<'a, UserId>,
    },
    /// The group has a new name.
    Renamed {
        /// The new name.
        name: Cow<'a, str>,
    },
    /// A member has a new role.
    RoleChanged {
        /// Whose.
        user: Cow<'a, UserId>,
        /// The new role.
        role: Role,
    },
    /// Here was a message whose author was erased.
    Erased,
    /// Something that this server does not know, written by a later version.
    Opaque {
        /// The number of its kind.
        number: u32,
        /// Its fields in base64url without padding.
        bytes: String,
    },
}

impl<'a> Written<'a> {
    fn new(body: &'a EntryBody) -> Self {
        match body {
            EntryBody::Message { text, data, reply_to } => Self::Message {
                text: text.into(),
                data: data.as_ref().map(Cow::Borrowed),
                reply_to: *reply_to,
            },
            EntryBody::Created { name, members } => {
                Self::Created { name: name.into(), members: members.into() }
            }
            EntryBody::Added { users } => Self::Added { users: users.into() },
            EntryBody::Removed { users } => Self::Removed { users: users.into() },
            EntryBody::Left { user } => Self::Left { user: Cow::Borrowed(user) },
            EntryBody::Renamed { name } => Self::Renamed { name: name.into() },
            EntryBody::RoleChanged { user, role } => {
                Self::RoleChanged { user: Cow::Borrowed(user), role: *role }
            }
            EntryBody::Erased => Self::Erased,
            EntryBody::Opaque { kind, bytes } => {
                Self::Opaque { number: *kind, bytes: BASE64URL_NOPAD.encode(bytes) }
            }
        }
    }
}

pub(super) fn serialize<S: Serializer>(body: &EntryBody, serializer: S) -> Result<S::Ok, S::Error> {
    match body {
        EntryBody::Opaque { kind: KIND_NAMED, bytes } if let Some(text) = named(bytes) => {
            text.serialize(serializer)
        }
        body => Written::new(body).serialize(serializer),
    }
}

/// The JSON text of a body whose kind has a name only.
fn named(bytes: &[u8]) -> Option<&RawValue> {
    let text = std::str::from_utf8(bytes).ok()?;
    let name = serde_json::from_str::<Kind<'_>>(text).ok()?.kind;
    let is_unknown = number_of(&name).is_none() && name != OPAQUE && compact(text) == text;
    is_unknown.then(|| serde_json::from_str(text).ok()).flatten()
}

fn number_of(name: &str) -> Option<u32> {
    EntryBody::KINDS.iter().find(|kind| kind.1 == name).map(|kind| kind.0)
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a kind")]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Opaque {
    number: u32,
    bytes: String,
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntryBody, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    read(text.get()).map_err(D::Error::custom)
}

fn read(text: &str) -> serde_json::Result<EntryBody> {
    let name = serde_json::from_str::<Kind<'_>>(text)?.kind;
    if let Some(body) = number_of(&name).and_then(|number| fields::read(number, text)) {
        return body;
    }
    if name != OPAQUE {
        return Ok(EntryBody::Opaque { kind: KIND_NAMED, bytes: compact(text).into_bytes() });
    }
    let Opaque { number, bytes } = serde_json::from_str(text)?;
    let bytes = BASE64URL_NOPAD.decode(bytes.as_bytes()).map_err(serde_json::Error::custom)?;
    // Whoever wrote it did not know the number; whoever reads it may.
    binary::read(number, &bytes).map_err(serde_json::Error::custom)
}

impl Source for &str {
    type Error = serde_json::Error;

    fn fields<T: DeserializeOwned>(self) -> serde_json::Result<T> {
        serde_json::from_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_that_this_version_would_have_kept_is_written_as_it_is() {
        let written = |text: &str| {
            let body = EntryBody::Opaque { kind: KIND_NAMED, bytes: text.as_bytes().to_vec() };
            serde_json::to_string(&body).unwrap()
        };
        assert_eq!(written(r#"{"kind":"poll","question":"?"}"#), r#"{"kind":"poll","question":"?"}"#);
        for text in [r#"{"kind":"erased"}"#, r#"{"kind":"opaque"}"#, r#"{ "kind": "poll" }"#, "no JSON"] {
            assert!(written(text).starts_with(r#"{"kind":"opaque","number":4294967295,"bytes":"#), "{text}");
        }
    }
}
