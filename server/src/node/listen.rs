//! The ports for clients: one number on UDP and TCP, and plain HTTP where it is wanted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::HeaderValue;
use ::http::header::ALT_SVC;
use ::http::uri::Authority;
use axum::Router;
use axum::extract::Extension;
use axum::response::Response;
use tower::util::MapResponseLayer;

use crate::budget::{Budget, Memory, MemoryPart};
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::drain::Shutdown;
use crate::http;
use crate::node::config::ListenConfig;
use crate::ops::metrics::Metrics;
use crate::ops::turned_away;
use crate::session::Gateway;
use crate::transport::TransportConfig;
use crate::transport::address::AddressGate;
use crate::transport::quic::{Established, QuicListener};
use crate::transport::quic_keys::EndpointKeys;
use crate::transport::tcp::{Places, TcpListener};
use crate::transport::tls::{self, Certificate};

/// Tries to find a port that is free on both UDP and TCP.
const PORT_TRIES: usize = 16;

/// Browsers remember for this many seconds that HTTP/3 is there.
const ALT_SVC_AGE_S: u32 = 86_400;

/// Why a port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken or not of this machine.
    #[error("cannot listen on {address} ({protocol}): {source}{hint}", hint = hint(source))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The name for clients has no host or no port.
    #[error("listen.public = {0:?} must be a host and a port, such as chat.example:443")]
    Public(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program uses it: stop that or choose another port",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
        _ => "",
    }
}

impl ListenConfig {
    /// The name by which clients reach the port for clients.
    pub(super) fn public(&self) -> Result<Option<Authority>, ListenError> {
        let bad = |text: &String| ListenError::Public(text.clone());
        let parse = |text: &String| text.parse::<Authority>().ok().filter(|name| name.port().is_some());
        self.public.as_ref().map(|text| parse(text).ok_or_else(|| bad(text))).transpose()
    }
}

/// The bound ports, not yet accepting.
pub(super) struct Listeners {
    quic: QuicListener,
    tls: TcpListener,
    plain: Option<TcpListener>,
    client: SocketAddr,
    http: Option<SocketAddr>,
    config: Arc<TransportConfig>,
    metrics: Metrics,
    answers: Budget,
}

/// What every listener asks before it lets somebody in.
struct Doors {
    gate: AddressGate,
    places: Places,
}

impl Listeners {
    /// Takes all ports, or none.
    pub(super) fn bind(
        config: &Config,
        certificate: &Arc<Certificate>,
        keys: &EndpointKeys,
        memory: &Memory,
        descriptors: Descriptors,
        metrics: Metrics,
    ) -> Result<Self, ListenError> {
        let transport = &config.transport;
        let answers = memory.part(MemoryPart::Answers).clone();
        let memory = memory.part(MemoryPart::Connections);
        let doors = Doors {
            gate: AddressGate::new(transport, memory).counting(metrics.clone()),
            places: Places::new(transport, descriptors, metrics.clone()),
        };
        let (quic, tls, client) = bind_client(config, certificate, keys, &doors)?;
        let plain = match config.listen.http {
            None => None,
            Some(address) => {
                let listener = TcpListener::bind(address, None, doors.gate, doors.places, transport);
                Some(listener.map_err(|source| ListenError::Bind { address, protocol: "TCP", source })?)
            }
        };
        let http = plain.as_ref().and_then(|plain| plain.local_addr().ok());
        Ok(Self { quic, tls, plain, client, http, config: Arc::new(transport.clone()), metrics, answers })
    }

    /// Where clients connect, on UDP and TCP.
    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Where plain HTTP is.
    pub(super) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Accepts until the drain begins. Every connection is a task that the drain waits for. All QUIC
    /// sessions run on the socket that is returned: it must outlive them.
    pub(super) fn serve(self, gateway: Gateway, router: Router, shutdown: &Shutdown) -> Arc<QuicListener> {
        let Self { quic, tls, plain, client, config, metrics, answers, .. } = self;
        let server = |router| {
            let (config, metrics) = (config.clone(), metrics.clone());
            http::Server::new(router, config, metrics, answers.clone(), shutdown.clone())
        };
        let quic = Arc::new(quic);
        let asked = (router.clone(), answers.clone());
        shutdown.spawn(accept_quic(quic.clone(), asked, gateway, shutdown.clone()));
        if let Some(plain) = plain {
            let router = router.clone().layer(Extension(http::Plain));
            shutdown.spawn(accept_tcp(plain, server(router), shutdown.clone()));
        }
        shutdown.spawn(accept_tcp(tls, server(announce_http3(router, client)), shutdown.clone()));
        quic
    }
}

/// One number on both protocols. With port 0, TCP picks and UDP must get the same.
fn bind_client(
    config: &Config,
    certificate: &Arc<Certificate>,
    keys: &EndpointKeys,
    Doors { gate, places }: &Doors,
) -> Result<(QuicListener, TcpListener, SocketAddr), ListenError> {
    let wanted = config.listen.client;
    let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let tcp = |source| ListenError::Bind { address: wanted, protocol: "TCP", source };
        let tls_config = tls::tcp_server_config(certificate.clone());
        let listener =
            TcpListener::bind(wanted, Some(tls_config), gate.clone(), places.clone(), &config.transport)
                .map_err(tcp)?;
        let address = listener.local_addr().map_err(tcp)?;
        let quic_config = tls::quic_server_config(certificate.clone());
        match QuicListener::bind(address, quic_config, gate.clone(), keys, &config.transport) {
            Ok(quic) => return Ok((quic, listener, address)),
            Err(source) => {
                tries -= 1;
                if tries == 0 {
                    return Err(ListenError::Bind { address, protocol: "UDP", source });
                }
            }
        }
    }
}

/// Tells browsers on TLS that HTTP/3 is at the same port.
fn announce_http3(router: Router, client: SocketAddr) -> Router {
    let value = format!("h3=\":{}\"; ma={ALT_SVC_AGE_S}", client.port());
    let value = HeaderValue::try_from(value).expect("plain text");
    router.layer(MapResponseLayer::new(move |mut response: Response| {
        response.headers_mut().insert(ALT_SVC, value.clone());
        response
    }))
}

async fn accept_quic(
    listener: Arc<QuicListener>,
    (router, answers): (Router, Budget),
    gateway: Gateway,
    shutdown: Shutdown,
) {
    loop {
        let pending = tokio::select! {
            pending = listener.accept() => pending,
            _ = shutdown.draining() => return,
        };
        let Some(pending) = pending else { return };
        let (router, answers) = (router.clone(), answers.clone());
        let (gateway, owner) = (gateway.clone(), shutdown.clone());
        let client = pending.remote().ip();
        shutdown.spawn(async move {
            match pending.establish().await {
                // Tasks of their own: what the handshake needed is not kept.
                Ok(Established::Native(link)) => drop(owner.spawn(gateway.serve(link))),
                Ok(Established::Http3(connection)) => {
                    owner.clone().spawn(http::http3::serve(connection, router, answers, gateway, owner));
                }
                Err(error) => turned_away("quic_handshake", client, &error),
            }
        });
    }
}

async fn accept_tcp(listener: TcpListener, server: http::Server, shutdown: Shutdown) {
    loop {
        let pending = tokio::select! {
            pending = listener.accept() => pending,
            _ = shutdown.draining() => return,
        };
        let server = server.clone();
        let client = pending.remote().ip();
        shutdown.spawn(async move {
            let connection = match pending.establish().await {
                Ok(connection) => connection,
                Err(error) => {
                    turned_away("tls_handshake", client, &error);
                    return;
                }
            };
            let remote = connection.remote();
            server.serve(connection, remote).await;
        });
    }
}
