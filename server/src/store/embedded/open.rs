//! Opening a store: nothing is served unless everything acknowledged is there.

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use fjall::{Database, KeyspaceCreateOptions};

use super::constants;
use super::directory::{Directory, OpenError};
use super::disk::Disk;
use super::failures::{is_damage, words};
use super::files::is_absent;
use super::identity::{Identity, Salt};
use super::journals;
use super::manifests::{self, Fault, Manifests};
use super::numbers;
use super::tripwire::CountFile;
use crate::clock::unix_ms;
use crate::descriptors::Descriptors;

/// Unsorted data is written to a table at this size. It bounds memory and what a restart reads.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Journals together; reached only if tables cannot be written fast enough.
const JOURNALS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A store that is known to be whole.
pub(super) struct Opened {
    pub(super) directory: Directory,
    pub(super) identity: Identity,
    pub(super) disk: Disk,
    /// Number of the last commit.
    pub(super) commits: u64,
    pub(super) count_file: CountFile,
    pub(super) manifests: Arc<Manifests>,
}

/// Opens the store in `dir`, or makes it.
pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Opened, OpenError> {
    open_claimed(Directory::claim(dir)?, cache_bytes)
}

/// Opens the store in a directory that is held already, or makes it.
pub(super) fn open_claimed(directory: Directory, cache_bytes: u64) -> Result<Opened, OpenError> {
    let io = |source| directory.io(source);
    directory.finished()?;
    let (identity, count_file, expected) = whose(&directory)?;
    if expected > 0 && is_absent(&directory.db()).map_err(io)? {
        return Err(directory.lost(0, expected, "db is missing"));
    }
    let in_journals = check_journals(&directory, identity.salt, expected)?;
    if expected > 0 || in_journals.is_some() {
        constants::restore(&directory.db()).map_err(io)?;
    }
    let manifests = check_tables(&directory, identity.salt, expected == 0 && in_journals.is_none())?;
    let (disk, commits) = open_database(&directory, identity.salt, cache_bytes)?;
    if commits < expected {
        return Err(directory.lost(commits, expected, "the tables and the journals in db hold no more"));
    }
    if let Some(last) = in_journals.filter(|last| *last < commits) {
        // A journal is never behind the tables: it has lost its end, and with it perhaps what is in no table.
        return Err(directory.damaged(format!(
            "the last journal, in db, ends with commit {last}, the tables go on to {commits}"
        )));
    }
    let manifests = match manifests {
        Some(manifests) => manifests,
        None => Manifests::check(&directory.db(), &directory.manifest_copy(), identity.salt)
            .map_err(io)?
            .map_err(|Fault(what)| directory.unreadable(what))?,
    };
    manifests.note().map_err(io)?;
    journals::remove_dir(&directory.journal_copy()).map_err(io)?;
    Ok(Opened { identity, disk, commits, count_file, manifests: Arc::new(manifests), directory })
}

/// Whose store it is, by both places that say so, and how many commits were durable.
fn whose(directory: &Directory) -> Result<(Identity, CountFile, u64), OpenError> {
    let told = match directory.identity() {
        Ok(None) if is_new(directory)? => Some(directory.create()?),
        Ok(told) => told,
        Err(OpenError::Damaged { .. }) => None,
        Err(other) => return Err(other),
    };
    let opened = CountFile::open(&directory.count()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => directory.damaged("commit-count is missing"),
        _ if is_damage(&error) => directory.damaged(format!("commit-count cannot be read: {error}")),
        _ => directory.io(error),
    })?;
    let (count_file, counted) = opened.ok_or_else(|| directory.damaged("commit-count cannot be read"))?;
    match told {
        Some(told) if told == counted.identity => {}
        Some(told) if told.salt == counted.identity.salt => {
            return Err(directory.damaged("a recovery of it was cut short"));
        }
        Some(_) => return Err(directory.damaged("store.json and commit-count are of two stores")),
        None => {
            tracing::warn!("store.json is missing or damaged; writing it anew from commit-count");
            directory.set_identity(counted.identity)?;
        }
    }
    Ok((counted.identity, count_file, counted.count))
}

/// There is neither a database nor a count of commits that were in one.
fn is_new(directory: &Directory) -> Result<bool, OpenError> {
    let io = |source| directory.io(source);
    if !is_absent(&directory.db()).map_err(io)? {
        return Ok(false);
    }
    match CountFile::read(&directory.count()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if is_damage(&error) => Ok(false),
        counted => Ok(counted.map_err(io)?.is_some_and(|counted| counted.count == 0)),
    }
}

/// Sees to it that the journals can be replayed whole; number of the last commit in them. Nothing is changed
/// but the end of a write that was cut short.
fn check_journals(directory: &Directory, salt: Salt, expected: u64) -> Result<Option<u64>, OpenError> {
    let io = |source| directory.io(source);
    let db = directory.db();
    let journals = journals::list(&db).map_err(io)?;
    let findings = journals::scan(&journals, salt).map_err(io)?;
    if let Some(commits) = findings.commits.filter(|commits| *commits < expected) {
        let cut = findings.cut.map(|cut| cut.what);
        return Err(directory.lost(
            commits,
            expected,
            cut.unwrap_or_else(|| format!("{} ends", journals::last_name(&journals))),
        ));
    }
    let Some(cut) = findings.cut else { return Ok(findings.commits) };
    if !cut.is_torn {
        return Err(directory.damaged(cut.what));
    }
    let kept = journals::keep_tail(&cut, &journals, &directory.cut_tails(), unix_ms()).map_err(io)?;
    tracing::warn!(
        what = cut.what,
        last_commit = findings.commits,
        counted = expected,
        kept = %kept.display(),
        "cutting off a commit that the end of the process cut short and nobody was told of"
    );
    journals::keep(&journals, &directory.journal_copy()).map_err(io)?;
    journals::apply(&cut, &journals, &db).map_err(io)?;
    Ok(findings.commits)
}

/// Sees to it that the database takes its tables for what they are. Files that are the same in every database
/// are written anew if they are damaged. `None` if there is no database yet; one in which nothing was ever
/// written and that is not whole died while it was made, and is removed.
pub(super) fn check_tables(
    directory: &Directory,
    salt: Salt,
    is_new: bool,
) -> Result<Option<Manifests>, OpenError> {
    let io = |source| directory.io(source);
    let db = directory.db();
    if is_absent(&db).map_err(io)? {
        return Ok(None);
    }
    let manifests = match Manifests::check(&db, &directory.manifest_copy(), salt).map_err(io)? {
        Ok(manifests) => manifests,
        Err(_) if is_new && !has_tables(&db).map_err(io)? => {
            journals::remove_dir(&db).map_err(io)?;
            return Ok(None);
        }
        Err(Fault(what)) => return Err(directory.unreadable(what)),
    };
    if !manifests::names_ours(&db).map_err(io)? {
        tracing::warn!("db/keyspaces/0 is missing or damaged; writing it anew");
        let new = directory.new_db();
        journals::remove_dir(&new).map_err(io)?;
        open_files(&new, 0).map_err(|error| directory.unreadable(words(&error)))?;
        manifests::put_meta(&db, &new).map_err(io)?;
        journals::remove_dir(&new).map_err(io)?;
    }
    Ok(Some(manifests))
}

/// There are tables, whatever the manifest says.
fn has_tables(db: &Path) -> io::Result<bool> {
    match fs::read_dir(db.join("keyspaces/1/tables")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        entries => Ok(entries?.next().is_some()),
    }
}

/// Opens the database of the store with this salt; also the number of its last commit. What it does not know of
/// its files the database removes: one that is not new must have been checked.
pub(super) fn open_database(
    directory: &Directory,
    salt: Salt,
    cache_bytes: u64,
) -> Result<(Disk, u64), OpenError> {
    // The journals have been checked, the tables have not: a panic over damaged bytes is a refusal.
    let opened = catch_unwind(|| open_files(&directory.db(), cache_bytes));
    let mut disk = match opened {
        Ok(Ok(disk)) => disk,
        Ok(Err(fjall::Error::Io(source))) if is_outside(&source) => return Err(directory.io(source)),
        Ok(Err(fjall::Error::Locked)) => return Err(OpenError::Locked { dir: directory.path().into() }),
        Ok(Err(error)) => return Err(directory.unreadable(words(&error))),
        Err(_) => return Err(directory.unreadable("the database cannot make sense of its files")),
    };
    let loaded = disk.load().and_then(|()| numbers::commits(&disk));
    let (commits, found) = loaded.map_err(|error| directory.unreadable(error.to_string()))?;
    if found.is_some_and(|found| found != salt) {
        return Err(directory.unreadable("the tables in db/keyspaces are of another store"));
    }
    Ok((disk, commits))
}

fn open_files(db: &Path, cache_bytes: u64) -> fjall::Result<Disk> {
    let builder = Database::builder(db)
        .max_cached_files(Some(Descriptors::now().store_files()))
        .max_journaling_size(JOURNALS_BYTES_MAX);
    let db = builder.cache_size(cache_bytes).open()?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    let space = db.keyspace("tern", options)?;
    Ok(Disk::new(db, space))
}

/// The system is in the way, not the data.
fn is_outside(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
