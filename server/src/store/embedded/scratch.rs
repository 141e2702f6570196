//! A stand-in for the directory of a store that must not be written: on another disk, with links to its tables
//! and copies of the rest. What the database writes goes there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::directory::{Directory, OpenError, is_store};
use super::files::{create_private, lies_in};
use super::journals;

/// The stand-in. Dropping it removes it.
pub struct Scratch {
    path: PathBuf,
    _held: Vec<fs::File>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = journals::remove_dir(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the copy in the scratch directory stays");
        }
    }
}

impl Scratch {
    /// Makes it in `scratch` for the store in `dir`, which no process may hold.
    pub fn of(dir: &Path, scratch: &Path) -> Result<Self, OpenError> {
        if !is_store(dir) {
            return Err(OpenError::Missing { dir: dir.into() });
        }
        if lies_in(scratch, dir).map_err(|source| OpenError::Io { dir: dir.into(), source })? {
            return Err(OpenError::ScratchInside { dir: dir.into(), scratch: scratch.into() });
        }
        let held = Directory::hold(dir)?;
        let path = scratch.join(format!("tern-scratch-{:016x}", rand::random::<u64>()));
        let made = Self { path, _held: held };
        let source = |source| OpenError::Io { dir: made.path.clone(), source };
        let dir = std::path::absolute(dir).map_err(source)?;
        create_private(&made.path).and_then(|()| mirror(&dir, &made.path)).map_err(source)?;
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tables never change once they are written, so a link does for them.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    let is_tables = from.file_name().is_some_and(|name| name == "tables");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            let is_left = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name == "cut-tails" || name.starts_with("lost-journals-"));
            if !is_left {
                fs::create_dir(&target)?;
                mirror(&path, &target)?;
            }
        } else if kind.is_file() && is_tables {
            symlink(&path, &target)?;
        } else if kind.is_file() {
            journals::copy(&path, &target)?;
        }
    }
    Ok(())
}
