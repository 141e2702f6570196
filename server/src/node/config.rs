//! Which node this is, where its data is, and where it listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[node]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name of the node, unique in a fleet.
    pub name: String,
    /// Directory of everything the node keeps.
    pub data_dir: PathBuf,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { name: "tern".into(), data_dir: "/var/lib/tern".into() }
    }
}

/// The `[listen]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// For clients, by the same number on UDP (QUIC) and TCP (HTTPS, WSS). Port 0 picks one.
    pub client: SocketAddr,
    /// Plain HTTP and WebSocket, for development or behind a proxy on this machine. Absent: none.
    pub http: Option<SocketAddr>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { client: SocketAddr::from(([0, 0, 0, 0], 4433)), http: None }
    }
}

/// The `[tls]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// PEM file with the certificate chain, leaf first.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}
