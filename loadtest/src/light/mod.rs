//! Light clients: one session each over QUIC, WebTransport or WebSocket, frames in and out as they are. Nothing
//! is retried, reordered or remembered here, so that a run sees what the server really does, and a
//! generator can hold thousands of them.

use std::time::Duration;

use serde::Serialize;
use tern_protocol::{
    Close, Code, Entry, EntryBody, Envelope, Frame, Hello, Send, Target as To, TempId, Token, UserId,
};
use tokio::time::timeout;

use crate::target::Target;

mod quic;
mod tls;
mod websocket;

use quic::{QuicDialer, QuicLink};
use websocket::{WebSocketDialer, WebSocketLink};

/// From the first packet to Welcome; thousands may come at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of a session is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How this program is named in the server's logs.
const AGENT: &str = concat!("tern-loadtest/", env!("CARGO_PKG_VERSION"));

/// Over what a light client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// Native QUIC.
    Quic,
    /// WebTransport.
    Webtransport,
    /// WebSocket with binary frames.
    Websocket,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Quic => "QUIC",
            Self::Webtransport => "WebTransport",
            Self::Websocket => "WebSocket",
        })
    }
}

/// Why a session cannot be opened, or why it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LightError {
    /// The server has no such transport, or its address cannot be used.
    #[error("{0}")]
    Address(String),
    /// The certificates that are to be believed cannot be used.
    #[error("certificates: {0}")]
    Trust(String),
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// The server ended the session.
    #[error("closed by the server: {code} {reason}")]
    Closed {
        /// Its code.
        code: Code,
        /// Its reason, for people.
        reason: String,
    },
    /// The server sent what cannot be read.
    #[error("unreadable frame: {0}")]
    Malformed(#[from] tern_protocol::DecodeError),
    /// The server answered Hello with something else.
    #[error("the answer to hello was {0}")]
    NotWelcome(&'static str),
    /// No Welcome in time.
    #[error("no session within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
    /// No token could be made.
    #[error(transparent)]
    Token(#[from] tern::auth::MintError),
}

impl LightError {
    fn connection(error: impl std::fmt::Display) -> Self {
        Self::Connection(error.to_string())
    }
}

/// A message that is a text alone.
pub(crate) fn message(to: To, text: String, temp_id: TempId, age_ms: Option<u64>) -> Send {
    Send { to, text, temp_id, age_ms, data: None, reply_to: None }
}

/// The text of a message; `None` of any other entry.
pub(crate) fn text_of(entry: &Entry) -> Option<&str> {
    match &entry.body {
        EntryBody::Message { text, .. } => Some(text),
        _ => None,
    }
}

/// Opens light clients.
pub(crate) struct Dialer<'a> {
    target: &'a Target,
    quic: Option<QuicDialer>,
    webtransport: Option<QuicDialer>,
    websocket: WebSocketDialer,
}

impl<'a> Dialer<'a> {
    /// Sessions over QUIC and over WebTransport are spread over so many sockets each. To be called inside a runtime.
    pub(crate) async fn new(target: &'a Target, sockets: usize) -> Result<Self, LightError> {
        let quic = match target.quic() {
            Some(address) => Some(QuicDialer::new(address, target.trust(), sockets).await?),
            None => None,
        };
        let webtransport = match target.webtransport() {
            Some(url) => Some(QuicDialer::webtransport(url, target.trust(), sockets).await?),
            None => None,
        };
        let websocket = WebSocketDialer::new(target.websocket(), target.trust())?;
        Ok(Self { target, quic, webtransport, websocket })
    }

    /// Opens a session: returns after Welcome.
    pub(crate) async fn open(&self, user: &UserId, transport: Transport) -> Result<Light, LightError> {
        timeout(OPEN_TIMEOUT, self.attempt(user, transport)).await.map_err(|_| LightError::Timeout)?
    }

    async fn attempt(&self, user: &UserId, transport: Transport) -> Result<Light, LightError> {
        let token = Token(self.target.token(user)?);
        let no_quic = || LightError::Address("this server has no QUIC: its URL has no TLS".into());
        let mut link = match transport {
            Transport::Quic => Link::Quic(Box::new(self.quic.as_ref().ok_or_else(no_quic)?.dial().await?)),
            Transport::Webtransport => {
                Link::Quic(Box::new(self.webtransport.as_ref().ok_or_else(no_quic)?.dial().await?))
            }
            Transport::Websocket => Link::Websocket(Box::new(self.websocket.dial().await?)),
        };
        link.send(Hello { token, device: None, agent: Some(AGENT.to_owned()), features: 0 }).await?;
        match link.recv().await? {
            Frame::Welcome(welcome) => {
                let keepalive = Duration::from_secs(welcome.limits.keepalive_s.max(1).into());
                Ok(Light { link, keepalive })
            }
            other => Err(LightError::NotWelcome(other.name())),
        }
    }
}

/// One open session. Dropping it cuts it off.
pub(crate) struct Light {
    link: Link,
    keepalive: Duration,
}

enum Link {
    /// Native or below WebTransport.
    Quic(Box<QuicLink>),
    Websocket(Box<WebSocketLink>),
}

impl Light {
    /// The server wants to hear something at least this often.
    pub(crate) fn keepalive(&self) -> Duration {
        self.keepalive
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, frame: impl Into<Frame>) -> Result<(), LightError> {
        self.link.send(frame).await
    }

    /// The next frame. Cancel-safe. A Close of the server is an error.
    pub(crate) async fn recv(&mut self) -> Result<Frame, LightError> {
        self.link.recv().await
    }

    /// Ends the session and waits for its end, for a bounded time.
    pub(crate) async fn close(mut self) {
        let close = Close { code: Code::NORMAL, reason: String::new(), retry_after_ms: None, target: None };
        let ended = async {
            if self.link.send(close).await.is_ok() {
                while self.link.recv().await.is_ok() {}
            }
        };
        // In vain only if the server does not answer: dropping the link ends it too.
        let _ = timeout(CLOSE_TIMEOUT, ended).await;
    }
}

impl Link {
    async fn send(&mut self, frame: impl Into<Frame>) -> Result<(), LightError> {
        let bytes = tern_protocol::encode(&Envelope { request: None, frame: frame.into() });
        match self {
            Self::Quic(link) => link.send(&bytes).await,
            Self::Websocket(link) => link.send(bytes.into()).await,
        }
    }

    async fn recv(&mut self) -> Result<Frame, LightError> {
        let frame = match self {
            Self::Quic(link) => link.recv().await?,
            Self::Websocket(link) => link.recv().await?,
        };
        match frame {
            Frame::Close(close) => Err(LightError::Closed { code: close.code, reason: close.reason }),
            frame => Ok(frame),
        }
    }
}
