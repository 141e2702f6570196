//! `tern serve`: a node by its configuration file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::dangers::dangers;
use super::environment;
use super::notify::Notify;
use crate::config::Config;
use crate::drain::{Hangups, Signals};
use crate::node::{Node, Reloader, StartError};
use crate::ops::logs;
use crate::transport::tls::Identity;

/// What may still block a thread when a node has ended is waited for so long.
pub(super) const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Run a node by a configuration file.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration; `TERN__SECTION__KEY` variables win over it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(Some(&self.config), environment::variables())?;
        logs::init(&config.log)?;
        for (key, what) in dangers(&config) {
            tracing::warn!(key, what, "a setting that works and that somebody should mean");
        }
        let identity = match (&config.tls.cert_file, &config.tls.key_file) {
            (Some(cert), Some(key)) => Identity::from_pem_files(cert, key)?,
            _ => bail!("set tls.cert_file and tls.key_file: every transport is encrypted"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            // Taken over first, so that no signal of the start is lost.
            let signals = Signals::listen().context("signals")?;
            let hangups = Hangups::listen().context("signals")?;
            let notify = Notify::from_env();
            let node = match Node::start(config, identity, None).await {
                Ok(node) => node,
                Err(error) => return not_started(&error),
            };
            if self.json {
                writeln!(std::io::stdout(), "{}", serde_json::to_string(node.ready())?)?;
            }
            node.introduce();
            notify.ready();
            let (reloader, shutdown) = (node.reloader(), node.shutdown_handle());
            let say_stopping = async {
                shutdown.draining().await;
                notify.stopping();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = until_drained(node, signals) => {}
                () = obey_hangups(hangups, &self.config, &reloader, &notify) => {}
                () = notify.keep_alive() => {}
                () = say_stopping => {}
            }
            Ok(ExitCode::SUCCESS)
        });
        // What still blocks a thread is nobody's any more.
        runtime.shutdown_timeout(LEFT_BEHIND);
        ended
    }
}

/// Says why, by an exit code that tells a supervisor whether another try makes sense.
fn not_started(error: &StartError) -> anyhow::Result<ExitCode> {
    eprintln!("error: {error}");
    Ok(ExitCode::from(if error.is_configuration() { 1 } else { 2 }))
}

/// Reads the configuration again at each SIGHUP. Never returns.
async fn obey_hangups(mut hangups: Hangups, file: &Path, reloader: &Reloader, notify: &Notify) {
    loop {
        hangups.next().await;
        notify.reloading();
        // The files are small and local: reading them here delays nobody for long.
        match Config::load(Some(file), environment::variables()) {
            Ok(config) => reloader.reload(config),
            Err(error) => reloader.refused(&error),
        }
        notify.ready();
    }
}

/// Runs until a signal asks to drain, and drains.
pub(super) async fn until_drained(node: Node, signals: Signals) {
    node.count_panics();
    let obeyed = signals.obey(node.shutdown_handle());
    tokio::select! {
        () = obeyed => {}
        () = node.finish() => {}
    }
}
