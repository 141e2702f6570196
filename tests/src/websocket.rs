//! A WebSocket client that knows only the protocol.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Request, Response};
use rustls::pki_types::ServerName;
use tern_protocol::{
    Decoder, Envelope, Incoming, SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON, TempId, encode, from_json, to_json,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::caught::Caught;
use crate::hang::within;
use crate::server::Server;
use crate::tls::client_config;

/// Receive buffer of the socket: small, so that a client that does not read is noticed soon.
const RECEIVE_BYTES: u32 = 16 * 1024;

/// What the frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `tern.v1`.
    Binary,
    /// `tern.v1.json`.
    Json,
    /// None is named: JSON.
    None,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket.
pub struct WebSocketLink {
    socket: WebSocketStream<Box<dyn Io>>,
    binary: bool,
    decoder: Decoder,
    waiting: VecDeque<Envelope>,
    caught: Caught,
}

impl WebSocketLink {
    /// Connects: over TLS with binary frames, plain with JSON, so that both are used.
    pub async fn connect(server: &Server, subprotocol: Subprotocol) -> Self {
        let ready = server.ready();
        let url = match subprotocol {
            Subprotocol::Binary => &ready.wss_url,
            Subprotocol::Json | Subprotocol::None => &ready.websocket_url,
        };
        match Self::try_connect(server, url, subprotocol, &[]).await {
            Ok(link) => link,
            Err(answer) => panic!("no WebSocket: {} {}", answer.status(), answer.body()),
        }
    }

    /// Connects to a URL with headers; else the answer that refused it.
    pub async fn try_connect(
        server: &Server,
        url: &str,
        subprotocol: Subprotocol,
        headers: &[(&str, &str)],
    ) -> Result<Self, Response<String>> {
        let mut request = url.into_client_request().expect("a URL");
        let name = match subprotocol {
            Subprotocol::Binary => Some(SUBPROTOCOL_BINARY),
            Subprotocol::Json => Some(SUBPROTOCOL_JSON),
            Subprotocol::None => None,
        };
        for (key, value) in name.map(|name| ("sec-websocket-protocol", name)).iter().chain(headers) {
            let key = HeaderName::from_bytes(key.as_bytes()).expect("a header name");
            request.headers_mut().insert(key, HeaderValue::from_str(value).expect("a header value"));
        }
        let io = dial(server, &request).await;
        match within("a WebSocket handshake", client_async(request, io)).await {
            Ok((socket, answer)) => {
                let agreed =
                    answer.headers().get("sec-websocket-protocol").and_then(|name| name.to_str().ok());
                assert_eq!(agreed, name, "the subprotocol that was asked for");
                Ok(Self {
                    socket,
                    binary: subprotocol == Subprotocol::Binary,
                    decoder: Decoder::default(),
                    waiting: VecDeque::new(),
                    caught: Caught::default(),
                })
            }
            Err(Error::Http(answer)) => {
                Err(answer.map(|body| String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
            }
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, envelope: &Envelope) {
        let message =
            if self.binary { Message::binary(encode(envelope)) } else { Message::text(to_json(envelope)) };
        self.send_message(message).await;
    }

    /// Sends bytes in one binary message, or in one text message where JSON is spoken.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let message = if self.binary {
            Message::binary(bytes.to_vec())
        } else {
            Message::text(String::from_utf8(bytes.to_vec()).expect("text is UTF-8"))
        };
        self.send_message(message).await;
    }

    /// Sends any message. The socket may have been closed meanwhile.
    pub async fn send_message(&mut self, message: Message) {
        let _ = within("room in the socket", self.socket.send(message)).await;
    }

    /// The next frame, `None` at the end.
    pub async fn next(&mut self) -> Option<Envelope> {
        loop {
            if let Some(envelope) = self.waiting.pop_front() {
                return Some(envelope);
            }
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    assert!(!self.binary, "text on a binary WebSocket: {text}");
                    return Some(from_json(&text, || TempId::from_uuid(Uuid::new_v4())).expect("a frame"));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    assert!(self.binary, "bytes on a JSON WebSocket");
                    self.decoder.extend(&bytes);
                    while let Some(incoming) = self.decoder.next().expect("the server sends good frames") {
                        let Incoming::Frame(envelope) = incoming else {
                            panic!("a frame of another version")
                        };
                        self.waiting.push_back(envelope);
                    }
                    self.decoder.finish().expect("a message has whole frames");
                }
                Some(Ok(Message::Close(frame))) => {
                    if let Some(frame) = frame {
                        let code = Some(u16::from(frame.code).into());
                        self.caught = Caught { code, reason: frame.reason.as_str().to_owned() };
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next text as it came.
    pub async fn next_text(&mut self) -> String {
        loop {
            match within("a text", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// Code and reason of the close frame, once [`Self::next`] gave `None`.
    pub fn closed(&self) -> Caught {
        self.caught.clone()
    }
}

async fn dial(server: &Server, request: &Request<()>) -> Box<dyn Io> {
    let uri = request.uri();
    let address = format!("{}:{}", uri.host().expect("a host"), uri.port_u16().expect("a port"));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("a small buffer");
    let address = address.replace("localhost", "127.0.0.1").parse().expect("an address");
    let stream = within("a TCP connection", socket.connect(address)).await.expect("a TCP connection");
    if uri.scheme_str() == Some("ws") {
        return Box::new(stream);
    }
    let tls = client_config(server.cert_sha256(), &[b"http/1.1"]);
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = TlsConnector::from(Arc::new(tls)).connect(name, stream);
    let stream: Pin<Box<_>> = Box::pin(within("a TLS handshake", connecting).await.expect("a TLS handshake"));
    Box::new(stream)
}
