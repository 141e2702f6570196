//! The server of a run: its addresses, what is trusted, and tokens for its users.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tern::auth::{AuthConfigError, Mint, MintError, SigningKey};
use tern::node::Ready;
use tern::node::dev::READY_FILE;
use tern_client::{Config, TokenError, TokenReason, TokenSource, TransportChoice, Trust, WebSocketFormat};
use tern_protocol::{CONNECT_PATH, UserId};

/// Port of a URL that names none.
const PORT_DEFAULT: u16 = 4433;
/// How long a token is good for: longer than a run, renewed if not.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// A session counts as failed after this long; a run starts with a hundred at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// The URL cannot be read.
    #[error("{0:?} is not a server: expected https://HOST[:PORT], wss://HOST[:PORT] or ws://HOST:PORT")]
    Url(String),
    /// The pin cannot be read.
    #[error("{0:?} is not the SHA-256 of a certificate: expected 64 hex digits")]
    Pin(String),
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] AuthConfigError),
    /// A node without a secret.
    #[error("the node signs no tokens of its own")]
    NoSecret,
}

/// How one member is connected. The transports are mixed over the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wire {
    /// Native QUIC.
    Quic,
    /// WebTransport.
    Webtransport,
    /// WebSocket with binary frames.
    WebsocketBinary,
    /// WebSocket with JSON frames.
    WebsocketJson,
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Webtransport => "WebTransport",
            Self::WebsocketBinary => "WebSocket",
            Self::WebsocketJson => "WebSocket with JSON",
        })
    }
}

/// A server, and the right to speak for its users.
pub(crate) struct Target {
    addresses: Addresses,
    trust: Trust,
    key: Arc<SigningKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses {
    /// `host:port`; absent: the server has no TLS and so no QUIC.
    quic: Option<String>,
    /// Absent as well then.
    webtransport: Option<String>,
    websocket: String,
}

impl Target {
    /// A node that runs on this machine.
    pub(crate) fn of_node(ready: &Ready) -> Result<Self, TargetError> {
        let secret = ready.jwt_secret_file.as_deref().ok_or(TargetError::NoSecret)?;
        let addresses = Addresses {
            quic: Some(ready.quic_addr.clone()),
            webtransport: Some(ready.webtransport_url.clone()),
            websocket: ready.wss_url.clone(),
        };
        let trust = Trust::CertSha256(pin(&ready.cert_sha256)?);
        Ok(Self { addresses, trust, key: Arc::new(SigningKey::from_secret_file(secret)?) })
    }

    /// A server by its URL. Without a pin the certificate must be one that the system trusts, or
    /// that of the development node whose secret it is: it leaves its addresses beside the secret.
    pub(crate) fn remote(url: &str, secret: &Path, cert_sha256: Option<&str>) -> Result<Self, TargetError> {
        let addresses = parse_url(url).ok_or_else(|| TargetError::Url(url.to_owned()))?;
        let key = Arc::new(SigningKey::from_secret_file(secret)?);
        if let Some(text) = cert_sha256 {
            return Ok(Self { addresses, trust: Trust::CertSha256(pin(text)?), key });
        }
        match development_node(secret).filter(|ready| is_at(ready, url)) {
            Some(ready) => Self::of_node(&Ready { jwt_secret_file: Some(secret.into()), ..ready }),
            None => Ok(Self { addresses, trust: Trust::System, key }),
        }
    }

    /// `host:port` of QUIC; `None` where the server has no TLS.
    pub(crate) fn quic(&self) -> Option<&str> {
        self.addresses.quic.as_deref()
    }

    /// URL of the WebTransport endpoint, with its path; `None` where the server has no TLS.
    pub(crate) fn webtransport(&self) -> Option<&str> {
        self.addresses.webtransport.as_deref()
    }

    /// URL of the WebSocket endpoint, with its path.
    pub(crate) fn websocket(&self) -> &str {
        &self.addresses.websocket
    }

    /// Which certificates are believed.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// A token of this user.
    pub(crate) fn token(&self, user: &UserId) -> Result<String, MintError> {
        Mint::new(user.clone(), TOKEN_TTL).sign(&self.key, SystemTime::now())
    }

    /// How the member of this number is connected.
    pub(crate) fn wire(&self, number: usize) -> Wire {
        let wires: &[Wire] = match self.addresses.quic {
            Some(_) => &[Wire::Quic, Wire::Webtransport, Wire::WebsocketBinary, Wire::WebsocketJson],
            None => &[Wire::WebsocketBinary, Wire::WebsocketJson],
        };
        wires[number % wires.len()]
    }

    /// The client of one user.
    pub(crate) fn client(&self, user: &UserId, wire: Wire) -> Config {
        let minter = Minter { key: Arc::clone(&self.key), user: user.clone() };
        let mut config = Config::new(minter).trust(self.trust.clone());
        config.agent = concat!("tern-loadtest/", env!("CARGO_PKG_VERSION")).to_owned();
        config.connect_timeout = CONNECT_TIMEOUT;
        config.websocket = Some(self.addresses.websocket.clone());
        config.transport = TransportChoice::WebSocket;
        match wire {
            Wire::Quic => {
                config.quic.clone_from(&self.addresses.quic);
                config.transport = TransportChoice::Quic;
            }
            Wire::Webtransport => {
                config.webtransport.clone_from(&self.addresses.webtransport);
                config.transport = TransportChoice::WebTransport;
            }
            Wire::WebsocketBinary => config.websocket_format = WebSocketFormat::Binary,
            Wire::WebsocketJson => config.websocket_format = WebSocketFormat::Json,
        }
        config
    }
}

/// Makes a user's tokens with the server's own secret.
struct Minter {
    key: Arc<SigningKey>,
    user: UserId,
}

#[async_trait]
impl TokenSource for Minter {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        if let TokenReason::Rejected(code) = reason {
            let why = format!("a token made with this secret was refused with {code}");
            return Err(TokenError::Permanent(why));
        }
        let minted = Mint::new(self.user.clone(), TOKEN_TTL).sign(&self.key, SystemTime::now());
        minted.map_err(|error| TokenError::Permanent(error.to_string()))
    }
}

fn pin(text: &str) -> Result<[u8; 32], TargetError> {
    let bad = || TargetError::Pin(text.to_owned());
    let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let digits =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = hex.chunks(2).map(digits).collect();
    bytes
        .filter(|_| hex.len() == 64 && hex.is_ascii())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(bad)
}

fn parse_url(url: &str) -> Option<Addresses> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) || path.contains(['?', '#']) {
        return None;
    }
    let path = match (scheme, path) {
        ("ws" | "wss", path) if !path.is_empty() => format!("/{path}"),
        _ => CONNECT_PATH.to_owned(),
    };
    match scheme {
        "https" | "wss" => {
            let host = with_port(authority);
            Some(Addresses {
                websocket: format!("wss://{host}{path}"),
                webtransport: Some(format!("https://{host}{CONNECT_PATH}")),
                quic: Some(host),
            })
        }
        "http" | "ws" => {
            let websocket = format!("ws://{authority}{path}");
            Some(Addresses { quic: None, webtransport: None, websocket })
        }
        _ => None,
    }
}

fn with_port(authority: &str) -> String {
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok()
    });
    if has_port { authority.to_owned() } else { format!("{authority}:{PORT_DEFAULT}") }
}

fn development_node(secret: &Path) -> Option<Ready> {
    let file: PathBuf = secret.parent()?.join(READY_FILE);
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// One of the node's addresses is the one of the URL.
fn is_at(ready: &Ready, url: &str) -> bool {
    let authority = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        with_port(rest.split('/').next().unwrap_or(rest)).replace("localhost", "127.0.0.1")
    };
    let mut known =
        [&ready.quic_addr, &ready.wss_url, &ready.http_url].into_iter().chain(&ready.websocket_url);
    known.any(|address| authority(address) == authority(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(quic: Option<&str>, websocket: &str) -> Option<Addresses> {
        Some(Addresses {
            quic: quic.map(str::to_owned),
            webtransport: quic.map(|host| format!("https://{host}/v1/connect")),
            websocket: websocket.to_owned(),
        })
    }

    #[test]
    fn a_url_names_every_transport_that_is_there() {
        for (url, expected) in [
            (
                "https://chat.example",
                addresses(Some("chat.example:4433"), "wss://chat.example:4433/v1/connect"),
            ),
            ("chat.example:99", addresses(Some("chat.example:99"), "wss://chat.example:99/v1/connect")),
            ("https://[::1]:99/", addresses(Some("[::1]:99"), "wss://[::1]:99/v1/connect")),
            ("https://[::1]", addresses(Some("[::1]:4433"), "wss://[::1]:4433/v1/connect")),
            ("wss://h:1/v1/connect", addresses(Some("h:1"), "wss://h:1/v1/connect")),
            ("wss://h:1/behind/proxy", addresses(Some("h:1"), "wss://h:1/behind/proxy")),
            ("ws://127.0.0.1:8080/v1/connect", addresses(None, "ws://127.0.0.1:8080/v1/connect")),
            ("http://127.0.0.1:8080", addresses(None, "ws://127.0.0.1:8080/v1/connect")),
            ("ftp://h", None),
            ("https://", None),
            ("https://user@h", None),
            ("wss://h/v1/connect?token=x", None),
        ] {
            assert_eq!(parse_url(url), expected, "{url}");
        }
    }

    #[test]
    fn a_pin_is_64_hex_digits_with_or_without_colons() {
        assert_eq!(pin(&"ab".repeat(32)).unwrap(), [0xab; 32]);
        assert_eq!(pin(&vec!["AB"; 32].join(":")).unwrap(), [0xab; 32]);
        for text in ["", "ab", &"ab".repeat(33), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(pin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_development_node_is_recognised_by_any_of_its_addresses() {
        let ready: Ready = serde_json::from_value(serde_json::json!({
            "quic_addr": "127.0.0.1:4433", "webtransport_url": "https://127.0.0.1:4433/v1/connect",
            "websocket_url": "ws://127.0.0.1:8080/v1/connect",
            "wss_url": "wss://127.0.0.1:4433/v1/connect", "http_url": "http://127.0.0.1:8080",
            "ops_url": "http://127.0.0.1:9433", "cert_sha256": "00",
            "store_id": "2f1c0f0e-9d55-4b60-8d0a-5f3c1b2a4d6e", "jwt_secret_file": null, "tokens": null,
        }))
        .unwrap();
        for url in ["https://localhost", "ws://127.0.0.1:8080", "127.0.0.1:4433", "wss://localhost:4433/x"] {
            assert!(is_at(&ready, url), "{url}");
        }
        assert!(!is_at(&ready, "https://127.0.0.1:4434"));
    }
}
