//! Which form a body has: JSON where the format is for people, else the binary one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EntryBody, binary, json};

impl Serialize for EntryBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            json::serialize(self, serializer)
        } else {
            binary::serialize(self, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for EntryBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            json::deserialize(deserializer)
        } else {
            binary::deserialize(deserializer)
        }
    }
}

/// As any reader may take it: kind and bytes. The fields of the kinds are in [`EntryBody::SCHEMAS`].
#[cfg(feature = "schema")]
impl postcard_schema::Schema for EntryBody {
    const SCHEMA: &'static postcard_schema::schema::NamedType = &postcard_schema::schema::NamedType {
        name: "EntryBody",
        ty: &postcard_schema::schema::DataModelType::Struct(&[
            &postcard_schema::schema::NamedValue {
                name: "kind",
                ty: <u32 as postcard_schema::Schema>::SCHEMA,
            },
            &postcard_schema::schema::NamedValue {
                name: "fields",
                ty: &postcard_schema::schema::NamedType {
                    name: "bytes",
                    ty: &postcard_schema::schema::DataModelType::ByteArray,
                },
            },
        ]),
    };
}

#[cfg(feature = "openapi")]
mod openapi {
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::{EntryBody, json::Written};

    impl PartialSchema for EntryBody {
        fn schema() -> RefOr<Schema> {
            Written::schema()
        }
    }

    impl ToSchema for EntryBody {
        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            Written::schemas(schemas);
        }
    }
}
