//! `tern store`: what an operator does with the embedded store while the node is stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::store::embedded::recover_accept_loss;

/// Look after the message store.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Go on with a store that lost acknowledged commits, as a new store
    Recover {
        /// Data directory of the node
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Accept that what is missing is gone; clients notice the new store and sync afresh
        #[arg(long)]
        accept_loss: bool,
    },
}

impl StoreArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Command::Recover { data_dir, accept_loss } = self.command;
        if !accept_loss {
            bail!("restore a backup if there is one; to go on without what is missing, add --accept-loss");
        }
        let recovered = recover_accept_loss(&data_dir.join("store"))?;
        println!("{recovered:?}");
        Ok(ExitCode::SUCCESS)
    }
}
