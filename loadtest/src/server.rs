//! Which server a run plays against: one that the user names, or a node of the run's own.

use std::path::PathBuf;

use clap::Args;

use crate::node::OwnNode;
use crate::target::Target;

/// How a user names a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// https://HOST:PORT, wss://HOST:PORT or ws://HOST:PORT; without it a node is started for the run
    #[arg(long, value_name = "URL", requires = "jwt_secret_file")]
    server: Option<String>,
    /// The secret with which that server checks HS256 tokens
    #[arg(long, value_name = "FILE", requires = "server")]
    jwt_secret_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate, if the system does not trust it
    #[arg(long, value_name = "HEX", requires = "server")]
    cert_sha256: Option<String>,
    /// Directory for the data of the run's own node [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
}

/// A server to play against.
pub(crate) struct Server {
    /// Its addresses, and the right to speak for its users.
    pub(crate) target: Target,
    /// The node, if it is the run's own; it ends with this.
    pub(crate) own: Option<OwnNode>,
}

impl ServerArgs {
    /// The named server, or a new node that ends when the result is dropped.
    pub(crate) fn open(&self) -> anyhow::Result<Server> {
        match (&self.server, &self.jwt_secret_file) {
            (Some(url), Some(secret)) => {
                let target = Target::remote(url, secret, self.cert_sha256.as_deref())?;
                Ok(Server { target, own: None })
            }
            (Some(_), None) => anyhow::bail!("--server needs --jwt-secret-file"),
            (None, _) => {
                let own = OwnNode::start(&self.data_dir.clone().unwrap_or_else(std::env::temp_dir))?;
                Ok(Server { target: Target::of_node(own.ready())?, own: Some(own) })
            }
        }
    }
}
