//! The life of the node's data: ageing, erasure, export and backup, on a running node and on a stopped one.

use std::path::Path;

use async_trait::async_trait;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::backends::{self, BackendError, Data};
use crate::budget::Memory;
use crate::config::Config;
use crate::conversation::{ConversationConfig, Conversations};
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::roster::Roster;
use crate::router::Router;
use crate::upkeep::{self, Accounts, Control, ControlError, ExportError, Lines, Parts, Request};

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
        Data { store, on_disk }: Data,
        router: Router,
        (delivery, accounts): (Delivery, Accounts),
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        config.retention.check()?;
        let parts = Parts { store, router, delivery, accounts };
        let control = Control::start(&config.store_config().dir, on_disk, parts.clone());
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

/// Why a command on a store came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The store cannot be opened here.
    #[error(transparent)]
    Open(#[from] BackendError),
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
    let Some(Data { store, on_disk }) = backends::open_at(dir).map_err(BackendError::from)? else {
        return Ok(upkeep::ask(dir, &request, take).await?);
    };
    // Nobody is connected here, so nobody is told.
    let delivery = Delivery::new(Roster::default(), Metrics::none());
    let conversations = Conversations::new(
        &ConversationConfig::default(),
        &Memory::unlimited(),
        store.clone(),
        store.clone(),
        delivery.clone(),
        Metrics::none(),
    );
    let accounts = Accounts::new(store.clone(), delivery.clone(), Metrics::none());
    let router = Router::new(conversations.clone());
    let parts = Parts { store: store.clone(), router, delivery, accounts };
    let done = upkeep::run(request, &*on_disk, &parts, &mut Taken(&mut take)).await;
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
