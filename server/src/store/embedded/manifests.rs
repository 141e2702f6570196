//! What the database's tables are, checked before the database believes its own files; and a second copy of it.
//!
//! The database reads its manifests without a check, and removes what they do not name. So each is compared
//! with its check sum first. The tables are too large to be read at every start: the first time one is seen
//! all of it is compared with the sum in the manifest, from then on its length and its end tell whether it is
//! still that table. What is known is in the file `manifest-copy`, which also holds the manifests themselves:
//! one that is damaged is written anew from it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::archive::{self, Manifest, Named};
use super::failures::is_damage;
use super::files::{replace, sync_dir};
use super::identity::Salt;
use super::keys;
use super::table::{self, Table};
use super::values::Commit;

/// The directories of the database's own keyspace and of ours, in `db/keyspaces`.
const META: &str = "0";
const ROWS: &str = "1";
/// So many bytes at the end of a table tell it from others: they hold its bounds, counts and time.
const TAIL_BYTES: u64 = 8 * 1024;
const CHUNK: usize = 256 * 1024;

/// What is known of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    current: Vec<u8>,
    manifest: Vec<u8>,
    tables: Vec<KnownTable>,
}

/// A table that was once found to be what the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownTable {
    id: u64,
    /// Of all of it.
    sum: u128,
    length: u64,
    /// Hash of its end.
    tail: u64,
}

/// The file, which is worthless in another store.
#[derive(Serialize, Deserialize)]
struct Stored {
    salt: Salt,
    known: Known,
}

/// Something that keeps the database from being opened: which file, and what is wrong with it.
pub(super) struct Fault(pub(super) String);

/// What becomes of a check.
pub(super) type Checked<T> = io::Result<Result<T, Fault>>;

/// The tables of an open database, and the file that tells them.
pub(super) struct Manifests {
    tree: PathBuf,
    copy: PathBuf,
    salt: Salt,
    known: Mutex<Known>,
}

impl Manifests {
    /// Checks the tables of the database in `db`, and repairs what can be told from `copy`.
    pub(super) fn check(db: &Path, copy: &Path, salt: Salt) -> Checked<Self> {
        let tree = db.join("keyspaces").join(ROWS);
        if !tree.is_dir() {
            return Ok(Err(Fault("db/keyspaces/1 is missing".into())));
        }
        let known = load(copy, salt)?.unwrap_or_default();
        let manifest = match Manifest::read(&tree)? {
            Ok(manifest) => manifest,
            Err(what) => match put_back(&tree, &known)? {
                Some(manifest) => {
                    tracing::warn!("db/keyspaces/1/{what}; written anew from manifest-copy");
                    manifest
                }
                None => return Ok(Err(Fault(format!("db/keyspaces/1/{what}")))),
            },
        };
        let mut tables = Vec::with_capacity(manifest.tables.len());
        for named in &manifest.tables {
            let path = tree.join("tables").join(named.id.to_string());
            match check_table(&path, named, &known)? {
                Ok(table) => tables.extend(table),
                Err(what) => return Ok(Err(Fault(format!("db/keyspaces/1/tables/{} {what}", named.id)))),
            }
        }
        let known = Known { current: manifest.current, manifest: manifest.bytes, tables };
        Ok(Ok(Self { tree, copy: copy.into(), salt, known: Mutex::new(known) }))
    }

    /// Writes down what is known now; the database is open and has perhaps new tables.
    pub(super) fn note(&self) -> io::Result<()> {
        let mut known = self.known.lock();
        if fs::read(self.tree.join("current"))? == known.current && self.copy.exists() {
            return Ok(());
        }
        // It may change while it is read: then the next time.
        let Ok(manifest) = Manifest::read(&self.tree)? else { return Ok(()) };
        let mut tables = Vec::with_capacity(manifest.tables.len());
        for Named { id, sum, .. } in manifest.tables {
            let seen = known.tables.iter().find(|table| (table.id, table.sum) == (id, sum));
            let table = match seen {
                Some(seen) => Some(*seen),
                None => measure(&self.table(id))?.map(|(length, tail)| KnownTable { id, sum, length, tail }),
            };
            let Some(table) = table else { return Ok(()) };
            tables.push(table);
        }
        *known = Known { current: manifest.current, manifest: manifest.bytes, tables };
        store(&self.copy, &Stored { salt: self.salt, known: known.clone() })
    }

    fn table(&self, id: u64) -> PathBuf {
        self.tree.join("tables").join(id.to_string())
    }
}

/// Whether the database's own keyspace is whole and names ours. If not, the database would remove ours.
pub(super) fn names_ours(db: &Path) -> io::Result<bool> {
    let tree = db.join("keyspaces").join(META);
    let Some(named) = archive::tables(&tree)? else { return Ok(false) };
    let mut name = vec![b'n'];
    name.extend(1_u64.to_be_bytes());
    let mut is_named = false;
    for named in named {
        let path = tree.join("tables").join(named.id.to_string());
        if !matches!(sum_of(&path)?, Sum::Of(sum) if sum == named.sum) {
            return Ok(false);
        }
        let mut table = Table::open(&path, named.base)?;
        while let Some(row) = table.next() {
            is_named |= row.key == name && row.value.as_deref() == Some(b"tern");
        }
    }
    Ok(is_named)
}

/// The salt of the first commit that can be read in the tables, whatever names them.
pub(super) fn salt(db: &Path) -> io::Result<Option<Salt>> {
    let entries = match fs::read_dir(db.join("keyspaces").join(ROWS).join("tables")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        let Ok(mut table) = Table::open(&path, 0) else { continue };
        while let Some(row) = table.next() {
            let value = row.value.filter(|_| row.key.starts_with(keys::COMMITS));
            if let Some(commit) = value.and_then(|value| Commit::decode(&value).ok()) {
                return Ok(Some(commit.salt));
            }
        }
    }
    Ok(None)
}

/// Puts the own keyspace of another new database in the place of that of `db`: they are all the same.
pub(super) fn put_meta(db: &Path, other: &Path) -> io::Result<()> {
    let (from, to) = (other.join("keyspaces").join(META), db.join("keyspaces").join(META));
    match fs::remove_dir_all(&to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    fs::rename(from, &to)?;
    sync_dir(&db.join("keyspaces"))
}

/// Compares a table with what the manifest says of it. `None`: it is damaged in places, of which the database
/// notices each when it reads it.
fn check_table(path: &Path, named: &Named, known: &Known) -> io::Result<Result<Option<KnownTable>, String>> {
    let Named { id, sum, .. } = *named;
    let (length, tail) = match measure(path) {
        Ok(Some(measured)) => measured,
        Ok(None) => return Ok(Err("is missing".into())),
        Err(error) if is_damage(&error) => return Ok(Err(format!("cannot be read: {error}"))),
        Err(error) => return Err(error),
    };
    let found = KnownTable { id, sum, length, tail };
    if let Some(known) = known.tables.iter().find(|table| (table.id, table.sum) == (id, sum)) {
        return Ok(if *known == found { Ok(Some(found)) } else { Err("is not as it was written".into()) });
    }
    let is_read = match sum_of(path)? {
        Sum::Of(other) if other == sum => return Ok(Ok(Some(found))),
        other => matches!(other, Sum::Of(_)),
    };
    if let Some(what) = table::index_damage(path)? {
        return Ok(Err(format!("is damaged: {what}")));
    }
    if is_read && Table::open(path, named.base)?.gaps().is_empty() {
        return Ok(Err("is whole, but not the table that its manifest names".into()));
    }
    tracing::error!(
        file = %path.display(),
        "a table is damaged: what is in its damaged parts cannot be read; copy the rest with tern store salvage"
    );
    Ok(Ok(None))
}

/// It is a whole table, but not the one that a manifest names so. One that cannot be read to its end is not.
pub(super) fn is_foreign(path: &Path, named: &Named) -> io::Result<bool> {
    let is_other = matches!(sum_of(path)?, Sum::Of(sum) if sum != named.sum);
    Ok(is_other && table::index_damage(path)?.is_none() && Table::open(path, named.base)?.gaps().is_empty())
}

/// Length and hash of the end; `None` if there is no such file.
fn measure(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    Ok(Some((length, xxh3_64(&tail))))
}

/// The check sum of a file.
enum Sum {
    Of(u128),
    /// It is not there, or its disk cannot read all of it.
    Unknown,
}

fn sum_of(path: &Path) -> io::Result<Sum> {
    let read = || {
        let mut file = File::open(path)?;
        let (mut sum, mut chunk) = (Xxh3::new(), vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(Sum::Of(sum.digest128())),
                read => sum.update(&chunk[..read]),
            }
        }
    };
    match read() {
        Err(error) if is_damage(&error) => Ok(Sum::Unknown),
        sum => sum,
    }
}

/// Writes a damaged manifest anew, if the copy is of the tables that are there and no others.
fn put_back(tree: &Path, known: &Known) -> io::Result<Option<Manifest>> {
    let Known { current, manifest, tables } = known;
    let (Some(named), Some(name)) = (Manifest::check(current, manifest), Manifest::name(current)) else {
        return Ok(None);
    };
    let mut there = Vec::new();
    let entries = match fs::read_dir(tree.join("tables")) {
        Err(error) if is_damage(&error) => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        there.push(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
    }
    if there.len() != named.len() {
        return Ok(None);
    }
    for named in &named {
        let (id, sum) = (named.id, named.sum);
        let known = tables.iter().find(|table| (table.id, table.sum) == (id, sum));
        let found = match measure(&tree.join("tables").join(id.to_string())) {
            Err(error) if is_damage(&error) => None,
            found => found?,
        };
        if !there.contains(&Some(id)) || known.map(|known| (known.length, known.tail)) != found {
            return Ok(None);
        }
    }
    replace(&tree.join(name), manifest)?;
    replace(&tree.join("current"), current)?;
    Ok(Some(Manifest { current: current.clone(), bytes: manifest.clone(), tables: named }))
}

/// What the copy of this store says; a damaged one, or one of another store, says nothing.
fn load(path: &Path, salt: Salt) -> io::Result<Option<Known>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_damage(&error) => Vec::new(),
        other => other?,
    };
    let Some((body, sum)) = bytes.split_last_chunk::<8>() else { return Ok(None) };
    let stored: Option<Stored> =
        (xxh3_64(body).to_be_bytes() == *sum).then(|| postcard::from_bytes(body).ok()).flatten();
    let known = stored.filter(|stored| stored.salt == salt).map(|stored| stored.known);
    if known.is_none() {
        tracing::warn!("manifest-copy is damaged or of another store; all tables are read instead");
    }
    Ok(known)
}

fn store(path: &Path, stored: &Stored) -> io::Result<()> {
    let mut bytes = postcard::to_stdvec(stored).expect("vectors and numbers have a length");
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_be_bytes());
    replace(path, &bytes)
}
