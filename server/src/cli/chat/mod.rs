//! `tern chat`: a conversation in the terminal, through the Rust SDK.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tern_client::{
    CertificateDer, Client, Config, ConversationId, FilePersistence, TokenError, TokenReason, TokenSource,
    TransportChoice, Trust, UserId,
};

use super::dev::default_data_dir;
use crate::auth::{Mint, SigningKey};
use crate::node::Ready;
use crate::node::dev::{READY_FILE, TOKEN_TTL};

mod blocking;
mod room;
mod show;

use room::{Room, Whom};

/// Chat from the terminal.
#[derive(Debug, Args)]
#[command(
    after_help = "Every line you type is a message, but /block [USER], /unblock [USER] and /blocks. What you type while the server is away is kept and \
sent when it is back, even if you leave in between. Ctrl-D leaves."
)]
pub(super) struct Chat {
    /// Who you are; with --token, the token says it
    #[arg(long = "as", value_name = "USER", required_unless_present = "token")]
    me: Option<UserId>,
    /// Whom to talk to
    #[arg(long, value_name = "USER", required_unless_present = "group", conflicts_with = "group")]
    to: Option<UserId>,
    /// Group to talk in: its id (c:…) or its name
    #[arg(long, value_name = "ID|NAME")]
    group: Option<String>,
    /// Make the group named by --group if there is none, with these members
    #[arg(long, value_name = "USER,…", value_delimiter = ',', requires = "group")]
    with: Vec<UserId>,
    /// Transport to use
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    transport: Choice,
    /// Server: host:port, or a ws:// or wss:// URL; default: the `tern dev` on this machine
    #[arg(long, value_name = "URL", requires = "token")]
    server: Option<String>,
    /// Token, or `-` to read it from the first line of standard input; default: minted with the
    /// secret of the `tern dev` on this machine
    #[arg(long, env = "TERN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with the certificate authority of the server; default: those of the system
    #[arg(long, value_name = "FILE", requires = "server")]
    ca_file: Option<PathBuf>,
    /// Data directory of the `tern dev` to talk to; unsent messages are kept there too
    #[arg(long, value_name = "DIR", default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
    /// Lines of JSON in ({"text":"…"}) and out (one event each)
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// QUIC, or WebSocket where that is faster to answer
    Auto,
    /// Only QUIC
    Quic,
    /// Only WebTransport
    Webtransport,
    /// Only WebSocket
    Websocket,
}

/// Tokens from the secret of a development node, made when they are needed.
struct Minted {
    key: SigningKey,
    user: UserId,
}

#[async_trait::async_trait]
impl TokenSource for Minted {
    async fn token(&self, _: TokenReason) -> Result<String, TokenError> {
        let minted = Mint::new(self.user.clone(), TOKEN_TTL).sign(&self.key, SystemTime::now());
        minted.map_err(|error| TokenError::Permanent(error.to_string()))
    }
}

impl Chat {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exit = runtime.block_on(self.talk());
        // Reading the terminal cannot be cancelled: do not wait for a line that nobody types.
        runtime.shutdown_timeout(Duration::from_millis(50));
        exit
    }

    async fn talk(mut self) -> anyhow::Result<ExitCode> {
        let mut lines = room::lines();
        if self.token.as_deref() == Some("-") {
            let line = lines.recv().await.context("no token on standard input")?;
            self.token = Some(line.trim().to_owned());
        }
        let config = self.config()?;
        let (client, events) = Client::start(config)?;
        let whom = match (&self.to, &self.group) {
            (Some(user), _) => Whom::User(user.clone()),
            (None, Some(group)) => match group.parse::<ConversationId>() {
                Ok(id) => Whom::Group(id),
                Err(error) if group.starts_with("c:") => bail!("--group {group}: {error}"),
                Err(_) => Whom::Named { name: group.clone(), with: self.with.clone() },
            },
            (None, None) => bail!("say whom to talk to: --to USER or --group ID|NAME"),
        };
        Room::new(client, events, whom, self.json).run(lines).await
    }

    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.server {
            Some(server) => self.remote(server)?,
            None => self.local()?,
        };
        config.transport = match self.transport {
            Choice::Auto => TransportChoice::Auto,
            Choice::Quic => TransportChoice::Quic,
            Choice::Webtransport => TransportChoice::WebTransport,
            Choice::Websocket => TransportChoice::WebSocket,
        };
        config.agent = concat!("tern-chat/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(config)
    }

    /// The development node of the data directory.
    fn local(&self) -> anyhow::Result<Config> {
        let path = self.data_dir.join(READY_FILE);
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "no development node in {}: start `tern dev`, or give --server and --token",
                path.display()
            )
        })?;
        let ready: Ready = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let mut config = match &self.token {
            Some(token) => Config::new(token.clone()),
            None => {
                let user = self.me.clone().context("say who you are: --as USER")?;
                let secret = ready.jwt_secret_file.context("the node has no development secret")?;
                Config::new(Minted { key: SigningKey::from_secret_file(&secret)?, user })
            }
        };
        config.quic = Some(ready.quic_addr);
        config.webtransport = Some(ready.webtransport_url);
        config.websocket = Some(ready.wss_url);
        config.trust = Trust::CertSha256(parse_sha256(&ready.cert_sha256)?);
        self.keep_unsent(&mut config, "dev")?;
        Ok(config)
    }

    fn remote(&self, server: &str) -> anyhow::Result<Config> {
        let token = self.token.clone().context("give the token with --token")?;
        let mut config = Config::new(token);
        if server.starts_with("ws://") || server.starts_with("wss://") {
            let host = server.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
            let host = host.filter(|_| server.starts_with("wss://"));
            config.quic = host.map(with_port);
            config.webtransport = host.map(|host| format!("https://{host}"));
            config.websocket = Some(server.to_owned());
        } else {
            config.quic = Some(with_port(server));
            config.webtransport = Some(format!("https://{server}"));
            config.websocket = Some(format!("wss://{server}"));
        }
        if let Some(file) = &self.ca_file {
            config.trust = Trust::Roots(read_roots(file)?);
        }
        self.keep_unsent(&mut config, server)?;
        Ok(config)
    }

    /// Unsent messages and cursors outlive this process, by user and server.
    fn keep_unsent(&self, config: &mut Config, server: &str) -> anyhow::Result<()> {
        let Some(user) = &self.me else { return Ok(()) };
        let dir = self.data_dir.join("chat");
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let name: String = format!("{server}-{user}")
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("_{byte:02x}")
                }
            })
            .collect();
        config.persistence = Some(std::sync::Arc::new(FilePersistence::new(dir.join(name))));
        Ok(())
    }
}

fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:443") }
}

fn parse_sha256(hex: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).context("cert_sha256 is not 64 hex digits")
}

fn read_roots(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    use rustls_pki_types::pem::PemObject;
    let certs = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| file.display().to_string())?;
    if certs.is_empty() {
        bail!("{}: no certificate in it", file.display());
    }
    Ok(certs)
}
