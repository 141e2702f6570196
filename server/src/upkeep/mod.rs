//! The life of data: what ages out, who is erased, what a user gets to take along, and backups asked for
//! from outside. Works on a live node and, with nobody connected, on a stopped one.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

mod accounts;
mod control;
mod erase;
mod export;
mod pace;
mod retention;

pub use accounts::{
    AccountError, Accounts, Closed, Operator, REVOKED, Revocation, Revoked, Sessions, revoked,
};
pub use control::{CONTROL_SOCKET, Control, ControlError, OnDisk, Request, ask, run};
pub use erase::{EraseError, Erased, erase};
pub use export::{ExportError, Lines, export};
pub use retention::{RetentionConfig, RetentionError, Swept, sweep};

use retention::sweep_for_ever;

use crate::clock::unix_ms;
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::router::Router;
use crate::store::Store;

/// What the work is done with.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is.
    pub store: Arc<dyn Store>,
    /// Entries are written through it.
    pub router: Router,
    /// Who is connected.
    pub delivery: Delivery,
    /// Their sessions and tokens.
    pub accounts: Accounts,
}

/// Ends erasures that were cut short, then removes what is too old, until `stop`.
pub async fn work(config: RetentionConfig, parts: Parts, metrics: Metrics, stop: CancellationToken) {
    tokio::select! {
        () = end_erasures(&parts) => {}
        () = stop.cancelled() => return,
    }
    sweep_for_ever(config, parts.store, metrics, stop, unix_ms).await;
}

async fn end_erasures(parts: &Parts) {
    let open = match parts.store.open_erasures().await {
        Ok(open) => open,
        Err(error) => return tracing::warn!(%error, "cannot tell whether an erasure was cut short"),
    };
    for user in open {
        match erase(parts, &user).await {
            Ok(erased) => tracing::info!(became = %erased.became, "ended an erasure that was cut short"),
            Err(error) => tracing::warn!(%error, "an erasure that was cut short is not ended"),
        }
    }
}
