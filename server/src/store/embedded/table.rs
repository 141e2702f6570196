//! One table of the database, read from its first block to its last without its index. A block that cannot be
//! read is left out, and told.
//!
//! The format is that of lsm-tree 3: blocks one after the other. A head is "LSM", 3 · kind u8 (`0`: rows) ·
//! xxh3-128 of what is stored · its length u32 · its length unpacked u32 · the low 32 bits of the xxh3-128 of
//! the head so far, all little-endian. Nothing but the next head is needed to go on, so damage costs one block.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::archive;
use super::block::{self, Version};
use super::failures::is_damage;

const MAGIC: [u8; 4] = *b"LSM\x03";
const HEAD_BYTES: usize = 33;
/// Longest block that is taken for one, in bytes: far above the longest row.
const BLOCK_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Bytes looked through at a time for the next block.
const CHUNK: usize = 64 * 1024;
/// A disk fails to read at least so many bytes at a time; the system reads no less.
const SECTOR_BYTES: u64 = 4096;

/// A stretch of keys of which rows are missing; the ends themselves were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Where.
    pub(super) file: PathBuf,
    /// First byte that cannot be read, and how many.
    pub(super) at: u64,
    pub(super) bytes: u64,
    /// The last key before it; `None`: it is the start of the file.
    pub(super) after: Option<Bytes>,
    /// The first key after it; `None`: nothing comes after it.
    pub(super) before: Option<Bytes>,
}

impl Gap {
    /// Nothing of a file can be read.
    pub(super) fn whole(file: &Path, bytes: u64) -> Self {
        Self { file: file.into(), at: 0, bytes, after: None, before: None }
    }

    /// A row with this key may have been in it.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.after.as_ref().is_none_or(|after| key >= &after[..])
            && self.before.as_ref().is_none_or(|before| key <= &before[..])
    }
}

/// A table that is being read.
pub(super) struct Table {
    path: PathBuf,
    file: File,
    /// Added to the sequence numbers of its rows.
    base: u64,
    at: u64,
    /// Where its blocks of rows end.
    end: u64,
    /// That is known: by the list of its parts, or since a part of another kind was read.
    has_end: bool,
    read: VecDeque<Version>,
    last: Option<Bytes>,
    open: Option<Gap>,
    pub(super) gaps: Vec<Gap>,
}

impl Table {
    /// Opens it; `base` is what the manifest says is added to its sequence numbers.
    pub(super) fn open(path: &Path, base: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let listed = archive::sections(path).and_then(|sections| sections.get("data").cloned());
        let has_end = listed.as_ref().is_some_and(|data| data.end <= length);
        let end = listed.map_or(length, |data| data.end.min(length));
        let (read, gaps) = (VecDeque::new(), Vec::new());
        Ok(Self { path: path.into(), file, base, at: 0, end, has_end, read, last: None, open: None, gaps })
    }

    /// The next version of a row, in the order of keys and of each key the newest first.
    pub(super) fn next(&mut self) -> Option<Version> {
        while self.read.is_empty() {
            if self.at >= self.end {
                if !self.has_end && self.open.is_none() {
                    self.lose(self.end);
                }
                self.has_end = true;
                let open = self.open.take();
                self.gaps.extend(open);
                return None;
            }
            self.step();
        }
        let mut version = self.read.pop_front()?;
        version.seqno += self.base;
        self.last = Some(version.key.clone());
        Some(version)
    }

    /// Reads all of it; what cannot be read.
    pub(super) fn gaps(mut self) -> Vec<Gap> {
        while self.next().is_some() {}
        self.gaps
    }

    /// Reads one block, or passes over what is none.
    fn step(&mut self) {
        let start = self.at;
        let Some(head) = self.head(start) else {
            self.at = self.find(start + 1);
            return self.lose(start);
        };
        self.at = start + HEAD_BYTES as u64 + u64::from(head.stored);
        if !head.has_rows {
            self.has_end = true;
            return;
        }
        match self.rows(start, &head) {
            Some(rows) if self.last.as_ref() <= rows.first().map(|row| &row.key) => {
                if let Some(gap) = self.open.take() {
                    self.gaps.push(Gap { before: rows.first().map(|row| row.key.clone()), ..gap });
                }
                self.read = rows.into();
            }
            _ => self.lose(start),
        }
    }

    fn lose(&mut self, start: u64) {
        let lost = self.at.min(self.end) - start;
        match &mut self.open {
            Some(gap) => gap.bytes += lost,
            None => {
                let (file, after) = (self.path.clone(), self.last.clone());
                self.open = Some(Gap { file, at: start, bytes: lost, after, before: None });
            }
        }
    }

    fn head(&self, at: u64) -> Option<Head> {
        let mut bytes = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        let head = Head::parse(&bytes)?;
        (at + HEAD_BYTES as u64 + u64::from(head.stored) <= self.end).then_some(head)
    }

    fn rows(&self, at: u64, head: &Head) -> Option<Vec<Version>> {
        let mut stored = vec![0; head.stored as usize];
        self.file.read_exact_at(&mut stored, at + HEAD_BYTES as u64).ok()?;
        if xxh3_128(&stored) != head.sum {
            return None;
        }
        // Whether it is packed stands in a part of the file that may be damaged.
        let plain = (head.stored == head.unpacked).then(|| block::read(&stored)).flatten();
        plain.or_else(|| block::read(&unpack(&stored, head.unpacked)?))
    }

    /// Where the next block begins, at `from` or after it; the end if there is none.
    fn find(&self, mut from: u64) -> u64 {
        let mut chunk = vec![0; CHUNK];
        while from < self.end {
            let length = CHUNK.min((self.end - from) as usize);
            // What cannot be read at all is passed over.
            let read = |part: &mut [u8], at| self.file.read_exact_at(part, at);
            if fill(&mut chunk[..length], from, read).is_err() {
                from += length as u64;
                continue;
            }
            let mut places = chunk[..length].windows(MAGIC.len()).enumerate();
            let found =
                places.find(|(place, bytes)| **bytes == MAGIC && self.head(from + *place as u64).is_some());
            if let Some((place, _)) = found {
                return from + place as u64;
            }
            // A magic number may lie across the end of the chunk.
            from += (length - MAGIC.len().min(length) + 1) as u64;
        }
        self.end
    }
}

struct Head {
    has_rows: bool,
    sum: u128,
    stored: u32,
    unpacked: u32,
}

impl Head {
    fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let sum = u128::from_le_bytes(bytes[5..21].try_into().ok()?);
        let head = Self { has_rows: bytes[4] == 0, sum, stored: number(21), unpacked: number(25) };
        let is_whole = bytes[..4] == MAGIC && xxh3_128(&bytes[..29]) as u32 == number(29);
        (is_whole && head.unpacked <= BLOCK_BYTES_MAX).then_some(head)
    }
}

/// Unpacks what the database has packed.
pub(super) fn unpack(stored: &[u8], length: u32) -> Option<Vec<u8>> {
    if length > BLOCK_BYTES_MAX {
        return None;
    }
    let mut unpacked = vec![0; length as usize];
    let written = lz4_flex::block::decompress_into(stored, &mut unpacked).ok()?;
    (written == unpacked.len()).then_some(unpacked)
}

/// Reads the bytes of a file from `at` on by `read`. In the place of each sector that its disk cannot read there
/// is what neither rows nor commits are made of, so that it is told as missing.
pub(super) fn fill(
    bytes: &mut [u8],
    at: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    match read(bytes, at) {
        Err(error) if is_damage(&error) => {}
        other => return other,
    }
    let mut from = 0;
    while from < bytes.len() {
        let to_next = SECTOR_BYTES - (at + from as u64) % SECTOR_BYTES;
        let length = (bytes.len() - from).min(to_next as usize);
        let sector = &mut bytes[from..from + length];
        match read(sector, at + from as u64) {
            Err(error) if is_damage(&error) => sector.fill(0xff),
            other => other?,
        }
        from += length;
    }
    Ok(())
}

/// What is damaged of a table besides its rows; `None` if nothing is. Without it the rows can be read, but not
/// found.
pub(super) fn index_damage(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("it is missing".into())),
        file => file?,
    };
    let Some(sections) = archive::sections(path) else {
        return Ok(Some("the list of its parts is damaged".into()));
    };
    for name in ["data", "meta", "tli"] {
        if !sections.contains_key(name) {
            return Ok(Some(format!("its part {name:?} is missing")));
        }
    }
    for (name, range) in &sections {
        if name == "table_version" {
            let mut version = [0];
            if file.read_exact_at(&mut version, range.start).is_err() || version[0] != MAGIC[3] {
                return Ok(Some("its version is none that this program knows".into()));
            }
        }
        if !["tli", "index", "filter", "filter_tli", "meta"].contains(&&**name) {
            continue;
        }
        let mut at = range.start;
        while at < range.end {
            let mut head = [0; HEAD_BYTES];
            let read = file.read_exact_at(&mut head, at).ok().and_then(|()| Head::parse(&head));
            let stored = read.and_then(|head| {
                let mut stored = vec![0; head.stored as usize];
                file.read_exact_at(&mut stored, at + HEAD_BYTES as u64).ok()?;
                (xxh3_128(&stored) == head.sum).then_some(stored)
            });
            let Some(stored) = stored else { return Ok(Some(format!("its part {name:?} is damaged"))) };
            at += HEAD_BYTES as u64 + stored.len() as u64;
        }
    }
    Ok(None)
}
