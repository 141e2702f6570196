//! A client over QUIC, native or with WebTransport on it, that knows only the protocol, and says
//! which channel each frame came on.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use tern_protocol::{
    ALPN, ConversationId, Decoder, Envelope, Incoming, SUBPROTOCOL_BINARY, StreamKind, encode,
};
use tokio::sync::{mpsc, watch};
use url::Url;
use web_transport_quinn::proto::ConnectRequest;
use web_transport_quinn::{ClientError, RecvStream, SendStream, Session, SessionError, WebTransportError};

use crate::caught::Caught;
use crate::hang::within;
use crate::server::Server;
use crate::tls::client_config;

/// Receive window of a stream: small, so that an unread one fills soon.
const STREAM_WINDOW: u32 = 32 * 1024;
/// Receive window of a connection: larger than a few unread streams.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes taken from a stream at a time.
const CHUNK: usize = 16 * 1024;

/// What a frame came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The stream that the client opened.
    Control,
    /// A stream that the server opened.
    Stream {
        /// Its number.
        index: u64,
        /// What it is for.
        kind: StreamKind,
        /// Whose entries are on it, by its header.
        conversation: Option<ConversationId>,
    },
    /// A datagram.
    Datagram,
}

/// A frame and its channel.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where it came.
    pub channel: Channel,
    /// What came.
    pub envelope: Envelope,
}

/// A connection with its control stream. Frames that nobody asks for stay unread in their streams,
/// except one per channel.
#[derive(Debug)]
pub struct QuicLink {
    /// The session, for what a well-behaved client does not do: the connection itself where no
    /// WebTransport is spoken.
    pub session: Session,
    control: SendStream,
    arrivals: mpsc::Receiver<Arrival>,
    held: watch::Sender<HashSet<ConversationId>>,
    _endpoint: Endpoint,
}

impl QuicLink {
    /// Connects and opens the control stream.
    pub async fn connect(server: &Server) -> Self {
        let (endpoint, connection) = dial(server, ALPN).await;
        let connection = connection.expect("a connection");
        Self::over(endpoint, Session::raw(connection)).await
    }

    /// Connects, opens a WebTransport session and its control stream.
    pub async fn connect_webtransport(server: &Server) -> Self {
        let (endpoint, connection) = dial(server, web_transport_quinn::ALPN.as_bytes()).await;
        let connection = connection.expect("a connection");
        let session = Self::session(connection, &server.ready().webtransport_url).await;
        let session = session.expect("a WebTransport session");
        assert_eq!(session.protocol(), Some(SUBPROTOCOL_BINARY), "the subprotocol that was asked for");
        Self::over(endpoint, session).await
    }

    /// Opens a WebTransport session on a connection.
    pub async fn session(connection: Connection, url: &str) -> Result<Session, ClientError> {
        let url: Url = url.parse().expect("a URL");
        let request = ConnectRequest::new(url).with_protocol(SUBPROTOCOL_BINARY);
        within("a WebTransport session", Session::connect(connection, request)).await
    }

    /// Connects with another ALPN; the error of the handshake.
    pub async fn refused(server: &Server, alpn: &[u8]) -> ConnectionError {
        dial(server, alpn).await.1.expect_err("the ALPN is unknown")
    }

    async fn over(endpoint: Endpoint, session: Session) -> Self {
        let (control, answers) = session.open_bi().await.expect("a control stream");
        let (sender, arrivals) = mpsc::channel(1);
        let held = watch::Sender::new(HashSet::new());
        tokio::spawn(read(Channel::Control, answers, Vec::new(), held.subscribe(), sender.clone()));
        tokio::spawn(accept(session.clone(), held.subscribe(), sender.clone()));
        tokio::spawn(datagrams(session.clone(), sender));
        Self { session, control, arrivals, held, _endpoint: endpoint }
    }

    /// Leaves the streams of this conversation unread, but for their headers, until [`Self::release`].
    pub fn hold(&self, conversation: ConversationId) {
        self.held.send_modify(|held| {
            held.insert(conversation);
        });
    }

    /// Reads them again.
    pub fn release(&self, conversation: ConversationId) {
        self.held.send_modify(|held| {
            held.remove(&conversation);
        });
    }

    /// Sends a frame on the control stream.
    pub async fn send(&mut self, envelope: &Envelope) {
        self.send_bytes(&encode(envelope)).await;
    }

    /// Sends bytes on the control stream. It may have been closed meanwhile.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = within("room in the control stream", self.control.write_all(bytes)).await;
    }

    /// Ends the control stream.
    pub fn finish(&mut self) {
        let _ = self.control.finish();
    }

    /// Sends a frame as a datagram.
    pub fn send_datagram(&self, envelope: &Envelope) {
        self.session.send_datagram(Bytes::from(encode(envelope))).expect("datagrams are on");
    }

    /// The next frame of any channel, `None` at the end.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Code and reason of the session's end.
    pub async fn closed(&self) -> Caught {
        match within("the end of the session", self.session.closed()).await {
            SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => {
                Caught { code: Some(code.into()), reason }
            }
            other => Caught { code: None, reason: other.to_string() },
        }
    }

    /// Goes without a word of the protocol, by the transport's close.
    pub fn close(&self, code: u32, reason: &str) {
        self.session.close(code, reason.as_bytes());
    }
}

pub(crate) async fn dial(server: &Server, alpn: &[u8]) -> (Endpoint, Result<Connection, ConnectionError>) {
    let tls = client_config(server.cert_sha256(), &[alpn]);
    let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3 is on");
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(STREAM_WINDOW.into()).receive_window(CONNECTION_WINDOW.into());
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Endpoint::client(any).expect("a UDP socket");
    let connecting = endpoint.connect_with(config, server.ready().quic_addr, "localhost");
    let connection = within("a QUIC handshake", connecting.expect("an address")).await;
    (endpoint, connection)
}

async fn accept(
    session: Session,
    held: watch::Receiver<HashSet<ConversationId>>,
    sender: mpsc::Sender<Arrival>,
) {
    while let Ok(mut stream) = session.accept_uni().await {
        let (held, sender) = (held.clone(), sender.clone());
        tokio::spawn(async move {
            let mut kind = [0];
            if stream.read_exact(&mut kind).await.is_err() {
                return;
            }
            let kind = StreamKind::from_byte(kind[0]).expect("a stream kind of this version");
            let mut id = [0; 16];
            let mut conversation = None;
            if kind == StreamKind::Conversation {
                if stream.read_exact(&mut id).await.is_err() {
                    return;
                }
                conversation = Some(ConversationId::from_bytes(id));
            }
            let channel = Channel::Stream { index: stream.quic_id().index(), kind, conversation };
            let holds = conversation.into_iter().collect();
            read(channel, stream, holds, held, sender).await;
        });
    }
}

/// Hands the frames of a stream over, and reads no further before each was taken.
async fn read(
    channel: Channel,
    mut stream: RecvStream,
    holds: Vec<ConversationId>,
    mut held: watch::Receiver<HashSet<ConversationId>>,
    sender: mpsc::Sender<Arrival>,
) {
    let mut decoder = Decoder::default();
    loop {
        if held.wait_for(|held| !holds.iter().any(|id| held.contains(id))).await.is_err() {
            return;
        }
        let Ok(Some(chunk)) = stream.read_chunk(CHUNK, true).await else { return };
        decoder.extend(&chunk.bytes);
        while let Some(incoming) = decoder.next().expect("the server sends good frames") {
            let Incoming::Frame(envelope) = incoming else { panic!("a frame of another version") };
            if sender.send(Arrival { channel, envelope }).await.is_err() {
                return;
            }
        }
    }
}

async fn datagrams(session: Session, sender: mpsc::Sender<Arrival>) {
    while let Ok(bytes) = session.read_datagram().await {
        let mut decoder = Decoder::default();
        decoder.extend(&bytes);
        while let Some(incoming) = decoder.next().expect("the server sends good frames") {
            let Incoming::Frame(envelope) = incoming else { panic!("a frame of another version") };
            if sender.send(Arrival { channel: Channel::Datagram, envelope }).await.is_err() {
                return;
            }
        }
    }
}
