//! Backups: every row of the store as of one commit, in files, with a manifest that makes them valid.
//!
//! A backup is a directory. `rows-000001.tern` and so on hold rows in the order of their keys: key
//! length u32, value length u32 (little-endian), key, value. `manifest.json` is written last.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::Readable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tern_protocol::StoreId;

use super::directory::{Directory, OpenError};
use super::disk::Disk;
use super::failures::read_failed;
use super::files::{create_private, is_absent, sync_dir};
use super::identity::Identity;
use super::op::{Frozen, Op};
use super::tripwire::CountFile;
use super::values::{self, Commit};
use super::verify::{Checker, Findings};
use super::{EmbeddedStore, keys, open};
use crate::clock::unix_ms;
use crate::store::StoreError;

/// Format of a backup; raised by a change that older versions cannot read.
const FORMAT: u32 = 1;
/// A file of rows ends once it is longer than this, in bytes.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// What was written is synced after so many bytes: one large sync at the end of a file would hold up
/// the commits of the store on the same disk.
const SYNC_BYTES: u64 = 2 * 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;
/// Longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
const MANIFEST: &str = "manifest.json";

/// Why a backup could not be made or used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already.
    #[error("{} is not empty: choose a directory that does not exist yet", .0.display())]
    Occupied(PathBuf),
    /// The file system is in the way.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no valid backup in the directory.
    #[error("{} is not a whole backup: {what}", .dir.display())]
    Invalid {
        /// Where.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The rows of a backup contradict each other, so nothing was restored.
    #[error("the backup in {} is not in order: {first} ({faults} faults; see tern store verify)", .dir.display())]
    Faulty {
        /// Where.
        dir: PathBuf,
        /// The first of them.
        first: String,
        /// How many.
        faults: u64,
    },
    /// The store has rows that cannot be read.
    #[error(
        "nothing was backed up, since stored data is damaged ({0}): stop the node, then copy every row that can be read into a new store: tern store salvage DIR --to NEW, with the data directory as DIR"
    )]
    Damaged(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The store it was taken of.
    pub store_id: StoreId,
    /// Number of the last commit in it.
    pub commits: u64,
    /// When it was begun, in Unix milliseconds.
    pub taken_ms: u64,
    /// Version of the program that made it.
    pub version: String,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes in all files.
    pub bytes: u64,
    files: Vec<RowsFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RowsFile {
    name: String,
    bytes: u64,
    rows: u64,
    /// In hex.
    sha256: String,
}

/// The manifest as it is written.
#[derive(Serialize, Deserialize)]
struct Sealed {
    manifest: Manifest,
    /// SHA-256 of the manifest's JSON, in hex.
    sha256: String,
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |source| BackupError::Io { path: path.into(), source }
}

impl EmbeddedStore {
    /// Writes a backup into `dir`, which must be empty or absent. Everything that was acknowledged before
    /// this call is in it; writes go on meanwhile. Valid only when it returns.
    pub async fn backup(&self, dir: &Path) -> Result<Manifest, BackupError> {
        let frozen = self.submit(0, |reply| Op::Snapshot { reply }).await?;
        let (disk, store_id, dir) = (self.disk.clone(), self.store_id, dir.to_owned());
        let closing = self.closing.clone();
        let write = tokio::task::spawn_blocking(move || write(&dir, &disk, &frozen, store_id, &closing));
        let failed = |error| StoreError::Unavailable(format!("the backup stopped: {error}"));
        write.await.map_err(failed)?
    }
}

fn write(
    dir: &Path,
    disk: &Disk,
    frozen: &Frozen,
    store_id: StoreId,
    closing: &AtomicBool,
) -> Result<Manifest, BackupError> {
    create_private(dir).map_err(io_at(dir))?;
    if fs::read_dir(dir).map_err(io_at(dir))?.next().is_some() {
        return Err(BackupError::Occupied(dir.into()));
    }
    let taken_ms = unix_ms();
    let (mut files, mut current): (Vec<RowsFile>, Option<Writer>) = (Vec::new(), None);
    for item in frozen.snapshot.iter(&disk.space) {
        if closing.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the store is being closed".into()).into());
        }
        let (key, value) = item.into_inner().map_err(read_failed).map_err(damaged)?;
        let mut writer = match current.take() {
            Some(writer) => writer,
            None => Writer::create(dir, files.len() + 1)?,
        };
        writer.row(&key, &value).map_err(io_at(&writer.path))?;
        if writer.bytes < FILE_BYTES {
            current = Some(writer);
        } else {
            files.push(writer.finish()?);
        }
    }
    files.extend(current.map(Writer::finish).transpose()?);
    let manifest = Manifest {
        format: FORMAT,
        store_id,
        commits: frozen.commits,
        taken_ms,
        version: env!("CARGO_PKG_VERSION").into(),
        rows: files.iter().map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
    };
    seal(dir, &manifest).map_err(io_at(dir))?;
    Ok(manifest)
}

/// A backup is whole or none: a store with damage gives none, and has another way out.
fn damaged(error: StoreError) -> BackupError {
    match error {
        StoreError::Corrupt(what) => BackupError::Damaged(what),
        error => error.into(),
    }
}

/// Makes the backup valid: the manifest appears whole and durable, or not at all.
fn seal(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    sync_dir(dir)?;
    let sealed = Sealed { sha256: sha256_of(manifest)?, manifest: manifest.clone() };
    let (new, path) = (dir.join("manifest.json.new"), dir.join(MANIFEST));
    let mut file = File::create(&new)?;
    serde_json::to_writer_pretty(&mut file, &sealed)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_dir(dir)?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

fn sha256_of(manifest: &Manifest) -> io::Result<String> {
    Ok(hex(Sha256::digest(serde_json::to_vec(manifest)?)))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

/// One file of rows that is being written.
struct Writer {
    path: PathBuf,
    name: String,
    file: BufWriter<File>,
    sum: Sha256,
    bytes: u64,
    unsynced: u64,
    rows: u64,
}

impl Writer {
    fn create(dir: &Path, number: usize) -> Result<Self, BackupError> {
        let name = format!("rows-{number:06}.tern");
        let path = dir.join(&name);
        let file = File::create_new(&path).map_err(io_at(&path))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, name, file, sum: Sha256::new(), bytes: 0, unsynced: 0, rows: 0 })
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let lengths = [key.len() as u32, value.len() as u32].map(u32::to_le_bytes);
        for part in [&lengths[0], &lengths[1], key, value] {
            self.file.write_all(part)?;
            self.sum.update(part);
            self.bytes += part.len() as u64;
            self.unsynced += part.len() as u64;
        }
        self.rows += 1;
        if self.unsynced >= SYNC_BYTES {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn finish(self) -> Result<RowsFile, BackupError> {
        let Self { path, name, file, sum, bytes, rows, .. } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).map_err(io_at(&path))?;
        file.sync_all().map_err(io_at(&path))?;
        Ok(RowsFile { name, bytes, rows, sha256: hex(sum.finalize()) })
    }
}

/// A backup on disk.
pub struct Backup {
    dir: PathBuf,
    manifest: Manifest,
}

impl Backup {
    /// Reads the manifest; the files are looked at when they are read.
    pub fn open(dir: &Path) -> Result<Self, BackupError> {
        let invalid = |what: &str| BackupError::Invalid { dir: dir.into(), what: what.into() };
        let path = dir.join(MANIFEST);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(invalid(
                    "there is no manifest.json, so it was not finished or is something else",
                ));
            }
            other => other.map_err(io_at(&path))?,
        };
        let mut text = Vec::new();
        file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(io_at(&path))?;
        let sealed: Sealed =
            serde_json::from_slice(&text).map_err(|_| invalid("manifest.json cannot be read"))?;
        let manifest = sealed.manifest;
        if manifest.format > FORMAT {
            return Err(invalid(&format!(
                "it has format {}, this version of tern reads up to {FORMAT}",
                manifest.format
            )));
        }
        if sha256_of(&manifest).ok() != Some(sealed.sha256) {
            return Err(invalid("manifest.json does not match its check sum"));
        }
        Ok(Self { dir: dir.into(), manifest })
    }

    /// A backup is or was being written in this directory.
    pub fn is_one(dir: &Path) -> bool {
        dir.join(MANIFEST).exists() || dir.join("rows-000001.tern").exists()
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads all of it and checks that it is what was written, and that it makes sense.
    pub fn verify(&self) -> Result<Findings, BackupError> {
        let mut checker = Checker::default();
        self.rows(|key, value| {
            checker.row(&key, &value);
            Ok(())
        })?;
        Ok(checker.finish(Some(self.manifest.commits)))
    }

    /// Makes a store of it in `to`, which must not hold one. The store has a new id: what was written
    /// after the backup is missing in it, and clients that know the old one must begin afresh.
    pub fn restore(&self, to: &Path) -> Result<(StoreId, Findings), BackupError> {
        let findings = self.verify()?;
        if let Some(first) = findings.faults.first() {
            let faults = findings.fault_count;
            return Err(BackupError::Faulty { dir: self.dir.clone(), first: first.clone(), faults });
        }
        let held = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
        if held {
            return Err(BackupError::Occupied(to.into()));
        }
        let directory = Directory::claim(to)?;
        directory.begin("a restore")?;
        let identity = Identity::new();
        CountFile::create(&directory.count(), identity, self.manifest.commits).map_err(io_at(to))?;
        let (disk, _) = open::open_database(&directory, identity.salt, 0)?;
        let mut rows = disk.space.start_ingestion().map_err(read_failed)?;
        self.rows(|key, value| {
            // From here on they are commits of the new store.
            let value = match keys::kind(&key) {
                keys::Kind::Commit => {
                    let commit = Commit { salt: identity.salt, ..Commit::decode(&value)? };
                    values::encode(&commit).into()
                }
                _ => value,
            };
            Ok(rows.write(key, value).map_err(read_failed)?)
        })?;
        rows.finish().map_err(read_failed)?;
        drop(disk);
        directory.set_identity(identity)?;
        directory.finish()?;
        let store_id = identity.store_id;
        Ok((store_id, findings))
    }

    /// Hands over all rows in order; fails at the end of the first file that is not as it was written.
    fn rows(
        &self,
        mut take: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        for file in &self.manifest.files {
            let path = self.dir.join(&file.name);
            let damaged = |what: &str| BackupError::Invalid {
                dir: self.dir.clone(),
                what: format!("{} {what}", file.name),
            };
            if is_absent(&path).map_err(io_at(&path))? {
                return Err(damaged("is missing"));
            }
            let input = File::open(&path).map_err(io_at(&path))?;
            if input.metadata().map_err(io_at(&path))?.len() != file.bytes {
                return Err(damaged("does not have the length that the manifest says"));
            }
            let mut reader = Reader {
                input: BufReader::with_capacity(BUFFER_BYTES, input),
                left: file.bytes,
                sum: Sha256::new(),
            };
            let mut rows = 0;
            while reader.left > 0 {
                let row = reader.row().map_err(io_at(&path))?;
                let (key, value) = row.ok_or_else(|| damaged("is damaged"))?;
                rows += 1;
                take(key, value)?;
            }
            if rows != file.rows || hex(reader.sum.finalize()) != file.sha256 {
                return Err(damaged("does not match its check sum"));
            }
        }
        Ok(())
    }
}

struct Reader {
    input: BufReader<File>,
    left: u64,
    sum: Sha256,
}

impl Reader {
    /// The next row; `None` if there cannot be one.
    fn row(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(lengths) = self.take(8)? else { return Ok(None) };
        let length =
            |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
        let (key, value) = (u64::from(length(0)), u64::from(length(4)));
        let Some(key) = self.take(key)? else { return Ok(None) };
        Ok(self.take(value)?.map(|value| (key, value)))
    }

    fn take(&mut self, length: u64) -> io::Result<Option<Vec<u8>>> {
        if length > self.left {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        self.left -= length;
        Ok(Some(bytes))
    }
}
