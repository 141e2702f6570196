//! A TCP connection, with TLS or without, after its handshake.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::super::address::AddressPermit;
use super::places::Place;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection ready for HTTP. It counts for its address until it is dropped, also when HTTP hands it on as a
/// WebSocket. Dropped while the client takes nothing, it is reset, so that the system does not keep for minutes
/// what nobody will read.
pub struct TcpConnection {
    stream: Stream,
    remote: SocketAddr,
    /// The system did not take what was last written.
    stuck: bool,
    _counted: (AddressPermit, Place),
}

impl TcpConnection {
    pub(super) fn new(stream: Stream, remote: SocketAddr, counted: (AddressPermit, Place)) -> Self {
        Self { stream, remote, stuck: false, _counted: counted }
    }

    /// Address of the peer.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    fn wrote<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.stuck = polled.is_pending();
        polled
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        if self.stuck {
            let _ = self.tcp().set_zero_linger();
        }
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
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            // What a plain socket did not take was not taken from the caller either.
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => {
                let polled = Pin::new(stream).poll_flush(cx);
                self.wrote(polled)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        if polled.is_pending() {
            self.stuck = true;
        }
        polled
    }
}
