//! What a node runs on: the only file that names concrete backends.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::config::Config;
use crate::events::Events;
use crate::events::file::{FileEvents, FileEventsError};
use crate::ops::metrics::Metrics;
use crate::registry::Registry;
use crate::registry::memory::MemoryRegistry;
use crate::store::Store;
use crate::store::embedded::{EmbeddedConfig, EmbeddedStore, OpenError};
use crate::upkeep::OnDisk;

/// Memory for blocks of a store that is opened for one command, in MiB.
const COMMAND_CACHE_MIB: u32 = 32;

/// Why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The message store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory for events.
    #[error(transparent)]
    Events(#[from] FileEventsError),
}

/// Everything outside the process that a node uses.
pub(super) struct Backends {
    pub(super) store: OpenStore,
    pub(super) events: Arc<dyn Events>,
    pub(super) registry: Arc<dyn Registry>,
}

impl Backends {
    /// As the configuration says.
    pub(super) fn open(config: &Config, metrics: &Metrics) -> Result<Self, BackendError> {
        // The store locks the data directory, so it comes first: a second node on it fails here.
        let store = OpenStore::open(config.store_config(), metrics.clone())?;
        let events = Arc::new(FileEvents::open(config.events_config())?);
        Ok(Self { store, events, registry: Arc::new(MemoryRegistry::new()) })
    }
}

/// A store in a directory of this machine.
#[derive(Clone)]
pub(super) struct OpenStore {
    /// What all parts use.
    pub(super) store: Arc<dyn Store>,
    /// What can be done with its files besides.
    pub(super) on_disk: Arc<dyn OnDisk>,
}

impl OpenStore {
    /// Of a node that does not run, for one command.
    pub(super) fn for_command(dir: &Path) -> Result<Self, OpenError> {
        if !dir.join("store.json").exists() {
            return Err(OpenError::Missing { dir: dir.into() });
        }
        Self::open(EmbeddedConfig { dir: dir.into(), cache_mib: COMMAND_CACHE_MIB }, Metrics::none())
    }

    fn open(config: EmbeddedConfig, metrics: Metrics) -> Result<Self, OpenError> {
        let store = Arc::new(EmbeddedStore::open(config, metrics)?);
        Ok(Self { on_disk: Arc::new(Embedded(store.clone())), store })
    }
}

struct Embedded(Arc<EmbeddedStore>);

#[async_trait]
impl OnDisk for Embedded {
    async fn backup(&self, dir: &Path) -> Result<Value, String> {
        let manifest = self.0.backup(dir).await.map_err(|error| error.to_string())?;
        Ok(json!({
            "store_id": manifest.store_id,
            "commits": manifest.commits,
            "rows": manifest.rows,
            "bytes": manifest.bytes,
        }))
    }

    async fn compact(&self) -> Result<Value, String> {
        let (before, after) = self.0.compact().await.map_err(|error| error.to_string())?;
        Ok(json!({"bytes_before": before, "bytes_after": after}))
    }
}
