//! The data directory: who holds it, whose it is, and why it cannot be used.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_protocol::StoreId;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::tripwire::CountFile;

/// Format of the whole directory; raised by a change that older versions must not touch.
const FORMAT: u32 = 1;

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
        "cannot write to the data directory {}: {source}; make it writable for this user, or choose another with --data-dir",
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
        "the data directory {} has format {found}, this version of tern reads up to {FORMAT}: install the version that wrote it, or a newer one",
        .dir.display()
    )]
    Newer {
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
    /// Acknowledged writes are gone.
    #[error(
        "{missing} of the last commits in {} are missing ({found} of {expected} found): messages that were acknowledged would be gone. Restore a backup, or go on without them: tern store recover --accept-loss --data-dir {}",
        .dir.display(), .dir.display()
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
    },
    /// Something in it cannot be read, so acknowledged writes may be gone.
    #[error(
        "the data directory {} is damaged: {what}. Restore a backup, or go on without what is lost: tern store recover --accept-loss --data-dir {}",
        .dir.display(), .dir.display()
    )]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Recovery found damage that cannot be cut away.
    #[error("the store in {} cannot be made whole: {what}. Restore a backup", .dir.display())]
    Beyond {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
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

impl OpenError {
    /// The same about a directory that this one is a copy of.
    pub(super) fn in_dir(mut self, original: &Path) -> Self {
        let (Self::Locked { dir }
        | Self::Unwritable { dir, .. }
        | Self::Newer { dir, .. }
        | Self::Missing { dir }
        | Self::Lost { dir, .. }
        | Self::Damaged { dir, .. }
        | Self::Beyond { dir, .. }
        | Self::Io { dir, .. }) = &mut self;
        *dir = original.into();
        self
    }
}

/// A data directory held by this process, until this is dropped.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

/// What `store.json` holds.
#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    store_id: StoreId,
    /// Hash of the other fields, in hex: an id changed by damage would be taken for a new store.
    check: String,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Directory {
    /// Makes the directory if need be and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let unwritable = |source| OpenError::Unwritable { dir: path.into(), source };
        create_private(path).map_err(unwritable)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: path.into() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Io { dir: path.into(), source }),
        }
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

    /// Id of the store in it; `None` if there is none yet.
    pub(super) fn store_id(&self) -> Result<Option<StoreId>, OpenError> {
        let bytes = match fs::read(self.path.join("store.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| self.io(source))?,
        };
        let damaged = |_| self.damaged("store.json cannot be read");
        let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(OpenError::Newer { dir: self.path.clone(), found: format });
        }
        let identity: Identity = serde_json::from_slice(&bytes).map_err(damaged)?;
        if identity.check != check(format, identity.store_id) {
            return Err(self.damaged("store.json does not match its check sum"));
        }
        Ok(Some(identity.store_id))
    }

    /// The id of the store in a directory, if that can be read. Claims nothing.
    pub(super) fn store_id_in(path: &Path) -> Option<StoreId> {
        let identity: Identity = serde_json::from_slice(&fs::read(path.join("store.json")).ok()?).ok()?;
        (identity.check == check(identity.format, identity.store_id)).then_some(identity.store_id)
    }

    /// Makes a new store. The id comes last: without it, nothing was ever written.
    pub(super) fn create(&self) -> Result<StoreId, OpenError> {
        if !is_absent(&self.db()).map_err(|source| self.io(source))? {
            return Err(self.damaged("store.json is missing"));
        }
        CountFile::create(&self.count(), 0).map_err(|source| self.io(source))?;
        let store_id = StoreId::from_uuid(Uuid::new_v4());
        self.set_store_id(store_id)?;
        Ok(store_id)
    }

    /// Writes the id; durable when it returns.
    pub(super) fn set_store_id(&self, store_id: StoreId) -> Result<(), OpenError> {
        let identity = Identity { format: FORMAT, store_id, check: check(FORMAT, store_id) };
        let json = serde_json::to_string(&identity).expect("strings and numbers are JSON");
        let write = || {
            let (new, path) = (self.path.join("store.json.new"), self.path.join("store.json"));
            let mut file = File::create(&new)?;
            writeln!(file, "{json}")?;
            file.sync_all()?;
            fs::rename(new, path)?;
            sync_dir(&self.path)
        };
        write().map_err(|source| self.io(source))
    }

    /// An error of the file system in this directory.
    pub(super) fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io { dir: self.path.clone(), source }
    }

    /// Something in this directory is damaged.
    pub(super) fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { dir: self.path.clone(), what: what.into() }
    }

    /// Fewer commits were found than are known to have been durable.
    pub(super) fn lost(&self, found: u64, expected: u64) -> OpenError {
        OpenError::Lost { dir: self.path.clone(), found, expected, missing: expected - found }
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Nothing is there.
pub(super) fn is_absent(path: &Path) -> io::Result<bool> {
    path.try_exists().map(|exists| !exists)
}

fn check(format: u32, store_id: StoreId) -> String {
    format!("{:016x}", xxh3_64(format!("{format} {store_id}").as_bytes()))
}

/// Messages are nobody else's business: a new directory is for its owner only.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
