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

use super::files::replace;
use super::identity::Identity;

/// Pause between two writes of the file. Half of the promised 100 ms: the other half is for the
/// sync itself.
const INTERVAL: Duration = Duration::from_millis(50);
/// The file holds two slots, a disk block apart, written in turn: a torn write leaves the other one.
const SLOT_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"tern-n/1";

/// The bytes of a slot: magic, count, whose count it is, check sum.
const BYTES: usize = 16 + Identity::BYTES + 8;

/// The file with its two slots.
pub(super) struct CountFile {
    file: File,
    identity: Identity,
    next: u64,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Whose commits were counted.
    pub(super) identity: Identity,
    /// Number of a commit that was durable.
    pub(super) count: u64,
}

impl CountFile {
    /// Makes the file with this count, or another in its place: whole and durable, or not at all.
    pub(super) fn create(path: &Path, identity: Identity, count: u64) -> io::Result<()> {
        let mut bytes = vec![0; SLOT_BYTES as usize + BYTES];
        for slot in [0, SLOT_BYTES as usize] {
            bytes[slot..slot + BYTES].copy_from_slice(&encode(Counted { identity, count }));
        }
        replace(path, &bytes)
    }

    /// Opens the file; also the highest count in it, `None` if neither slot is whole.
    pub(super) fn open(path: &Path) -> io::Result<Option<(Self, Counted)>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let read = read_slots(&mut file)?;
        Ok(read
            .map(|(newest, counted)| (Self { file, identity: counted.identity, next: 1 - newest }, counted)))
    }

    /// The newest count in the file, which is opened for reading only; `None` if neither slot is whole.
    pub(super) fn read(path: &Path) -> io::Result<Option<Counted>> {
        Ok(read_slots(&mut File::open(path)?)?.map(|(_, counted)| counted))
    }

    /// Writes the count over the older slot; durable when it returns.
    fn write(&mut self, count: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.next * SLOT_BYTES))?;
        self.file.write_all(&encode(Counted { identity: self.identity, count }))?;
        self.file.sync_data()?;
        self.next = 1 - self.next;
        Ok(())
    }
}

/// The newest whole slot and what it holds.
fn read_slots(file: &mut File) -> io::Result<Option<(u64, Counted)>> {
    let mut slots = [None; 2];
    for (slot, counted) in slots.iter_mut().enumerate() {
        let mut bytes = [0; BYTES];
        file.seek(SeekFrom::Start(slot as u64 * SLOT_BYTES))?;
        match file.read_exact(&mut bytes) {
            Ok(()) => *counted = parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    let count = |slot: usize| slots[slot].map(|counted: Counted| counted.count);
    let newest = usize::from(count(1) > count(0));
    Ok(slots[newest].map(|counted| (newest as u64, counted)))
}

fn encode(counted: Counted) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&counted.count.to_be_bytes());
    bytes[16..BYTES - 8].copy_from_slice(&counted.identity.to_bytes());
    let sum = xxh3_64(&bytes[..BYTES - 8]);
    bytes[BYTES - 8..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8; BYTES]) -> Option<Counted> {
    let (body, sum) = bytes.split_at(BYTES - 8);
    let whole = body.starts_with(MAGIC) && xxh3_64(body).to_be_bytes() == sum;
    whole.then(|| Counted {
        identity: Identity::from_bytes(body[16..].try_into().expect("the rest of the body")),
        count: u64::from_be_bytes(body[8..16].try_into().expect("8 bytes")),
    })
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

    fn open(path: &Path) -> Option<(CountFile, u64)> {
        CountFile::open(path).unwrap().map(|(file, counted)| (file, counted.count))
    }

    #[test]
    fn a_torn_write_of_one_slot_leaves_the_count_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        let identity = Identity::new();
        CountFile::create(&path, identity, 5).unwrap();
        let (mut file, count) = open(&path).unwrap();
        assert_eq!(count, 5);
        file.write(6).unwrap();
        file.write(7).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let newest = if bytes[15] == 7 { 0 } else { SLOT_BYTES as usize };
        bytes[newest + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut file, count) = open(&path).unwrap();
        assert_eq!(count, 6);
        file.write(8).unwrap();
        let (_, counted) = CountFile::open(&path).unwrap().unwrap();
        assert_eq!(counted, Counted { identity, count: 8 });
    }

    #[test]
    fn a_file_with_no_whole_slot_has_no_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        for bytes in [vec![], vec![0; 2 * SLOT_BYTES as usize], b"tern-n/1".to_vec()] {
            std::fs::write(&path, &bytes).unwrap();
            assert!(open(&path).is_none());
        }
    }

    #[test]
    fn the_last_count_is_in_the_file_after_close() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        CountFile::create(&path, Identity::new(), 0).unwrap();
        let (file, _) = open(&path).unwrap();
        let tripwire = Tripwire::start(file, 0, |error| panic!("{error}")).unwrap();
        for count in 1..=100 {
            tripwire.note(count);
        }
        tripwire.close();
        assert_eq!(open(&path).unwrap().1, 100);
    }
}
