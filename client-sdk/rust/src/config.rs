//! What a client is told before it starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tern_protocol::DeviceId;

use crate::backoff::Backoff;
use crate::persistence::Persistence;
use crate::token::TokenSource;

/// Which transports may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// Those that have an address; QUIC is preferred, WebTransport takes its place where there is
    /// no address for it, and WebSocket is the fallback.
    #[default]
    Auto,
    /// Only QUIC.
    Quic,
    /// Only WebTransport.
    WebTransport,
    /// Only WebSocket.
    WebSocket,
}

/// Which codec is spoken on a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSocketFormat {
    /// Binary messages, subprotocol `tern.v1`.
    #[default]
    Binary,
    /// One JSON text per frame, subprotocol `tern.v1.json`.
    Json,
}

/// Which server certificates are accepted. Handshake signatures are verified in every case.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Those that the operating system trusts.
    #[default]
    System,
    /// Exactly the certificate whose DER form has this SHA-256; names and dates are not looked at.
    CertSha256([u8; 32]),
    /// Those issued by these authorities (DER).
    Roots(Vec<CertificateDer<'static>>),
}

impl Trust {
    /// A certificate by the SHA-256 of its DER form, as 64 hex digits in either case; colons
    /// between them are allowed.
    ///
    /// # Errors
    /// The text is something else.
    pub fn cert_sha256_hex(text: &str) -> Result<Self, ConfigError> {
        let digits: Vec<u32> =
            text.trim().chars().filter(|c| *c != ':').map_while(|c| c.to_digit(16)).collect();
        let written = text.trim().chars().filter(|c| *c != ':').count();
        let mut sha256 = [0; 32];
        if digits.len() != 2 * sha256.len() || written != digits.len() {
            return Err(ConfigError::Trust("a SHA-256 is 64 hex digits".into()));
        }
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] * 16 + pair[1]) as u8;
        }
        Ok(Self::CertSha256(sha256))
    }
}

/// When an entry that was handed out counts as handled by the application. The client acks to the
/// server, and after a restart goes on after, the last confirmed entry of each conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// Pulling the next event confirms the one before.
    #[default]
    Auto,
    /// Only [`Client::confirm`](crate::Client::confirm) confirms.
    Manual,
}

/// Everything a client is told before it starts. Make one with [`Config::new`], then set fields.
#[derive(Clone)]
pub struct Config {
    /// `host:port` of the QUIC endpoint (UDP).
    pub quic: Option<String>,
    /// `https://` URL of the WebTransport endpoint (UDP); without a path, `/v1/connect` is used.
    pub webtransport: Option<String>,
    /// `ws://` or `wss://` URL of the WebSocket endpoint; without a path, `/v1/connect` is used.
    pub websocket: Option<String>,
    /// Which of them may be used.
    pub transport: TransportChoice,
    /// Codec on a WebSocket.
    pub websocket_format: WebSocketFormat,
    /// Which server certificates are accepted.
    pub trust: Trust,
    /// Gives tokens.
    pub token: Arc<dyn TokenSource>,
    /// The device. Absent: the saved one, else a random one that is kept (and saved, with persistence).
    pub device: Option<DeviceId>,
    /// Keeps cursors and pending sends over restarts. Absent: nothing outlives the client.
    pub persistence: Option<Arc<dyn Persistence>>,
    /// Name and version of the application, for the server's logs; at most 128 bytes are kept.
    pub agent: String,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// How long the preferred transport is tried alone. Default 250 ms.
    pub head_start: Duration,
    /// When an entry counts as handled.
    pub confirm: Confirm,
    /// How long [`Client::connect`](crate::Client::connect) waits for the first session. Default 30 s.
    pub connect_timeout: Duration,
    /// Longest time of one attempt, from the token to Welcome. Default 15 s.
    pub attempt_timeout: Duration,
    /// Longest time of one request such as a page of history, retries included. Default 30 s.
    pub request_timeout: Duration,
    /// Most changes (messages, group changes) that are neither durable nor refused, and the most
    /// that are saved; one more is [`SendError::Full`](crate::SendError::Full). Default 1,000.
    pub pending_max: usize,
    /// Most entries that wait for the application; those that come beyond are fetched when there
    /// is room again. At least 16, default 1,024.
    pub events_max: usize,
}

/// Fewest events that may be allowed to wait.
pub(crate) const EVENTS_MIN: usize = 16;
/// Most pending changes that may be configured: what a file of them can reasonably hold.
pub(crate) const PENDING_MAX: usize = 100_000;

/// Why a client cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No address for any transport that may be used.
    #[error(
        "no server address: set `quic` (host:port), `webtransport` (https:// URL) or `websocket` (ws:// or wss:// URL) for {0:?}"
    )]
    NoAddress(TransportChoice),
    /// An address cannot be read.
    #[error("{field} {value:?}: {problem}")]
    Address {
        /// The field of [`Config`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A limit is outside its range.
    #[error("{field} must be from {min} to {max}")]
    Limit {
        /// The field of [`Config`].
        field: &'static str,
        /// Lowest value.
        min: usize,
        /// Highest value.
        max: usize,
    },
    /// The trusted roots cannot be used.
    #[error("trust: {0}")]
    Trust(String),
    /// [`Client::start`](crate::Client::start) was called outside a Tokio runtime.
    #[error("a client runs on a Tokio runtime: call it from inside one")]
    NoRuntime,
}

impl Config {
    /// Defaults with this source of tokens; at least one address must be set before use.
    pub fn new(token: impl TokenSource + 'static) -> Self {
        Self {
            quic: None,
            webtransport: None,
            websocket: None,
            transport: TransportChoice::default(),
            websocket_format: WebSocketFormat::default(),
            trust: Trust::default(),
            token: Arc::new(token),
            device: None,
            persistence: None,
            agent: concat!("tern-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            backoff: Backoff::default(),
            head_start: Duration::from_millis(250),
            confirm: Confirm::default(),
            connect_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            pending_max: 1_000,
            events_max: 1_024,
        }
    }

    /// Sets the QUIC address, `host:port`.
    pub fn quic(mut self, address: impl Into<String>) -> Self {
        self.quic = Some(address.into());
        self
    }

    /// Sets the WebTransport URL, `https://…`.
    pub fn webtransport(mut self, url: impl Into<String>) -> Self {
        self.webtransport = Some(url.into());
        self
    }

    /// Sets the WebSocket URL, `ws://…` or `wss://…`.
    pub fn websocket(mut self, url: impl Into<String>) -> Self {
        self.websocket = Some(url.into());
        self
    }

    /// Sets which transports may be used.
    pub fn transport(mut self, choice: TransportChoice) -> Self {
        self.transport = choice;
        self
    }

    /// Sets which certificates are accepted.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Sets where cursors and pending sends are kept.
    pub fn persistence(mut self, persistence: impl Persistence + 'static) -> Self {
        self.persistence = Some(Arc::new(persistence));
        self
    }

    pub(crate) fn check_limits(&self) -> Result<(), ConfigError> {
        if !(1..=PENDING_MAX).contains(&self.pending_max) {
            return Err(ConfigError::Limit { field: "pending_max", min: 1, max: PENDING_MAX });
        }
        if self.events_max < EVENTS_MIN {
            return Err(ConfigError::Limit { field: "events_max", min: EVENTS_MIN, max: usize::MAX });
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("quic", &self.quic)
            .field("webtransport", &self.webtransport)
            .field("websocket", &self.websocket)
            .field("transport", &self.transport)
            .field("websocket_format", &self.websocket_format)
            .field("device", &self.device)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_hash_is_read_in_the_forms_that_tools_print() {
        let plain = "0aFF".repeat(16);
        let colons = vec!["0a:ff"; 16].join(":");
        for text in [plain.as_str(), &colons, &format!(" {plain}\n")] {
            let Ok(Trust::CertSha256(sha256)) = Trust::cert_sha256_hex(text) else { panic!("{text}") };
            assert_eq!(sha256[..2], [0x0a, 0xff]);
        }
        for text in ["", "0a", &format!("{plain}0"), &format!("{plain}zz"), &"zz".repeat(32)] {
            assert!(Trust::cert_sha256_hex(text).is_err(), "{text}");
        }
    }
}
