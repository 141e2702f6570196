//! Identifiers: who, where and which, with their text and binary forms.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, DecodeKind};
#[cfg(feature = "schema")]
use postcard_schema::schema::{DataModelType, NamedType};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::limits::{DEVICE_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::text::{TextFault, composed, id_fault};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is empty or longer than its limit in bytes.
    #[error("{what} must be 1 to {max} bytes of UTF-8, this one has {len}")]
    Length {
        /// Which id.
        what: &'static str,
        /// Its limit in bytes.
        max: usize,
        /// The length found, in bytes.
        len: usize,
    },
    /// The id has a control character.
    #[error("{0} must not contain control characters")]
    Control(&'static str),
    /// A user id has what a name of somebody must not have.
    #[error("user id must not contain {0}")]
    Text(TextFault),
    /// A user id starts with `c:` (or `C:`), which is how conversation ids are written.
    #[error("user id must not start with \"c:\" or \"C:\", which mark conversation ids")]
    Reserved,
    /// A conversation id is not `c:` and 26 base32 characters.
    #[error("conversation id must be \"c:\" and 26 base32 characters (a-z, 2-7)")]
    Conversation,
    /// A conversation id whose last character carries bits beyond its 16 bytes.
    #[error(
        "the last character of a conversation id must be one of a, e, i, m, q, u, y and 4: no id ends otherwise"
    )]
    ConversationEnd,
    /// Not a UUID.
    #[error("{0} must be a UUID such as 0190c7a2-5f2e-7c3d-9a41-3f6b2d8e1c05")]
    Uuid(&'static str),
}

fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() || text.len() > max {
        return Err(IdError::Length { what, max, len: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control(what));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $form:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rules of the type and keeps the text in the form in which it is compared.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let form: fn(&str) -> Result<Cow<'_, str>, IdError> = $form;
                let text = form(text)?;
                check_text($what, &text, $max)?;
                Ok(Self(text.as_ref().into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        #[cfg(feature = "openapi")]
        crate::schema::text! { $name, $max, None, concat!("A ", $what) }
        #[cfg(feature = "schema")]
        impl postcard_schema::Schema for $name {
            const SCHEMA: &'static NamedType = &NamedType {
                name: stringify!($name),
                ty: &DataModelType::NewtypeStruct(<String as postcard_schema::Schema>::SCHEMA),
            };
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what, " as a string"))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_id! {
    /// A user: 1–128 bytes of UTF-8 in composed form (NFC; what is not is brought into it), without control
    /// characters, invisible ones, spaces at an edge and spaces but the ordinary one, not starting with `c:` or
    /// `C:`. Compared byte by byte. It is the `sub` claim of the user's token.
    UserId, "user id", USER_ID_BYTES_MAX,
    |text| {
        if text.len() > USER_ID_BYTES_MAX * 4 {
            return Ok(Cow::Borrowed(text)); // too long in any form
        }
        if is_marked(text) {
            return Err(IdError::Reserved);
        }
        let text = composed(text);
        id_fault(&text).map_or(Ok(text), |fault| Err(IdError::Text(fault)))
    }
}

/// What the ids that stand for erased users start with. No token may have one as its `sub`.
const ERASED: &str = "erased:";

impl UserId {
    /// The id that stands in the logs for an erased user. `random` must be: it tells nothing of who it was.
    pub fn erased(random: [u8; 16]) -> Self {
        Self(format!("{ERASED}{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase()).into())
    }

    /// It stands for an erased user: nobody can be reached under it.
    pub fn is_erased(&self) -> bool {
        self.0.starts_with(ERASED)
    }
}

text_id! {
    /// One device (or browser profile) of a user, chosen by the client and kept by it: 1–64 bytes.
    DeviceId, "device id", DEVICE_ID_BYTES_MAX, |text| Ok(Cow::Borrowed(text))
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        #[cfg(feature = "schema")]
        impl postcard_schema::Schema for $name {
            const SCHEMA: &'static NamedType = &NamedType {
                name: stringify!($name),
                ty: &DataModelType::NewtypeStruct(<[u8; 16] as postcard_schema::Schema>::SCHEMA),
            };
        }

        impl $name {
            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        /// Text where the format is for people (JSON), 16 bare bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    Ok(Self(<[u8; 16]>::deserialize(deserializer)?))
                }
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        bytes_id! { $(#[$doc])* $name }

        impl $name {
            /// From a UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid.into_bytes())
            }
        }

        #[cfg(feature = "openapi")]
        crate::schema::text! { $name, 36, Some(crate::schema::UUID), concat!("A UUID: ", $what) }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self::from_uuid).map_err(|_| IdError::Uuid($what))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }
    };
}

uuid_id! {
    /// Chosen by the sender of a change; the same change retried has the same one.
    TempId, "temp_id"
}

uuid_id! {
    /// Given by the server to an entry of a log; time-ordered (UUID version 7).
    EntryId, "id"
}

uuid_id! {
    /// Names one life of a message store. A client keys its saved state by (store, user).
    StoreId, "store_id"
}

bytes_id! {
    /// A conversation: 16 bytes, written `c:` and 26 base32 characters in text.
    ///
    /// Ids are derived, so that creating the same conversation twice cannot race.
    ConversationId
}

impl ConversationId {
    /// The one conversation of two users, in either order (a user alone: notes to self).
    pub fn pair(a: &UserId, b: &UserId) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self::derive("pair", &[first.as_str().as_bytes(), second.as_str().as_bytes()])
    }

    /// The group that `creator` made with `temp_id`.
    pub fn group(creator: &UserId, temp_id: &TempId) -> Self {
        Self::derive("group", &[creator.as_str().as_bytes(), temp_id.as_bytes()])
    }

    /// First 16 bytes of SHA-256 over the length-prefixed parts (lengths are 4 bytes, big-endian).
    fn derive(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

#[cfg(feature = "openapi")]
crate::schema::text! { ConversationId, 28, Some("^c:[A-Za-z2-7]{26}$"), "A conversation" }

impl FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let code =
            text.strip_prefix("c:").or_else(|| text.strip_prefix("C:")).ok_or(IdError::Conversation)?;
        if code.len() != 26 {
            return Err(IdError::Conversation);
        }
        let bytes =
            BASE32_NOPAD.decode(code.to_ascii_uppercase().as_bytes()).map_err(|error| match error.kind {
                DecodeKind::Trailing => IdError::ConversationEnd,
                _ => IdError::Conversation,
            })?;
        bytes.try_into().map(Self).map_err(|_| IdError::Conversation)
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c:{}", BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

/// Where a message goes: to a user (the 1-on-1 conversation with them) or to a conversation.
///
/// In JSON one string: a conversation id starts with `c:`, a user id never does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The 1-on-1 conversation with this user, made on first use.
    User(UserId),
    /// A conversation the sender is a member of.
    Conversation(ConversationId),
}

impl Target {
    /// The conversation meant when `sender` names this target.
    pub fn conversation(&self, sender: &UserId) -> ConversationId {
        match self {
            Self::User(user) => ConversationId::pair(sender, user),
            Self::Conversation(id) => *id,
        }
    }
}

impl From<UserId> for Target {
    fn from(user: UserId) -> Self {
        Self::User(user)
    }
}

impl From<ConversationId> for Target {
    fn from(id: ConversationId) -> Self {
        Self::Conversation(id)
    }
}

#[cfg(feature = "openapi")]
crate::schema::text! { Target, USER_ID_BYTES_MAX, None, "A user id, or a conversation id: those start with `c:`" }

/// It begins as conversation ids do, in either case.
fn is_marked(text: &str) -> bool {
    text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("c:"))
}

impl FromStr for Target {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_marked(text) { text.parse().map(Self::Conversation) } else { text.parse().map(Self::User) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Conversation(id) => id.fmt(f),
        }
    }
}

/// The binary form of [`Target`]: variant 0 is a user, 1 a conversation.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
enum BinaryTarget {
    User(UserId),
    Conversation(ConversationId),
}

#[cfg(feature = "schema")]
impl postcard_schema::Schema for Target {
    const SCHEMA: &'static NamedType =
        &NamedType { name: "Target", ty: <BinaryTarget as postcard_schema::Schema>::SCHEMA.ty };
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        match self.clone() {
            Self::User(user) => BinaryTarget::User(user),
            Self::Conversation(id) => BinaryTarget::Conversation(id),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(de::Error::custom);
        }
        Ok(match BinaryTarget::deserialize(deserializer)? {
            BinaryTarget::User(user) => Self::User(user),
            BinaryTarget::Conversation(id) => Self::Conversation(id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn a_pair_has_one_id_in_either_order_and_length_prefixes_keep_pairs_apart() {
        assert_eq!(
            ConversationId::pair(&user("alice"), &user("bob")),
            ConversationId::pair(&user("bob"), &user("alice"))
        );
        assert_ne!(
            ConversationId::pair(&user("ab"), &user("c")),
            ConversationId::pair(&user("a"), &user("bc"))
        );
    }

    #[test]
    fn a_conversation_id_survives_its_text_form_in_any_case() {
        let id = ConversationId::pair(&user("alice"), &user("bob"));
        let text = id.to_string();
        assert_eq!(text.len(), 28);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(format!("c:{}", text[2..].to_uppercase()).parse(), Ok(id));
    }

    #[test]
    fn a_user_is_one_however_their_letters_are_put_together() {
        let (composed, apart) = (user("jos\u{e9}"), user("jose\u{301}"));
        assert_eq!(composed, apart);
        assert_eq!(ConversationId::pair(&composed, &user("bob")), ConversationId::pair(&apart, &user("bob")));
        assert_eq!(apart.as_str().len(), 5);
    }

    #[test]
    fn bad_ids_are_refused_with_the_rule() {
        assert!(matches!(UserId::new(""), Err(IdError::Length { len: 0, .. })));
        assert!(matches!(UserId::new(&"x".repeat(129)), Err(IdError::Length { len: 129, .. })));
        assert_eq!(UserId::new("a\nb"), Err(IdError::Text(TextFault::Control)));
        assert_eq!(UserId::new("bob\u{200b}"), Err(IdError::Text(TextFault::Invisible)));
        assert_eq!(UserId::new("bob "), Err(IdError::Text(TextFault::Space)));
        for reserved in ["c:bob", "C:bob", "C:"] {
            assert_eq!(UserId::new(reserved), Err(IdError::Reserved));
        }
        assert_eq!(DeviceId::new("a\nb"), Err(IdError::Control("device id")));
        let last = |end: char| format!("c:aaaqeayeaudaocajbifqydiob{end}").parse::<ConversationId>();
        assert!("aeimquy4".chars().all(|end| last(end).is_ok()));
        assert_eq!(last('b'), Err(IdError::ConversationEnd));
        assert_eq!(last('1'), Err(IdError::Conversation));
        for text in ["c:", "c:short", "c:!!!!!!!!!!!!!!!!!!!!!!!!!!", "bob"] {
            assert_eq!(text.parse::<ConversationId>(), Err(IdError::Conversation), "{text}");
        }
        assert_eq!("nope".parse::<TempId>(), Err(IdError::Uuid("temp_id")));
    }
}
