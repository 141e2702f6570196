//! `tern store`: what an operator does with the embedded store while the node is stopped.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::store::embedded::{Recovered, recover_accept_loss};

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
        /// Data directory of the node, or of its store
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
        let inside = data_dir.join("store");
        let recovered = recover_accept_loss(if inside.is_dir() { &inside } else { &data_dir })?;
        println!("{}", words(&recovered));
        Ok(ExitCode::SUCCESS)
    }
}

fn words(recovered: &Recovered) -> String {
    let mut text = match (recovered.missing, &recovered.damage) {
        (Some(0), None) => format!("nothing was missing; the store goes on as {}\n", recovered.store_id),
        (missing, damage) => {
            let missing =
                missing.map_or_else(|| "an unknown number of".into(), |missing| missing.to_string());
            let damage = damage.as_ref().map(|what| format!("damaged: {what}\n")).unwrap_or_default();
            format!(
                "{damage}at least {missing} commits are missing\nthe store was {} and goes on as {}\n",
                recovered.previous_store_id, recovered.store_id
            )
        }
    };
    if let Some(journals) = &recovered.journals {
        text.push_str(&format!("the journals as they were found are kept in {}\n", journals.display()));
    }
    text.push_str("start the node; clients notice the new store and sync afresh");
    text
}
