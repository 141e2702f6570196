//! Going on with what is left of a store that does not open.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use fjall::PersistMode;
use tern_protocol::StoreId;

use super::directory::{Directory, OpenError, is_store};
use super::disk::Disk;
use super::files::{is_absent, sync_dir};
use super::identity::{Identity, Salt};
use super::tripwire::{CountFile, Counted};
use super::{constants, journals, manifests, open};

/// Between two looks at whether the tables are written.
const FLUSH_POLL: Duration = Duration::from_millis(10);

/// What [`recover_accept_loss`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Id the store goes on with; the previous one if nothing was missing.
    pub store_id: StoreId,
    /// Id it had; all zeros if that cannot be told.
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

/// Goes on with what is left of a store that refuses to open, under a new store id, so that clients
/// notice. It keeps everything up to the first loss and nothing after it: no log gets a hole. A store
/// that opens is left as it is. When this returns, the store was opened as a node opens it.
pub fn recover_accept_loss(dir: &Path) -> Result<Recovered, OpenError> {
    if !is_store(dir) {
        return Err(OpenError::Missing { dir: dir.into() });
    }
    let damage = match open::open(dir, 0) {
        Ok(opened) => {
            let (store_id, commits) = (opened.identity.store_id, opened.commits);
            return Ok(Recovered {
                store_id,
                previous_store_id: store_id,
                commits,
                missing: Some(0),
                damage: None,
                journals: None,
            });
        }
        Err(OpenError::Damaged { what, .. } | OpenError::Lost { why: what, .. }) => what,
        Err(OpenError::Unreadable { dir, what }) => return Err(OpenError::Beyond { dir, what }),
        Err(other) => return Err(other),
    };
    let directory = Directory::claim(dir)?;
    let recovered = recover(&directory, damage).map_err(beyond)?;
    // A repair that was not tried is a guess.
    open::open_claimed(directory, 0).map_err(beyond)?;
    Ok(recovered)
}

/// What cannot be cut away by recovery is not told to be.
fn beyond(error: OpenError) -> OpenError {
    match error {
        OpenError::Damaged { dir, what }
        | OpenError::Unreadable { dir, what }
        | OpenError::Lost { dir, why: what, .. } => OpenError::Beyond { dir, what },
        other => other,
    }
}

fn recover(directory: &Directory, damage: String) -> Result<Recovered, OpenError> {
    let io = |source| directory.io(source);
    let told = match directory.identity() {
        Ok(told) => told,
        Err(OpenError::Damaged { .. }) => None,
        Err(other) => return Err(other),
    };
    let counted = CountFile::open(&directory.count()).ok().flatten().map(|(_, counted)| counted);
    let db = directory.db();
    let journals = journals::list(&db).map_err(io)?;
    let salt = salt(directory, told, counted, journals::salt(&journals).map_err(io)?)?;
    let counted = counted.filter(|counted| counted.identity.salt == salt);
    // Before anything is changed: of tables that are not named rightly the database would leave nothing.
    constants::restore(&db).map_err(io)?;
    open::check_tables(directory, salt, false)?;
    // After a recovery that was cut short, the count still has the id that clients know.
    let previous = counted.map(|counted| counted.identity).or(told.filter(|told| told.salt == salt));
    let previous_store_id = previous.map_or(StoreId::from_bytes([0; 16]), |previous| previous.store_id);
    let expected = counted.map(|counted| counted.count);

    // The new id comes before every change, and the count that bears it after all of them: in between, the
    // two do not fit together, and nothing but another recovery opens the store.
    let identity = Identity::renewed(salt);
    directory.set_identity(identity)?;
    let copy = directory.journal_copy();
    journals::keep(&journals, &copy).map_err(io)?;
    if let Some(cut) = journals::scan(&journals, salt).map_err(io)?.cut {
        journals::apply(&cut, &journals, &db).map_err(io)?;
    }
    let (disk, commits) = open::open_database(directory, salt, 0)?;
    // The tables may hold more than is left of the journals, which could then not be added to.
    flush(directory, &disk)?;
    drop(disk);
    journals::empty(&journals::list(&db).map_err(io)?, &db).map_err(io)?;
    CountFile::create(&directory.count(), identity, commits).map_err(io)?;

    let mut kept = directory.lost_journals(previous_store_id);
    while !is_absent(&kept).map_err(io)? {
        kept.as_mut_os_string().push("-more");
    }
    fs::rename(&copy, &kept).map_err(io)?;
    sync_dir(directory.path()).map_err(io)?;
    let missing = expected.map(|expected| expected.saturating_sub(commits));
    let store_id = identity.store_id;
    let (damage, journals) = (Some(damage), Some(kept));
    Ok(Recovered { store_id, previous_store_id, commits, missing, damage, journals })
}

/// The salt of the store, by what most of its files say.
fn salt(
    directory: &Directory,
    told: Option<Identity>,
    counted: Option<Counted>,
    in_journals: Option<Salt>,
) -> Result<Salt, OpenError> {
    let (told, counted) = (told.map(|told| told.salt), counted.map(|counted| counted.identity.salt));
    match (told, counted) {
        (Some(told), Some(counted)) if told == counted => return Ok(told),
        _ => {}
    }
    let in_data = match in_journals {
        Some(salt) => Some(salt),
        None => manifests::salt(&directory.db()).map_err(|source| directory.io(source))?,
    };
    let salt = in_data.or(told).or(counted);
    salt.ok_or_else(|| directory.damaged("no file says which store it is"))
}

/// Has everything in memory written to tables.
fn flush(directory: &Directory, disk: &Disk) -> Result<(), OpenError> {
    let failed = |error: fjall::Error| directory.unreadable(format!("its tables cannot be written: {error}"));
    disk.space.rotate_memtable().map_err(failed)?;
    while disk.space.sealed_memtable_count() > 0 {
        // A database whose writer of tables has died says so to every write.
        disk.db.persist(PersistMode::Buffer).map_err(failed)?;
        sleep(FLUSH_POLL);
    }
    Ok(())
}
