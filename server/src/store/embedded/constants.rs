//! Files of the database that are the same in each store.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::failures::is_damage;
use super::files::replace;

/// What the database writes into `db/version`.
const VERSION: &[u8] = b"FJL\x03";

/// They are as they should be.
pub(super) fn are_there(db: &Path) -> bool {
    fs::read(db.join("version")).is_ok_and(|bytes| bytes == VERSION)
}

/// Writes the files of the database anew that are the same in each, if they are missing or damaged.
pub(super) fn restore(db: &Path) -> io::Result<()> {
    let path = db.join("version");
    if !db.join("keyspaces").is_dir() {
        return Ok(());
    }
    // That of another version of the database is not ours to replace.
    let is_another = |bytes: &[u8]| bytes.len() == VERSION.len() && bytes.starts_with(&VERSION[..3]);
    match fs::read(&path) {
        Ok(bytes) if is_another(&bytes) => {}
        Err(error) if !is_damage(&error) => return Err(error),
        _ => {
            tracing::warn!("db/version is missing or damaged; writing it anew: it is the same in each store");
            replace(&path, VERSION)?;
        }
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(db.join("lock")).map(drop)
}
