//! The settings of the embedded store.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::PeopleConfig;

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Directory of the store, made if absent; a relative one is in the node's data directory.
    pub dir: PathBuf,
    /// Memory for blocks read from disk, in MiB.
    pub cache_mib: u32,
    /// With less free space on its disk, in MiB, the node is not ready and takes no messages until there is
    /// more again: a disk that is really full ends it.
    pub free_mib_min: u32,
    /// The section `people`.
    #[serde(skip)]
    pub(crate) people: PeopleConfig,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { dir: "store".into(), cache_mib: 64, free_mib_min: 256, people: PeopleConfig::default() }
    }
}
