//! Where a running node is to be found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tern_protocol::StoreId;

/// Addresses and credentials of a node that is ready; the line that `tern dev --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// `host:port` of native QUIC.
    pub quic_addr: String,
    /// `https://` URL of WebTransport.
    pub webtransport_url: String,
    /// `ws://` URL on loopback; absent where there is no plain HTTP port.
    pub websocket_url: Option<String>,
    /// `wss://` URL.
    pub wss_url: String,
    /// `http://` URL of the API on loopback, else `https://`.
    pub http_url: String,
    /// URL of the chat page; absent where it is not served.
    #[serde(default)]
    pub page_url: Option<String>,
    /// `http://` URL of the operator's port.
    pub ops_url: String,
    /// SHA-256 of the certificate, in hex.
    pub cert_sha256: String,
    /// Which store it speaks for.
    pub store_id: StoreId,
    /// File with the secret that signs tokens; only in development.
    pub jwt_secret_file: Option<PathBuf>,
    /// Tokens ready to use; only in development.
    pub tokens: Option<Tokens>,
}

/// The two users of a development node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Token of `alice`.
    pub alice: String,
    /// Token of `bob`.
    pub bob: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}
