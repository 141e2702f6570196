//! Reads the journals of the database before the database does.
//!
//! The database cuts a journal where it cannot read on, in place and without an error, and its
//! check sums leave out the sequence number of a commit: a flipped bit there puts old values back.
//! So every commit is checked here first, and nothing is changed before they are known to be whole.
//!
//! The format is that of fjall 3 (file `version`: "FJL", 3). A journal is a row of commits, zeros
//! after the last one; integers are little-endian:
//! start `1` · items u32 · seqno u64, then per item `2` · kind u8 · compression u8 · keyspace u64 ·
//! key length u16 · value length u32 · stored length u32 · key · value, then end `3` · xxh3 of the
//! items u64 · "FJL", 3.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::directory::{is_absent, sync_dir};
use super::{keys, values};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
const ZEROS: &[u8] = &[0; CHUNK];
const TRAILER: [u8; 4] = *b"FJL\x03";

/// A journal file; all but the last of a database are sealed and were whole when they were.
pub(super) struct Journal {
    id: u64,
    path: PathBuf,
}

/// What the journals hold.
#[derive(Default)]
pub(super) struct Findings {
    /// Number of the last commit that can be read; `None` if there is none in the journals.
    pub(super) commits: Option<u64>,
    /// Where reading ends before the data does.
    pub(super) cut: Option<Cut>,
}

/// A place after which nothing can be used.
pub(super) struct Cut {
    index: usize,
    length: u64,
    /// It is in the last journal: perhaps only a commit that the end of the process cut short. The
    /// commit count tells.
    pub(super) is_tail: bool,
    /// What is wrong, in words.
    pub(super) what: String,
}

/// The journals of a database, oldest first; none if there is no database.
pub(super) fn list(db: &Path) -> io::Result<Vec<Journal>> {
    let entries = match fs::read_dir(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(id) = name.and_then(|name| name.strip_suffix(".jnl")?.parse().ok()) {
            journals.push(Journal { id, path });
        }
    }
    journals.sort_by_key(|journal| journal.id);
    Ok(journals)
}

/// The files of the journals, oldest first.
pub(super) fn paths(db: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(list(db)?.into_iter().map(|journal| journal.path).collect())
}

/// Reads all journals up to the first thing that is wrong.
pub(super) fn scan(journals: &[Journal]) -> io::Result<Findings> {
    let mut order = Order::default();
    let mut findings = Findings::default();
    for (index, journal) in journals.iter().enumerate() {
        if index > 0 && journal.id != journals[index - 1].id + 1 {
            let what = format!("journal {} is missing", journals[index - 1].id + 1);
            // Whatever comes after a gap goes as a whole.
            findings.cut = Some(Cut { index, length: 0, is_tail: false, what });
            break;
        }
        let (length, wrong) = read_commits(&journal.path, &mut order)?;
        findings.commits = order.commit;
        let (is_tail, what) = match wrong {
            None => continue,
            Some(Wrong::Io(error)) => return Err(error),
            Some(Wrong::Torn(what)) => (index + 1 == journals.len(), what),
            Some(Wrong::Order(what)) => (false, what),
        };
        let what = format!("journal {} cannot be used from byte {length} on: {what}", journal.id);
        findings.cut = Some(Cut { index, length, is_tail, what });
        break;
    }
    Ok(findings)
}

/// Drops what is after a cut.
pub(super) fn apply(cut: &Cut, journals: &[Journal], db: &Path) -> io::Result<()> {
    // The newest go first: dying in between leaves nothing that looks whole.
    for journal in journals[cut.index + 1..].iter().rev() {
        fs::remove_file(&journal.path)?;
        sync_dir(db)?;
    }
    let journal = &journals[cut.index];
    if cut.length == 0 && cut.index > 0 {
        fs::remove_file(&journal.path)?;
    } else {
        let file = OpenOptions::new().write(true).open(&journal.path)?;
        file.set_len(cut.length)?;
        file.sync_all()?;
    }
    sync_dir(db)
}

/// Copies the journals, durably, unless that was done before: the first copy is the evidence.
pub(super) fn keep(journals: &[Journal], to: &Path) -> io::Result<()> {
    if !is_absent(to)? {
        return Ok(());
    }
    let new = to.with_extension("new");
    remove_dir(&new)?;
    fs::create_dir(&new)?;
    for journal in journals {
        copy(&journal.path, &new.join(format!("{}.jnl", journal.id)))?.sync_all()?;
    }
    sync_dir(&new)?;
    fs::rename(&new, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Copies a file. Blocks of zeros, which journals are preallocated with, take no space.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<File> {
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        if chunk[..read] == ZEROS[..read] {
            target.seek(SeekFrom::Current(read as i64))?;
        } else {
            target.write_all(&chunk[..read])?;
        }
    }
    target.set_len(source.stream_position()?)?;
    Ok(target)
}

/// Removes a directory that may not be there.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What must rise from one commit to the next.
#[derive(Default)]
struct Order {
    seqno: Option<u64>,
    commit: Option<u64>,
}

/// Reads commits until the end or the first that is not whole; the length up to there and what is
/// wrong with the next.
fn read_commits(path: &Path, order: &mut Order) -> io::Result<(u64, Option<Wrong>)> {
    let mut file = File::open(path)?;
    let end = data_end(&mut file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = Reader { input: BufReader::with_capacity(CHUNK, file), at: 0, end, item: Vec::new() };
    loop {
        let start = reader.at;
        if start == end {
            return Ok((start, None));
        }
        match reader.commit(order) {
            Ok(next) => *order = next,
            Err(wrong) => return Ok((start, Some(wrong))),
        }
    }
}

/// Where the zeros at the end of a file begin.
pub(super) fn data_end(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let chunk = &mut chunk[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(chunk)?;
        if *chunk != ZEROS[..chunk.len()] {
            let last = chunk.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

enum Wrong {
    Io(io::Error),
    /// Not a whole commit, as when a write was cut short.
    Torn(String),
    /// A whole commit that cannot come there: no write cut short looks like that.
    Order(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn torn(what: &str) -> Wrong {
    Wrong::Torn(what.into())
}

struct Reader {
    input: BufReader<File>,
    at: u64,
    /// Nothing but zeros from here on.
    end: u64,
    /// Key and value of the item read last.
    item: Vec<u8>,
}

impl Reader {
    /// Reads one commit; what the next one must come after.
    fn commit(&mut self, order: &Order) -> Result<Order, Wrong> {
        let [1] = self.take()? else { return Err(torn("no commit begins there")) };
        let items = u32::from_le_bytes(self.take()?);
        let seqno = u64::from_le_bytes(self.take()?);
        let mut commit = None;
        let mut sum = Xxh3::new();
        for _ in 0..items {
            commit = self.item(&mut sum)?.or(commit);
        }
        let [3] = self.take()? else { return Err(torn("a commit does not end where it should")) };
        let expected = u64::from_le_bytes(self.take()?);
        if self.take()? != TRAILER {
            return Err(torn("a commit does not end where it should"));
        }
        if sum.digest() != expected {
            return Err(torn("the check sum of a commit is wrong"));
        }
        let (Some(last_seqno), Some(last)) = (order.seqno, order.commit) else {
            return Ok(Order { seqno: Some(seqno), commit });
        };
        if seqno <= last_seqno || commit != Some(last + 1) {
            let found = commit.map_or("one without a number".into(), |number| number.to_string());
            return Err(Wrong::Order(format!(
                "commit {last} is followed by {found} (sequence number {seqno} after {last_seqno})"
            )));
        }
        Ok(Order { seqno: Some(seqno), commit })
    }

    /// Reads one item; the number of the commit, if it is the one that holds it.
    fn item(&mut self, sum: &mut Xxh3) -> Result<Option<u64>, Wrong> {
        let head: [u8; 21] = self.take()?;
        let [2, ..] = head else { return Err(torn("an item of a commit is missing")) };
        let key = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let value = u32::from_le_bytes([head[17], head[18], head[19], head[20]]) as usize;
        if (key + value) as u64 > self.end.saturating_sub(self.at) {
            return Err(torn("an item is longer than the file"));
        }
        self.item.resize(key + value, 0);
        self.input.read_exact(&mut self.item)?;
        self.at += self.item.len() as u64;
        sum.update(&head);
        sum.update(&self.item);
        let (key, value) = self.item.split_at(key);
        if !key.starts_with(keys::COMMITS) {
            return Ok(None);
        }
        values::decode("a commit number", value).map(Some).map_err(|error| Wrong::Torn(error.to_string()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        // The last bytes of a commit are not zeros, so no whole one reaches past the end.
        if self.end.saturating_sub(self.at) < N as u64 {
            return Err(torn("a commit is cut short"));
        }
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }
}
