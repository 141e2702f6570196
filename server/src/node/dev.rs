//! A node for development: on loopback, with a certificate, a secret and two users of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tern_certs::{CertError, DevCert};
use tern_protocol::UserId;

use tokio::task::JoinHandle;

use super::{Node, Ready, Reloader, StartError, Tokens};
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
    let certs = dir.join("certs");
    let cert = DevCert::load_or_create(&certs)?;
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
    let ready = DevFile { path: dir.join(READY_FILE), ready: Ready { tokens: None, ..node.ready.clone() } };
    ready.write()?;
    let every = Duration::from_secs(node.config.tls.reload_every_s.max(1));
    node.renewal = Some(Renewal::start(certs, every, node.reloader(), ready));
    Ok(node)
}

/// The task that renews the certificate before it ends. Dropping it ends it.
pub(super) struct Renewal(JoinHandle<()>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Renewal {
    fn start(certs: PathBuf, every: Duration, reloader: Arc<Reloader>, mut file: DevFile) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let (certs, reloader) = (certs.clone(), reloader.clone());
                let look = tokio::task::spawn_blocking(move || renewed(&certs, &reloader));
                match look.await {
                    Ok(Ok(Some(sha256))) => {
                        file.ready.cert_sha256 = sha256;
                        if let Err(error) = file.write() {
                            tracing::warn!(%error, "`tern chat` will not find the new certificate");
                        }
                    }
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the certificate could not be renewed"),
                    Err(error) => tracing::warn!(%error, "the certificate could not be renewed"),
                }
            }
        }))
    }
}

/// The hash of a certificate that is presented in place of one that is about to end.
fn renewed(certs: &Path, reloader: &Reloader) -> Result<Option<String>, DevError> {
    let cert = DevCert::load_or_create(certs)?;
    let sha256 = cert.sha256_hex();
    let is_new = reloader.present(Identity::from_der(vec![cert.cert], &cert.key)?);
    Ok(is_new.then_some(sha256))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The addresses where `tern chat` finds them; without the tokens, which it mints itself.
struct DevFile {
    path: PathBuf,
    ready: Ready,
}

impl DevFile {
    /// Whole or not at all: somebody may be reading it.
    fn write(&self) -> Result<(), DevError> {
        let text = serde_json::to_vec_pretty(&self.ready).expect("addresses serialise without failing");
        let aside = self.path.with_extension("json.new");
        let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &self.path));
        written.map_err(|source| DevError::File { path: self.path.clone(), source })
    }
}
