//! Reads the journals of the database before the database does.
//!
//! The database cuts a journal where it cannot read on, in place and without an error, and its
//! check sums leave out the sequence number of a commit: a flipped bit there puts old values back.
//! So every commit is checked here first, and nothing is changed before they are known to be whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::failures::in_file;
use super::files::{create_private, is_absent, sync_dir};
use super::identity::Salt;
use super::records::{self, Order, Reader, Wrong};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
const ZEROS: &[u8] = &[0; CHUNK];
/// More than the largest commit takes: what is longer was not cut short by the end of a process.
const TORN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// So many tails that were cut off are kept, the newest.
const TAILS_KEPT: usize = 8;

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
    /// Where the data ends.
    end: u64,
    /// It looks like a commit that the end of the process cut short, and nothing is behind it. The commit
    /// count tells whether it was acknowledged more than a moment ago.
    pub(super) is_torn: bool,
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

/// Where the journals end, in words.
pub(super) fn last_name(journals: &[Journal]) -> String {
    journals.last().map_or_else(|| "no journal".into(), |last| format!("db/{}.jnl", last.id))
}

/// Reads all journals of the store with this salt, up to the first thing that is wrong.
pub(super) fn scan(journals: &[Journal], salt: Salt) -> io::Result<Findings> {
    let mut order = Order::after_nothing(salt);
    let mut findings = Findings::default();
    for (index, journal) in journals.iter().enumerate() {
        if index > 0 && journal.id != journals[index - 1].id + 1 {
            let what = format!("db/{}.jnl is missing", journals[index - 1].id + 1);
            // Whatever comes after a gap goes as a whole.
            findings.cut = Some(Cut { index, length: 0, end: 0, is_torn: false, what });
            break;
        }
        let name = format!("db/{}.jnl", journal.id);
        let io = |error| in_file(&name, error);
        let mut file = File::open(&journal.path).map_err(io)?;
        let end = data_end(&mut file).map_err(io)?;
        let (length, wrong) = read_commits(&file, end, &mut order).map_err(io)?;
        findings.commits = order.last();
        let (is_torn, what) = match wrong {
            None => continue,
            Some(Wrong::Io(error)) => return Err(io(error)),
            Some(wrong) if index + 1 == journals.len() => {
                judge(&file, length..end, &wrong, &order).map_err(io)?
            }
            Some(wrong) => (false, wrong.to_string()),
        };
        let what = format!("{name} cannot be used from byte {length} on, of {end}: {what}");
        findings.cut = Some(Cut { index, length, end, is_torn, what });
        break;
    }
    Ok(findings)
}

/// The salt of the first commit that can be read.
pub(super) fn salt(journals: &[Journal]) -> io::Result<Option<Salt>> {
    for journal in journals {
        let mut file = File::open(&journal.path)?;
        let end = data_end(&mut file)?;
        file.seek(SeekFrom::Start(0))?;
        let mut reader = Reader::new(BufReader::with_capacity(CHUNK, &file), 0, end);
        if let Some(commit) = reader.any_commit().ok().flatten() {
            return Ok(Some(commit.salt));
        }
    }
    Ok(None)
}

/// Whether what begins at `range` and is wrong may be a write that was cut short: nothing was acknowledged
/// after it, and something of it is missing. Also what is wrong, in words.
fn judge(
    file: &File,
    range: std::ops::Range<u64>,
    wrong: &Wrong,
    order: &Order,
) -> io::Result<(bool, String)> {
    let length = range.end - range.start;
    if !wrong.may_be_torn() || length > TORN_BYTES_MAX {
        return Ok((false, wrong.to_string()));
    }
    let mut tail = vec![0; length as usize];
    let mut file = file;
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut tail)?;
    if let Some(later) = records::later_commit(&tail, order) {
        let what = match later {
            records::Later::Commit { at, number } => {
                format!("{wrong}; but commit {number}, at byte {}, is whole", range.start + at)
            }
            records::Later::Unclear => format!("{wrong}, and too much behind it looks like commits"),
        };
        return Ok((false, what));
    }
    if !records::is_something_missing(&tail, range.start) {
        return Ok((false, format!("{wrong}, though all of the last commit is there")));
    }
    Ok((true, wrong.to_string()))
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

/// Empties the journals, whose commits must all be in tables: the database goes on in the last of them.
pub(super) fn empty(journals: &[Journal], db: &Path) -> io::Result<()> {
    let Some((last, before)) = journals.split_last() else { return Ok(()) };
    for journal in before {
        fs::remove_file(&journal.path)?;
        sync_dir(db)?;
    }
    let file = OpenOptions::new().write(true).open(&last.path)?;
    file.set_len(0)?;
    file.sync_all()
}

/// Copies what a cut would drop from its journal into a file in `to`, durably; that file.
pub(super) fn keep_tail(cut: &Cut, journals: &[Journal], to: &Path, now_ms: u64) -> io::Result<PathBuf> {
    create_private(to)?;
    let mut kept: Vec<_> = fs::read_dir(to)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    kept.sort(); // by time
    for old in kept.iter().rev().skip(TAILS_KEPT - 1) {
        fs::remove_file(old)?;
    }
    let journal = &journals[cut.index];
    let path = to.join(format!("{now_ms:015}-{}.jnl-from-{}", journal.id, cut.length));
    let mut source = File::open(&journal.path)?;
    source.seek(SeekFrom::Start(cut.length))?;
    let mut target = File::create(&path)?;
    io::copy(&mut source.take(cut.end - cut.length), &mut target)?;
    target.sync_all()?;
    sync_dir(to)?;
    Ok(path)
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
        let name = format!("{}.jnl", journal.id);
        let copied =
            copy(&journal.path, &new.join(&name)).map_err(|error| in_file(&format!("db/{name}"), error));
        copied?.sync_all()?;
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

/// Reads commits until the end or the first that is not whole; the length up to there and what is
/// wrong with the next.
fn read_commits(file: &File, end: u64, order: &mut Order) -> io::Result<(u64, Option<Wrong>)> {
    let mut input = BufReader::with_capacity(CHUNK, file);
    input.seek(SeekFrom::Start(0))?;
    let mut reader = Reader::new(input, 0, end);
    loop {
        let start = reader.at();
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
