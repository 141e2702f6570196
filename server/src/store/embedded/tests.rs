//! Tests of the embedded store beyond the contract: what survives, what is refused.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::store::contract::{self, Fixture};
use crate::store::{User, UserChange, Users};

fn config(dir: &std::path::Path) -> EmbeddedConfig {
    EmbeddedConfig { dir: dir.join("store"), cache_mib: 8, free_mib_min: 1, people: contract::few() }
}

/// A store in a directory of its own; a restart is orderly or only a drop.
struct OnDisk {
    dir: TempDir,
    is_orderly: bool,
    store: Option<Arc<EmbeddedStore>>,
}

impl OnDisk {
    fn new(is_orderly: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap());
        Self { dir, is_orderly, store: Some(store) }
    }
}

impl OnDisk {
    /// Goes on from a backup of itself, which must be in order.
    async fn restore(&mut self) {
        let backup = self.dir.path().join("backup");
        let store = self.store.take().unwrap();
        let manifest = store.backup(&backup).await.unwrap();
        drop(Arc::into_inner(store).expect("nobody else holds it"));
        let from = config(self.dir.path()).dir;
        let stopped = verify_store(&from).unwrap();
        assert_eq!((stopped.fault_count, &stopped.faults), (0, &Vec::new()));
        std::fs::remove_dir_all(&from).unwrap();
        let backup_read = Backup::open(&backup).unwrap();
        assert_eq!(*backup_read.manifest(), manifest);
        let (store_id, findings) = backup_read.restore(&from).unwrap();
        assert_eq!(findings, stopped, "the backup holds what the store held");
        std::fs::remove_dir_all(&backup).unwrap();
        let store = EmbeddedStore::open(config(self.dir.path()), Metrics::none()).unwrap();
        assert_eq!(store.store_id(), store_id);
        assert_ne!(store_id, manifest.store_id, "clients must notice that entries may be missing");
        self.store = Some(Arc::new(store));
    }
}

#[async_trait]
impl Fixture for OnDisk {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        if self.is_orderly {
            store.close().await;
        }
        drop(Arc::into_inner(store).expect("nobody else holds it"));
        self.store = Some(Arc::new(EmbeddedStore::open(config(self.dir.path()), Metrics::none()).unwrap()));
    }
}

mod ageing;
mod backups;
mod commits;
mod compacting;
mod damage;
mod deciles;
mod model;
mod people;
mod recovering;
mod salvaging;
mod sectors;
mod speed;

mod closed_in_order {
    use super::*;
    contract::suite!(OnDisk::new(true));
}

mod dropped {
    use super::*;
    contract::suite!(OnDisk::new(false));
}
