//! Opening a store: nothing is served unless everything acknowledged is there.

use std::fs;
use std::path::{Path, PathBuf};

use fjall::{Database, KeyspaceCreateOptions};
use tern_protocol::StoreId;
use uuid::Uuid;

use super::directory::{Directory, OpenError, is_absent, sync_dir};
use super::disk::Disk;
use super::journals::{self, Journal};
use super::tripwire::CountFile;

/// Unsorted data is written to a table at this size. It bounds memory and what a restart reads.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Journals together; reached only if tables cannot be written fast enough.
const JOURNALS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A store that is known to be whole.
pub(super) struct Opened {
    pub(super) directory: Directory,
    pub(super) store_id: StoreId,
    pub(super) disk: Disk,
    /// Number of the last commit.
    pub(super) commits: u64,
    pub(super) count_file: CountFile,
}

/// What [`recover_accept_loss`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Id the store goes on with; the previous one if nothing was missing.
    pub store_id: StoreId,
    /// Id it had.
    pub previous_store_id: StoreId,
    /// Number of the last commit it has now.
    pub commits: u64,
    /// How many commits are missing at least; `None` if that cannot be told.
    pub missing: Option<u64>,
    /// What was found damaged.
    pub damage: Option<String>,
    /// Where the journals are kept as they were found.
    pub journals: Option<PathBuf>,
}

/// Opens the store in `dir`, or makes it.
pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Opened, OpenError> {
    let directory = Directory::claim(dir)?;
    let io = |source| directory.io(source);
    let store_id = match directory.store_id()? {
        Some(store_id) => store_id,
        None => directory.create()?,
    };
    let count = CountFile::open(&directory.count()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => directory.damaged("the commit count is missing"),
        _ => directory.io(error),
    })?;
    let (count_file, Some(expected)) = count else {
        return Err(directory.damaged("the commit count cannot be read"));
    };
    let db = directory.db();
    if is_absent(&db.join("version")).map_err(io)? {
        if expected > 0 && is_absent(&db).map_err(io)? {
            return Err(directory.lost(0, expected));
        }
        if expected > 0 {
            return Err(directory.damaged("db/version is missing"));
        }
        // It died while being made, before the first commit.
        journals::remove_dir(&db).map_err(io)?;
    }
    let journals = journals::list(&db).map_err(io)?;
    if !journals.is_empty() {
        match journals::check(&db, &directory.scratch(), &journals).map_err(io)? {
            Err(damage) => return Err(directory.damaged(damage.what)),
            Ok(whole) if whole.has_tail => keep(&journals, &directory.journal_copy()).map_err(io)?,
            Ok(_) => {}
        }
    }
    let (disk, commits) = open_database(&directory, cache_bytes)?;
    if commits < expected {
        return Err(directory.lost(commits, expected));
    }
    journals::remove_dir(&directory.journal_copy()).map_err(io)?;
    Ok(Opened { store_id, disk, commits, count_file, directory })
}

/// Goes on with what is left of a store that refuses to open, under a new store id, so that clients
/// notice. It keeps everything up to the first loss and nothing after it: no log gets a hole. A store
/// that is whole is left as it is.
pub fn recover_accept_loss(dir: &Path) -> Result<Recovered, OpenError> {
    if is_absent(&dir.join("store.json")).map_err(|source| OpenError::Io { dir: dir.into(), source })? {
        return Err(OpenError::Missing { dir: dir.into() });
    }
    let directory = Directory::claim(dir)?;
    let io = |source| directory.io(source);
    // An unreadable id is replaced like any other; one of a newer version is not ours to replace.
    let previous = match directory.store_id() {
        Ok(Some(store_id)) => store_id,
        Ok(None) => return Err(OpenError::Missing { dir: dir.into() }),
        Err(OpenError::Damaged { .. }) => StoreId::from_bytes([0; 16]),
        Err(other) => return Err(other),
    };
    let expected = CountFile::open(&directory.count()).ok().and_then(|(_, count)| count);
    let kept = directory.lost_journals(previous);
    let damage = cut_at_damage(&directory, &kept).map_err(io)?;
    let (disk, commits) = open_database(&directory, 0)?;
    let missing = expected.map(|expected| expected.saturating_sub(commits));
    let is_whole = damage.is_none() && missing == Some(0) && directory.store_id().is_ok();
    let store_id = if is_whole { previous } else { StoreId::from_uuid(Uuid::new_v4()) };
    if !is_whole {
        // In this order: with the count first, a crash in between would leave the loss unnoticed.
        directory.set_store_id(store_id)?;
        CountFile::create(&directory.count(), commits).map_err(io)?;
        if damage.is_none() && !is_absent(&directory.journal_copy()).map_err(io)? {
            fs::rename(directory.journal_copy(), &kept).map_err(io)?;
        }
        sync_dir(dir).map_err(io)?;
    }
    drop(disk);
    let journals = if is_absent(&kept).map_err(io)? { None } else { Some(kept) };
    Ok(Recovered { store_id, previous_store_id: previous, commits, missing, damage, journals })
}

/// Cuts the journals at the first place that cannot be read, after keeping them. Says what was wrong.
fn cut_at_damage(directory: &Directory, kept: &Path) -> std::io::Result<Option<String>> {
    let (db, scratch) = (directory.db(), directory.scratch());
    let journals = journals::list(&db)?;
    if journals.is_empty() {
        return Ok(None);
    }
    let Err(damage) = journals::check(&db, &scratch, &journals)? else { return Ok(None) };
    keep(&journals, kept)?;
    let first = &journals[damage.index];
    let is_gap = damage.index > 0 && first.id != journals[damage.index - 1].id + 1;
    let good = if is_gap { 0 } else { journals::good_length(&db, &scratch, first)? };
    // The newest go first: dying in between leaves nothing that looks whole.
    for journal in journals[damage.index + 1..].iter().rev() {
        fs::remove_file(&journal.path)?;
        sync_dir(&db)?;
    }
    if is_gap {
        fs::remove_file(&first.path)?;
    } else {
        let file = fs::OpenOptions::new().write(true).open(&first.path)?;
        file.set_len(good)?;
        file.sync_all()?;
    }
    sync_dir(&db)?;
    Ok(Some(damage.what))
}

/// Copies the journals, durably, unless that was done before: the first copy is the evidence.
fn keep(journals: &[Journal], to: &Path) -> std::io::Result<()> {
    if !is_absent(to)? {
        return Ok(());
    }
    let new = to.with_extension("new");
    journals::remove_dir(&new)?;
    fs::create_dir(&new)?;
    for journal in journals {
        let length = fs::metadata(&journal.path)?.len();
        journals::copy(&journal.path, &new.join(format!("{}.jnl", journal.id)), length)?.sync_all()?;
    }
    sync_dir(&new)?;
    fs::rename(&new, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

fn open_database(directory: &Directory, cache_bytes: u64) -> Result<(Disk, u64), OpenError> {
    let opened = journals::open(|| {
        let builder = Database::builder(directory.db()).max_journaling_size(JOURNALS_BYTES_MAX);
        let db = builder.cache_size(cache_bytes).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let space = db.keyspace("tern", options)?;
        Ok(Disk::new(db, space))
    });
    let disk = opened.map_err(|error| directory.damaged(error))?;
    let commits = disk.commits().map_err(|error| directory.damaged(error.to_string()))?;
    Ok((disk, commits))
}
