//! Sessions: from a fresh link to its last frame. Policy lives here once, for every transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tern_protocol::{
    ACK_POSITIONS_MAX, Code, DEDUPE_WINDOW_S, FRAME_BYTES_MAX, GAP_TAIL, GAP_WHOLE_MAX, GROUP_MEMBERS_MAX,
    Limits, NAME_BYTES_MAX, PAGE_ENTRIES_MAX, SENDS_IN_FLIGHT_MAX, SYNC_CURSORS_MAX, TEXT_BYTES_MAX,
    WATCH_USERS_MAX,
};

use crate::auth::Authenticator;
use crate::cluster::NodeId;
use crate::conversation::history::History;
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::presence::Presence;
use crate::registry::Registry;
use crate::roster::{OutboxConfig, Roster};
use crate::router::Router;
use crate::store::Store;
use crate::transport::{Link, TransportConfig};

mod active;
mod backlog;
mod hello;
mod lane;
mod on_account;
mod on_change;
mod on_position;
mod on_read;
pub mod quota;
mod refused;
mod run;

pub use hello::{ERASED, is_erased, remember};
pub use refused::{Refused, whole_ms};

use quota::{Quota, QuotaConfig};

/// How sessions are treated.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Sessions of one user; one more closes the oldest.
    pub sessions_per_user: u32,
    /// A session whose queue did not move for this many seconds is closed.
    pub stalled_s: u64,
    /// A session is told this many seconds before its token expires.
    pub expiry_notice_s: u64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { sessions_per_user: 20, stalled_s: 30, expiry_notice_s: 300 }
    }
}

/// Which start of which node this is.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Name of the node.
    pub name: NodeId,
    /// Number of this start.
    pub boot: u64,
}

/// What sessions are served with.
pub struct Parts {
    /// Their settings.
    pub config: SessionConfig,
    /// Timing of their links.
    pub transport: TransportConfig,
    /// Limits of their outboxes.
    pub outbox: OutboxConfig,
    /// Rates of each connection.
    pub rates: QuotaConfig,
    /// Which node they are on.
    pub identity: NodeIdentity,
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// Rates of users and addresses, over sessions and HTTP.
    pub quota: Quota,
    /// The sessions of this process.
    pub roster: Roster,
    /// The sessions of the fleet.
    pub registry: Arc<dyn Registry>,
    /// Takes changes.
    pub router: Router,
    /// Takes confirmations, typing and read positions.
    pub delivery: Delivery,
    /// Reads logs.
    pub history: History,
    /// Users and read positions.
    pub store: Arc<dyn Store>,
    /// Who is there.
    pub presence: Presence,
    /// Counts.
    pub metrics: Metrics,
}

/// Serves links. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    sessions: AtomicU64,
}

impl Gateway {
    /// A gateway without sessions.
    pub fn new(parts: Parts) -> Self {
        Self { inner: Arc::new(Inner { parts, sessions: AtomicU64::new(1) }) }
    }

    /// What sessions are served with; HTTP is another way to the same.
    pub fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    /// What Welcome says that this server allows.
    pub fn limits(&self) -> Limits {
        self.inner.limits()
    }

    /// A session on a link, from Hello to its last frame; for a task of its own.
    pub fn serve(&self, link: Box<Link>) -> impl Future<Output = ()> + Send + use<> {
        let number = self.inner.sessions.fetch_add(1, Ordering::Relaxed);
        run::serve(Arc::clone(&self.inner), number, link)
    }
}

impl Inner {
    fn limits(&self) -> Limits {
        let config = &self.parts.config;
        Limits {
            frame_bytes: FRAME_BYTES_MAX as u32,
            text_bytes: TEXT_BYTES_MAX as u32,
            name_bytes: NAME_BYTES_MAX as u32,
            group_members: GROUP_MEMBERS_MAX as u32,
            page_entries: PAGE_ENTRIES_MAX as u32,
            watch_users: WATCH_USERS_MAX as u32,
            sends_in_flight: SENDS_IN_FLIGHT_MAX as u32,
            sync_cursors: SYNC_CURSORS_MAX as u32,
            ack_positions: ACK_POSITIONS_MAX as u32,
            gap_whole: GAP_WHOLE_MAX as u32,
            gap_tail: GAP_TAIL as u32,
            dedupe_window_s: DEDUPE_WINDOW_S,
            sessions_per_user: config.sessions_per_user,
            keepalive_s: self.parts.transport.keepalive_s as u32,
            dead_after_s: self.parts.transport.dead_after().as_secs() as u32,
            sends_per_second: self.parts.rates.user_sends_per_second.get(),
        }
    }

    /// Counts a code that a client is told.
    fn refused(&self, code: Code) {
        self.parts.metrics.refused.count(code);
    }
}
