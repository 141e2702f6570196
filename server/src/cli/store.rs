//! `tern store`: what an operator does with the embedded store, through the running node or without one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use tern_protocol::{StoreId, UserId};

use super::{Failure, causes};
use crate::node::command;
use crate::store::embedded::{
    Backup, BackupError, Findings, Recovered, Salvaged, Scratch, recover_accept_loss, salvage, verify_store,
};
use crate::upkeep::Request;

/// Exit code of a check that found something wrong.
const EXIT_FAULTS: u8 = 2;
/// Conversations with holes that are told one by one.
const CONVERSATIONS_TOLD: usize = 1_000;

/// Look after the message store.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Data {
    /// Data directory of the node, or of its store
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Readable {
    #[command(flatten)]
    data: Data,
    /// Read a stopped node's store without writing to its disk, which is full or takes no writes: what must be
    /// written goes into this directory, on another disk, and is removed at the end
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a backup into a new directory, of a running node or of a stopped one
    Backup {
        /// Where it goes; on the node's machine
        dir: PathBuf,
        #[command(flatten)]
        data: Readable,
    },
    /// Check a backup, or the store of a stopped node, from end to end; exit code 2 if it is not in order
    ///
    /// Nothing is written, so that it works on a full disk and on one that takes no writes. Exit codes: 0 all of it
    /// is in order, 2 something is damaged or does not fit together, 1 it could not be looked at.
    Verify {
        /// A backup, or a data directory
        dir: PathBuf,
    },
    /// Make the store of a new data directory from a backup
    Restore {
        /// The backup
        backup: PathBuf,
        /// Data directory of the node; it must not have a store yet
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Write all that is kept of a user, as lines of JSON
    Export {
        /// Who
        user: UserId,
        /// A new file for it; standard output if absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        data: Readable,
    },
    /// Erase a user: their messages become tombstones, nothing else of them stays
    Erase {
        /// Who
        user: UserId,
        /// It cannot be undone; do it
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Give the space of what was removed back to the disk now
    Compact {
        #[command(flatten)]
        data: Data,
    },
    /// Go on with a store that lost acknowledged commits, as a new store
    Recover {
        #[command(flatten)]
        data: Data,
        /// Accept that what is missing is gone; clients notice the new store and sync afresh
        #[arg(long)]
        accept_loss: bool,
    },
    /// Copy every row that can be read of a damaged store into a new one; exit code 2 if something is lost
    ///
    /// Works where the store does not open, and changes nothing in it: it may be on a full disk or on one that
    /// takes no writes. What cannot be read is told: files, conversations, entries. Exit codes: 0 all of it was
    /// there, 2 something is lost, 1 it could not be done.
    Salvage {
        /// Data directory of the stopped node, or of its store
        dir: PathBuf,
        /// Data directory for the new store; it must not have one yet
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
    },
}

impl StoreArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Backup { dir, data } => backup(&dir, &data),
            Command::Verify { dir } => verify(&dir),
            Command::Restore { backup, to } => restore(&backup, &to),
            Command::Export { user, out, data } => export(user, out.as_deref(), &data),
            Command::Erase { user, yes, data } => erase(user, yes, &data),
            Command::Compact { data } => compact(&data),
            Command::Recover { data, accept_loss } => recover(&data, accept_loss),
            Command::Salvage { dir, to } => salvaged(&dir, &to),
        }
    }
}

impl Data {
    /// Has it done by the node that holds the store, or here if none does.
    pub(super) fn ask(
        &self,
        request: Request,
        take: impl FnMut(Value) -> io::Result<()> + Send,
    ) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(runtime.block_on(command(&store_in(&self.data_dir), request, take))?)
    }

    /// The same where the answer is all there is to it.
    pub(super) fn done(&self, request: Request) -> Result<Value, Failure> {
        self.ask(request, |_| Ok(())).map_err(|error| Failure::config(causes::told(&error)))
    }
}

impl Readable {
    fn ask(
        &self,
        request: Request,
        take: impl FnMut(Value) -> io::Result<()> + Send,
    ) -> anyhow::Result<Value> {
        let Some(scratch) = &self.scratch else { return self.data.ask(request, take) };
        let scratch = Scratch::of(&store_in(&self.data.data_dir), scratch)?;
        Data { data_dir: scratch.path().into() }.ask(request, take)
    }
}

/// The store of a data directory, or the directory itself.
fn store_in(dir: &Path) -> PathBuf {
    let inside = dir.join("store");
    if inside.is_dir() { inside } else { dir.into() }
}

fn backup(dir: &Path, data: &Readable) -> anyhow::Result<ExitCode> {
    // The node does not know where this command was called.
    let dir = std::path::absolute(dir)?;
    let done = data.ask(Request::Backup { dir: dir.clone() }, |_| Ok(()))?;
    println!(
        "backup of store {} in {}: {} rows, {} bytes, up to commit {}",
        done["store_id"].as_str().unwrap_or("?"),
        dir.display(),
        done["rows"],
        done["bytes"],
        done["commits"]
    );
    Ok(ExitCode::SUCCESS)
}

fn verify(dir: &Path) -> anyhow::Result<ExitCode> {
    let findings = if Backup::is_one(dir) {
        match Backup::open(dir).and_then(|backup| backup.verify()) {
            Err(damaged @ (BackupError::Invalid { .. } | BackupError::Faulty { .. })) => {
                println!("fault: {damaged}\n1 faults");
                return Ok(ExitCode::from(EXIT_FAULTS));
            }
            findings => findings?,
        }
    } else {
        verify_store(&store_in(dir)).context("to check a running node, verify a backup of it")?
    };
    print!("{}", told(&findings));
    if findings.fault_count > 0 && !Backup::is_one(dir) {
        println!("{}", way_out(dir));
    }
    Ok(if findings.fault_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) })
}

fn told(findings: &Findings) -> String {
    let Findings { rows, conversations, entries, users, commits, .. } = findings;
    let mut text = format!(
        "{rows} rows, {conversations} conversations, {entries} entries, {users} users, {commits} commits\n"
    );
    for user in &findings.open_erasures {
        text.push_str(&format!("the erasure of {user} was cut short: it goes on when the node starts\n"));
    }
    for fault in &findings.faults {
        text.push_str(&format!("fault: {fault}\n"));
    }
    match findings.fault_count {
        0 => text.push_str("all of it is in order\n"),
        count => text.push_str(&format!("{count} faults\n")),
    }
    text
}

/// What to do about a store with faults.
fn way_out(dir: &Path) -> String {
    format!(
        "restore a backup; or copy every row that can be read into a new store: tern store salvage {} --to NEW",
        dir.display()
    )
}

fn restore(backup: &Path, to: &Path) -> anyhow::Result<ExitCode> {
    let backup = Backup::open(backup)?;
    let before = backup.manifest().store_id;
    let (store_id, findings) = backup.restore(&to.join("store"))?;
    println!("restored {} entries in {} conversations", findings.entries, findings.conversations);
    println!("the store was {before} and goes on as {store_id}, in {}", to.display());
    println!("start the node on it; clients notice the new store and sync afresh");
    Ok(ExitCode::SUCCESS)
}

fn export(user: UserId, out: Option<&Path>, data: &Readable) -> anyhow::Result<ExitCode> {
    let target: Box<dyn Write + Send> = match out {
        Some(path) => Box::new(private_file(path).with_context(|| path.display().to_string())?),
        None => Box::new(io::stdout()),
    };
    let mut target = BufWriter::new(target);
    data.ask(Request::Export { user }, |line| writeln!(target, "{line}"))?;
    target.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A new file that only its owner reads.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}

fn erase(user: UserId, yes: bool, data: &Data) -> anyhow::Result<ExitCode> {
    if !yes {
        bail!(
            "erasing {user} cannot be undone; to do it, add --yes (tern store export makes a copy for them)"
        );
    }
    let done = data.ask(Request::Erase { user: user.clone() }, |_| Ok(()))?;
    let became = done["became"].as_str().unwrap_or("?");
    println!("{user} is erased: {} entries in {} conversations", done["entries"], done["conversations"]);
    println!("in the logs {became} stands in their place");
    println!("earlier backups still have them, and event files until they are replaced");
    Ok(ExitCode::SUCCESS)
}

fn compact(data: &Data) -> anyhow::Result<ExitCode> {
    let done = data.ask(Request::Compact {}, |_| Ok(()))?;
    println!("{} bytes on disk before, {} now", done["bytes_before"], done["bytes_after"]);
    if done["held_files"] != 0 {
        println!("{} old files are still read by a backup; compact again after it", done["held_files"]);
    }
    Ok(ExitCode::SUCCESS)
}

fn recover(data: &Data, accept_loss: bool) -> anyhow::Result<ExitCode> {
    if !accept_loss {
        bail!("restore a backup if there is one; to go on without what is missing, add --accept-loss");
    }
    println!("{}", words(&recover_accept_loss(&store_in(&data.data_dir))?));
    Ok(ExitCode::SUCCESS)
}

fn words(recovered: &Recovered) -> String {
    let (store_id, previous) = (recovered.store_id, recovered.previous_store_id);
    let Some(damage) = &recovered.damage else {
        return format!("nothing was missing; the store goes on as {store_id}; start the node");
    };
    let missing = match recovered.missing {
        Some(0) => "no commit that was counted is missing".into(),
        Some(missing) => format!("at least {missing} commits are missing"),
        None => "how many commits are missing cannot be told".into(),
    };
    let mut text =
        format!("damaged: {damage}\n{missing}\nthe store was {previous} and goes on as {store_id}\n");
    if let Some(journals) = &recovered.journals {
        text.push_str(&format!("the journals as they were found are kept in {}\n", journals.display()));
    }
    text.push_str(
        "it was opened as a node opens it: start the node; clients notice the new store and sync afresh",
    );
    text
}

fn salvaged(dir: &Path, to: &Path) -> anyhow::Result<ExitCode> {
    let salvaged = salvage(&store_in(dir), &to.join("store"))?;
    print!("{}", report(&salvaged));
    println!("the new store is in {}: start the node on it; clients notice and sync afresh", to.display());
    if salvaged.findings.fault_count > 0 {
        bail!("the new store is not in order, which is a bug: {}", salvaged.findings.faults.join("; "));
    }
    Ok(if salvaged.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) })
}

fn report(salvaged: &Salvaged) -> String {
    let mut text = String::new();
    for damage in &salvaged.damage {
        text.push_str(&format!("damaged: {damage}\n"));
    }
    for holes in salvaged.conversations.iter().take(CONVERSATIONS_TOLD) {
        text.push_str(&format!("{holes}\n"));
    }
    if salvaged.conversations.len() > CONVERSATIONS_TOLD {
        text.push_str(&format!("{} conversations lost something\n", salvaged.conversations.len()));
    }
    for (kind, tally) in &salvaged.rows {
        let made = if tally.made > 0 { format!(", {} mended", tally.made) } else { String::new() };
        let left = if tally.dropped > 0 { format!(", {} left out", tally.dropped) } else { String::new() };
        text.push_str(&format!("{kind}: {} copied{made}{left}\n", tally.copied));
    }
    let id = |id: Option<StoreId>| id.map_or_else(|| "unknown".into(), |id| id.to_string());
    let (before, after) = (id(salvaged.previous_store_id), id(salvaged.store_id));
    text.push_str(&format!("the store was {before} and goes on as {after}\n"));
    text
}
