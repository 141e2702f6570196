//! `tern serve`: a node by its configuration file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::environment;
use crate::config::Config;
use crate::drain::Signals;
use crate::node::Node;
use crate::ops::logs;
use crate::transport::tls::Identity;

/// Run a node by a configuration file.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration; `TERN__SECTION__KEY` variables win over it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(Some(&self.config), environment())?;
        logs::init(&config.log)?;
        let identity = match (&config.tls.cert_file, &config.tls.key_file) {
            (Some(cert), Some(key)) => Identity::from_pem_files(cert, key)?,
            _ => bail!("set tls.cert_file and tls.key_file: every transport is encrypted"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let signals = Signals::listen().context("signals")?;
            let node = Node::start(config, identity).await?;
            tracing::info!(client = node.ready().quic_addr, ops = node.ready().ops_url, "ready");
            until_drained(node, signals).await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Runs until a signal asks to drain, and drains.
pub(super) async fn until_drained(node: Node, signals: Signals) {
    node.count_panics();
    let obeyed = signals.obey(node.shutdown_handle(), node.drain_deadline());
    tokio::select! {
        () = obeyed => {}
        () = node.finish() => {}
    }
}
