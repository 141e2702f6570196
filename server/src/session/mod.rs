//! Sessions: from a fresh link to its last frame. Policy lives here once, for every transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tern_protocol::{
    ACK_POSITIONS_MAX, Code, ConversationId, DEDUPE_WINDOW_S, FRAME_BYTES_MAX, GAP_TAIL, GAP_WHOLE_MAX,
    GROUP_MEMBERS_MAX, LEAVE_GROUPS_MAX, Limits, NAME_BYTES_MAX, PAGE_ENTRIES_MAX, SENDS_IN_FLIGHT_MAX,
    SYNC_CURSORS_MAX, SYNC_CURSORS_TOTAL_MAX, TEXT_BYTES_MAX, WATCH_USERS_MAX,
};
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::budget::Memory;
use crate::cluster::{NodeId, SessionRef};
use crate::conversation::history::History;
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::presence::Presence;
use crate::roster::{OutboxConfig, Roster, Seat};
use crate::router::Router;
use crate::store::{PeopleConfig, Store};
use crate::transport::{Link, TransportConfig};

mod active;
mod answered;
mod deadline;
mod hello;
mod lane;
mod on_account;
mod on_change;
mod on_people;
mod on_position;
mod on_read;
pub mod people;
pub mod quota;
mod reads;
mod refused;
mod rollback;
mod run;
mod step;
mod strikes;
#[cfg(test)]
mod tests;

pub use hello::{ERASED, lost_words, remember};
pub use refused::{Refused, whole_ms};
pub use run::LAST_FRAME;
pub use step::close_for;

use deadline::Patience;
use quota::{Quota, QuotaConfig};
use rollback::Rollback;

/// What sessions are told when the node has gone.
pub const STOPS: &str = "this node stops";

/// How sessions are treated.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Sessions of one user; one more closes another: one of the same device, else the one that was silent
    /// for longest, else the oldest.
    pub sessions_per_user: u32,
    /// A session whose queue did not move for this many seconds is closed.
    pub stalled_s: u64,
    /// A session is told this many seconds before its token expires.
    pub expiry_notice_s: u64,
    /// Reads of all sessions together that the store works on at a time; more wait their turn.
    pub reads_max: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { sessions_per_user: 20, stalled_s: 30, expiry_notice_s: 300, reads_max: 64 }
    }
}

/// By what rules sessions are served, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How they are treated.
    pub session: SessionConfig,
    /// Timing of their links.
    pub transport: TransportConfig,
    /// Limits of their outboxes.
    pub outbox: OutboxConfig,
    /// Rates of each connection.
    pub rates: QuotaConfig,
    /// Who reaches whom.
    pub people: PeopleConfig,
    /// Name of the node they are on.
    pub node: NodeId,
    /// Number of its start.
    pub boot: u64,
}

/// Who sessions deal with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// Rates of users and addresses.
    pub quota: Arc<Quota>,
    /// Where they have their seats.
    pub roster: Roster,
    /// Takes changes.
    pub router: Router,
    /// Takes what is told to others.
    pub delivery: Delivery,
    /// Reads logs.
    pub history: History,
    /// Users and read positions.
    pub store: Arc<dyn Store>,
    /// Who is there.
    pub presence: Presence,
    /// Counts.
    pub metrics: Metrics,
    /// What all of them may take.
    pub memory: Memory,
}

/// Serves links. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    auth: Arc<Authenticator>,
    quota: Arc<Quota>,
    roster: Roster,
    router: Router,
    delivery: Delivery,
    history: History,
    store: Arc<dyn Store>,
    presence: Presence,
    metrics: Metrics,
    memory: Memory,
    /// A permit for each read that the store works on.
    reads: Semaphore,
    sessions: AtomicU64,
    rollback: Rollback,
}

impl Gateway {
    /// A gateway without sessions.
    pub fn new(settings: Settings, services: Services) -> Self {
        let Services { auth, quota, roster, router, delivery, history, store, presence, metrics, memory } =
            services;
        let reads = Semaphore::new(settings.session.reads_max.clamp(1, Semaphore::MAX_PERMITS));
        let sessions = AtomicU64::new(1);
        Self {
            inner: Arc::new(Inner {
                settings,
                auth,
                quota,
                roster,
                router,
                delivery,
                history,
                store,
                presence,
                metrics,
                memory,
                reads,
                sessions,
                rollback: Rollback::default(),
            }),
        }
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
        let Settings { session, transport, rates, people, .. } = &self.settings;
        Limits {
            frame_bytes: FRAME_BYTES_MAX as u32,
            text_bytes: TEXT_BYTES_MAX as u32,
            name_bytes: NAME_BYTES_MAX as u32,
            group_members: GROUP_MEMBERS_MAX as u32,
            page_entries: PAGE_ENTRIES_MAX as u32,
            watch_users: WATCH_USERS_MAX as u32,
            sends_in_flight: SENDS_IN_FLIGHT_MAX as u32,
            sync_cursors: SYNC_CURSORS_MAX as u32,
            sync_cursors_total: SYNC_CURSORS_TOTAL_MAX as u32,
            ack_positions: ACK_POSITIONS_MAX as u32,
            gap_whole: GAP_WHOLE_MAX as u32,
            gap_tail: GAP_TAIL as u32,
            dedupe_window_s: DEDUPE_WINDOW_S,
            sessions_per_user: session.sessions_per_user,
            keepalive_s: transport.keepalive_s as u32,
            dead_after_s: transport.dead_after().as_secs() as u32,
            sends_per_second: rates.user_sends_per_second.get(),
            blocks: people.blocks,
            leave_groups: LEAVE_GROUPS_MAX as u32,
            added_groups: people.added_groups,
        }
    }

    /// Counts a code that a client is told.
    fn refused(&self, code: Code) {
        self.metrics.refused.count(code);
    }

    fn patience(&self) -> Patience {
        let Settings { session, transport, .. } = &self.settings;
        Patience {
            silence: transport.dead_after(),
            stalled: Duration::from_secs(session.stalled_s),
            notice: Duration::from_secs(session.expiry_notice_s),
        }
    }

    /// What a session of this number is called in the fleet.
    fn refer(&self, session: u64) -> SessionRef {
        SessionRef { node: self.settings.node.clone(), boot: self.settings.boot, session }
    }

    /// A session has everything up to `seq`, which exists and its user may see.
    fn confirm(&self, seat: &Seat, conversation: ConversationId, seq: u64) {
        self.delivery.confirm(seat, conversation, seq);
    }
}
