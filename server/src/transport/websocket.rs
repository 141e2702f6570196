//! WebSocket: an upgraded connection becomes a link; its two halves share one socket.

mod negotiate;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tern_protocol::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Link, LinkError, LinkInfo, LinkReader, LinkWriter, Transport, TransportConfig};
use crate::roster::Format;

pub use negotiate::{Negotiated, UpgradeError, negotiate, token_in_query};
pub use reader::WebSocketReader;
pub use writer::WebSocketWriter;

/// A message may take this many bytes on the wire, fragment headers and read-ahead included. Far
/// more than any honest client needs; a flood of empty fragments ends here.
const MESSAGE_WIRE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Longest message of the binary codec: the largest frame with its length.
const BINARY_BYTES_MAX: usize = FRAME_BYTES_MAX + 5;
/// Longest message in JSON: a text of which every byte is escaped makes six of one.
pub(super) const JSON_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Makes a link of a connection whose upgrade to WebSocket was answered. `format` is what
/// [`negotiate`] found.
pub async fn from_upgraded(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    format: Format,
    config: &TransportConfig,
    remote: SocketAddr,
) -> Link {
    let message_bytes_max = match format {
        Format::Binary => BINARY_BYTES_MAX,
        Format::Json => JSON_BYTES_MAX,
    };
    let limits = WebSocketConfig::default()
        .read_buffer_size(config.websocket_read_buffer_bytes)
        // What is written is flushed at once; up to a batch goes in one system call.
        .write_buffer_size(writer::TAKE.bytes)
        .max_write_buffer_size(config.websocket_write_buffer_bytes)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let io = Metered { io: Box::new(io), read: 0, flooded: false };
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
    let shared = Arc::new(Shared { socket: Mutex::new(socket), close_code: AtomicU16::new(0) });
    let info = LinkInfo { transport: Transport::WebSocket, format, remote, established: Instant::now() };
    let reader = WebSocketReader::new(shared.clone(), format, config);
    let writer = WebSocketWriter::new(shared, format, config);
    Link::new(info, LinkReader::WebSocket(reader), LinkWriter::WebSocket(writer))
}

/// What the halves share. The socket is locked only within one poll.
struct Shared {
    socket: Mutex<WebSocketStream<Metered>>,
    /// Code for the WebSocket close frame where the transport itself was violated, else 0.
    close_code: AtomicU16,
}

impl Shared {
    /// Remembers how the close frame has to say it.
    fn note(&self, error: LinkError) -> LinkError {
        if let Some(code) = error.websocket_code() {
            self.close_code.store(code, Ordering::Relaxed);
        }
        error
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebSocket")
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that counts what is read from it, because fragments of a message are not seen
/// from outside.
struct Metered {
    io: Box<dyn Io>,
    /// Bytes read since the last message.
    read: usize,
    flooded: bool,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read > MESSAGE_WIRE_BYTES_MAX {
            self.flooded = true;
            return Poll::Ready(Err(io::Error::other("a message without end")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
