//! Every row of a store that can be read, whatever state its files are in. Opens nothing for writing.
//!
//! The newest version of a row counts, as in the database. What the journals hold beyond the tables is taken
//! always; what the tables held already, only where a part of a table is missing.

use std::cmp::Reverse;
use std::collections::btree_map::{BTreeMap, Iter};
use std::collections::{BinaryHeap, HashMap};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use tern_protocol::UserId;

use super::{Damage, journal};
use crate::store::Erasure;
use crate::store::embedded::archive::{self, Named};
use crate::store::embedded::block::Version;
use crate::store::embedded::identity::Salt;
use crate::store::embedded::table::{Gap, Table};
use crate::store::embedded::{journals, keys, manifests, values};

/// Newest versions by key: sequence number and value.
type Newest = BTreeMap<Bytes, (u64, Option<Bytes>)>;

/// The file of a table, and what its manifest adds to sequence numbers.
type Listed = (PathBuf, u64);

/// The files of a store that have rows.
pub(super) struct Source {
    tables: Vec<Listed>,
    journals: Newest,
    /// Finished and open erasures by the hash of the user.
    erasures: HashMap<[u8; 16], Erasure>,
    pub(super) damage: Vec<Damage>,
}

impl Source {
    /// Reads all of it once, to know what is missing. Commits with another salt, if that is known, are of another
    /// store.
    pub(super) fn open(db: &Path, salt: Option<Salt>) -> io::Result<Self> {
        let mut damage = Vec::new();
        let (tables, mut gaps) = find_tables(db, &mut damage)?;
        let (mut persisted, mut erasures) = (0, Newest::new());
        let mut note = |version: &Version| {
            if version.key.starts_with(keys::ERASURES) {
                put(&mut erasures, version.clone());
            }
        };
        for (path, base) in &tables {
            let mut table = Table::open(path, *base)?;
            while let Some(version) = table.next() {
                persisted = persisted.max(version.seqno);
                note(&version);
            }
            damage.extend(table.gaps.iter().map(Damage::of));
            gaps.extend(table.gaps);
        }
        let mut in_journals = Newest::new();
        for rows in read_journals(db, salt, &mut damage)? {
            for version in rows {
                note(&version);
                let is_newer = version.seqno > persisted || tables.is_empty();
                if is_newer || gaps.iter().any(|gap| gap.covers(&version.key)) {
                    put(&mut in_journals, version);
                }
            }
        }
        let mut known = HashMap::new();
        for (key, (_, value)) in erasures {
            let (Ok(hash), Some(value)) = (keys::user_hash(&key), value) else { continue };
            known.extend(values::decode("an erasure", &value).ok().map(|erasure| (hash, erasure)));
        }
        Ok(Self { tables, journals: in_journals, erasures: known, damage })
    }

    /// When a user was erased of whom something from before may have come back: where parts of a store are missing,
    /// an old version of a row counts.
    pub(super) fn erased_ms(&self, user: &UserId) -> Option<u64> {
        if self.damage.is_empty() || self.erasures.is_empty() {
            return None;
        }
        let erasure = self.erasures.get(&keys::hashed(user))?;
        erasure.open.is_none().then_some(erasure.at_ms)
    }

    /// What is of this time and of this user is of somebody who was erased after it.
    pub(super) fn is_erased(&self, user: &UserId, time_ms: u64) -> bool {
        self.erased_ms(user).is_some_and(|erased_ms| time_ms <= erased_ms)
    }

    /// The files of its tables.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.tables.iter().map(|(path, _)| &**path)
    }

    /// All rows in the order of their keys.
    pub(super) fn rows(&self) -> io::Result<Rows<'_>> {
        let tables = self.tables.iter().map(|(path, base)| Table::open(path, *base));
        let mut rows = Rows {
            tables: tables.collect::<io::Result<_>>()?,
            next: BinaryHeap::new(),
            journals: self.journals.iter().peekable(),
        };
        for table in 0..rows.tables.len() {
            rows.pull(table);
        }
        Ok(rows)
    }
}

fn put(newest: &mut Newest, version: Version) {
    let Version { key, seqno, value } = version;
    let place = newest.entry(key).or_insert((seqno, None));
    if seqno >= place.0 {
        *place = (seqno, value);
    }
}

/// The files of all tables, and those that are not there: they are told already.
fn find_tables(db: &Path, damage: &mut Vec<Damage>) -> io::Result<(Vec<Listed>, Vec<Gap>)> {
    let (mut found, mut gaps) = (Vec::new(), Vec::new());
    for tree in trees(db)? {
        let dir = tree.join("tables");
        let listed = archive::tables(&tree).ok().flatten();
        let is_listed = listed.is_some();
        let named = match listed {
            Some(named) => named,
            None => {
                damage.push(Damage {
                    file: tree.clone(),
                    what: "the list of its tables cannot be read: every table there is was taken".into(),
                });
                all_tables(&dir)?
            }
        };
        for named in named {
            let path = dir.join(named.id.to_string());
            match fs::File::open(&path) {
                Ok(_) if is_listed && manifests::is_foreign(&path, &named)? => {
                    let what = "it is whole, but not the table that the list of tables names".into();
                    damage.push(Damage { file: path.clone(), what });
                    gaps.push(Gap::whole(&path, 0));
                }
                Ok(_) => found.push((path, named.base)),
                Err(error) => {
                    damage.push(Damage { file: path.clone(), what: error.to_string() });
                    gaps.push(Gap::whole(&path, 0));
                }
            }
        }
    }
    Ok((found, gaps))
}

/// The directories of our keyspaces: 0 is the database's own.
fn trees(db: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(db.join("keyspaces")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut trees = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) > Some(0);
        if is_ours && entry.path().join("tables").is_dir() {
            trees.push(entry.path());
        }
    }
    trees.sort();
    Ok(trees)
}

fn all_tables(dir: &Path) -> io::Result<Vec<Named>> {
    let mut named = Vec::new();
    for entry in fs::read_dir(dir)? {
        let id = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        named.extend(id.map(|id| Named { id, sum: 0, base: 0 }));
    }
    named.sort_by_key(|table| table.id);
    Ok(named)
}

/// The rows of each journal, the oldest first.
fn read_journals(db: &Path, salt: Option<Salt>, damage: &mut Vec<Damage>) -> io::Result<Vec<Vec<Version>>> {
    let mut read = Vec::new();
    for path in journals::paths(db)? {
        match journal::read(&path, salt) {
            Ok(found) => {
                damage.extend(found.gaps.iter().map(|(at, bytes)| Damage {
                    file: path.clone(),
                    what: format!("no whole commit of this store in {bytes} bytes from byte {at} on"),
                }));
                read.push(found.rows);
            }
            Err(error) => damage.push(Damage { file: path, what: error.to_string() }),
        }
    }
    Ok(read)
}

/// The newest versions of all rows, merged from all files.
pub(super) struct Rows<'a> {
    tables: Vec<Table>,
    next: BinaryHeap<Reverse<Place>>,
    journals: Peekable<Iter<'a, Bytes, (u64, Option<Bytes>)>>,
}

/// A version of a row at the front of a table: by key, and of each key the newest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: Bytes,
    seqno: Reverse<u64>,
    table: usize,
    value: Option<Bytes>,
}

impl Rows<'_> {
    fn pull(&mut self, table: usize) {
        if let Some(Version { key, seqno, value }) = self.tables[table].next() {
            self.next.push(Reverse(Place { key, seqno: Reverse(seqno), table, value }));
        }
    }

    /// The newest version of the next key.
    fn version(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        let in_tables = self.next.peek().map(|Reverse(place)| &place.key);
        let in_journals = self.journals.peek().map(|(key, _)| *key);
        let key = match (in_tables, in_journals) {
            (Some(table), Some(journal)) => table.min(journal),
            (one, other) => one.or(other)?,
        };
        let key = key.clone();
        let mut newest: Option<(u64, Option<Bytes>)> = None;
        while self.next.peek().is_some_and(|Reverse(place)| place.key == key) {
            let Reverse(place) = self.next.pop()?;
            self.pull(place.table);
            newest.get_or_insert((place.seqno.0, place.value));
        }
        if let Some((_, (seqno, value))) = self.journals.next_if(|(other, _)| **other == key)
            && newest.as_ref().is_none_or(|(other, _)| other <= seqno)
        {
            newest = Some((*seqno, value.clone()));
        }
        newest.map(|(_, value)| (key, value))
    }
}

impl Iterator for Rows<'_> {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (key, Some(value)) = self.version()? {
                return Some((key, value));
            }
        }
    }
}
