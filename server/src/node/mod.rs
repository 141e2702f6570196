//! A whole node: the only place that names concrete backends, and all start-up and shut-down order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::uri::Authority;
use tern_protocol::{Code, GoAway};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub mod config;
pub mod dev;
mod life;
mod listen;
mod ready;
mod reload;

pub use life::{CommandError, command};
pub use ready::{Ready, Tokens};
pub use reload::Reloader;

use crate::auth::{AuthConfigError, Authenticator};
use crate::config::Config;
use crate::conversation::Conversations;
use crate::conversation::history::History;
use crate::delivery::Delivery;
use crate::drain::Shutdown;
use crate::events::file::{FileEvents, FileEventsError};
use crate::http::{self, Bootstrap, DevTokens};
use crate::ops::logs;
use crate::ops::metrics::{Exporter, Metrics};
use crate::ops::{Check, OpsError, OpsServer, Readiness};
use crate::presence::{Presence, PresenceTasks};
use crate::push::Publisher;
use crate::registry::memory::MemoryRegistry;
use crate::roster::{Outgoing, Roster};
use crate::router::Router;
use crate::session::quota::Quota;
use crate::session::{Gateway, NodeIdentity, Parts};
use crate::store::Store;
use crate::store::embedded::{EmbeddedStore, OpenError};
use crate::transport::SettingError;
use crate::transport::quic::QuicListener;
use crate::transport::tls::{Certificate, Identity, TlsError};
use crate::upkeep::RetentionError;
use life::Life;
use listen::{ListenError, Listeners};
use reload::WatchFiles;

/// GoAway frames sent between two pauses of [`GO_AWAY_PAUSE`].
const GO_AWAY_BURST: usize = 1000;
/// Pause between bursts of GoAway, so that a large node does not stall on telling everybody.
const GO_AWAY_PAUSE: Duration = Duration::from_millis(10);

/// Time for the last QUIC packets to leave.
const QUIC_GOODBYE: Duration = Duration::from_millis(200);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The message store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory for events.
    #[error(transparent)]
    Events(#[from] FileEventsError),
    /// Keys for tokens.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting of the transports.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What is kept and for how long.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// The socket for `tern store`.
    #[error("cannot make the control socket in the directory of the store: {0}")]
    Control(#[source] std::io::Error),
    /// A port for clients.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The port for operators.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl StartError {
    /// It will be the same at the next try, until somebody changes the configuration or a file it names.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Auth(_)
            | Self::Tls(_)
            | Self::Setting(_)
            | Self::Retention(_)
            | Self::Listen(ListenError::Public(_))
            | Self::Ops(OpsError::Remote(_)) => true,
            Self::Store(_)
            | Self::Events(_)
            | Self::Control(_)
            | Self::Listen(ListenError::Bind { .. })
            | Self::Ops(OpsError::Bind { .. }) => false,
        }
    }
}

/// A running node. Dropping it leaves everything running until the runtime ends; call
/// [`Node::finish`] or [`Node::shutdown`].
pub struct Node {
    ready: Ready,
    metrics: Metrics,
    quic: Arc<QuicListener>,
    _accepting: Check,
    config: Config,
    shutdown: Shutdown,
    roster: Roster,
    readiness: Readiness,
    conversations: Conversations,
    presence: PresenceTasks,
    publisher: (CancellationToken, JoinHandle<()>),
    life: Life,
    store: Arc<EmbeddedStore>,
    ops: OpsServer,
    reloader: Arc<Reloader>,
    watch: WatchFiles,
}

impl Node {
    /// Starts everything and returns when clients can connect.
    ///
    /// With `dev_tokens` it makes tokens for whoever asks, and tells clients to pin its certificate.
    pub async fn start(
        config: Config,
        identity: Identity,
        dev_tokens: Option<DevTokens>,
    ) -> Result<Self, StartError> {
        config.transport.check()?;
        let public = config.listen.public()?;
        // Handles of metrics are made from the exporter, so it comes first.
        let exporter = Arc::new(Exporter::new());
        let (metrics, readiness) = (exporter.metrics(), Readiness::default());
        let auth = Arc::new(Authenticator::new(config.auth.clone())?);
        // The store locks the data directory: before any port is taken, a second node on it fails here.
        let store = Arc::new(EmbeddedStore::open(config.store_config(), metrics.clone())?);
        let events = FileEvents::open(config.events_config())?;
        let roster = Roster::default();
        let shared: Arc<dyn Store> = store.clone();
        let delivery = Delivery::new(roster.clone(), metrics.clone());
        let (conversations, router) = start_owners(&config, &store, &delivery, &metrics);
        let (presence, presence_tasks) = Presence::start(&config.presence, shared.clone());
        let gateway = Gateway::new(Parts {
            config: config.session.clone(),
            transport: config.transport.clone(),
            outbox: config.outbox.clone(),
            rates: config.quota.clone(),
            identity: NodeIdentity { name: config.node.name.clone(), boot: rand::random() },
            auth: auth.clone(),
            quota: Quota::new(&config.quota, Instant::now()),
            roster: roster.clone(),
            registry: Arc::new(MemoryRegistry::default()),
            router: router.clone(),
            delivery: delivery.clone(),
            history: History::new(shared.clone()),
            store: shared.clone(),
            presence,
            metrics: metrics.clone(),
        });
        // Intents of an earlier run are published before clients are back: they are due already.
        let publisher = start_publisher(&config, shared, events, delivery.clone(), metrics.clone());
        let life = Life::start(&config, store.clone(), router, delivery, metrics.clone())?;
        let shutdown = Shutdown::new();
        let ops = OpsServer::start(&config.ops, exporter, readiness.clone()).await?;
        let accepting = readiness.check("listeners");
        // Ports last: whoever gets through finds everything there.
        let certificate = Certificate::new(identity);
        let listeners = Listeners::bind(&config, &certificate)?;
        let mut ready = ready_of(&listeners, certificate.identity().sha256_hex(), &ops, &*store);
        ready.page_url = config.page.enabled.then(|| format!("{}/", ready.http_url));
        let reloader = Reloader::new(&config, certificate, &auth, &metrics, &readiness);
        let quic = open(listeners, gateway, (public, dev_tokens), &ready, &shutdown);
        accepting.ready();
        Ok(Self {
            ready,
            metrics,
            quic,
            _accepting: accepting,
            config,
            shutdown,
            roster,
            readiness,
            conversations,
            presence: presence_tasks,
            publisher,
            life,
            store,
            ops,
            watch: WatchFiles::start(reloader.clone()),
            reloader,
        })
    }

    /// To change settings while it runs.
    pub fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// Where it is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// From now on a panic anywhere in the process is logged and counted here. For programs that are
    /// nothing but this node.
    pub fn count_panics(&self) {
        logs::install_panic_hook(self.metrics.process.panics.clone());
    }

    /// How long a drain may take.
    pub fn drain_deadline(&self) -> Duration {
        self.config.drain.deadline()
    }

    /// To begin the drain from outside.
    pub fn shutdown_handle(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits for the drain to begin, and drains: sessions are told, then closed; what was accepted
    /// is settled; the store is closed in order.
    pub async fn finish(self) {
        self.shutdown.draining().await;
        // First, so that balancers stop sending people here.
        self.readiness.drain();
        self.tell_all().await;
        let drained = {
            let finished = self.shutdown.finished();
            tokio::pin!(finished);
            tokio::select! {
                drained = &mut finished => drained,
                () = self.close_at_deadline() => finished.await,
                () = self.refuse_new() => finished.await,
            }
        };
        if !drained {
            tracing::warn!("some sessions did not end in time");
        }
        self.quic.close(Code::SHUTDOWN, "this node stops");
        // The packets that say so are still to leave.
        let _ = tokio::time::timeout(QUIC_GOODBYE, self.quic.wait_idle()).await;
        self.life.stop().await;
        // No session is left that could submit: settle what they did submit.
        self.conversations.close().await;
        let (stop, publisher) = self.publisher;
        stop.cancel();
        let _ = publisher.await;
        self.presence.stop().await;
        // Last of all: everything before it may write.
        self.store.close().await;
        drop(self.watch);
        drop(self.ops);
    }

    /// Drains now.
    pub async fn shutdown(self) {
        self.shutdown.drain(self.config.drain.deadline());
        self.finish().await;
    }

    async fn tell_all(&self) {
        let drain = &self.config.drain;
        let (deadline_ms, spread_ms) = (drain.deadline_ms, drain.spread_ms.min(drain.deadline_ms));
        let outgoing = Outgoing::new(GoAway { deadline_ms, spread_ms, target: None });
        for sessions in self.roster.all().chunks(GO_AWAY_BURST) {
            for session in sessions {
                let _ = session.outbox.push_control(&outgoing);
            }
            tokio::time::sleep(GO_AWAY_PAUSE).await;
        }
    }

    /// Who connects during the drain is turned away at once, not left to a timeout.
    async fn refuse_new(&self) {
        while let Some(pending) = self.quic.accept().await {
            pending.refuse();
        }
    }

    /// Shortly before the end the sessions that are left are closed with a reason.
    async fn close_at_deadline(&self) {
        let deadline = self.shutdown.draining().await;
        let margin = (self.config.drain.deadline() / 4).min(Duration::from_secs(2));
        tokio::time::sleep_until(deadline - margin).await;
        for session in self.roster.all() {
            session.outbox.close(tern_protocol::Close {
                code: Code::SHUTDOWN,
                reason: "this node stops".into(),
                retry_after_ms: None,
                target: None,
            });
        }
        std::future::pending::<()>().await;
    }
}

/// Lets clients in.
fn open(
    listeners: Listeners,
    gateway: Gateway,
    (public, dev_tokens): (Option<Authority>, Option<DevTokens>),
    ready: &Ready,
    shutdown: &Shutdown,
) -> Arc<QuicListener> {
    let cert_sha256 = dev_tokens.is_some().then(|| ready.cert_sha256.clone());
    let bootstrap = Bootstrap { client_port: listeners.client().port(), public, cert_sha256 };
    let parts = http::Parts {
        gateway: gateway.clone(),
        shutdown: shutdown.clone(),
        bootstrap,
        dev_tokens,
        page: ready.page_url.is_some(),
    };
    listeners.serve(gateway, http::router(parts), shutdown)
}

fn start_owners(
    config: &Config,
    store: &Arc<EmbeddedStore>,
    delivery: &Delivery,
    metrics: &Metrics,
) -> (Conversations, Router) {
    let (log, users) = (store.clone(), store.clone());
    let (delivery, metrics) = (delivery.clone(), metrics.clone());
    let conversations = Conversations::new(&config.conversation, log, users, delivery, metrics);
    (conversations.clone(), Router::new(conversations))
}

fn start_publisher(
    config: &Config,
    store: Arc<dyn Store>,
    events: FileEvents,
    delivery: Delivery,
    metrics: Metrics,
) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let publisher = Publisher::new(&config.push, store, Arc::new(events), delivery, metrics);
    let task = tokio::spawn(publisher.run(stop.clone()));
    (stop, task)
}

fn ready_of(listeners: &Listeners, cert_sha256: String, ops: &OpsServer, store: &dyn Store) -> Ready {
    let client = listeners.client();
    let host = |address: std::net::SocketAddr| {
        if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() }
    };
    let http = listeners.http();
    let path = tern_protocol::CONNECT_PATH;
    Ready {
        quic_addr: format!("{}:{}", host(client), client.port()),
        webtransport_url: format!("https://{}:{}{path}", host(client), client.port()),
        websocket_url: http.map(|http| format!("ws://{http}{path}")),
        wss_url: format!("wss://{}:{}{path}", host(client), client.port()),
        http_url: http.map_or_else(
            || format!("https://{}:{}", host(client), client.port()),
            |http| format!("http://{http}"),
        ),
        ops_url: format!("http://{}", ops.address()),
        page_url: None,
        cert_sha256,
        store_id: store.store_id(),
        jwt_secret_file: None,
        tokens: None,
    }
}
