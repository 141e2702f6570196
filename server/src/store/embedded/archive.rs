//! Tables and manifests are archives: sections, at the end a list of them, then where the list is.
//!
//! The format is that of sfa 1: list "TOC!" · count u32, then per section position u64 · length u64 · length
//! of the name u16 · name; last 38 bytes "SFA!" · `1` · `0` · xxh3-128 of the list · its position u64 · its
//! length u64, all little-endian.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::failures::is_damage;

const TRAILER_BYTES: u64 = 38;
/// The list is looked for in so many bytes at the end: it has some hundred.
const LIST_BYTES_MAX: u64 = 64 * 1024;

/// One version of the tree's manifest names at most so many tables at a time; more are damage.
const TABLES_MAX: usize = 1 << 20;

/// Where the sections of an archive are, by name; `None` if its list cannot be read.
pub(super) fn sections(path: &Path) -> Option<HashMap<String, Range<u64>>> {
    let file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let start = length.saturating_sub(LIST_BYTES_MAX);
    let mut tail = vec![0; (length - start) as usize];
    file.read_exact_at(&mut tail, start).ok()?;
    sections_of(&tail, length, start)
}

/// The same of an archive of so many bytes, of which `tail` holds those from `start` on.
fn sections_of(tail: &[u8], length: u64, start: u64) -> Option<HashMap<String, Range<u64>>> {
    let end = length.checked_sub(TRAILER_BYTES)?;
    let at_end = usize::try_from(end.checked_sub(start)?).ok()?;
    let mut trailer = Fields(tail.get(at_end..)?);
    if trailer.take(6)? != b"SFA!\x01\x00" {
        return None;
    }
    let (sum, at) = (u128::from_le_bytes(trailer.take(16)?.try_into().ok()?), trailer.u64()?);
    let list = tail.get(usize::try_from(at.checked_sub(start)?).ok()?..at_end)?;
    if trailer.u64()? != list.len() as u64 || xxh3_128(list) != sum {
        return None;
    }
    let mut list = Fields(list);
    let (magic, count) = (list.take(4)?, list.u32()?);
    let mut sections = HashMap::new();
    for _ in 0..count {
        let (start, length, name) = (list.u64()?, list.u64()?, list.u16()?);
        let name = String::from_utf8(list.take(usize::from(name))?.to_vec()).ok()?;
        sections.insert(name, start..start.checked_add(length)?);
    }
    (magic == b"TOC!").then_some(sections)
}

/// A table as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Also the name of its file.
    pub(super) id: u64,
    /// xxh3-128 of its file.
    pub(super) sum: u128,
    /// Added to the sequence numbers of its rows.
    pub(super) base: u64,
}

/// The manifest of a tree: which tables it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The file `current`: version u64 · xxh3-128 of the manifest · `0`.
    pub(super) current: Vec<u8>,
    /// The file that `current` names.
    pub(super) bytes: Vec<u8>,
    pub(super) tables: Vec<Named>,
}

impl Manifest {
    /// Reads that of a tree; or says which file is wrong, and how. The database itself checks no sum.
    pub(super) fn read(tree: &Path) -> io::Result<Result<Self, String>> {
        let current = match read(&tree.join("current"))? {
            Ok(current) => current,
            Err(why) => return Ok(Err(format!("current {why}"))),
        };
        let Some(version) = version(&current) else { return Ok(Err("current cannot be read".into())) };
        let path = tree.join(format!("v{version}"));
        let bytes = match read(&path)? {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Err(format!("v{version}, which current names, {why}"))),
        };
        let Some(tables) = Self::check(&current, &bytes) else {
            return Ok(Err(format!("v{version} does not have the check sum that current names")));
        };
        Ok(Ok(Self { current, bytes, tables }))
    }

    /// The tables, if the two files belong together.
    pub(super) fn check(current: &[u8], bytes: &[u8]) -> Option<Vec<Named>> {
        let sum = u128::from_le_bytes(current.get(8..24)?.try_into().ok()?);
        let is_whole = current.len() == 25 && current[24] == 0 && xxh3_128(bytes) == sum;
        let part = sections_of(bytes, bytes.len() as u64, 0)?.remove("tables")?;
        let part = bytes.get(part.start as usize..part.end as usize)?;
        is_whole.then(|| named(part)).flatten()
    }

    /// Name of the file that holds it.
    pub(super) fn name(current: &[u8]) -> Option<String> {
        version(current).map(|version| format!("v{version}"))
    }
}

fn version(current: &[u8]) -> Option<u64> {
    current.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// What is in a file, or why that cannot be told, in words.
fn read(path: &Path) -> io::Result<Result<Vec<u8>, String>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err("is missing".into())),
        Err(error) if is_damage(&error) => Ok(Err(format!("cannot be read: {error}"))),
        other => other.map(Ok),
    }
}

/// The tables of a tree as its manifest names them; `None` if that is not whole.
pub(super) fn tables(tree: &Path) -> io::Result<Option<Vec<Named>>> {
    Ok(Manifest::read(tree)?.ok().map(|manifest| manifest.tables))
}

/// Levels u8, of each its runs u8, of each its tables u32, of each id u64 · `0` · check sum of 16 bytes · base.
fn named(part: &[u8]) -> Option<Vec<Named>> {
    let mut fields = Fields(part);
    let mut tables = Vec::new();
    for _ in 0..fields.take(1)?[0] {
        for _ in 0..fields.take(1)?[0] {
            for _ in 0..fields.u32()? {
                let id = fields.u64()?;
                if fields.take(1)? != [0] || tables.len() == TABLES_MAX {
                    return None;
                }
                let sum = u128::from_le_bytes(fields.take(16)?.try_into().ok()?);
                tables.push(Named { id, sum, base: fields.u64()? });
            }
        }
    }
    Some(tables)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
