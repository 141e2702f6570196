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

const TRAILER_BYTES: u64 = 38;
/// Longest list that is read, in bytes: they have some hundred.
const LIST_BYTES_MAX: u64 = 1024 * 1024;

/// One version of the tree's manifest names at most so many tables at a time; more are damage.
const TABLES_MAX: usize = 1 << 20;

/// Where the sections of an archive are, by name; `None` if its list cannot be read.
pub(super) fn sections(path: &Path) -> Option<HashMap<String, Range<u64>>> {
    let file = fs::File::open(path).ok()?;
    let end = file.metadata().ok()?.len().checked_sub(TRAILER_BYTES)?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact_at(&mut trailer, end).ok()?;
    let mut trailer = Fields(&trailer);
    if trailer.take(6)? != b"SFA!\x01\x00" {
        return None;
    }
    let (sum, at) = (u128::from_le_bytes(trailer.take(16)?.try_into().ok()?), trailer.u64()?);
    let length = end.checked_sub(at).filter(|length| *length <= LIST_BYTES_MAX)?;
    let mut list = vec![0; length as usize];
    file.read_exact_at(&mut list, at).ok()?;
    if xxh3_128(&list) != sum {
        return None;
    }
    let mut list = Fields(&list);
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
    /// Added to the sequence numbers of its rows.
    pub(super) base: u64,
}

/// The tables of a tree as its manifest names them.
pub(super) fn tables(tree: &Path) -> io::Result<Option<Vec<Named>>> {
    let current = fs::read(tree.join("current"))?;
    let Some(version) = current.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Ok(None);
    };
    let path = tree.join(format!("v{version}"));
    let bytes = fs::read(&path)?;
    // The check sum of the manifest stands beside its number.
    let sum = current.get(8..24).and_then(|sum| sum.try_into().ok()).map(u128::from_le_bytes);
    if sum != Some(xxh3_128(&bytes)) {
        return Ok(None);
    }
    let part = sections(&path).and_then(|sections| sections.get("tables").cloned());
    let part = part.and_then(|part| bytes.get(part.start as usize..part.end as usize));
    Ok(part.and_then(named))
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
                fields.take(16)?;
                tables.push(Named { id, base: fields.u64()? });
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
