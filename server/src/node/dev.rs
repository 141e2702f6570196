//! A node for development: on loopback, with a certificate, a secret and two users of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tern_certs::{CertError, DevCert};
use tern_protocol::UserId;

use super::{Node, StartError, Tokens};
use crate::auth::{Algorithm, AuthConfigError, KeyConfig, Mint, MintError, SigningKey, ensure_secret_file};
use crate::config::{Config, ConfigError};
use crate::http::DevTokens;
use crate::transport::tls::{Identity, TlsError};

/// How long the tokens of a development node last.
pub const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// The file in the data directory that says where the node is.
pub const READY_FILE: &str = "dev.json";

/// What `tern dev` can be told. Port 0 picks a free one.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Port on UDP and TCP for clients.
    pub port: u16,
    /// Port of plain HTTP and WebSocket.
    pub http_port: u16,
    /// Port for operators.
    pub ops_port: u16,
}

/// Why a development node did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A `TERN__…` variable of the environment.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// What TLS says of the certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secret.
    #[error(transparent)]
    Secret(#[from] AuthConfigError),
    /// A token.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// A file in the data directory.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The node.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Starts a development node. `TERN__SECTION__KEY` variables in `env` change its settings.
pub async fn start(
    options: &DevOptions,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Node, DevError> {
    let dir = &options.data_dir;
    std::fs::create_dir_all(dir).map_err(|source| DevError::File { path: dir.clone(), source })?;
    let secret_file = dir.join("jwt-secret");
    ensure_secret_file(&secret_file)?;
    let cert = DevCert::load_or_create(&dir.join("certs"))?;
    let identity = Identity::from_der(vec![cert.cert], &cert.key)?;
    let mut config = Config::dev(env)?;
    config.node.data_dir = dir.clone();
    config.listen.client = loopback(options.port);
    config.listen.http = Some(loopback(options.http_port));
    config.ops.listen = loopback(options.ops_port);
    if config.auth.keys.is_empty() {
        config.auth.keys.push(KeyConfig {
            scopes: None,
            kid: None,
            algorithm: Algorithm::HS256,
            public_key_file: None,
            secret_file: Some(secret_file.clone()),
        });
    }
    let key = || SigningKey::from_secret_file(&secret_file);
    let dev_tokens = DevTokens { key: Arc::new(key()?), ttl: TOKEN_TTL };
    let mut node = Node::start(config, identity, Some(dev_tokens)).await?;
    let key = key()?;
    let token = |name: &str| {
        let user = UserId::new(name).expect("a short name is a user id");
        Mint::new(user, TOKEN_TTL).sign(&key, SystemTime::now())
    };
    node.ready.tokens = Some(Tokens { alice: token("alice")?, bob: token("bob")? });
    node.ready.jwt_secret_file = Some(std::path::absolute(&secret_file).unwrap_or(secret_file));
    write_ready(dir, &node)?;
    Ok(node)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Leaves the addresses where `tern chat` finds them; without the tokens, which it mints itself.
fn write_ready(dir: &std::path::Path, node: &Node) -> Result<(), DevError> {
    let path = dir.join(READY_FILE);
    let mut ready = node.ready.clone();
    ready.tokens = None;
    let text = serde_json::to_vec_pretty(&ready).expect("addresses serialise without failing");
    std::fs::write(&path, text).map_err(|source| DevError::File { path, source })
}
