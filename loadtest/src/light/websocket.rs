//! Light clients over WebSocket with binary frames.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::sink::SinkExt;
use futures_util::stream::StreamExt;
use rustls::pki_types::ServerName;
use tern_client::Trust;
use tern_protocol::{Decoder, FRAME_BYTES_MAX, Frame, Incoming, SUBPROTOCOL_BINARY};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{LightError, tls};

/// Read buffer of each connection in bytes: thousands of them are held at a time.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Longest message in bytes: a server may put several small frames into one, or one large frame.
const MESSAGE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Opens connections to one server.
pub(super) struct WebSocketDialer {
    request: Request,
    host: String,
    port: u16,
    /// `None`: the URL is one without TLS.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl WebSocketDialer {
    pub(super) fn new(url: &str, trust: &Trust) -> Result<Self, LightError> {
        let bad = |why: String| LightError::Address(format!("{url}: {why}"));
        let mut request = url.into_client_request().map_err(|error| bad(error.to_string()))?;
        let offer = HeaderValue::from_static(SUBPROTOCOL_BINARY);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offer);
        let uri = request.uri();
        let host = uri.host().ok_or_else(|| bad("no host".into()))?.trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).map_err(|error| bad(error.to_string()))?;
            Some((TlsConnector::from(Arc::new(tls::config(trust, b"http/1.1")?)), name))
        } else {
            None
        };
        Ok(Self { request, host, port, tls })
    }

    pub(super) async fn dial(&self) -> Result<WebSocketLink, LightError> {
        let tcp =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(LightError::connection)?;
        tcp.set_nodelay(true).map_err(LightError::connection)?;
        let io: Box<dyn Io> = match &self.tls {
            Some((connector, name)) => {
                Box::new(connector.connect(name.clone(), tcp).await.map_err(LightError::connection)?)
            }
            None => Box::new(tcp),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connected = client_async_with_config(self.request.clone(), io, Some(config)).await;
        let (socket, _) = connected.map_err(LightError::connection)?;
        Ok(WebSocketLink { socket, decoder: Decoder::default() })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub(super) struct WebSocketLink {
    socket: WebSocketStream<Box<dyn Io>>,
    decoder: Decoder,
}

impl WebSocketLink {
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<(), LightError> {
        self.socket.send(Message::Binary(bytes)).await.map_err(LightError::connection)
    }

    /// Cancel-safe: what a message has brought stays in the decoder.
    pub(super) async fn recv(&mut self) -> Result<Frame, LightError> {
        loop {
            match self.decoder.next()? {
                Some(Incoming::Frame(envelope)) => return Ok(envelope.frame),
                Some(Incoming::Skipped(_)) => continue,
                None => {}
            }
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => self.decoder.extend(&bytes),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Err(LightError::Connection("a text message on a binary WebSocket".into()));
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err(LightError::Connection("the WebSocket was closed".into()));
                }
                Some(Err(error)) => return Err(LightError::connection(error)),
            }
        }
    }
}
