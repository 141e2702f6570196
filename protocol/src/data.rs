//! What an application puts beside the text of a message: any JSON value but null, kept as its text.

use std::fmt;

use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::surrogate::without_lone_surrogates;

/// Any JSON value but null, as its text without white space between the tokens. Digits, escapes, the order
/// of fields: all else stays as it was written, but halves of characters become U+FFFD.
///
/// It has no limit of its own: who takes a message counts it together with the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Data(String);

/// Why a text is not [`Data`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Not JSON, a number beyond what 64 bits hold, or nested more than 127 deep.
    #[error("data is not JSON: {0}")]
    Json(String),
    /// Null: without data the field is left out.
    #[error("data must not be null")]
    Null,
}

impl Data {
    /// Checks a JSON text and keeps it.
    pub fn new(text: &str) -> Result<Self, DataError> {
        let text = &*without_lone_surrogates(text);
        serde_json::from_str::<Checked>(text).map_err(|error| DataError::Json(error.to_string()))?;
        let text = compact(text);
        if text == "null" {
            return Err(DataError::Null);
        }
        Ok(Self(text))
    }

    /// The JSON of a value of the application's own.
    pub fn from_value(value: &impl Serialize) -> Result<Self, DataError> {
        let text = serde_json::to_string(value).map_err(|error| DataError::Json(error.to_string()))?;
        Self::new(&text)
    }

    /// Reads the value.
    pub fn to_value<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn raw(&self) -> &RawValue {
        serde_json::from_str(&self.0).expect("checked when it was made")
    }
}

/// A JSON text without the white space between its tokens.
pub(crate) fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |character: &char| {
        match character {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' | '\n' | '\r' if !quoted => return false,
            _ => {}
        }
        escaped = *character == '\\' && !escaped;
        true
    };
    text.chars().filter(keep).collect()
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value itself where the format is for people, its text elsewhere.
impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.raw().serialize(serializer)
        } else {
            serializer.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let data = if deserializer.is_human_readable() {
            Self::new(Box::<RawValue>::deserialize(deserializer)?.get())
        } else {
            struct Text;
            impl Visitor<'_> for Text {
                type Value = Result<Data, DataError>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a JSON text")
                }
                fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                    Ok(Data::new(text))
                }
            }
            deserializer.deserialize_str(Text)?
        };
        data.map_err(de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl postcard_schema::Schema for Data {
    const SCHEMA: &'static postcard_schema::schema::NamedType = &postcard_schema::schema::NamedType {
        name: "Data",
        ty: &postcard_schema::schema::DataModelType::NewtypeStruct(
            <String as postcard_schema::Schema>::SCHEMA,
        ),
    };
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Data {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
            .description(Some("Any JSON value but null"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Data {}

/// Any JSON value, looked at and dropped. Unlike serde's `IgnoredAny` it sees numbers and texts that no
/// reader can take, and it ends at the depth at which readers end.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_between_tokens_goes() {
        let text = " {\"b\" :[ 1.50,\n1E2 , -0 ], \"a \\\" b\": \"\\\\\" , \"c\":\"\t\" } ";
        // A tab in a text must be written as an escape.
        assert!(matches!(Data::new(text), Err(DataError::Json(_))));
        let text = text.replace('\t', "\\t \u{a0}");
        let kept = "{\"b\":[1.50,1E2,-0],\"a \\\" b\":\"\\\\\",\"c\":\"\\t \u{a0}\"}";
        assert_eq!(Data::new(&text).unwrap().as_str(), kept);
        assert_eq!(Data::new(kept).unwrap().as_str(), kept);
    }

    #[test]
    fn what_no_reader_can_take_is_refused() {
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Data::new(&deep(127)).is_ok());
        for text in ["", "{", "1 2", "nul", "[1e999]", &deep(128), "'a'"] {
            assert!(matches!(Data::new(text), Err(DataError::Json(_))), "{text}");
        }
        assert_eq!(Data::new(" null "), Err(DataError::Null));
        assert_eq!(Data::from_value(&None::<u8>), Err(DataError::Null));
    }

    #[test]
    fn half_a_character_becomes_the_replacement_character() {
        assert_eq!(Data::new(r#"{"\ud83d":"\udc4d"}"#).unwrap().as_str(), r#"{"\ufffd":"\ufffd"}"#);
    }

    #[test]
    fn a_value_goes_in_and_out() {
        let data = Data::from_value(&("a", 1.5, [true])).unwrap();
        assert_eq!(data.as_str(), r#"["a",1.5,[true]]"#);
        assert_eq!(data.to_value::<(String, f64, Vec<bool>)>().unwrap(), ("a".into(), 1.5, vec![true]));
    }
}
