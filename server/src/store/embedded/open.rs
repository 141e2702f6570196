//! Opening a store: nothing is served unless everything acknowledged is there.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use fjall::{Database, KeyspaceCreateOptions};
use tern_protocol::StoreId;
use uuid::Uuid;

use super::directory::{Directory, OpenError, is_absent, sync_dir};
use super::disk::{Disk, words};
use super::journals;
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
        io::ErrorKind::NotFound => directory.damaged("the commit count is missing"),
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
    let findings = journals::scan(&journals).map_err(io)?;
    if let Some(cut) = findings.cut.as_ref().filter(|cut| !cut.is_tail) {
        return Err(directory.damaged(&cut.what));
    }
    if let Some(commits) = findings.commits.filter(|commits| *commits < expected) {
        return Err(directory.lost(commits, expected));
    }
    if let Some(torn) = findings.cut {
        tracing::info!(what = torn.what, "cutting off a commit that was never confirmed");
        journals::keep(&journals, &directory.journal_copy()).map_err(io)?;
        journals::apply(&torn, &journals, &db).map_err(io)?;
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
    let journals = journals::list(&directory.db()).map_err(io)?;
    let findings = journals::scan(&journals).map_err(io)?;
    let is_behind =
        findings.commits.is_some_and(|commits| expected.is_none_or(|expected| commits < expected));
    let copy = directory.journal_copy();
    let damage = findings.cut.as_ref().filter(|cut| !cut.is_tail || is_behind).map(|cut| cut.what.clone());
    let mut store_id = previous;
    // The new id comes before every change: a crash in between must not leave the loss unnoticed.
    if damage.is_some() || directory.store_id().is_err() {
        store_id = renew(&directory)?;
    }
    if let Some(cut) = &findings.cut {
        journals::keep(&journals, &copy).map_err(io)?;
        journals::apply(cut, &journals, &directory.db()).map_err(io)?;
    }
    let (disk, commits) = open_database(&directory, 0).map_err(|error| match error {
        OpenError::Damaged { dir, what } => OpenError::Beyond { dir, what },
        other => other,
    })?;
    let missing = expected.map(|expected| expected.saturating_sub(commits));
    if missing != Some(0) && store_id == previous {
        store_id = renew(&directory)?;
    }
    let is_whole = store_id == previous;
    if !is_whole {
        CountFile::create(&directory.count(), commits).map_err(io)?;
    }
    drop(disk);
    let mut journals = None;
    if !is_whole && !is_absent(&copy).map_err(io)? {
        let kept = directory.lost_journals(previous);
        fs::rename(&copy, &kept).map_err(io)?;
        journals = Some(kept);
    }
    journals::remove_dir(&copy).map_err(io)?;
    sync_dir(dir).map_err(io)?;
    Ok(Recovered { store_id, previous_store_id: previous, commits, missing, damage, journals })
}

fn renew(directory: &Directory) -> Result<StoreId, OpenError> {
    let store_id = StoreId::from_uuid(Uuid::new_v4());
    directory.set_store_id(store_id)?;
    Ok(store_id)
}

pub(super) fn open_database(directory: &Directory, cache_bytes: u64) -> Result<(Disk, u64), OpenError> {
    // The journals have been checked, the tables have not: a panic over damaged bytes is a refusal.
    let opened = catch_unwind(|| {
        let builder = Database::builder(directory.db()).max_journaling_size(JOURNALS_BYTES_MAX);
        let db = builder.cache_size(cache_bytes).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let space = db.keyspace("tern", options)?;
        Ok::<_, fjall::Error>(Disk::new(db, space))
    });
    let mut disk = match opened {
        Ok(Ok(disk)) => disk,
        Ok(Err(fjall::Error::Io(source))) if is_outside(&source) => return Err(directory.io(source)),
        Ok(Err(error)) => return Err(directory.damaged(words(&error))),
        Err(_) => return Err(directory.damaged("the database cannot make sense of its files")),
    };
    let loaded = disk.load().and_then(|()| disk.commits());
    let commits = loaded.map_err(|error| directory.damaged(error.to_string()))?;
    Ok((disk, commits))
}

/// The system is in the way, not the data.
fn is_outside(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
