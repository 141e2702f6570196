//! The TCP listener of HTTP and WebSocket: accepts, admits by address and by the places there are, does TLS.

mod connection;
mod places;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::address::{AddressGate, AddressPermit};
use super::{EstablishError, TransportConfig};
use crate::ops::turned_away;
use connection::Stream;
use places::Place;

pub use connection::TcpConnection;
pub use places::Places;

/// Connections that wait for accept.
const BACKLOG: i32 = 1024;
/// Pause after an error that the next accept would meet again, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Such errors are logged once in this time.
const ACCEPT_ERROR_EVERY: Duration = Duration::from_secs(1);

/// Accepts TCP connections, with TLS or without.
pub struct TcpListener {
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    gate: AddressGate,
    places: Places,
    handshake_timeout: Duration,
    complained: Mutex<Option<Instant>>,
}

impl TcpListener {
    /// Listens on `address` (port 0: any free one). Without `tls` the connections are plain: for
    /// loopback and behind a proxy.
    pub fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        gate: AddressGate,
        places: Places,
        config: &TransportConfig,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        if address.is_ipv6() {
            // `[::]` serves IPv4 as well, whatever the system's default.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        bound_memory(&socket, config)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            listener: tokio::net::TcpListener::from_std(socket.into())?,
            tls: tls.map(TlsAcceptor::from),
            gate,
            places,
            handshake_timeout: config.handshake_timeout(),
            complained: Mutex::new(None),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection of an address that is within its limits and for which there is a place. Survives a
    /// lack of file descriptors: it waits and tries again. Cancel-safe.
    pub async fn accept(&self) -> PendingTcp {
        loop {
            let (stream, remote) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.pause_after(&error).await;
                    continue;
                }
            };
            let counted = match self.gate.admit(remote.ip()) {
                Ok(permit) => self.places.take().map(|place| (permit, place)),
                Err(refused) => {
                    turned_away(refused.reason(), remote.ip(), &refused);
                    None
                }
            };
            match counted {
                Some(counted) => {
                    let tls = self.tls.clone();
                    let handshake_timeout = self.handshake_timeout;
                    return PendingTcp { stream, remote, counted, tls, handshake_timeout };
                }
                // Without ceremony: nothing of it is kept.
                None => drop(stream.set_zero_linger()),
            }
        }
    }

    /// A connection that ended before it was accepted concerns nobody; anything else would be met
    /// again at once.
    async fn pause_after(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        self.places.metrics().sockets.accept_errors.increment(1);
        if is_time_to_complain(&mut self.complained.lock(), Instant::now()) {
            tracing::warn!(%error, "cannot accept connections");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn is_time_to_complain(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now >= last + ACCEPT_ERROR_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

/// Bounds what the system keeps for each connection, and for how long if the peer takes nothing or is gone.
/// Accepted sockets have it from the listening one.
fn bound_memory(socket: &socket2::Socket, config: &TransportConfig) -> io::Result<()> {
    socket.set_send_buffer_size(config.tcp_send_buffer_bytes)?;
    socket.set_recv_buffer_size(config.tcp_receive_buffer_bytes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.dead_after()))?;
    Ok(())
}

/// A connection before its handshake.
pub struct PendingTcp {
    stream: TcpStream,
    remote: SocketAddr,
    counted: (AddressPermit, Place),
    tls: Option<TlsAcceptor>,
    handshake_timeout: Duration,
}

impl PendingTcp {
    /// Address of the peer.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Does the TLS handshake, if there is one, within `handshake_timeout_ms`.
    pub async fn establish(self) -> Result<TcpConnection, EstablishError> {
        // Chat is small writes that somebody waits for.
        self.stream.set_nodelay(true).map_err(|error| EstablishError::Link(error.into()))?;
        let stream = match self.tls {
            None => Stream::Plain(self.stream),
            Some(tls) => {
                let accept = tls.accept(self.stream);
                match tokio::time::timeout(self.handshake_timeout, accept).await {
                    Err(_) => return Err(EstablishError::HandshakeTimeout),
                    Ok(Err(error)) => return Err(EstablishError::Handshake(error.to_string())),
                    Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                }
            }
        };
        Ok(TcpConnection::new(stream, self.remote, self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::loopback::{ANY, Tls, within};
    use super::*;
    use crate::budget::Budget;
    use crate::descriptors::Descriptors;
    use crate::ops::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    fn listen(tls: Option<&Tls>, config: &TransportConfig) -> TcpListener {
        let tls = tls.map(|tls| tls.tcp.clone());
        let places = Places::new(config, Descriptors::now(), Metrics::none());
        let gate = AddressGate::new(config, &Budget::new(usize::MAX));
        TcpListener::bind(ANY, tls, gate, places, config).unwrap()
    }

    #[tokio::test]
    async fn tls_1_3_and_1_2_are_spoken_with_the_negotiated_protocol() {
        let tls = Tls::new();
        let listener = listen(Some(&tls), &TransportConfig::default());
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let client = tls.client_with(&[b"http/1.1"], &[version]);
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let dialled = async {
                let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let mut io = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
                let (_, session) = io.get_ref();
                assert_eq!(session.protocol_version(), Some(version.version));
                assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
                io.write_all(b"hi").await.unwrap();
                io.flush().await.unwrap();
                io
            };
            let served = async { listener.accept().await.establish().await.unwrap() };
            let (mut server, _client) = within(async { tokio::join!(served, dialled) }).await;
            let mut bytes = [0; 2];
            within(server.read_exact(&mut bytes)).await.unwrap();
            assert_eq!(&bytes, b"hi");
        }
    }

    #[tokio::test]
    async fn a_client_that_starts_no_handshake_is_let_go() {
        let tls = Tls::new();
        let config = TransportConfig { handshake_timeout_ms: 1, ..TransportConfig::default() };
        let listener = listen(Some(&tls), &config);
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let established = within(within(listener.accept()).await.establish()).await;
        assert!(matches!(established, Err(EstablishError::HandshakeTimeout)));
    }

    #[tokio::test]
    async fn a_client_that_speaks_no_tls_is_told_so_by_the_error() {
        let tls = Tls::new();
        let listener = listen(Some(&tls), &TransportConfig::default());
        let mut plain = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let established = within(within(listener.accept()).await.establish()).await;
        assert!(matches!(established, Err(EstablishError::Handshake(_))));
    }

    /// A second connection is closed without a byte while there is the first, and a third is let in after it.
    async fn one_at_a_time(config: &TransportConfig) {
        let listener = listen(None, config);
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let served = within(within(listener.accept()).await.establish()).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let refused = async {
            tokio::select! {
                read = second.read(&mut byte) => read.unwrap_or(0),
                _ = listener.accept() => panic!("let in"),
            }
        };
        assert_eq!(within(refused).await, 0);
        drop(served);
        let _third = TcpStream::connect(address).await.unwrap();
        within(listener.accept()).await;
    }

    #[tokio::test]
    async fn an_address_gets_no_more_connections_than_its_limit_until_one_is_gone() {
        let config = TransportConfig {
            loopback_exempt: false,
            address_connections_max: 1,
            ..TransportConfig::default()
        };
        one_at_a_time(&config).await;
    }

    #[tokio::test]
    async fn a_connection_without_a_place_is_closed_at_once_and_the_next_comes_when_one_is_free() {
        one_at_a_time(&TransportConfig { tcp_connections_max: 1, ..TransportConfig::default() }).await;
    }

    /// Writes to a peer that reads nothing until the system takes no more; how much it took.
    async fn fill(served: &mut TcpConnection) -> usize {
        let chunk = [0; 16 * 1024];
        let mut taken = 0;
        std::future::poll_fn(|cx| {
            loop {
                match std::pin::Pin::new(&mut *served).poll_write(cx, &chunk) {
                    std::task::Poll::Ready(written) => taken += written.unwrap(),
                    std::task::Poll::Pending => return std::task::Poll::Ready(()),
                }
            }
        })
        .await;
        taken
    }

    #[tokio::test]
    async fn the_system_keeps_little_for_a_peer_that_does_not_read_and_nothing_once_it_is_closed() {
        let listener = listen(None, &TransportConfig::default());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut deaf = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let mut served = within(within(listener.accept()).await.establish()).await.unwrap();
        // Both ends are of this system: the send buffer twice, and the small one of the peer.
        let taken = fill(&mut served).await;
        assert!(taken <= 256 * 1024, "{taken} bytes were taken");
        drop(served);
        let mut bytes = Vec::new();
        let error = within(deaf.read_to_end(&mut bytes)).await.expect_err("reset, not left to linger");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_was_taken_by_the_system_still_arrives_after_the_end() {
        let listener = listen(None, &TransportConfig::default());
        let mut slow = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut served = within(within(listener.accept()).await.establish()).await.unwrap();
        served.write_all(&[7; 40_000]).await.unwrap();
        drop(served);
        let mut bytes = Vec::new();
        within(slow.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes, [7; 40_000]);
    }

    #[test]
    fn a_lack_of_descriptors_is_logged_once_a_second() {
        let (mut last, start) = (None, Instant::now());
        let logged = (0..60).filter(|tick| is_time_to_complain(&mut last, start + ACCEPT_PAUSE * *tick));
        assert_eq!(logged.count(), 3);
    }
}
