//! Which node this is, where its data is, and where it listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::NodeId;

/// The `[node]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name of the node, unique in a fleet.
    pub name: NodeId,
    /// Directory of everything the node keeps.
    pub data_dir: PathBuf,
    /// File with a secret of at least 32 bytes, made if absent; a relative path is in `data_dir`. By it and
    /// by its name a node that was killed and started again recognises the QUIC connections of its clients
    /// and ends them at their next packet; without, they wait for `dead_after`. Where `data_dir` does not
    /// outlive a restart, mount the same file and keep the name. Nodes may share it, names they may not.
    pub quic_key_file: PathBuf,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: NodeId::new("tern").expect("it is a valid name"),
            data_dir: "/var/lib/tern".into(),
            quic_key_file: "quic-key".into(),
        }
    }
}

/// The `[listen]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// For clients, by the same number on UDP (QUIC) and TCP (HTTPS, WSS). Port 0 picks one.
    pub client: SocketAddr,
    /// Plain HTTP and WebSocket, for development or behind a proxy on this machine. Absent: none.
    /// Example: `"127.0.0.1:8080"`.
    pub http: Option<SocketAddr>,
    /// Host and port by which clients reach `client`, told by `GET /v1/bootstrap`. Absent: the host by
    /// which they asked. Example: `"chat.example:443"`.
    pub public: Option<String>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { client: SocketAddr::from(([0, 0, 0, 0], 4433)), http: None, public: None }
    }
}

/// The `[tls]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// PEM file with the certificate chain, leaf first. `tern serve` needs one.
    /// Example: `"/etc/tern/cert.pem"`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key. Example: `"/etc/tern/key.pem"`.
    pub key_file: Option<PathBuf>,
    /// The two files are looked at this often, in seconds, and what is new in them is presented from
    /// then on, without a restart. 0: only on SIGHUP.
    pub reload_every_s: u64,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self { cert_file: None, key_file: None, reload_every_s: 10 }
    }
}
