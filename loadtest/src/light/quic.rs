//! Light clients over QUIC, native or with WebTransport on it, many on each socket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use tern_client::Trust;
use tern_protocol::{ALPN, Decoder, Frame, Incoming, SUBPROTOCOL_BINARY, StreamKind};
use url::Url;
use web_transport_quinn::proto::ConnectRequest;
use web_transport_quinn::{RecvStream, SendStream, Session};

use super::{LightError, tls};

/// Kernel buffer of each socket in bytes, as far as the system grants it: it carries many sessions.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes taken from a stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// Streams that the server may have open on one connection.
const SERVER_STREAMS_MAX: u32 = 64;
/// Streams that HTTP/3 has open beside them: control, the two of QPACK, and one of an unknown kind.
const HTTP3_STREAMS: u32 = 4;
/// Datagrams that wait to be read, in bytes. WebTransport must have some; nobody reads them.
const DATAGRAM_BUFFER: usize = 2 * 1024;
/// Bytes of the conversation's id behind the kind of a stream.
const CONVERSATION_BYTES: usize = 16;

/// Opens connections to one server.
pub(super) struct QuicDialer {
    address: SocketAddr,
    name: String,
    config: ClientConfig,
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    /// What is asked for where WebTransport is spoken.
    request: Option<ConnectRequest>,
}

impl QuicDialer {
    /// Speaks the protocol directly on QUIC.
    pub(super) async fn new(address: &str, trust: &Trust, sockets: usize) -> Result<Self, LightError> {
        Self::with(address, ALPN, trust, sockets).await
    }

    /// Speaks WebTransport: a session at this URL on each connection.
    pub(super) async fn webtransport(url: &str, trust: &Trust, sockets: usize) -> Result<Self, LightError> {
        let unusable = |why: &str| LightError::Address(format!("{url}: {why}"));
        let parsed: Url = url.parse().map_err(|_| unusable("is not a URL"))?;
        let host = parsed.host_str().ok_or_else(|| unusable("has no host"))?;
        let address = format!("{host}:{}", parsed.port_or_known_default().unwrap_or(443));
        let dialer = Self::with(&address, web_transport_quinn::ALPN.as_bytes(), trust, sockets).await?;
        let request = ConnectRequest::new(parsed).with_protocol(SUBPROTOCOL_BINARY);
        Ok(Self { request: Some(request), ..dialer })
    }

    async fn with(address: &str, alpn: &[u8], trust: &Trust, sockets: usize) -> Result<Self, LightError> {
        let unknown = |why: String| LightError::Address(format!("{address}: {why}"));
        let found = tokio::net::lookup_host(address).await.map_err(|error| unknown(error.to_string()))?;
        let remote = found.into_iter().next().ok_or_else(|| unknown("no address".into()))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let crypto = QuicClientConfig::try_from(tls::config(trust, alpn)?)
            .map_err(|error| LightError::Trust(error.to_string()))?;
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams((SERVER_STREAMS_MAX + HTTP3_STREAMS).into())
            .datagram_receive_buffer_size((alpn != ALPN).then_some(DATAGRAM_BUFFER))
            .mtu_discovery_config(None)
            .allow_spin(false);
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let endpoints: Result<Vec<Endpoint>, LightError> =
            (0..sockets.max(1)).map(|_| endpoint(remote).map_err(LightError::connection)).collect();
        Ok(Self {
            address: remote,
            name: host.trim_matches(['[', ']']).to_owned(),
            config,
            endpoints: endpoints?,
            next: AtomicUsize::new(0),
            request: None,
        })
    }

    pub(super) async fn dial(&self) -> Result<QuicLink, LightError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len();
        let connecting = self.endpoints[turn].connect_with(self.config.clone(), self.address, &self.name);
        let connection = connecting.map_err(LightError::connection)?.await.map_err(LightError::connection)?;
        let session = match &self.request {
            None => Session::raw(connection),
            Some(request) => {
                Session::connect(connection, request.clone()).await.map_err(LightError::connection)?
            }
        };
        let (control, answers) = session.open_bi().await.map_err(LightError::connection)?;
        let mut lanes = SelectAll::new();
        lanes.push(frames(answers, Header::Read));
        Ok(QuicLink { session, control, lanes })
    }
}

fn endpoint(remote: SocketAddr) -> std::io::Result<Endpoint> {
    let local: SocketAddr = match (remote.is_ipv6(), remote.ip().is_loopback()) {
        (false, true) => (Ipv4Addr::LOCALHOST, 0).into(),
        (false, false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (true, true) => (Ipv6Addr::LOCALHOST, 0).into(),
        (true, false) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let domain = socket2::Domain::for_address(local);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    // The system may grant less, which only costs packets in a burst.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&local.into())?;
    Endpoint::new(EndpointConfig::default(), None, socket.into(), Arc::new(TokioRuntime))
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame, LightError>> + Send>>;

/// One connection: the control stream, and whatever streams the server has opened.
pub(super) struct QuicLink {
    session: Session,
    control: SendStream,
    lanes: SelectAll<Frames>,
}

impl Drop for QuicLink {
    /// A session alone does not end with its last handle: a task of its library holds the connection.
    fn drop(&mut self) {
        Connection::close(&self.session, 0u32.into(), b"");
    }
}

impl QuicLink {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LightError> {
        self.control.write_all(bytes).await.map_err(LightError::connection)
    }

    /// Cancel-safe: what a stream has brought stays with the stream.
    pub(super) async fn recv(&mut self) -> Result<Frame, LightError> {
        loop {
            tokio::select! {
                biased;
                Some(frame) = self.lanes.next() => return frame,
                opened = self.session.accept_uni() => {
                    self.lanes.push(frames(opened.map_err(LightError::connection)?, Header::Kind));
                }
            }
        }
    }
}

/// How much of a stream's header is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// The kind.
    Kind,
    /// So many bytes of the conversation's id, which every frame repeats.
    Conversation(usize),
    /// Nothing: frames follow.
    Read,
}

/// A stream as frames. It ends when the server ends it; an error is its last item.
struct Reading {
    stream: RecvStream,
    header: Header,
    decoder: Decoder,
    over: bool,
}

fn frames(stream: RecvStream, header: Header) -> Frames {
    let reading = Reading { stream, header, decoder: Decoder::default(), over: false };
    Box::pin(stream::unfold(reading, |mut reading| async move {
        if reading.over {
            return None;
        }
        let frame = reading.next().await.transpose()?;
        reading.over = frame.is_err();
        Some((frame, reading))
    }))
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Frame>, LightError> {
        loop {
            match self.decoder.next()? {
                Some(Incoming::Frame(envelope)) => return Ok(Some(envelope.frame)),
                Some(Incoming::Skipped(_)) => continue,
                None => {}
            }
            let chunk = self.stream.read_chunk(READ_BYTES, true).await.map_err(LightError::connection)?;
            let Some(chunk) = chunk else {
                self.decoder.finish()?;
                return Ok(None);
            };
            let (header, frames) = past_header(self.header, &chunk.bytes)?;
            self.header = header;
            self.decoder.extend(frames);
        }
    }
}

/// What of these bytes belongs to frames, and what of the header is missing after them.
fn past_header(mut header: Header, mut bytes: &[u8]) -> Result<(Header, &[u8]), LightError> {
    loop {
        header = match (header, bytes) {
            (Header::Read, _) | (_, []) => return Ok((header, bytes)),
            (Header::Kind, [kind, rest @ ..]) => {
                bytes = rest;
                match StreamKind::from_byte(*kind) {
                    Some(StreamKind::Conversation) => Header::Conversation(CONVERSATION_BYTES),
                    Some(StreamKind::Inbox | StreamKind::Backlog) => Header::Read,
                    None => return Err(LightError::Connection(format!("a stream of unknown kind {kind}"))),
                }
            }
            (Header::Conversation(missing), _) => {
                let taken = missing.min(bytes.len());
                bytes = &bytes[taken..];
                if taken == missing { Header::Read } else { Header::Conversation(missing - taken) }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_stream_is_skipped_however_it_is_cut() {
        let mut stream = vec![StreamKind::Conversation as u8];
        stream.extend([7; CONVERSATION_BYTES]);
        stream.extend(b"frames");
        for cut in 0..=stream.len() {
            let (header, first) = past_header(Header::Kind, &stream[..cut]).unwrap();
            let (header, second) = past_header(header, &stream[cut..]).unwrap();
            assert_eq!(
                ([first, second].concat(), header),
                (b"frames".to_vec(), Header::Read),
                "cut at {cut}"
            );
        }
        let inbox = [&[StreamKind::Inbox as u8][..], b"frames"].concat();
        assert_eq!(past_header(Header::Kind, &inbox).unwrap(), (Header::Read, &b"frames"[..]));
        assert!(past_header(Header::Kind, &[99]).is_err());
    }
}
