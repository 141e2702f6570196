//! The fields of each kind of body, as both forms read them, and the table of kinds.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::EntryBody;
use crate::data::Data;
use crate::id::UserId;
use crate::role::Role;

/// Where the fields of one body are read from.
pub(super) trait Source {
    type Error;
    fn fields<T: DeserializeOwned>(self) -> Result<T, Self::Error>;
}

macro_rules! kinds {
    ($($number:literal $name:literal $variant:ident { $($(#[$serde:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Deserialize)]
            #[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
            struct $variant { $($(#[$serde])* $field: $type,)* }
        )*

        impl EntryBody {
            /// The kinds of this version: number and name in JSON.
            pub const KINDS: &'static [(u32, &'static str)] = &[$(($number, $name)),*];

            /// The fields of every kind in binary, in the order of [`EntryBody::KINDS`].
            #[cfg(feature = "schema")]
            pub const SCHEMAS: &'static [&'static postcard_schema::schema::NamedType] =
                &[$(<$variant as postcard_schema::Schema>::SCHEMA),*];
        }

        /// Reads the fields of a kind; `None` for a number that this version does not know.
        pub(super) fn read<S: Source>(number: u32, source: S) -> Option<Result<EntryBody, S::Error>> {
            match number {
                $($number => Some(source.fields::<$variant>().map(|fields| {
                    let $variant { $($field,)* } = fields;
                    EntryBody::$variant { $($field,)* }
                })),)*
                _ => None,
            }
        }
    };
}

kinds! {
    0 "message" Message {
        #[serde(default)] text: String,
        #[serde(default)] data: Option<Data>,
        #[serde(default)] reply_to: Option<u64>,
    }
    1 "created" Created { name: String, members: Vec<UserId>, }
    2 "added" Added { users: Vec<UserId>, }
    3 "removed" Removed { users: Vec<UserId>, }
    4 "left" Left { user: UserId, }
    5 "renamed" Renamed { name: String, }
    6 "role_changed" RoleChanged { user: UserId, role: Role, }
    7 "erased" Erased {}
}
