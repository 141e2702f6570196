//! WebTransport, native QUIC and WebSocket become one [`Link`] here, before any policy.
//!
//! A session reads with [`LinkReader::recv`] and keeps [`LinkWriter::drive`] running beside it;
//! everything it wants to say goes through its outbox. When `recv` fails and
//! [`LinkError::reply`] has something to say, it closes the outbox with that and lets `drive`
//! finish.

pub mod address;
mod carrier;
pub mod config;
mod error;
pub mod http3;
pub mod identity_files;
#[cfg(test)]
mod loopback;
pub mod origin;
pub mod proxies;
pub mod quic;
pub mod quic_keys;
pub mod tcp;
pub mod tls;
pub mod websocket;
pub mod webtransport;
mod x509;

use std::net::SocketAddr;

use tern_protocol::{DecodeError, Envelope};
use tokio::time::Instant;

pub use config::{SettingError, TransportConfig};
pub use error::{EstablishError, LinkError};
pub use proxies::TrustedProxies;
pub use x509::CertificateFacts;

use crate::roster::{Format, Outbox};
use quic::{QuicReader, QuicWriter};
use websocket::{WebSocketReader, WebSocketWriter};

/// Which transport a link runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Native QUIC.
    Quic,
    /// WebSocket.
    WebSocket,
    /// WebTransport over HTTP/3.
    WebTransport,
}

/// What is known of a link from its start.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// On which transport.
    pub transport: Transport,
    /// How frames are written.
    pub format: Format,
    /// Address of the peer when the link began; QUIC peers may move.
    pub remote: SocketAddr,
    /// When the handshake was complete: the time for Hello counts from here.
    pub established: Instant,
}

impl LinkInfo {
    /// Value of the `transport` label in metrics.
    pub fn label(&self) -> &'static str {
        match (self.transport, self.format) {
            (Transport::Quic, _) => "quic",
            (Transport::WebTransport, _) => "webtransport",
            (Transport::WebSocket, Format::Binary) => "websocket_binary",
            (Transport::WebSocket, Format::Json) => "websocket_json",
        }
    }
}

/// A connection with one client, its handshake done, nothing read yet.
#[derive(Debug)]
pub struct Link {
    info: LinkInfo,
    reader: LinkReader,
    writer: LinkWriter,
}

impl Link {
    fn new(info: LinkInfo, reader: LinkReader, writer: LinkWriter) -> Self {
        Self { info, reader, writer }
    }

    /// Transport, format, address.
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// Its two halves.
    pub fn split(self) -> (LinkReader, LinkWriter) {
        (self.reader, self.writer)
    }
}

/// What came in.
#[derive(Debug)]
pub enum Inbound {
    /// A frame.
    Frame(Envelope),
    /// Something that is no frame; the next one can be read.
    Bad(DecodeError),
    /// No frame, but a sign of life: a ping or pong of the transport.
    Alive,
}

/// The half that reads. The transports are a closed set.
#[derive(Debug)]
pub enum LinkReader {
    /// Native QUIC and WebTransport.
    Quic(QuicReader),
    /// WebSocket.
    WebSocket(WebSocketReader),
}

impl LinkReader {
    /// The next frame, skipping optional ones this version does not know. Cancel-safe. Every
    /// error is the end of the link.
    pub async fn recv(&mut self) -> Result<Inbound, LinkError> {
        match self {
            Self::Quic(reader) => reader.recv().await,
            Self::WebSocket(reader) => reader.recv().await,
        }
    }
}

/// The half that writes, and the only place that does.
#[derive(Debug)]
pub enum LinkWriter {
    /// Native QUIC and WebTransport.
    Quic(QuicWriter),
    /// WebSocket.
    WebSocket(WebSocketWriter),
}

impl LinkWriter {
    /// Sends what the outbox holds until the outbox is closed and its Close frame is out (waiting
    /// for that at most `close_flush_ms`), then closes the transport with the same code and
    /// reason. Keep it pinned and polled; dropping it drops what it was writing.
    pub async fn drive(&mut self, outbox: &Outbox) -> Result<(), LinkError> {
        match self {
            Self::Quic(writer) => writer.drive(outbox).await,
            Self::WebSocket(writer) => writer.drive(outbox).await,
        }
    }
}
