//! The TCP listener of HTTP and WebSocket: accepts, admits by address, does TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::address::{AddressGate, AddressPermit};
use super::{EstablishError, TransportConfig};
use crate::ops::turned_away;

/// Connections that wait for accept.
const BACKLOG: i32 = 1024;
/// Pause after an error that the next accept would meet again, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts TCP connections, with TLS or without.
pub struct TcpListener {
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    gate: AddressGate,
    handshake_timeout: Duration,
}

impl TcpListener {
    /// Listens on `address` (port 0: any free one). Without `tls` the connections are plain: for
    /// loopback and behind a proxy.
    pub fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        gate: AddressGate,
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
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            listener: tokio::net::TcpListener::from_std(socket.into())?,
            tls: tls.map(TlsAcceptor::from),
            gate,
            handshake_timeout: config.handshake_timeout(),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection of an address that is within its limits. Survives a lack of file
    /// descriptors: it waits and tries again. Cancel-safe.
    pub async fn accept(&self) -> PendingTcp {
        loop {
            let (stream, remote) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            match self.gate.admit(remote.ip()) {
                Ok(permit) => {
                    let tls = self.tls.clone();
                    let handshake_timeout = self.handshake_timeout;
                    return PendingTcp { stream, remote, permit, tls, handshake_timeout };
                }
                Err(refused) => turned_away(refused.reason(), remote.ip(), &refused),
            }
        }
    }
}

/// A connection that ended before it was accepted concerns nobody; anything else would be met
/// again at once.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// A connection before its handshake.
pub struct PendingTcp {
    stream: TcpStream,
    remote: SocketAddr,
    permit: AddressPermit,
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
        Ok(TcpConnection { stream, remote: self.remote, _permit: self.permit })
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection ready for HTTP. It counts for its address until it is dropped, also when HTTP
/// hands it on as a WebSocket.
pub struct TcpConnection {
    stream: Stream,
    remote: SocketAddr,
    _permit: AddressPermit,
}

impl TcpConnection {
    /// Address of the peer.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl fmt::Debug for TcpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpConnection({}, tls: {})", self.remote, self.is_tls())
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::loopback::{ANY, Tls, within};
    use super::*;
    use crate::budget::Budget;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn listen(tls: Option<&Tls>, config: &TransportConfig) -> TcpListener {
        let tls = tls.map(|tls| tls.tcp.clone());
        TcpListener::bind(ANY, tls, AddressGate::new(config, &Budget::new(usize::MAX)), config).unwrap()
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

    #[tokio::test]
    async fn an_address_gets_no_more_connections_than_its_limit_until_one_is_gone() {
        let config = TransportConfig {
            loopback_exempt: false,
            address_connections_max: 1,
            ..TransportConfig::default()
        };
        let listener = listen(None, &config);
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let served = within(within(listener.accept()).await.establish()).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let refused = async {
            // Closed without a byte, while accept goes on.
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
}
