//! The tripwire: how many commits were durable, in a second file that the journal cannot take with it.
//!
//! A damaged journal can end early without an error. The count in this file is then ahead of the
//! one recovered from the journal, and the store refuses to open instead of losing acked messages.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use xxhash_rust::xxh3::xxh3_64;

/// Pause between two writes of the file. Half of the promised 100 ms: the other half is for the
/// sync itself.
const INTERVAL: Duration = Duration::from_millis(50);
/// The file holds two slots, a disk block apart, written in turn: a torn write leaves the other one.
const SLOT_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"tern-n/1";

/// The file with its two slots.
pub(super) struct CountFile {
    file: File,
    next: u64,
}

impl CountFile {
    /// Makes the file with this count and syncs it.
    pub(super) fn create(path: &Path, count: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let mut this = Self { file, next: 0 };
        this.write(count)?;
        this.write(count)?;
        this.file.sync_all()
    }

    /// Opens the file; also the highest count in it, `None` if neither slot is whole.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut counts = [None; 2];
        for (slot, count) in counts.iter_mut().enumerate() {
            let mut bytes = [0; 24];
            file.seek(SeekFrom::Start(slot as u64 * SLOT_BYTES))?;
            match file.read_exact(&mut bytes) {
                Ok(()) => *count = parse(&bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        let next = if counts[0] > counts[1] { 1 } else { 0 };
        Ok((Self { file, next }, counts.into_iter().max().flatten()))
    }

    /// Writes the count over the older slot; durable when it returns.
    fn write(&mut self, count: u64) -> io::Result<()> {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&count.to_be_bytes());
        let sum = xxh3_64(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_be_bytes());
        self.file.seek(SeekFrom::Start(self.next * SLOT_BYTES))?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn parse(bytes: &[u8; 24]) -> Option<u64> {
    let (body, sum) = bytes.split_at(16);
    let whole = body.starts_with(MAGIC) && xxh3_64(body).to_be_bytes() == sum;
    whole.then(|| u64::from_be_bytes(body[8..].try_into().expect("16 bytes less 8")))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    committed: u64,
    closed: bool,
}

/// The thread that keeps the file no more than 100 ms behind the commits.
pub(super) struct Tripwire {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Tripwire {
    /// Starts with `count` in the file already. `fatal` is called if the file cannot be written:
    /// without it the next open could not tell a loss.
    pub(super) fn start(
        file: CountFile,
        count: u64,
        fatal: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.state.lock().committed = count;
        let thread = std::thread::Builder::new().name("store-tripwire".into()).spawn({
            let shared = shared.clone();
            move || {
                if let Err(error) = run(&shared, file, count) {
                    fatal(&format!("cannot write the commit count: {error}"));
                }
            }
        })?;
        Ok(Self { shared, thread })
    }

    /// A commit is durable; `count` includes it.
    pub(super) fn note(&self, count: u64) {
        self.shared.state.lock().committed = count;
        self.shared.changed.notify_one();
    }

    /// Writes the last count and ends.
    pub(super) fn close(self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
        let _ = self.thread.join(); // a panic there has been reported by its own thread
    }
}

fn run(shared: &Shared, mut file: CountFile, mut written: u64) -> io::Result<()> {
    loop {
        let (count, closed) = {
            let mut state = shared.state.lock();
            shared.changed.wait_while(&mut state, |state| state.committed == written && !state.closed);
            (state.committed, state.closed)
        };
        if count != written {
            file.write(count)?;
            written = count;
        }
        if closed {
            return Ok(());
        }
        let mut state = shared.state.lock();
        shared.changed.wait_while_for(&mut state, |state| !state.closed, INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_of_one_slot_leaves_the_count_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        CountFile::create(&path, 5).unwrap();
        let (mut file, count) = CountFile::open(&path).unwrap();
        assert_eq!(count, Some(5));
        file.write(6).unwrap();
        file.write(7).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let newest = if bytes[15] == 7 { 0 } else { SLOT_BYTES as usize };
        bytes[newest + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut file, count) = CountFile::open(&path).unwrap();
        assert_eq!(count, Some(6));
        file.write(8).unwrap();
        assert_eq!(CountFile::open(&path).unwrap().1, Some(8));
    }

    #[test]
    fn a_file_with_no_whole_slot_has_no_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        for bytes in [vec![], vec![0; 2 * SLOT_BYTES as usize], b"tern-n/1".to_vec()] {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(CountFile::open(&path).unwrap().1, None);
        }
    }

    #[test]
    fn the_last_count_is_in_the_file_after_close() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        CountFile::create(&path, 0).unwrap();
        let (file, _) = CountFile::open(&path).unwrap();
        let tripwire = Tripwire::start(file, 0, |error| panic!("{error}")).unwrap();
        for count in 1..=100 {
            tripwire.note(count);
        }
        tripwire.close();
        assert_eq!(CountFile::open(&path).unwrap().1, Some(100));
    }
}
