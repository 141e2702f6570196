//! What a node keeps its data in and sends it out by. The only file that names concrete backends.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::budget::{Memory, MemoryPart};
use crate::config::Config;
use crate::events::Events;
use crate::events::file::{FileEvents, FileEventsError};
use crate::ops::metrics::Metrics;
use crate::registry::Registry;
use crate::registry::memory::MemoryRegistry;
use crate::store::Store;
use crate::store::embedded::{EmbeddedConfig, EmbeddedStore, OpenError, is_store};
use crate::upkeep::OnDisk;

/// Memory for blocks of a store that is opened for one command, in MiB.
const COMMAND_CACHE_MIB: u32 = 32;

/// Everything that outlives the node, and the map of the fleet.
pub(super) struct Backends {
    pub(super) data: Data,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) events: Arc<dyn Events>,
}

/// The message store.
#[derive(Clone)]
pub(super) struct Data {
    pub(super) store: Arc<dyn Store>,
    /// What a store does besides that keeps its rows in a directory here.
    pub(super) on_disk: Arc<dyn OnDisk>,
}

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

/// Opens what the configuration names. The store first: it locks the data directory.
pub(super) fn open(config: &Config, metrics: &Metrics, memory: &Memory) -> Result<Backends, BackendError> {
    let data = Data::of(EmbeddedStore::open_within(
        config.store_config(),
        metrics.clone(),
        memory.part(MemoryPart::Commits),
    )?);
    let events = Arc::new(FileEvents::open(config.events_config(), metrics.clone())?);
    Ok(Backends { data, registry: Arc::new(MemoryRegistry::new()), events })
}

/// Opens the store in a directory for one command; `None`: a running node holds it.
pub(super) fn open_at(dir: &Path) -> Result<Option<Data>, OpenError> {
    if !is_store(dir) {
        return Err(OpenError::Missing { dir: dir.into() });
    }
    let config = EmbeddedConfig {
        dir: dir.into(),
        cache_mib: COMMAND_CACHE_MIB,
        free_mib_min: 0,
        ..EmbeddedConfig::default()
    };
    match EmbeddedStore::open(config, Metrics::none()) {
        Ok(store) => Ok(Some(Data::of(store))),
        Err(OpenError::Locked { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Data {
    fn of(store: EmbeddedStore) -> Self {
        let store = Arc::new(store);
        Self { on_disk: Arc::new(Embedded(store.clone())), store }
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
        self.0.compact().await.map(|compacted| json!(compacted)).map_err(|error| error.to_string())
    }
}
