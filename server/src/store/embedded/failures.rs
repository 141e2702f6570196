//! What the database says when it fails, as errors of the store and in words for people.

use std::io;

use crate::store::StoreError;

/// The words for what the database could not do.
pub(super) fn read_failed(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) if is_damage(&error) => {
            StoreError::Corrupt(format!("a part of a file cannot be read: {error}"))
        }
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            StoreError::Unavailable(format!("reading or writing failed: {error}"))
        }
        fjall::Error::Poisoned => StoreError::Unavailable(
            "the database could not write one of its files and takes no more: is its disk full? The log says which"
                .into(),
        ),
        other => StoreError::Corrupt(words(&other)),
    }
}

/// The same error, with the name of the file if it is damaged.
pub(super) fn in_file(file: &str, error: io::Error) -> io::Error {
    match is_damage(&error) {
        true => io::Error::new(io::ErrorKind::InvalidData, format!("{file} cannot be read: {error}")),
        false => error,
    }
}

/// A file is shorter than it must be, is not there, or its disk cannot read it: asking again does not help.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    /// A failed sector, on every Unix.
    const EIO: i32 = 5;
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof) || error.raw_os_error() == Some(EIO)
}

/// What is wrong with the data, for people: which file it is the database does not say.
pub(super) fn words(error: &fjall::Error) -> String {
    use fjall::LsmError;
    match error {
        fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => "a block does not match its check sum",
        fjall::Error::Storage(LsmError::Decompress(_)) | fjall::Error::Decompress(_) => {
            "a block cannot be unpacked"
        }
        fjall::Error::Storage(_) => "a table or the list of tables cannot be read",
        fjall::Error::JournalRecovery(_) | fjall::Error::InvalidTrailer | fjall::Error::InvalidTag(_) => {
            "a journal cannot be read"
        }
        fjall::Error::InvalidVersion(_) => "db/version is none that this program knows",
        fjall::Error::Io(_) => "a file is shorter than it must be, or cannot be read",
        _ => "the database cannot make sense of its files",
    }
    .into()
}
