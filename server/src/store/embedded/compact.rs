//! Giving the space of removed and replaced rows back, so that nothing of them stays in any file.
//!
//! Merging the tables is half of it. The journal still has every row as it was first written, and is only
//! replaced once it is full: so it is filled up. And files of tables go when the last version that names them
//! goes, which the database looks at when it writes a table: so one more is written.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::failures::read_failed;
use super::op::Op;
use super::space::{self, mib};
use super::{EmbeddedStore, journals};
use crate::store::StoreError;

/// Bytes of filling in one commit. Nothing can be saved by packing it.
const FILLING_BYTES: usize = 4 * 1024 * 1024;
/// The database begins a new journal when it writes a table and the journal is longer than this, in bytes.
const JOURNAL_BYTES: usize = 64_000_000;
/// Commits that fill a journal.
const FILLINGS: usize = JOURNAL_BYTES / FILLING_BYTES + 1;
/// Pause between two looks whether a table was written.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// Times that it is looked whether old tables are gone, and the pause between. Who reads holds them.
const CLEANUPS_MAX: usize = 50;
const CLEANUP_PAUSE: Duration = Duration::from_millis(100);

/// What came of it, by the files on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// Bytes used before.
    pub bytes_before: u64,
    /// Bytes that had to be free for it.
    pub bytes_needed: u64,
    /// Bytes used now.
    pub bytes_after: u64,
    /// Files of old tables that are still there, since something reads them: a backup.
    pub held_files: usize,
}

impl EmbeddedStore {
    /// Gives the space of removed and replaced rows back to the disk. Nothing of them stays in tables, journals
    /// or in what earlier commands left behind. Reads and writes all tables once.
    pub async fn compact(&self) -> Result<Compacted, StoreError> {
        let _one = self.compacting.lock().await;
        let dir = self.dir.clone();
        let floor = self.floor;
        let (bytes_before, bytes_needed) = self.scan(&self.scans, move |_| room_for(dir, floor)).await?;
        tracing::info!(mib = mib(bytes_needed), "compacting; so much is needed for it");
        self.new_journal().await?;
        self.scan(&self.scans, |disk| disk.space.major_compact().map_err(read_failed)).await?;
        let held_files = self.clean_up().await?;
        let (dir, manifests) = (self.dir.clone(), self.manifests.clone());
        let bytes_after = self
            .scan(&self.scans, move |_| {
                let copy = dir.join("manifest-copy");
                manifests.note().map_err(|error| failed("writing", &copy, &error))?;
                remove_leftovers(&dir)?;
                space::used(&dir).map_err(|error| unusable(&dir, &error))
            })
            .await?;
        Ok(Compacted { bytes_before, bytes_needed, bytes_after, held_files })
    }

    /// Fills the journal until the database begins a new one, and has all of the old one written to tables.
    async fn new_journal(&self) -> Result<(), StoreError> {
        self.scan(&self.scans, flush).await?;
        let old = self.last_journal().await?;
        for _ in 0..FILLINGS {
            if self.last_journal().await? != old {
                break;
            }
            self.fill(Some(FILLING_BYTES)).await?;
        }
        // The first makes the new one, the second has what was still written to the old one.
        for _ in 0..2 {
            self.scan(&self.scans, flush).await?;
            self.fill(None).await?;
        }
        self.scan(&self.scans, flush).await
    }

    /// Has files of tables removed that no version names any more; how many are left.
    async fn clean_up(&self) -> Result<usize, StoreError> {
        let mut held = 0;
        for _ in 0..CLEANUPS_MAX {
            self.fill(None).await?;
            held = self.scan(&self.scans, |disk| flush(disk).and_then(|()| surplus(disk))).await?;
            if held == 0 {
                break;
            }
            tokio::time::sleep(CLEANUP_PAUSE).await;
        }
        Ok(held)
    }

    async fn last_journal(&self) -> Result<Option<PathBuf>, StoreError> {
        let db = self.dir.join("db");
        let last = move |_: &Disk| Ok(journals::paths(&db).map_err(|error| unusable(&db, &error))?.pop());
        self.scan(&self.scans, last).await
    }

    async fn fill(&self, bytes: Option<usize>) -> Result<(), StoreError> {
        let filling = bytes.map(filling);
        self.submit(bytes.unwrap_or(0), |reply| Op::Fill { filling, reply }).await
    }
}

/// Bytes that are used, and that must be free: all tables once more, a journal, and what must be free for a
/// message to be taken.
fn room_for(dir: PathBuf, floor: u64) -> Result<(u64, u64), StoreError> {
    let look = || Ok((space::used(&dir)?, space::used(&dir.join("db/keyspaces"))?, space::free(&dir)?));
    let (used, tables, free) = look().map_err(|error| unusable(&dir, &error))?;
    let needed = tables + 2 * JOURNAL_BYTES as u64 + floor;
    if free < needed {
        let (needed, free, missing) = (mib(needed), mib(free), mib(needed - free));
        return Err(StoreError::Full(format!(
            "compacting needs {needed} MiB for a while and {free} MiB are free: free {missing} MiB"
        )));
    }
    Ok((used, needed))
}

/// Has everything that is in memory written to a table. Ends when the database can no longer do that.
fn flush(disk: &Disk) -> Result<(), StoreError> {
    disk.alive()?;
    if disk.space.rotate_memtable().map_err(read_failed)? {
        while disk.space.sealed_memtable_count() > 0 {
            disk.alive()?;
            std::thread::sleep(FLUSH_PAUSE);
        }
    }
    Ok(())
}

/// Files of tables that the current version does not name.
fn surplus(disk: &Disk) -> Result<usize, StoreError> {
    let tables = disk.space.path().join("tables");
    let files = fs::read_dir(&tables).map_err(|error| unusable(&tables, &error))?.count();
    Ok(files.saturating_sub(disk.space.table_count()))
}

/// What commands that were cut short, or that kept evidence, have left: it has rows too.
fn remove_leftovers(dir: &Path) -> Result<(), StoreError> {
    let io = |error| unusable(dir, &error);
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let is_leftover = |name: &str| {
            ["journal-copy", "journal-copy.new", "cut-tails"].contains(&name)
                || name.starts_with("lost-journals-")
        };
        if name.to_str().is_some_and(is_leftover) {
            tracing::info!(?name, "removing what an earlier command has left");
            let path = dir.join(name);
            journals::remove_dir(&path).map_err(|error| {
                failed("the tables are merged, but removing what an earlier command left in", &path, &error)
            })?;
        }
    }
    Ok(())
}

/// Bytes without any order, another each time.
fn filling(length: usize) -> Bytes {
    let mut state = rand::random::<u64>();
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.into()
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    failed("looking at", path, error)
}

/// What could not be done with which file or directory.
fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{what} {} failed: {error}", path.display()))
}
