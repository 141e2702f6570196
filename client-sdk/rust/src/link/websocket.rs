//! The WebSocket link: the same frames, one per message, binary or JSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use tern_protocol::{
    About, Code, DecodeError, Decoder, FRAME_BYTES_MAX, Incoming, JSON_BYTES_MAX, SUBPROTOCOL_BINARY,
    SUBPROTOCOL_JSON, TempId, from_json,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{FLUSH_FRAMES_MAX, Format, Inbound, Link, LinkEnd, Outgoing};
use crate::persistence::Transport;

/// Longest message accepted: a page in JSON is longer than its binary form.
const MESSAGE_BYTES_MAX: usize = JSON_BYTES_MAX;
/// Bytes read from the socket at a time.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes gathered before they are written without being asked to.
const WRITE_BUFFER: usize = 16 * 1024;
/// Most bytes that wait to be written: the frames between two flushes.
const WRITE_BUFFER_MAX: usize = 2 * FLUSH_FRAMES_MAX * FRAME_BYTES_MAX;
/// How long the server may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Any byte stream: with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Socket = WebSocketStream<Box<dyn Io>>;

/// Connects to one address.
pub(super) async fn connect(
    remote: SocketAddr,
    server_name: String,
    uri: Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    format: Format,
) -> Result<Link, String> {
    let tcp = TcpStream::connect(remote).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream: Box<dyn Io> = match tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(server_name).map_err(|error| error.to_string())?;
            let connector = TlsConnector::from(config);
            Box::new(connector.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?)
        }
    };
    let subprotocol = match format {
        Format::Binary => SUBPROTOCOL_BINARY,
        Format::Json => SUBPROTOCOL_JSON,
    };
    let mut request = uri.into_client_request().map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let (socket, _) =
        client_async_with_config(request, stream, Some(config)).await.map_err(|error| refusal(&error))?;
    let (sink, stream) = socket.split();
    Ok(Link::start(
        Transport::WebSocket,
        format,
        |inbound| read(stream, inbound, format),
        |outgoing| write(sink, outgoing, format),
    ))
}

/// What an HTTP refusal says is in its body.
fn refusal(error: &Error) -> String {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            format!("HTTP status {}: {}", response.status(), text.trim())
        }
        other => other.to_string(),
    }
}

async fn read(mut stream: SplitStream<Socket>, inbound: mpsc::Sender<Inbound>, format: Format) {
    let end = loop {
        let sent = match stream.next().await {
            Some(Ok(Message::Binary(bytes))) if format == Format::Binary => {
                match read_binary(&bytes, &inbound).await {
                    Ok(sent) => sent,
                    Err(end) => break end,
                }
            }
            Some(Ok(Message::Text(text))) if format == Format::Json => {
                let item = from_json(text.as_str(), no_temp_id).map_or_else(Inbound::Bad, Inbound::Frame);
                inbound.send(item).await.is_ok()
            }
            Some(Ok(Message::Binary(_) | Message::Text(_))) => {
                let error = DecodeError::Json {
                    detail: "a message of the kind that was not agreed on".into(),
                    request: None,
                    about: About::default(),
                };
                inbound.send(Inbound::Bad(error)).await.is_ok()
            }
            Some(Ok(Message::Close(frame))) => break closed(frame),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => true,
            Some(Err(error)) => break LinkEnd::lost(error.to_string()),
            None => break LinkEnd::lost("the server closed the connection"),
        };
        if !sent {
            return;
        }
    };
    // A driver that does not listen any more needs no reason.
    let _ = inbound.send(Inbound::End(end)).await;
}

/// A message carries whole frames. Gives whether somebody listens.
async fn read_binary(bytes: &[u8], inbound: &mpsc::Sender<Inbound>) -> Result<bool, LinkEnd> {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    loop {
        let item = match decoder.next() {
            Ok(None) => break,
            Ok(Some(Incoming::Skipped(_))) => continue,
            Ok(Some(Incoming::Frame(envelope))) => Inbound::Frame(envelope),
            Err(error) if error.fatal() => return Err(LinkEnd::lost(error.to_string())),
            Err(error) => Inbound::Bad(error),
        };
        if inbound.send(item).await.is_err() {
            return Ok(false);
        }
    }
    decoder.finish().map(|()| true).map_err(|error| LinkEnd::lost(error.to_string()))
}

fn closed(frame: Option<CloseFrame>) -> LinkEnd {
    match frame {
        None => LinkEnd::lost("the server closed the connection"),
        Some(frame) => {
            LinkEnd { code: Some(Code(frame.code.into())), reason: frame.reason.as_str().to_owned() }
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Outgoing>, format: Format) {
    let mut batch = Vec::with_capacity(FLUSH_FRAMES_MAX);
    while outgoing.recv_many(&mut batch, FLUSH_FRAMES_MAX).await > 0 {
        for item in batch.drain(..) {
            let message = match item {
                Outgoing::Frame(bytes) | Outgoing::Lossy(bytes) => message(bytes, format),
                Outgoing::Close(code) => {
                    let code = if code == Code::NORMAL { CloseCode::Normal } else { code.0.into() };
                    let frame = CloseFrame { code, reason: Utf8Bytes::default() };
                    // Whether or not the server hears of it, this side is done.
                    let _ = timeout(CLOSE_WAIT, sink.send(Message::Close(Some(frame)))).await;
                    return;
                }
            };
            if sink.feed(message).await.is_err() {
                // The reading side says why.
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

fn message(bytes: Bytes, format: Format) -> Message {
    match format {
        Format::Binary => Message::Binary(bytes),
        // What was encoded from a `String` is UTF-8.
        Format::Json => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Text(Utf8Bytes::default()),
        },
    }
}

/// Frames of a server carry theirs.
fn no_temp_id() -> TempId {
    TempId::from_bytes([0; 16])
}
