//! The metrics of this node: one struct of handles per area, made once and kept, so that an event
//! costs an atomic addition and no lookup. Labels never hold users, conversations or addresses.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tern_protocol::Code;

mod events;
mod memory;
mod sockets;

pub use events::EventMetrics;
pub use memory::MemoryMetrics;
pub use sockets::SocketMetrics;

/// Upper bounds of latency buckets in seconds: 0.5 ms to 10 s.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of buckets of entries per commit.
const ENTRIES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// All metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Areas>);

impl std::ops::Deref for Metrics {
    type Target = Areas;
    fn deref(&self) -> &Areas {
        &self.0
    }
}

/// The areas.
#[derive(Debug)]
pub struct Areas {
    /// Connections of clients.
    pub connections: ConnectionMetrics,
    /// What is below their sessions.
    pub sockets: SocketMetrics,
    /// Sending and receiving messages.
    pub messages: MessageMetrics,
    /// The owners of conversations.
    pub owners: OwnerMetrics,
    /// Catching up after a reconnect.
    pub sync: SyncMetrics,
    /// The message store.
    pub store: StoreMetrics,
    /// The files that events go to.
    pub events: EventMetrics,
    /// What operators did about sessions and tokens.
    pub accounts: AccountMetrics,
    /// What was refused, by code.
    pub refused: RefusedMetrics,
    /// The process.
    pub process: ProcessMetrics,
    /// What clients make the node keep in memory.
    pub memory: MemoryMetrics,
    /// What is renewed while the node runs.
    pub renewal: RenewalMetrics,
}

/// The transport of a connection, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportLabel {
    /// Native QUIC.
    Quic,
    /// WebSocket, in either format.
    WebSocket,
    /// WebTransport.
    WebTransport,
}

/// Connections of clients.
#[derive(Debug)]
pub struct ConnectionMetrics {
    quic: Gauge,
    websocket: Gauge,
    webtransport: Gauge,
    sessions: Gauge,
}

impl ConnectionMetrics {
    /// Counts a session in `tern_sessions`, from its Welcome until the guard is dropped.
    pub fn welcomed(&self) -> OpenConnection {
        self.sessions.increment(1.0);
        OpenConnection(self.sessions.clone())
    }

    /// Counts a connection in `tern_connections{transport}` until the guard is dropped: one that could carry
    /// a session, whether Hello has come or not.
    pub fn opened(&self, transport: TransportLabel) -> OpenConnection {
        let gauge = match transport {
            TransportLabel::Quic => &self.quic,
            TransportLabel::WebSocket => &self.websocket,
            TransportLabel::WebTransport => &self.webtransport,
        };
        gauge.increment(1.0);
        OpenConnection(gauge.clone())
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Sending and receiving messages.
#[derive(Debug)]
pub struct MessageMetrics {
    /// `tern_delivery_seconds`: from a Send's arrival to a recipient's Ack, of one delivery in 64 to
    /// each session.
    pub delivery_seconds: Histogram,
    /// `tern_send_ack_seconds`: from a Send's arrival to its SendAck being queued.
    pub send_ack_seconds: Histogram,
    /// `tern_sends_total{outcome="applied"}`: changes that became durable.
    pub sends_applied: Counter,
    /// `tern_sends_total{outcome="duplicate"}`: retries of changes that were durable already.
    pub sends_duplicate: Counter,
    /// `tern_sends_total{outcome="refused"}`: changes answered with an error for good. What is refused on its
    /// way (rates, a form that cannot be) is in `tern_refused_total` only.
    pub sends_refused: Counter,
    /// `tern_sends_total{outcome="temporary"}`: changes answered with an error that a retry may cure.
    pub sends_temporary: Counter,
    /// `tern_dedupe_hits_total`: changes recognised by their `temp_id` as made before.
    pub dedupe_hits: Counter,
    /// `tern_lagged_total`: times that a session's queue dropped a conversation.
    pub lagged: Counter,
    /// `tern_push_pending`: push intents whose events have not left.
    pub push_pending: Gauge,
    /// `tern_push_events_total`: push events that left.
    pub push_events: Counter,
    /// `tern_push_lost_total`: push intents given up, since what they are about is damaged.
    pub push_lost: Counter,
}

/// The owners of conversations.
#[derive(Debug)]
pub struct OwnerMetrics {
    /// `tern_conversations_ready`: conversations whose state is kept ready for the next change.
    pub conversations: Gauge,
}

/// Catching up.
#[derive(Debug)]
pub struct SyncMetrics {
    /// `tern_sync_total{outcome="up_to_date"}`: nothing had changed.
    pub up_to_date: Counter,
    /// `tern_sync_total{outcome="caught_up"}`: everything missing was sent.
    pub caught_up: Counter,
    /// `tern_sync_total{outcome="gap"}`: some of it was only named.
    pub gap: Counter,
    /// `tern_sync_total{outcome="refused"}`: the client's cursors do not fit this store.
    pub refused: Counter,
}

/// The message store.
#[derive(Debug)]
pub struct StoreMetrics {
    /// `tern_store_commit_seconds`: one durable commit.
    pub commit_seconds: Histogram,
    /// `tern_store_commit_entries`: entries in one commit.
    pub commit_entries: Histogram,
    /// `tern_store_aged_total{what="entries"}`: entries removed because of their age.
    pub aged_entries: Counter,
    /// `tern_store_aged_total{what="markers"}`: dedupe markers removed because of their age.
    pub aged_markers: Counter,
    /// `tern_store_unreadable_total`: reads that met damaged data. Somebody should look.
    pub unreadable: Counter,
}

/// What operators did.
#[derive(Debug)]
pub struct AccountMetrics {
    /// `tern_revocations_total`: times that a user's tokens were revoked.
    pub revocations: Counter,
    /// `tern_sessions_ended_total{by="close"}`: sessions that an operator closed.
    pub closed: Counter,
    /// `tern_sessions_ended_total{by="revoke"}`: sessions that ended because their token was revoked.
    pub revoked: Counter,
}

/// What was refused.
#[derive(Debug)]
pub struct RefusedMetrics {
    by_code: Vec<(Code, Counter)>,
    other: Counter,
}

impl RefusedMetrics {
    /// Counts an Error or Close with this code in `tern_refused_total{code}`; an ordinary end is none.
    pub fn count(&self, code: Code) {
        if code == Code::NORMAL {
            return;
        }
        match self.by_code.binary_search_by_key(&code, |row| row.0) {
            Ok(index) => self.by_code[index].1.increment(1),
            Err(_) => self.other.increment(1),
        }
    }
}

/// The process.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// `tern_panics_total`: tasks that panicked. Somebody should look.
    pub panics: Counter,
}

/// What is renewed while the node runs.
#[derive(Debug)]
pub struct RenewalMetrics {
    /// `tern_certificate_expires_timestamp_seconds`: when the certificate that is presented ends, in
    /// Unix seconds.
    pub certificate_expires: Gauge,
    /// `tern_reloads_total{outcome="applied"}`: certificates, keys or settings taken at run time.
    pub reloads_applied: Counter,
    /// `tern_reloads_total{outcome="refused"}`: those that were bad, so that the old ones stay. Somebody
    /// should look.
    pub reloads_refused: Counter,
    /// `tern_jwks_fetches_total{outcome="ok"}`: key sets fetched from an issuer.
    pub jwks_fetched: Counter,
    /// `tern_jwks_fetches_total{outcome="failed"}`: key sets that could not be fetched or used.
    pub jwks_failed: Counter,
}

impl Metrics {
    /// Handles that count nowhere.
    pub fn none() -> Self {
        Self::register(&metrics::NoopRecorder)
    }

    fn register(recorder: &dyn Recorder) -> Self {
        let make = Maker(recorder);
        Self(Arc::new(Areas {
            connections: make.connections(),
            sockets: SocketMetrics::register(&make),
            messages: make.messages(),
            owners: make.owners(),
            sync: make.sync(),
            store: make.store(),
            events: EventMetrics::register(&make),
            accounts: make.accounts(),
            refused: make.refused(),
            process: make.process(),
            memory: MemoryMetrics::register(&make),
            renewal: make.renewal(),
        }))
    }
}

/// Registers handles with a recorder, each with its description.
struct Maker<'a>(&'a dyn Recorder);

const METADATA: Metadata<'static> = Metadata::new("tern", Level::INFO, None);

impl Maker<'_> {
    fn connections(&self) -> ConnectionMetrics {
        let name = "tern_connections";
        self.0.describe_gauge(
            name.into(),
            None,
            "Connections of clients, before and after Hello, by transport.".into(),
        );
        let gauge = |transport| self.0.register_gauge(&key(name, "transport", transport), &METADATA);
        ConnectionMetrics {
            quic: gauge("quic"),
            websocket: gauge("websocket"),
            webtransport: gauge("webtransport"),
            sessions: self.gauge("tern_sessions", "Sessions, from Welcome to their end."),
        }
    }

    fn messages(&self) -> MessageMetrics {
        let name = "tern_sends_total";
        self.0.describe_counter(
            name.into(),
            None,
            "Changes that reached their conversation, by outcome.".into(),
        );
        let sends = |outcome| self.0.register_counter(&key(name, "outcome", outcome), &METADATA);
        MessageMetrics {
            delivery_seconds: self
                .seconds("tern_delivery_seconds", "From a Send's arrival to the Ack, of one delivery in 64."),
            send_ack_seconds: self
                .seconds("tern_send_ack_seconds", "From a Send's arrival to its SendAck being queued."),
            sends_applied: sends("applied"),
            sends_duplicate: sends("duplicate"),
            sends_refused: sends("refused"),
            sends_temporary: sends("temporary"),
            dedupe_hits: self.counter("tern_dedupe_hits_total", "Retries found by their temp_id."),
            lagged: self.counter("tern_lagged_total", "Times a session's queue dropped a conversation."),
            push_pending: self.gauge("tern_push_pending", "Push intents whose events have not left."),
            push_events: self.counter("tern_push_events_total", "Push events that left."),
            push_lost: self.counter(
                "tern_push_lost_total",
                "Push intents given up, since what they are about is damaged.",
            ),
        }
    }

    fn owners(&self) -> OwnerMetrics {
        let what = "Conversations whose state is kept ready for the next change.";
        OwnerMetrics { conversations: self.gauge("tern_conversations_ready", what) }
    }

    fn sync(&self) -> SyncMetrics {
        let name = "tern_sync_total";
        self.0.describe_counter(name.into(), None, "Syncs of clients, by outcome.".into());
        let sync = |outcome| self.0.register_counter(&key(name, "outcome", outcome), &METADATA);
        SyncMetrics {
            up_to_date: sync("up_to_date"),
            caught_up: sync("caught_up"),
            gap: sync("gap"),
            refused: sync("refused"),
        }
    }

    fn store(&self) -> StoreMetrics {
        let name = "tern_store_aged_total";
        self.0.describe_counter(name.into(), None, "What was removed because of its age.".into());
        let aged = |what| self.0.register_counter(&key(name, "what", what), &METADATA);
        StoreMetrics {
            aged_entries: aged("entries"),
            aged_markers: aged("markers"),
            unreadable: self.counter("tern_store_unreadable_total", "Reads that met damaged data."),
            commit_seconds: self.seconds("tern_store_commit_seconds", "One durable commit of the store."),
            commit_entries: self.histogram("tern_store_commit_entries", None, "Entries in one commit."),
        }
    }

    fn accounts(&self) -> AccountMetrics {
        let name = "tern_sessions_ended_total";
        self.0.describe_counter(name.into(), None, "Sessions ended by operators, by what they did.".into());
        let ended = |by| self.0.register_counter(&key(name, "by", by), &METADATA);
        AccountMetrics {
            revocations: self.counter("tern_revocations_total", "Times that a user's tokens were revoked."),
            closed: ended("close"),
            revoked: ended("revoke"),
        }
    }

    fn refused(&self) -> RefusedMetrics {
        let name = "tern_refused_total";
        self.0.describe_counter(name.into(), None, "Errors and closes sent to clients, by code.".into());
        let counter = |code: String| self.0.register_counter(&key(name, "code", code), &METADATA);
        let refusals = Code::TABLE.iter().filter(|(code, ..)| *code != Code::NORMAL);
        RefusedMetrics {
            by_code: refusals.map(|(code, ..)| (*code, counter(code.0.to_string()))).collect(),
            other: counter("other".into()),
        }
    }

    fn process(&self) -> ProcessMetrics {
        ProcessMetrics { panics: self.counter("tern_panics_total", "Tasks that panicked.") }
    }

    fn renewal(&self) -> RenewalMetrics {
        let reloads = "tern_reloads_total";
        self.0.describe_counter(reloads.into(), None, "Certificates, keys and settings renewed.".into());
        let reload = |outcome| self.0.register_counter(&key(reloads, "outcome", outcome), &METADATA);
        let fetches = "tern_jwks_fetches_total";
        self.0.describe_counter(fetches.into(), None, "Fetches of an issuer's keys, by outcome.".into());
        let fetch = |outcome| self.0.register_counter(&key(fetches, "outcome", outcome), &METADATA);
        RenewalMetrics {
            certificate_expires: self.gauge(
                "tern_certificate_expires_timestamp_seconds",
                "When the certificate ends, in Unix seconds; 0 if there is none from files.",
            ),
            reloads_applied: reload("applied"),
            reloads_refused: reload("refused"),
            jwks_fetched: fetch("ok"),
            jwks_failed: fetch("failed"),
        }
    }

    fn counter(&self, name: &'static str, what: &'static str) -> Counter {
        self.0.describe_counter(name.into(), None, what.into());
        self.0.register_counter(&Key::from_static_name(name), &METADATA)
    }

    fn counter_of(
        &self,
        name: &'static str,
        label: &'static str,
        value: &'static str,
        what: &'static str,
    ) -> Counter {
        self.0.describe_counter(name.into(), None, what.into());
        self.0.register_counter(&key(name, label, value), &METADATA)
    }

    fn gauge_of(
        &self,
        name: &'static str,
        label: &'static str,
        value: &'static str,
        what: &'static str,
    ) -> Gauge {
        self.0.describe_gauge(name.into(), None, what.into());
        self.0.register_gauge(&key(name, label, value), &METADATA)
    }

    fn gauge(&self, name: &'static str, what: &'static str) -> Gauge {
        self.0.describe_gauge(name.into(), None, what.into());
        self.0.register_gauge(&Key::from_static_name(name), &METADATA)
    }

    fn seconds(&self, name: &'static str, what: &'static str) -> Histogram {
        self.histogram(name, Some(Unit::Seconds), what)
    }

    fn histogram(&self, name: &'static str, unit: Option<Unit>, what: &'static str) -> Histogram {
        self.0.describe_histogram(name.into(), unit, what.into());
        self.0.register_histogram(&Key::from_static_name(name), &METADATA)
    }
}

fn key(name: &'static str, label: &'static str, value: impl Into<metrics::SharedString>) -> Key {
    Key::from_parts(name, vec![Label::new(label, value)])
}

/// Keeps the values and writes them in the Prometheus text format. Each node of a process has its
/// own; nothing is global.
pub struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    metrics: Metrics,
    process: metrics_process::Collector,
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Exporter {
    /// All values at zero.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_entries".into()), &ENTRIES))
            .expect("the buckets are not empty")
            .build_recorder();
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        let (handle, metrics) = (recorder.handle(), Metrics::register(&recorder));
        Self { recorder, handle, metrics, process }
    }

    /// The handles that count here.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The Prometheus text.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        self.handle.render()
    }

    /// Folds the samples of histograms into their buckets; until then each one is kept in memory.
    pub fn fold(&self) {
        self.handle.run_upkeep();
    }
}

/// Records a duration in a histogram of seconds.
pub fn record(histogram: &Histogram, duration: Duration) {
    histogram.record(duration.as_secs_f64());
}
