//! QUIC: the listener, and what an accepted connection becomes: a link of native QUIC, or HTTP/3.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, Incoming};
use tern_protocol::Code;
use tokio::time::{Instant, timeout};

use super::address::{AddressGate, AddressPermit};
use super::carrier::{Carrier, var_int};
use super::error::clean_reason;
use super::http3::Http3Connection;
use super::quic_keys::EndpointKeys;
use super::tls::ALPN_HTTP3;
use super::{EstablishError, Link, LinkError, LinkInfo, LinkReader, LinkWriter, Transport, TransportConfig};
use crate::ops::turned_away;
use crate::roster::Format;

pub use reader::QuicReader;
pub use writer::QuicWriter;

/// Kernel buffer of the one UDP socket, in bytes, as far as the system grants it: it carries all
/// connections.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes kept of a client that sends before its connection is accepted, and of all of them.
const INCOMING_BUFFER_BYTES: u64 = 16 * 1024;
const INCOMING_BUFFERS_BYTES: u64 = 16 * 1024 * 1024;
/// Most bytes of TLS handshake kept out of order.
const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;

/// Accepts QUIC connections on one UDP socket.
#[derive(Debug)]
pub struct QuicListener {
    endpoint: Endpoint,
    config: Arc<TransportConfig>,
    gate: AddressGate,
    handshakes: Count,
    unproven: Count,
}

impl QuicListener {
    /// Listens on `address` (port 0: any free one) with a configuration of
    /// [`quic_server_config`](super::tls::quic_server_config).
    pub fn bind(
        address: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        gate: AddressGate,
        keys: &EndpointKeys,
        config: &TransportConfig,
    ) -> io::Result<Self> {
        let endpoint = Endpoint::new(
            keys.endpoint(),
            Some(server_config(tls, keys, config)?),
            udp_socket(address)?,
            Arc::new(quinn::TokioRuntime),
        )?;
        let config = Arc::new(config.clone());
        Ok(Self { endpoint, config, gate, handshakes: Count::default(), unproven: Count::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client within the limits; `None` once the listener is closed. Others are refused
    /// here, or made to prove their address. Cancel-safe.
    pub async fn accept(&self) -> Option<PendingQuic> {
        loop {
            let incoming = self.endpoint.accept().await?;
            if let Some(pending) = self.screen(incoming) {
                return Some(pending);
            }
        }
    }

    /// Ends all connections with this code and accepts no more.
    pub fn close(&self, code: Code, reason: &str) {
        self.endpoint.close(var_int(code), clean_reason(reason).as_bytes());
    }

    /// Waits until all connections are gone.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    fn screen(&self, incoming: Incoming) -> Option<PendingQuic> {
        let address = incoming.remote_address().ip();
        let proven = incoming.remote_address_validated();
        let refused = self.gate.check(address);
        if !proven && (refused.is_err() || self.unproven.now() >= self.config.quic_retry_above) {
            // The address may be forged: nobody is turned away or counted for it. A Retry costs
            // no memory, and only the owner of the address can answer it.
            let _ = incoming.retry();
            return None;
        }
        if let Err(refused) = refused {
            turned_away(refused.reason(), address, &refused);
            self.gate.count(refused);
            incoming.refuse();
            return None;
        }
        if self.handshakes.now() >= self.config.quic_handshakes_max {
            turned_away("quic_handshakes_max", address, &"too many handshakes are under way");
            incoming.refuse();
            return None;
        }
        Some(PendingQuic {
            incoming,
            config: self.config.clone(),
            gate: self.gate.clone(),
            counted: (self.handshakes.add(), (!proven).then(|| self.unproven.add())),
        })
    }
}

/// A client that has asked for a connection.
#[derive(Debug)]
pub struct PendingQuic {
    incoming: Incoming,
    config: Arc<TransportConfig>,
    gate: AddressGate,
    counted: (Counted, Option<Counted>),
}

impl PendingQuic {
    /// Address of the client, which it may not have proven yet.
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Turns the client away at once, so that it tries elsewhere: for a node that is going away.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Does the handshake within `handshake_timeout_ms`. With native QUIC it then waits for the control
    /// stream within `hello_timeout_ms`.
    pub async fn establish(self) -> Result<Established, EstablishError> {
        let Self { incoming, config, gate, counted } = self;
        let connecting = incoming.accept().map_err(handshake_error)?;
        let connection = match timeout(config.handshake_timeout(), connecting).await {
            Err(_) => return Err(EstablishError::HandshakeTimeout),
            Ok(connection) => connection.map_err(handshake_error)?,
        };
        drop(counted);
        let remote = connection.remote_address();
        // Only now the address is proven, so only now it is counted.
        let permit = gate.admit(remote.ip()).inspect_err(|refused| {
            connection.close(var_int(refused.code()), refused.to_string().as_bytes());
        })?;
        match negotiated(&connection).as_deref() {
            Some(tern_protocol::ALPN) => {
                Ok(Established::Native(Box::new(native_link(connection, permit, &config).await?)))
            }
            Some(ALPN_HTTP3) => {
                let http3 = Http3Connection::establish(connection, permit, config).await?;
                Ok(Established::Http3(Box::new(http3)))
            }
            other => {
                connection.close(var_int(Code::UNSUPPORTED_VERSION), b"unknown protocol");
                Err(EstablishError::Handshake(format!("ALPN {other:?} is not spoken here")))
            }
        }
    }
}

/// What a connection became, by what the client wanted to speak.
pub enum Established {
    /// Native QUIC: a link.
    Native(Box<Link>),
    /// HTTP/3: requests, and WebTransport sessions that become links.
    Http3(Box<Http3Connection>),
}

async fn native_link(
    connection: Connection,
    permit: AddressPermit,
    config: &TransportConfig,
) -> Result<Link, EstablishError> {
    let info = LinkInfo {
        transport: Transport::Quic,
        format: Format::Binary,
        remote: connection.remote_address(),
        established: Instant::now(),
    };
    let (send, recv) = match timeout(config.hello_timeout(), connection.accept_bi()).await {
        Err(_) => {
            connection.close(var_int(Code::HELLO_TIMEOUT), b"no control stream in time");
            return Err(EstablishError::NoControlStream);
        }
        Ok(stream) => stream.map_err(LinkError::of_connection)?,
    };
    let carrier = Carrier::Whole(connection);
    let reader = QuicReader::new(carrier.clone(), recv, None, Some(permit));
    let writer = QuicWriter::new(carrier, send, None, config);
    Ok(Link::new(info, LinkReader::Quic(reader), LinkWriter::Quic(writer)))
}

/// How many of something there are now.
#[derive(Clone, Debug, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

/// Counts as one until it is dropped.
#[derive(Debug)]
struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    // The system may grant less, which only costs packets in a burst.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn server_config(
    tls: Arc<rustls::ServerConfig>,
    keys: &EndpointKeys,
    config: &TransportConfig,
) -> io::Result<quinn::ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(config.quic_bidi_streams_max.into())
        .max_concurrent_uni_streams(config.quic_uni_streams_max.into())
        .stream_receive_window(config.quic_stream_window_bytes.into())
        .receive_window(config.quic_connection_window_bytes.into())
        .send_window(config.quic_send_window_bytes.into())
        .datagram_receive_buffer_size(Some(config.quic_datagram_buffer_bytes))
        .datagram_send_buffer_size(config.quic_datagram_buffer_bytes)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        // Probes cost a good part of a handshake; chat frames are far smaller than a packet.
        .mtu_discovery_config(None)
        // Clients keep the connection alive: the server would pay for a million timers.
        .keep_alive_interval(None)
        .max_idle_timeout(Some(config.dead_after().try_into().map_err(io::Error::other)?))
        .allow_spin(false);
    let mut server = quinn::ServerConfig::new(Arc::new(crypto), keys.token());
    server
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(config.quic_handshakes_max)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    server.validation_token.sent(0);
    Ok(server)
}

fn negotiated(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

fn handshake_error(error: ConnectionError) -> EstablishError {
    EstablishError::Handshake(error.to_string())
}
