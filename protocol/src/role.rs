//! What a member of a group may do.

use serde::{Deserialize, Serialize};

/// What a member may do in a group. Everyone reads and sends; admins add, remove and rename;
/// owners also change roles and remove admins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Reads and sends.
    Member,
    /// Also adds and removes members and renames the group.
    Admin,
    /// Also changes roles.
    Owner,
}
