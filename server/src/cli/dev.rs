//! `tern dev`: one command to a running node and the first message.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::environment;
use crate::config::Config;
use crate::drain::Signals;
use crate::node::dev::{DevOptions, start};
use crate::node::{Node, Ready};
use crate::ops::logs;

/// Run a node for development.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
    /// Port for clients, on UDP and TCP; 0 picks a free one
    #[arg(long, default_value_t = 4433)]
    port: u16,
    /// Port of plain HTTP and WebSocket; 0 picks a free one
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Port of /livez, /readyz and /metrics; 0 picks a free one
    #[arg(long, default_value_t = 9433)]
    ops_port: u16,
    /// Print one line of JSON when ready, instead of words
    #[arg(long)]
    json: bool,
}

/// How a person runs this program again: by name if it is on the path, else by where it is.
fn own_command() -> String {
    let Ok(program) = std::env::current_exe() else { return "tern".into() };
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|dir| dir.join("tern") == program) {
        return "tern".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&here).unwrap_or(&program).display().to_string()
}

/// Where `tern dev` and `tern chat` meet when nothing else is said.
pub(super) fn default_data_dir() -> PathBuf {
    dirs::data_local_dir().map_or_else(|| PathBuf::from("tern-dev"), |dir| dir.join("tern").join("dev"))
}

impl Dev {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::dev(environment::variables())?;
        logs::init(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            // Taken over first, so that an early Ctrl-C is not lost.
            let signals = Signals::listen().context("signals")?;
            let options = DevOptions {
                data_dir: self.data_dir.clone(),
                port: self.port,
                http_port: self.http_port,
                ops_port: self.ops_port,
            };
            let node = start(&options, environment::variables()).await?;
            node.introduce();
            self.announce(&node)?;
            super::serve::until_drained(node, signals).await;
            Ok(ExitCode::SUCCESS)
        });
        runtime.shutdown_timeout(super::serve::LEFT_BEHIND);
        ended
    }

    fn announce(&self, node: &Node) -> anyhow::Result<()> {
        let ready = node.ready();
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(ready)?)?;
        } else {
            write!(out, "{}", self.words(ready))?;
        }
        out.flush()?;
        Ok(())
    }

    fn words(&self, ready: &Ready) -> String {
        let bold = |text: &str| {
            if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
        };
        let tokens = ready.tokens.as_ref();
        let token = |user: &str| match (user, tokens) {
            ("alice", Some(tokens)) => tokens.alice.clone(),
            (_, Some(tokens)) => tokens.bob.clone(),
            (_, None) => String::new(),
        };
        let websocket = ready.websocket_url.as_deref().unwrap_or_default();
        let own_dir = self.data_dir != default_data_dir();
        let data_dir =
            if own_dir { format!(" --data-dir {}", self.data_dir.display()) } else { String::new() };
        let hello = format!(r#"{{"type":"hello","token":"{}"}}"#, token("alice"));
        let message = r#"{"to":"bob","text":"hi from websocat"}"#;
        let tern = own_command();
        let chat = format!("{tern} chat --as bob --to alice{data_dir}");
        let websocat = format!("(echo '{hello}'; echo '{message}'; cat) | websocat {websocket}");
        format!(
            "tern {version} is ready. Data: {data}\n\n  \
             QUIC          {quic}  (ALPN tern/1, certificate sha256 {cert})\n  \
             WebTransport  {webtransport}  (same certificate)\n  \
             WebSocket     {websocket}\n                {wss}\n  \
             HTTP          {http}/v1/history/{{conv_id}}\n  \
             Operators     {ops}/readyz and /metrics\n\n  \
             Token of alice  {alice}\n  \
             Token of bob    {bob}\n\n\
             Open two people side by side in a browser:\n\n  {page}\n\n\
             Or in two terminals:\n\n  {chat}\n  {chat_alice}\n\n\
             Or speak the protocol by hand (alice writes to bob):\n\n  {websocat}\n\n\
             Ctrl-C stops.\n",
            version = env!("CARGO_PKG_VERSION"),
            data = self.data_dir.display(),
            quic = ready.quic_addr,
            cert = ready.cert_sha256,
            webtransport = ready.webtransport_url,
            wss = ready.wss_url,
            http = ready.http_url,
            ops = ready.ops_url,
            alice = token("alice"),
            bob = token("bob"),
            page = bold(ready.page_url.as_deref().unwrap_or_default()),
            chat = bold(&chat),
            chat_alice = bold(&format!("{tern} chat --as alice --to bob{data_dir}")),
            websocat = bold(&websocat),
        )
    }
}
