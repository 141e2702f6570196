//! A whole node: all start-up and shut-down order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::uri::Authority;
use secrecy::ExposeSecret;
use tern_protocol::Code;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod backends;
pub mod config;
pub mod dev;
mod health;
mod leave;
mod life;
mod listen;
mod pressure;
mod ready;
mod reload;

pub use backends::BackendError;
pub use life::{CommandError, command};
pub use ready::{Ready, Tokens};
pub use reload::Reloader;

use crate::auth::{self, AuthConfigError, Authenticator};
use crate::budget::{Limits, Memory, MemoryPart};
use crate::clock::unix_ms;
use crate::config::{Config, Senseless, senseless};
use crate::conversation::Conversations;
use crate::conversation::history::History;
use crate::delivery::Delivery;
use crate::descriptors::Descriptors;
use crate::drain::{DrainConfigError, SETTLE_MAX, Shutdown};
use crate::events::Events;
use crate::http::{self, Bootstrap, DevTokens};
use crate::ops::logs;
use crate::ops::metrics::{Exporter, Metrics};
use crate::ops::{Check, OpsError, OpsServer, Readiness};
use crate::presence::{Presence, PresenceTasks};
use crate::push::Publisher;
use crate::registry::{Keeper, Lease};
use crate::roster::Roster;
use crate::router::Router;
use crate::session::quota::Quota;
use crate::session::{self, Gateway, STOPS};
use crate::store::Store;
use crate::transport::SettingError;
use crate::transport::quic::QuicListener;
use crate::transport::quic_keys::EndpointKeys;
use crate::transport::tls::{Certificate, Identity, TlsError};
use crate::upkeep::{Accounts, RetentionError};
use backends::Backends;
use health::Health;
use life::Life;
use listen::{ListenError, Listeners};
use pressure::Pressure;
use reload::WatchFiles;

/// A node that says nothing for so long is taken for gone by the others.
const LEASE: Duration = Duration::from_secs(30);

/// Time for the last QUIC packets to leave.
const QUIC_GOODBYE: Duration = Duration::from_millis(200);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The message store, or what events leave by.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Keys for tokens.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting of the transports.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// How long a drain takes.
    #[error(transparent)]
    Drain(#[from] DrainConfigError),
    /// A setting that cannot mean what it says.
    #[error("{0} (`tern config check` names all there are)")]
    Senseless(#[from] Senseless),
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
            | Self::Drain(_)
            | Self::Senseless(_)
            | Self::Retention(_)
            | Self::Listen(ListenError::Public(_))
            | Self::Ops(OpsError::Remote(_)) => true,
            Self::Backend(_)
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
    /// What `/readyz` says of its ports and its memory.
    _shown: (Check, Pressure),
    config: Config,
    shutdown: Shutdown,
    roster: Roster,
    readiness: Readiness,
    conversations: Conversations,
    presence: PresenceTasks,
    keeper: Keeper,
    publisher: (CancellationToken, JoinHandle<()>),
    life: Life,
    store: Arc<dyn Store>,
    health: Health,
    ops: OpsServer,
    reloader: Arc<Reloader>,
    watch: WatchFiles,
    /// Renews the certificate of a development node.
    renewal: Option<dev::Renewal>,
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
        let descriptors = claim_descriptors();
        let public = check(&config)?;
        // Handles of metrics are made from the exporter, so it comes first.
        let exporter = Arc::new(Exporter::new());
        let (metrics, readiness) = (exporter.metrics(), Readiness::default());
        let auth = Arc::new(Authenticator::new(config.auth.clone())?);
        let memory = Memory::new(config.memory.limit_bytes(&Limits::of_this_process()));
        // The store locks the data directory: before any port is taken, a second node on it fails here.
        let Backends { data, registry, events } = backends::open(&config, &metrics, &memory)?;
        let store = data.store.clone();
        let health = Health::start(&readiness, store.clone(), events.clone());
        let (roster, shutdown) = (Roster::default(), Shutdown::new());
        let delivery = Delivery::new(roster.clone(), metrics.clone());
        let (conversations, router) = start_owners(&config, &memory, &store, &delivery, &metrics);
        let (presence, presence_tasks) = Presence::start(&config.presence, roster.clone(), store.clone());
        // A later start has a higher number, so that nobody mistakes it for an earlier one.
        let lease = Lease { node: config.node.name.clone(), boot: unix_ms(), lasts: LEASE };
        let keeper = Keeper::start(registry, lease.clone(), roster.clone());
        let accounts = Accounts::new(store.clone(), delivery.clone(), metrics.clone());
        let services = session::Services {
            auth: auth.clone(),
            quota: Arc::new(Quota::new(&config.quota, Instant::now())),
            roster: roster.clone(),
            router: router.clone(),
            delivery: delivery.clone(),
            history: History::new(store.clone()),
            store: store.clone(),
            presence,
            metrics: metrics.clone(),
            memory: memory.clone(),
        };
        // Intents of an earlier run are published before clients are back: they are due already.
        let publisher = start_publisher(&config, &memory, store.clone(), events, &delivery, metrics.clone());
        let life = Life::start(&config, data, router, (delivery, accounts.clone()), metrics.clone())?;
        let ops = OpsServer::start(&config.ops, exporter, readiness.clone()).await?;
        let accepting = readiness.check("listeners");
        let certificate = Certificate::new(identity);
        let reloader = Reloader::new(&config, certificate.clone(), &auth, &metrics, &readiness);
        // Ports last: whoever gets through finds everything there.
        let told = (public, dev_tokens, certificate);
        let (ready, quic) = open(&config, lease, (services, accounts), told, descriptors, &ops, &shutdown)?;
        accepting.ready();
        Ok(Self {
            ready,
            _shown: (accepting, Pressure::start(memory, &readiness, metrics.clone())),
            metrics,
            quic,
            config,
            shutdown,
            roster,
            readiness,
            conversations,
            presence: presence_tasks,
            keeper,
            publisher,
            life,
            store,
            health,
            ops,
            watch: WatchFiles::start(reloader.clone()),
            reloader,
            renewal: None,
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

    /// Logs what this node is: which build, whose data, where, and how much it may take.
    pub fn introduce(&self) {
        let Config { node, memory, session, transport, .. } = &self.config;
        let memory = memory.limit_bytes(&Limits::of_this_process()) / (1024 * 1024);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = node.name.as_str(),
            store = %self.ready.store_id,
            directory = %node.data_dir.display(),
            client = self.ready.quic_addr,
            http = self.ready.http_url,
            ops = self.ready.ops_url,
            memory_mib = memory,
            open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            sessions_per_user = session.sessions_per_user,
            connections_per_address = transport.address_connections_max,
            "ready"
        );
    }

    /// From now on a panic anywhere in the process is logged and counted here. For programs that are
    /// nothing but this node.
    pub fn count_panics(&self) {
        logs::install_panic_hook(self.metrics.process.panics.clone());
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
        let drained = {
            let finished = self.shutdown.finished();
            tokio::pin!(finished);
            tokio::select! {
                drained = &mut finished => drained,
                () = leave::send_away(&self.roster, &self.config.drain) => {
                    self.shutdown.stop();
                    finished.await
                }
                () = self.refuse_new() => finished.await,
            }
        };
        if !drained {
            tracing::warn!("some sessions did not end in time");
        }
        self.quic.close(Code::SHUTDOWN, STOPS);
        // The packets that say so are still to leave.
        let _ = tokio::time::timeout(QUIC_GOODBYE, self.quic.wait_idle()).await;
        if tokio::time::timeout(SETTLE_MAX, self.settle()).await.is_err() {
            tracing::error!(
                "the store did not take what it was owed in time; nothing that was acked is lost"
            );
        }
    }

    /// Ends what is left once there are no sessions, in order.
    async fn settle(self) {
        self.life.stop().await;
        // No session is left that could submit: settle what they did submit.
        self.conversations.close().await;
        let (stop, publisher) = self.publisher;
        stop.cancel();
        let _ = publisher.await;
        self.keeper.stop().await;
        self.presence.stop().await;
        drop(self.health);
        // Last of all: everything before it may write.
        self.store.close().await;
        drop(self.watch);
        drop(self.ops);
    }

    /// Drains now.
    pub async fn shutdown(self) {
        self.shutdown.drain();
        self.finish().await;
    }

    /// Who connects during the drain is turned away at once, not left to a timeout.
    async fn refuse_new(&self) {
        while let Some(pending) = self.quic.accept().await {
            pending.refuse();
        }
    }
}

/// Before the store opens its files.
fn claim_descriptors() -> Descriptors {
    let descriptors = Descriptors::raise();
    if descriptors.are_few() {
        tracing::warn!(
            limit = descriptors.limit(),
            connections = descriptors.connections(),
            "few file descriptors: raise the limit (LimitNOFILE= of systemd, ulimit -Hn), or TCP connections \
             above this number are refused"
        );
    }
    descriptors
}

/// What can be found out before anything is started; by what name clients reach it.
fn check(config: &Config) -> Result<Option<Authority>, StartError> {
    config.transport.check()?;
    config.drain.check()?;
    match senseless(config).into_iter().next() {
        Some(first) => Err(first.into()),
        None => Ok(config.listen.public()?),
    }
}

/// Lets clients in, and says where.
fn open(
    config: &Config,
    lease: Lease,
    (services, accounts): (session::Services, Accounts),
    (public, dev_tokens, certificate): (Option<Authority>, Option<DevTokens>, Arc<Certificate>),
    descriptors: Descriptors,
    ops: &OpsServer,
    shutdown: &Shutdown,
) -> Result<(Ready, Arc<QuicListener>), StartError> {
    let (keys, memory) = (quic_keys(config)?, &services.memory);
    let listeners =
        Listeners::bind(config, &certificate, &keys, memory, descriptors, services.metrics.clone())?;
    let sha256 = certificate.identity().sha256_hex();
    let ready = ready_of(config, &listeners, sha256, ops, &*services.store);
    let pinned = dev_tokens.is_some().then_some(certificate);
    let bootstrap = Bootstrap { client_port: listeners.client().port(), public, pinned };
    let session::Services { auth, quota, router, delivery, history, store, presence, metrics, .. } =
        &services;
    let http = |gateway: &Gateway| http::Services {
        gateway: gateway.clone(),
        shutdown: shutdown.clone(),
        auth: auth.clone(),
        quota: quota.clone(),
        router: router.clone(),
        delivery: delivery.clone(),
        history: history.clone(),
        store: store.clone(),
        presence: presence.clone(),
        accounts,
        answers: services.memory.part(MemoryPart::Answers).clone(),
        metrics: metrics.clone(),
        transport: config.transport.clone(),
        bootstrap,
        dev_tokens,
        page: config.page.enabled,
    };
    let settings = session::Settings {
        session: config.session.clone(),
        transport: config.transport.clone(),
        outbox: config.outbox.clone(),
        rates: config.quota.clone(),
        people: config.people.clone(),
        node: lease.node,
        boot: lease.boot,
    };
    let gateway = Gateway::new(settings, services.clone());
    let routes = http::router(http(&gateway));
    Ok((ready, listeners.serve(gateway, routes, shutdown)))
}

fn start_owners(
    config: &Config,
    memory: &Memory,
    store: &Arc<dyn Store>,
    delivery: &Delivery,
    metrics: &Metrics,
) -> (Conversations, Router) {
    let (log, users) = (store.clone(), store.clone());
    let (delivery, metrics) = (delivery.clone(), metrics.clone());
    let conversations = Conversations::new(&config.conversation, memory, log, users, delivery, metrics);
    (conversations.clone(), Router::new(conversations))
}

fn start_publisher(
    config: &Config,
    memory: &Memory,
    store: Arc<dyn Store>,
    events: Arc<dyn Events>,
    delivery: &Delivery,
    metrics: Metrics,
) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let confirmed = delivery.confirmed().clone();
    let memory = memory.part(MemoryPart::Push);
    let publisher = Publisher::new(&config.push, store, events, confirmed, metrics, memory);
    let task = tokio::spawn(publisher.run(stop.clone()));
    (stop, task)
}

/// The keys of QUIC, from a secret that outlives the process.
fn quic_keys(config: &Config) -> Result<EndpointKeys, AuthConfigError> {
    let file = config.node.data_dir.join(&config.node.quic_key_file);
    Ok(EndpointKeys::new(auth::ensure_secret(&file)?.expose_secret(), config.node.name.as_str()))
}

fn ready_of(
    config: &Config,
    listeners: &Listeners,
    cert_sha256: String,
    ops: &OpsServer,
    store: &dyn Store,
) -> Ready {
    let client = listeners.client();
    let host = |address: std::net::SocketAddr| {
        if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() }
    };
    let http = listeners.http();
    let path = tern_protocol::CONNECT_PATH;
    let http_url = http.map_or_else(
        || format!("https://{}:{}", host(client), client.port()),
        |http| format!("http://{http}"),
    );
    Ready {
        quic_addr: format!("{}:{}", host(client), client.port()),
        webtransport_url: format!("https://{}:{}{path}", host(client), client.port()),
        websocket_url: http.map(|http| format!("ws://{http}{path}")),
        wss_url: format!("wss://{}:{}{path}", host(client), client.port()),
        page_url: config.page.enabled.then(|| format!("{http_url}/")),
        http_url,
        ops_url: format!("http://{}", ops.address()),
        cert_sha256,
        store_id: store.store_id(),
        jwt_secret_file: None,
        tokens: None,
    }
}
