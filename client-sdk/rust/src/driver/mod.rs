//! The driver.
use crate::client::Command;
use crate::config::{Config, ConfigError};
use crate::events::{Queue, State};
use std::sync::Arc;
use tern_protocol::Welcome;
use tokio::sync::{Semaphore, mpsc, watch};

pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) session: watch::Sender<Option<Arc<Welcome>>>,
    pub(crate) queue: Arc<Queue>,
}
pub(crate) struct Driver {
    _config: Config,
    _ends: Ends,
}
impl Driver {
    pub(crate) fn new(config: Config, ends: Ends) -> Result<Self, ConfigError> {
        Ok(Self { _config: config, _ends: ends })
    }
    pub(crate) async fn run(self) {}
}
