//! Files and directories that are whole and durable once they are there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Puts a file in the place of another, or of none: whole and durable, or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Nothing is there.
pub(super) fn is_absent(path: &Path) -> io::Result<bool> {
    path.try_exists().map(|exists| !exists)
}

/// A path lies in a directory, by whatever links, or would if it were made.
pub(super) fn lies_in(path: &Path, dir: &Path) -> io::Result<bool> {
    let (path, dir) = (std::path::absolute(path)?, dir.canonicalize()?);
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    Ok(there.is_some_and(|there| there.starts_with(dir)))
}

/// Messages are nobody else's business: a new directory is for its owner only. It is durable when this
/// returns, and so are the new ones above it.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Ok(());
    }
    if path.parent().is_some() {
        create_private(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.and_then(|()| sync_dir(parent)),
    }
}
