//! The life of the node's data: ageing, erasure, export and backup, on a running node and on a stopped one.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::config::Config;
use crate::conversation::{ConversationConfig, Conversations};
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::roster::Roster;
use crate::router::Router;
use crate::store::Store;
use crate::store::embedded::{EmbeddedConfig, EmbeddedStore, OpenError};
use crate::upkeep::{self, Control, ControlError, ExportError, Lines, OnDisk, Parts, Request};

/// Memory for blocks of a store that is opened for one command, in MiB.
const COMMAND_CACHE_MIB: u32 = 32;

/// The running part.
pub(super) struct Life {
    control: Control,
    work: JoinHandle<()>,
    stop: CancellationToken,
}

impl Life {
    /// Starts it on the store that this node holds.
    pub(super) fn start(
        config: &Config,
        store: Arc<EmbeddedStore>,
        router: Router,
        delivery: Delivery,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        config.retention.check()?;
        let parts = Parts { store: store.clone(), router, delivery };
        let control = Control::start(&config.store_config().dir, Arc::new(Embedded(store)), parts.clone());
        let stop = CancellationToken::new();
        let work = tokio::spawn(upkeep::work(config.retention.clone(), parts, metrics, stop.clone()));
        Ok(Self { control: control.map_err(StartError::Control)?, work, stop })
    }

    /// Stops it; what it does in the store can be done again.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.control.stop().await;
        let _ = self.work.await;
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

/// Why a command on a store came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The store cannot be opened here.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A node holds it and cannot be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Does what is asked with the store in `dir`: through the node that holds it, or here if none does. Lines
/// on the way go to `take`.
pub async fn command(
    dir: &Path,
    request: Request,
    mut take: impl FnMut(Value) -> std::io::Result<()> + Send,
) -> Result<Value, CommandError> {
    if !dir.join("store.json").exists() {
        return Err(OpenError::Missing { dir: dir.into() }.into());
    }
    let config = EmbeddedConfig { dir: dir.into(), cache_mib: COMMAND_CACHE_MIB };
    let store = match EmbeddedStore::open(config, Metrics::none()) {
        Ok(store) => Arc::new(store),
        Err(OpenError::Locked { .. }) => return Ok(upkeep::ask(dir, &request, take).await?),
        Err(error) => return Err(error.into()),
    };
    // Nobody is connected here, so nobody is told.
    let delivery = Delivery::new(Roster::default(), Metrics::none());
    let conversations = Conversations::new(
        &ConversationConfig::default(),
        store.clone(),
        store.clone(),
        delivery.clone(),
        Metrics::none(),
    );
    let parts = Parts { store: store.clone(), router: Router::new(conversations.clone()), delivery };
    let done = upkeep::run(request, &Embedded(store.clone()), &parts, &mut Taken(&mut take)).await;
    conversations.close().await;
    store.close().await;
    Ok(done.map_err(ControlError::Failed)?)
}

struct Taken<F>(F);

#[async_trait]
impl<F: FnMut(Value) -> std::io::Result<()> + Send> Lines for Taken<F> {
    async fn line(&mut self, line: Value) -> Result<(), ExportError> {
        (self.0)(line).map_err(|_| ExportError::Gone)
    }
}
