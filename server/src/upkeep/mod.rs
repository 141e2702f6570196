//! The life of data: what ages out, who is erased, what a user gets to take along, and backups asked for
//! from outside. Works on a live node and, with nobody connected, on a stopped one.

use std::sync::Arc;
use std::time::Duration;

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

/// Pause before an erasure that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

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

/// Ends erasures that were cut short, and removes what is too old, until `stop`.
pub async fn work(config: RetentionConfig, parts: Parts, metrics: Metrics, stop: CancellationToken) {
    let ending = async {
        tokio::select! {
            () = end_erasures(&parts) => {}
            () = stop.cancelled() => {}
        }
    };
    let sweeping = sweep_for_ever(config, parts.store.clone(), metrics, stop.clone(), unix_ms);
    tokio::join!(ending, sweeping);
}

/// Those that are open at the start, again and again until each has ended: nothing of its user is usable before.
async fn end_erasures(parts: &Parts) {
    let mut open = loop {
        match parts.store.open_erasures().await {
            Ok(open) => break open,
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether an erasure was cut short; trying again")
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    while !open.is_empty() {
        let mut left = Vec::new();
        for user in open {
            match erase(parts, &user).await {
                Ok(erased) => tracing::info!(became = %erased.became, "ended an erasure that was cut short"),
                Err(error) => {
                    tracing::warn!(%error, "an erasure that was cut short is not ended; trying again");
                    left.push(user);
                }
            }
        }
        open = left;
        if !open.is_empty() {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
