//! The whole commits of one journal, also those behind something that is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::store::embedded::block::Version;
use crate::store::embedded::identity::Salt;
use crate::store::embedded::keys;
use crate::store::embedded::table::{fill, unpack};
use crate::store::embedded::values::Commit;

/// The database's own keyspace: it says nothing of ours.
const META: u64 = 0;

/// What a journal holds.
#[derive(Default)]
pub(super) struct Found {
    /// Rows of whole commits, in the order they were written.
    pub(super) rows: Vec<Version>,
    /// Stretches that hold no whole commit: the first byte and how many.
    pub(super) gaps: Vec<(u64, u64)>,
}

/// Reads it. The journals of a store are 64 MiB each, so they are read as a whole.
pub(super) fn read(path: &Path, salt: Option<Salt>) -> io::Result<Found> {
    let file = File::open(path)?;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    fill(&mut bytes, 0, |part, at| file.read_exact_at(part, at))?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    let (mut found, mut at, mut gap) = (Found::default(), 0, None);
    while at < end {
        match commit(&bytes[at..]).filter(|(_, rows)| is_of(rows, salt)) {
            Some((length, rows)) => {
                if let Some(start) = gap.take() {
                    found.gaps.push((start, at as u64 - start));
                }
                found.rows.extend(rows);
                at += length;
            }
            None => {
                gap.get_or_insert(at as u64);
                at += 1;
            }
        }
    }
    found.gaps.extend(gap.map(|start| (start, end as u64 - start)));
    Ok(found)
}

/// They are the rows of a commit of the store with this salt.
fn is_of(rows: &[Version], salt: Option<Salt>) -> bool {
    let number = rows.iter().find(|row| row.key.starts_with(keys::COMMITS));
    let commit = number.and_then(|row| Commit::decode(row.value.as_deref()?).ok());
    salt.is_none() || commit.map(|commit| commit.salt) == salt
}

/// The commit at the start of `bytes`: its length and its rows. Its form is told in `records.rs`.
fn commit(bytes: &[u8]) -> Option<(usize, Vec<Version>)> {
    let mut fields = Fields { bytes, at: 0 };
    if fields.take(1)? != [1] {
        return None;
    }
    let items = u32::from_le_bytes(fields.array()?);
    let seqno = u64::from_le_bytes(fields.array()?);
    let (first, mut rows) = (fields.at, Vec::new());
    for _ in 0..items {
        rows.extend(row(&mut fields, seqno)?);
    }
    let mut sum = Xxh3::new();
    sum.update(&bytes[first..fields.at]);
    let is_end = fields.take(1)? == [3];
    let is_whole = u64::from_le_bytes(fields.array()?) == sum.digest();
    (is_end && is_whole && fields.take(4)? == b"FJL\x03").then_some((fields.at, rows))
}

/// One row of a commit; `Some(None)` if it is none of ours.
fn row(fields: &mut Fields<'_>, seqno: u64) -> Option<Option<Version>> {
    if fields.take(1)? != [2] {
        return None;
    }
    let [kind, compression] = fields.array()?;
    let keyspace = u64::from_le_bytes(fields.array()?);
    let key = u16::from_le_bytes(fields.array()?);
    let length = u32::from_le_bytes(fields.array()?);
    let stored = u32::from_le_bytes(fields.array()?);
    let key = Bytes::copy_from_slice(fields.take(usize::from(key))?);
    let stored = fields.take(stored as usize)?;
    let value = match (kind, compression) {
        (1 | 2, _) => None,
        (0, 0) => Some(Bytes::copy_from_slice(stored)),
        (0, _) => Some(unpack(stored, length)?.into()),
        _ => return None,
    };
    Some((keyspace != META).then_some(Version { key, seqno, value }))
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}
