//! The compact form of a signed token, read strictly: three canonical base64url parts, JSON objects
//! without duplicate names. Nothing here verifies anything.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// A JSON object in which no name occurs twice.
pub type Object = BTreeMap<String, Value>;

/// Why a text is not a signed token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not `header.claims.signature`.
    #[error("it must have three parts with dots between them")]
    Parts,
    /// A part is not canonical base64url without padding.
    #[error("its {0} is not base64url")]
    Base64(&'static str),
    /// A part is not a JSON object, or has a name twice.
    #[error("its {0} is not a JSON object with unique names")]
    Json(&'static str),
}

/// A token cut into its parts, not yet decoded.
#[derive(Clone, Copy)]
pub(super) struct Jws<'a> {
    /// `header.claims`: what is signed.
    pub(super) signed: &'a str,
    /// The signature, base64url.
    pub(super) signature: &'a str,
    header: &'a str,
    claims: &'a str,
}

impl<'a> Jws<'a> {
    /// Cuts a token at its dots.
    pub(super) fn split(token: &'a str) -> Result<Self, JwsError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(JwsError::Parts)?;
        if claims.contains('.') {
            return Err(JwsError::Parts);
        }
        Ok(Self { signed, signature, header, claims })
    }

    /// The header.
    pub(super) fn header(&self) -> Result<Object, JwsError> {
        object("header", self.header)
    }

    /// The claims, which only a verified signature makes true.
    pub(super) fn claims(&self) -> Result<Object, JwsError> {
        object("payload", self.claims)
    }
}

fn object(what: &'static str, part: &str) -> Result<Object, JwsError> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::Base64(what))?;
    let object: UniqueNames = serde_json::from_slice(&json).map_err(|_| JwsError::Json(what))?;
    Ok(object.0)
}

/// Two readers of a duplicate name may believe different values, so there must be none.
struct UniqueNames(Object);

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with unique names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueNames, A::Error> {
                let mut object = Object::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(UniqueNames(object))
            }
        }
        deserializer.deserialize_map(Names)
    }
}
