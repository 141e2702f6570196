//! Checks the journals of the database before it opens them for real.
//!
//! On opening, the database cuts a journal where it can no longer read it, in place and without an
//! error, and goes on with the next one: a hole. So copies are opened first, in a scratch database
//! without tables, and what was cut there decides.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::Database;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// A journal file; all but the last of a database are sealed and were whole when they were.
#[derive(Clone)]
pub(super) struct Journal {
    pub(super) id: u64,
    pub(super) path: PathBuf,
}

/// What is wrong with the journals. Nothing of it has been changed yet.
pub(super) struct Damage {
    /// Index of the first journal that is not whole.
    pub(super) index: usize,
    /// What is wrong, in words.
    pub(super) what: String,
}

/// Journals that can be opened.
pub(super) struct Whole {
    /// The last journal has bytes after its last whole commit: a write the end of the process cut
    /// short, or damage. The commit count tells which.
    pub(super) has_tail: bool,
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

/// Opens copies of all journals. The scratch directory is made and removed.
pub(super) fn check(db: &Path, scratch: &Path, journals: &[Journal]) -> io::Result<Result<Whole, Damage>> {
    let gap = journals.windows(2).position(|pair| pair[1].id != pair[0].id + 1);
    if let Some(before) = gap {
        let what = format!("journal {} is missing", journals[before].id + 1);
        return Ok(Err(Damage { index: before + 1, what }));
    }
    let mut ends = Vec::new();
    for journal in journals {
        ends.push(data_end(&mut File::open(&journal.path)?)?);
    }
    let copies: Vec<_> = journals.iter().zip(&ends).map(|(journal, end)| (journal, *end)).collect();
    let lengths = match open_copies(db, scratch, &copies)? {
        Ok(lengths) => lengths,
        Err(_) => return first_unreadable(db, scratch, &copies).map(Err),
    };
    let is_cut = |index: &usize| lengths[*index] < ends[*index];
    let sealed = journals.len().saturating_sub(1);
    Ok(match (0..sealed).find(is_cut) {
        Some(index) => {
            let (id, end, length) = (journals[index].id, ends[index], lengths[index]);
            Err(Damage { index, what: format!("journal {id} has {} unreadable bytes", end - length) })
        }
        None => Ok(Whole { has_tail: sealed < journals.len() && is_cut(&sealed) }),
    })
}

/// The length up to which a journal can be read.
pub(super) fn good_length(db: &Path, scratch: &Path, journal: &Journal) -> io::Result<u64> {
    let whole = data_end(&mut File::open(&journal.path)?)?;
    let try_length = |length| -> io::Result<Option<u64>> {
        Ok(open_copies(db, scratch, &[(journal, length)])?.ok().map(|lengths| lengths[0]))
    };
    let mut good = match try_length(whole)? {
        Some(length) => return Ok(length),
        None => 0,
    };
    // A prefix opens if and only if it ends before the end of the first bad commit.
    let (mut opens, mut fails) = (0, whole);
    while fails - opens > 1 {
        let middle = opens + (fails - opens) / 2;
        match try_length(middle)? {
            Some(length) => (opens, good) = (middle, length),
            None => fails = middle,
        }
    }
    Ok(good)
}

/// Copies so many bytes of a file. Blocks of zeros, which journals are preallocated with, take no space.
pub(super) fn copy(from: &Path, to: &Path, length: u64) -> io::Result<File> {
    let mut source = File::open(from)?.take(length);
    let mut target = File::create(to)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        if chunk[..read].iter().all(|byte| *byte == 0) {
            target.seek(SeekFrom::Current(read as i64))?;
        } else {
            target.write_all(&chunk[..read])?;
        }
    }
    target.set_len(length)?;
    Ok(target)
}

/// Opens a database of nothing but these copies; the lengths it left them with, or why it did not open.
fn open_copies(
    db: &Path,
    scratch: &Path,
    copies: &[(&Journal, u64)],
) -> io::Result<Result<Vec<u64>, String>> {
    remove_dir(scratch)?;
    fs::create_dir_all(scratch.join("keyspaces"))?;
    fs::copy(db.join("version"), scratch.join("version"))?;
    File::create(scratch.join("lock"))?;
    let mut files = Vec::new();
    for (journal, length) in copies {
        files.push(copy(&journal.path, &scratch.join(format!("{}.jnl", journal.id)), *length)?);
    }
    let opened = open(|| Database::builder(scratch).worker_threads(1).open()).map(drop);
    let mut lengths = Vec::new();
    for file in &files {
        lengths.push(file.metadata()?.len());
    }
    remove_dir(scratch)?;
    Ok(opened.map(|()| lengths))
}

/// Opens a database; a panic over damaged bytes is a refusal like any other.
pub(super) fn open<T>(open: impl FnOnce() -> fjall::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the database cannot make sense of it".into()),
    }
}

fn first_unreadable(db: &Path, scratch: &Path, copies: &[(&Journal, u64)]) -> io::Result<Damage> {
    for (index, copy) in copies.iter().enumerate() {
        if let Err(error) = open_copies(db, scratch, std::slice::from_ref(copy))? {
            return Ok(Damage { index, what: format!("journal {} cannot be read: {error}", copy.0.id) });
        }
    }
    Ok(Damage { index: 0, what: "the journals cannot be read together".into() })
}

/// Where the zeros at the end of a file begin.
fn data_end(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let chunk = &mut chunk[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(chunk)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Removes a directory that may not be there.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
