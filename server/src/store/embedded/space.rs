//! Space on the disk of the store: what it uses, what is free, and whether there is enough to take messages.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use crate::store::StoreError;

const MIB: u64 = 1024 * 1024;
/// Unit of the blocks of a file, in bytes.
const BLOCK_BYTES: u64 = 512;

/// Whether there is room for more messages, as of the last look.
#[derive(Default)]
pub(super) struct Room {
    /// Bytes that would have to be freed; 0: there is room.
    missing: AtomicU64,
}

impl Room {
    /// So much is free, so much must be. True if that is news.
    pub(super) fn look(&self, free: u64, floor: u64) -> bool {
        let missing = floor.saturating_sub(free);
        let before = self.missing.swap(missing, Ordering::Relaxed);
        (before == 0) != (missing == 0)
    }

    /// An error that says how much to free, unless there is room.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.missing.load(Ordering::Relaxed) {
            0 => Ok(()),
            missing => Err(StoreError::Full(format!(
                "too little is free on the disk of the store: free {} MiB",
                mib(missing)
            ))),
        }
    }
}

/// Whole MiB, rounded up.
pub(super) fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

/// What this user may still write on the disk of a directory, in bytes.
pub(super) fn free(dir: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(dir)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// What the files of a directory take on the disk, in bytes: parts that were never written take nothing.
pub(super) fn used(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += used(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * BLOCK_BYTES,
            // A table that was merged meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_news_once_and_says_how_much_to_free() {
        let room = Room::default();
        assert!(!room.look(300 * MIB, 256 * MIB));
        room.check().unwrap();
        assert!(room.look(200 * MIB + 1, 256 * MIB), "it has run out");
        let error = room.check().unwrap_err().to_string();
        assert!(error.contains("free 56 MiB"), "{error}");
        assert!(!room.look(100 * MIB, 256 * MIB), "that is known");
        assert!(room.look(256 * MIB, 256 * MIB), "there is room again");
        room.check().unwrap();
    }
}
