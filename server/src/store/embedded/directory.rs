//! The data directory: who holds it, whose it is, and why it cannot be used.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tern_protocol::StoreId;

use super::failures::is_damage;
use super::files::{create_private, replace, sync_dir};
use super::identity::{FORMAT, Identity, Unreadable};
use super::space::{free, mib};
use super::tripwire::CountFile;

/// Why a store does not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the data directory {} is in use by another process: stop that one, or give this one a directory of its own with --data-dir",
        .dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// It cannot be made or written to.
    #[error(
        "cannot write to the data directory {}: {source}; make it writable for this user, choose another with --data-dir, or only read it with --scratch DIR on another disk (tern store backup, export)",
        .dir.display()
    )]
    Unwritable {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer version of the program wrote it.
    #[error(
        "the data directory {} has format {found}, this version of tern reads {FORMAT}: install the version that wrote it, or a newer one",
        .dir.display()
    )]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A version of the program that was never released wrote it.
    #[error(
        "the data directory {} has format {found}, which only versions before the first release wrote, this one reads {FORMAT}: begin with an empty directory",
        .dir.display()
    )]
    Older {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Recovery was asked for where there is nothing to recover.
    #[error("there is no store in {}; check --data-dir", .dir.display())]
    Missing {
        /// The data directory.
        dir: PathBuf,
    },
    /// A store was being made of something else in it.
    #[error("{what} into {} was cut short, so it is no store: remove this directory and do it again", .dir.display())]
    Unfinished {
        /// The data directory.
        dir: PathBuf,
        /// What was being done.
        what: String,
    },
    /// Acknowledged writes are gone.
    #[error(
        "{missing} of the last commits in {} are missing ({found} of {expected} found: {why}): messages that were acknowledged would be gone. {}",
        .dir.display(), ways(.dir)
    )]
    Lost {
        /// The data directory.
        dir: PathBuf,
        /// Number of the last commit found.
        found: u64,
        /// Number of the last commit that is known to have been durable.
        expected: u64,
        /// How many are missing at least.
        missing: u64,
        /// Where they end.
        why: String,
    },
    /// It would be copied into itself.
    #[error(
        "the scratch directory {} lies in the data directory {}: choose one elsewhere, on another disk",
        .scratch.display(), .dir.display()
    )]
    ScratchInside {
        /// The data directory.
        dir: PathBuf,
        /// The scratch directory.
        scratch: PathBuf,
    },
    /// Something in it cannot be read, so acknowledged writes may be gone.
    #[error("the data directory {} is damaged: {what}. {}", .dir.display(), ways(.dir))]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The database behind the journals cannot be used as it is; its rows mostly can.
    #[error("the data directory {} is damaged: {what}. {}", .dir.display(), way_by_rows(.dir))]
    Unreadable {
        /// The data directory.
        dir: PathBuf,
        /// Which file, and what is wrong with it.
        what: String,
    },
    /// Recovery found damage that cannot be cut away.
    #[error("the store in {} cannot be made whole: {what}. {}", .dir.display(), way_by_rows(.dir))]
    Beyond {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Nothing more fits on its disk.
    #[error(
        "the disk of the data directory {} is full: free {} MiB, or read the store with --scratch DIR on another disk (tern store backup, export)",
        .dir.display(), mib(*.missing)
    )]
    Full {
        /// The data directory.
        dir: PathBuf,
        /// How many bytes to free at least.
        missing: u64,
    },
    /// Another failure of the file system.
    #[error("cannot use the data directory {}: {source}", .dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The ways out of a loss.
fn ways(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Restore a backup; or copy every row that can be read into a new store: tern store salvage {dir} --to NEW; or go on here without what is lost: tern store recover --accept-loss --data-dir {dir}"
    )
}

/// The ways out where nothing can be cut away.
fn way_by_rows(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Restore a backup; or copy every row that can be read into a new store: tern store salvage {dir} --to NEW"
    )
}

/// Something of a store is in the directory, be it damaged.
pub fn is_store(dir: &Path) -> bool {
    ["store.json", "commit-count", "db"].iter().any(|name| dir.join(name).exists())
}

/// A data directory held by this process, until this is dropped.
pub(super) struct Directory {
    path: PathBuf,
    /// The file, and the directory itself: somebody may remove the file.
    _locks: [File; 2],
}

impl Directory {
    /// Makes the directory if need be and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let unwritable = |source| OpenError::Unwritable { dir: path.into(), source };
        create_private(path).map_err(unwritable)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull => OpenError::Full { dir: path.into(), missing: missing(path) },
            _ => unwritable(source),
        })?;
        let locks = [lock, File::open(path).map_err(unwritable)?];
        for (index, lock) in locks.iter().enumerate() {
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: path.into() }),
                // Some network file systems cannot lock a directory; the file will do there.
                Err(TryLockError::Error(_)) if index == 1 => {}
                Err(TryLockError::Error(source)) => return Err(OpenError::Io { dir: path.into(), source }),
            }
        }
        Ok(Self { path: path.into(), _locks: locks })
    }

    /// Keeps a node from starting on a store while it is only read, as far as that can be done without writing.
    pub(super) fn hold(path: &Path) -> Result<Vec<File>, OpenError> {
        let mut held = Vec::new();
        for lock in [File::open(path.join("lock")), File::open(path)] {
            let Ok(lock) = lock else { continue };
            if let Err(TryLockError::WouldBlock) = lock.try_lock() {
                return Err(OpenError::Locked { dir: path.into() });
            }
            held.push(lock);
        }
        Ok(held)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub(super) fn db(&self) -> PathBuf {
        self.path.join("db")
    }

    /// The commit count.
    pub(super) fn count(&self) -> PathBuf {
        self.path.join("commit-count")
    }

    /// Where journals are kept while one with a torn end is cut, until the store is known to be whole.
    pub(super) fn journal_copy(&self) -> PathBuf {
        self.path.join("journal-copy")
    }

    /// Where the journals of an accepted loss are kept.
    pub(super) fn lost_journals(&self, store_id: StoreId) -> PathBuf {
        self.path.join(format!("lost-journals-{store_id}"))
    }

    /// What was cut off the journals as writes that were cut short.
    pub(super) fn cut_tails(&self) -> PathBuf {
        self.path.join("cut-tails")
    }

    /// What is known of the tables, and their manifests once more.
    pub(super) fn manifest_copy(&self) -> PathBuf {
        self.path.join("manifest-copy")
    }

    /// A new database, while one is made for its own keyspace.
    pub(super) fn new_db(&self) -> PathBuf {
        self.path.join("new-db")
    }

    /// Whose store it is, by `store.json`; `None` if there is no such file.
    pub(super) fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let bytes = match fs::read(self.path.join("store.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_damage(&error) => {
                return Err(self.damaged(format!("store.json cannot be read: {error}")));
            }
            other => other.map_err(|source| self.io(source))?,
        };
        let dir = self.path.clone();
        Identity::from_json(&bytes).map(Some).map_err(|unreadable| match unreadable {
            Unreadable::Format(found) if found < FORMAT => OpenError::Older { dir, found },
            Unreadable::Format(found) => OpenError::Newer { dir, found },
            Unreadable::Damaged(what) => self.damaged(what),
        })
    }

    /// Whose the store in a directory is, by each of the two places that say so. Claims nothing.
    pub(super) fn identities_in(path: &Path) -> [Option<Identity>; 2] {
        let told = fs::read(path.join("store.json")).ok();
        let counted = CountFile::read(&path.join("commit-count")).ok().flatten();
        [told.and_then(|bytes| Identity::from_json(&bytes).ok()), counted.map(|counted| counted.identity)]
    }

    /// Makes a new store. The id comes last: without it, nothing was ever written.
    pub(super) fn create(&self) -> Result<Identity, OpenError> {
        let identity = Identity::new();
        CountFile::create(&self.count(), identity, 0).map_err(|source| self.io(source))?;
        self.set_identity(identity)?;
        Ok(identity)
    }

    /// Writes the identity; durable when it returns.
    pub(super) fn set_identity(&self, identity: Identity) -> Result<(), OpenError> {
        let json = identity.to_json() + "\n";
        replace(&self.path.join("store.json"), json.as_bytes()).map_err(|source| self.io(source))
    }

    /// A store is being made of something else here; until [`finish`](Self::finish) it is none. `what` is
    /// what is done, as "a restore".
    pub(super) fn begin(&self, what: &str) -> Result<(), OpenError> {
        replace(&self.unfinished(), what.as_bytes()).map_err(|source| self.io(source))
    }

    /// What was begun is done.
    pub(super) fn finish(&self) -> Result<(), OpenError> {
        let finish = || {
            fs::remove_file(self.unfinished())?;
            sync_dir(&self.path)
        };
        finish().map_err(|source| self.io(source))
    }

    /// Fails if something was begun here and not finished.
    pub(super) fn finished(&self) -> Result<(), OpenError> {
        match fs::read(self.unfinished()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(self.io(source)),
            Ok(what) => {
                let what = String::from_utf8_lossy(&what).into_owned();
                Err(OpenError::Unfinished { dir: self.path.clone(), what })
            }
        }
    }

    fn unfinished(&self) -> PathBuf {
        self.path.join("unfinished")
    }

    /// An error of the file system in this directory.
    pub(super) fn io(&self, source: io::Error) -> OpenError {
        let dir = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull => OpenError::Full { dir, missing: missing(&self.path) },
            _ if is_damage(&source) => OpenError::Unreadable { dir, what: source.to_string() },
            _ => OpenError::Io { dir, source },
        }
    }

    /// Something in this directory is damaged.
    pub(super) fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { dir: self.path.clone(), what: what.into() }
    }

    /// A file of the database in this directory is damaged.
    pub(super) fn unreadable(&self, what: impl Into<String>) -> OpenError {
        OpenError::Unreadable { dir: self.path.clone(), what: what.into() }
    }

    /// Fewer commits were found than are known to have been durable; `why` says where they end.
    pub(super) fn lost(&self, found: u64, expected: u64, why: impl Into<String>) -> OpenError {
        OpenError::Lost {
            dir: self.path.clone(),
            found,
            expected,
            missing: expected - found,
            why: why.into(),
        }
    }
}

/// Bytes that are missing on a full disk for a store to open: a journal and some more.
fn missing(dir: &Path) -> u64 {
    const OPENING_BYTES: u64 = 80 * 1024 * 1024;
    OPENING_BYTES.saturating_sub(free(dir).unwrap_or(0)).max(1)
}
