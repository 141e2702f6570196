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
                Err(refused) => tracing::debug!(%remote, %refused, "connection refused"),
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
