//! A scripted server on loopback: it speaks the protocol on every transport, and knows nothing of
//! chat. Each test says what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tern_client::{Code, Config, DeviceId, Limits, StoreId, Trust, UserId, Welcome};
use tern_protocol::{
    ALPN, CONNECT_PATH, Close, Decoder, Envelope, Frame, Hello, Incoming, SUBPROTOCOL_BINARY,
    SUBPROTOCOL_JSON, Sync, SyncEnd, TempId, encode, from_json, to_json,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use web_transport_quinn::proto::ConnectResponse;
use web_transport_quinn::{RecvStream, SendStream, Session};

pub(crate) struct Server {
    pub(crate) quic: SocketAddr,
    pub(crate) webtransport_url: String,
    pub(crate) ws_url: String,
    pub(crate) wss_url: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) certificate: CertificateDer<'static>,
    endpoint: quinn::Endpoint,
    peers: mpsc::Receiver<Peer>,
}

enum Out {
    Frame(Box<Envelope>),
    Close(Code, &'static str),
}

/// The server's side of one connection.
pub(crate) struct Peer {
    /// The connection, on QUIC and WebTransport.
    pub(crate) connection: Option<Session>,
    incoming: mpsc::Receiver<Envelope>,
    outgoing: mpsc::Sender<Out>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let certificate = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls.clone()));
        tls.alpn_protocols = vec![ALPN.to_vec(), web_transport_quinn::ALPN.into()];
        let quic = QuicServerConfig::try_from(tls).unwrap();
        let quic = quinn::ServerConfig::with_crypto(Arc::new(quic));
        let endpoint = quinn::Endpoint::server(quic, "127.0.0.1:0".parse().unwrap()).unwrap();
        let (peers_tx, peers) = mpsc::channel(16);
        tokio::spawn(accept_quic(endpoint.clone(), peers_tx.clone()));
        let ws = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wss = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            quic: endpoint.local_addr().unwrap(),
            webtransport_url: format!("https://{}", endpoint.local_addr().unwrap()),
            ws_url: format!("ws://{}", ws.local_addr().unwrap()),
            wss_url: format!("wss://{}", wss.local_addr().unwrap()),
            sha256: Sha256::digest(&certificate).into(),
            certificate,
            endpoint,
            peers,
        };
        tokio::spawn(accept_tcp(ws, None, peers_tx.clone()));
        tokio::spawn(accept_tcp(wss, Some(acceptor), peers_tx));
        server
    }

    /// A client's configuration for this server over QUIC, with waits that do not slow a test.
    pub(crate) fn config(&self) -> Config {
        let mut config =
            Config::new("token").quic(self.quic.to_string()).trust(Trust::CertSha256(self.sha256));
        config.backoff.first = std::time::Duration::from_millis(1);
        config.backoff.max = std::time::Duration::from_millis(20);
        config
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> Peer {
        self.peers.recv().await.unwrap()
    }

    /// The next connection, after Hello, Welcome and an empty sync.
    pub(crate) async fn session(&mut self) -> Peer {
        let mut peer = self.accept().await;
        peer.welcome(welcome(1)).await;
        peer.sync().await;
        peer
    }

    /// Takes QUIC away, as a firewall would: nothing is answered.
    pub(crate) fn quic_port_without_server() -> (std::net::UdpSocket, SocketAddr) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
    }
}

impl Peer {
    pub(crate) async fn recv(&mut self) -> Option<Envelope> {
        self.incoming.recv().await
    }

    /// The next frame for which `read` gives something; others are skipped.
    pub(crate) async fn until<T>(&mut self, read: impl Fn(Frame) -> Option<T>) -> T {
        self.until_request(read).await.1
    }

    /// The same with the request id.
    pub(crate) async fn until_request<T>(&mut self, read: impl Fn(Frame) -> Option<T>) -> (Option<u64>, T) {
        loop {
            let envelope = self.recv().await.expect("the client has gone");
            if let Some(found) = read(envelope.frame) {
                return (envelope.request, found);
            }
        }
    }

    pub(crate) async fn send(&self, frame: impl Into<Frame>) {
        self.answer(None, frame).await;
    }

    pub(crate) async fn answer(&self, request: Option<u64>, frame: impl Into<Frame>) {
        let envelope = Envelope { request, frame: frame.into() };
        self.outgoing.send(Out::Frame(Box::new(envelope))).await.unwrap();
    }

    /// Takes the Hello and answers it.
    pub(crate) async fn welcome(&mut self, welcome: Welcome) -> Hello {
        let hello = match self.recv().await.unwrap().frame {
            Frame::Hello(hello) => hello,
            other => panic!("{} instead of hello", other.name()),
        };
        self.send(welcome).await;
        hello
    }

    /// Takes the sync and answers that nothing has changed.
    pub(crate) async fn sync(&mut self) -> Sync {
        let (request, sync) = self
            .until_request(|frame| match frame {
                Frame::Sync(sync) => Some(sync),
                _ => None,
            })
            .await;
        self.answer(request, SyncEnd { changed: 0 }).await;
        sync
    }

    pub(crate) async fn next_send(&mut self) -> (Option<u64>, tern_protocol::Send) {
        self.until_request(|frame| match frame {
            Frame::Send(send) => Some(send),
            _ => None,
        })
        .await
    }

    /// Closes with this code, in a last frame and in the transport.
    pub(crate) async fn close(&self, code: Code, reason: &'static str) {
        self.send(Close { code, reason: reason.into(), retry_after_ms: None, target: None }).await;
        self.close_transport(code, reason).await;
    }

    /// Closes the transport without a last frame.
    pub(crate) async fn close_transport(&self, code: Code, reason: &'static str) {
        self.outgoing.send(Out::Close(code, reason)).await.unwrap();
    }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn temp_id(byte: u8) -> TempId {
    TempId::from_bytes([byte; 16])
}

pub(crate) fn welcome(store: u8) -> Welcome {
    Welcome {
        session: 1,
        user: user("alice"),
        name: Some("Alice".into()),
        device: DeviceId::new("d").unwrap(),
        store_id: StoreId::from_bytes([store; 16]),
        server: "loopback".into(),
        features: 0,
        time_ms: 1_700_000_000_000,
        token_expires_ms: u64::MAX,
        limits: Limits {
            frame_bytes: 65_536,
            text_bytes: 16_384,
            name_bytes: 128,
            group_members: 100,
            page_entries: 200,
            watch_users: 200,
            sends_in_flight: 256,
            sync_cursors: 512,
            sync_cursors_total: 10_000,
            ack_positions: 100,
            gap_whole: 500,
            gap_tail: 50,
            dedupe_window_s: 604_800,
            sessions_per_user: 20,
            keepalive_s: 20,
            dead_after_s: 45,
            sends_per_second: 50,
            blocks: 1_000,
            leave_groups: 100,
            added_groups: 500,
        },
    }
}

async fn accept_quic(endpoint: quinn::Endpoint, peers: mpsc::Sender<Peer>) {
    while let Some(incoming) = endpoint.accept().await {
        let peers = peers.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let data = connection.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
            let connection = match data.protocol.as_deref() {
                Some(ALPN) => Session::raw(connection),
                _ => accept_webtransport(connection).await,
            };
            let Ok((send, receive)) = connection.accept_bi().await else { return };
            let (incoming_tx, incoming) = mpsc::channel(64);
            let (outgoing, outgoing_rx) = mpsc::channel(64);
            tokio::spawn(read_quic(connection.clone(), receive, incoming_tx));
            tokio::spawn(write_quic(connection.clone(), send, outgoing_rx));
            let peer = Peer { connection: Some(connection), incoming, outgoing };
            let _ = peers.send(peer).await;
        });
    }
}

async fn accept_webtransport(connection: quinn::Connection) -> Session {
    let request = web_transport_quinn::Request::accept(connection).await.unwrap();
    assert_eq!((request.url.path(), &*request.protocols), (CONNECT_PATH, &[SUBPROTOCOL_BINARY.into()][..]));
    request.respond(ConnectResponse::OK.with_protocol(SUBPROTOCOL_BINARY)).await.unwrap()
}

async fn read_quic(connection: Session, mut receive: RecvStream, incoming: mpsc::Sender<Envelope>) {
    let mut decoder = Decoder::default();
    loop {
        while let Some(Incoming::Frame(envelope)) = decoder.next().unwrap() {
            if incoming.send(envelope).await.is_err() {
                return;
            }
        }
        tokio::select! {
            chunk = receive.read_chunk(4096, true) => match chunk {
                Ok(Some(chunk)) => decoder.extend(&chunk.bytes),
                _ => return,
            },
            Ok(datagram) = connection.read_datagram() => decoder.extend(&datagram),
        }
    }
}

async fn write_quic(connection: Session, mut send: SendStream, mut outgoing: mpsc::Receiver<Out>) {
    while let Some(item) = outgoing.recv().await {
        match item {
            Out::Frame(envelope) => {
                if send.write_all(&encode(&envelope)).await.is_err() {
                    return;
                }
            }
            Out::Close(code, reason) => {
                let _ = send.finish();
                let _ = send.stopped().await;
                connection.close(code.0.into(), reason.as_bytes());
                return;
            }
        }
    }
    // A peer that is dropped is a server that has died.
    connection.close(0, b"the test dropped the connection");
}

async fn accept_tcp(listener: TcpListener, tls: Option<TlsAcceptor>, peers: mpsc::Sender<Peer>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, peers) = (tls.clone(), peers.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_websocket(tcp, peers).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        serve_websocket(stream, peers).await;
                    }
                }
            }
        });
    }
}

async fn serve_websocket<S>(stream: S, peers: mpsc::Sender<Peer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut json = false;
    #[allow(clippy::result_large_err)] // the signature is the library's
    let answer = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), "/v1/connect");
        let subprotocol = request.headers()["sec-websocket-protocol"].clone();
        json = subprotocol.as_bytes() == SUBPROTOCOL_JSON.as_bytes();
        response.headers_mut().insert("sec-websocket-protocol", subprotocol);
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, answer).await else { return };
    let (mut sink, mut stream) = socket.split();
    let (incoming_tx, incoming) = mpsc::channel(64);
    let (outgoing, mut outgoing_rx) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            let envelope = match message {
                Message::Text(text) => from_json(text.as_str(), || temp_id(0)).unwrap(),
                Message::Binary(bytes) => {
                    let mut decoder = Decoder::default();
                    decoder.extend(&bytes);
                    match decoder.next().unwrap() {
                        Some(Incoming::Frame(envelope)) => envelope,
                        other => panic!("{other:?}"),
                    }
                }
                _ => continue,
            };
            if incoming_tx.send(envelope).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(item) = outgoing_rx.recv().await {
            let message = match item {
                Out::Frame(envelope) if json => Message::text(to_json(&envelope)),
                Out::Frame(envelope) => Message::binary(encode(&envelope)),
                Out::Close(code, reason) => {
                    Message::Close(Some(CloseFrame { code: code.0.into(), reason: reason.into() }))
                }
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    let _ = peers.send(Peer { connection: None, incoming, outgoing }).await;
}
