//! Saved state in one file: a log of changes, each line with a checksum, rewritten when it has
//! grown far beyond what it says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tern_protocol::Position;

use super::{Persistence, PersistenceError, SavedChange, SavedState};

/// First line of every file; a later version writes another number.
const HEADER: &str = "tern-client state 1";
/// What the first line of any version begins with.
const HEADER_ANY: &str = "tern-client state ";
/// Lines that may be appended before the file is rewritten, besides as many as it needs at least.
const SLACK_LINES: usize = 1_000;
/// Hex digits of the checksum of a line.
const CHECKSUM_DIGITS: usize = 8;
/// Damaged files kept beside the state; more are not made.
const DAMAGED_MAX: u32 = 100;

/// Keeps the state of one user on one device in one file. `save` returns when the disk has it.
///
/// Beside the file lie `….lock` (two clients on one file are refused) and `….new` (while it is
/// rewritten). A file that is damaged is moved to `….damaged-N`; every line that can be read is
/// taken over.
#[derive(Clone, Debug)]
pub struct FilePersistence {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What the file says.
    state: SavedState,
    /// Open for appending; absent before loading, and after a failure until it is rewritten.
    file: Option<File>,
    lines: usize,
    /// Held as long as this client lives.
    lock: Option<File>,
}

impl FilePersistence {
    /// State in the file at `path`. Its directory must exist; the file is made on first use.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let state = SavedState::default();
        let inner = Inner { path: path.into(), state, file: None, lines: 0, lock: None };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut inner.lock())).await;
        done.map_err(|error| PersistenceError(error.to_string()))?
    }
}

#[async_trait]
impl Persistence for FilePersistence {
    async fn load(&self) -> Result<SavedState, PersistenceError> {
        self.blocking(Inner::load).await
    }

    async fn save(&self, changes: &[SavedChange]) -> Result<(), PersistenceError> {
        let changes = changes.to_vec();
        self.blocking(move |inner| inner.save(&changes)).await
    }
}

/// What the bytes of a file say.
#[derive(Debug, PartialEq)]
struct Content {
    state: SavedState,
    lines: usize,
    /// The last line was not written to its end: its change was never promised.
    torn: bool,
    /// Lines that cannot be read, besides a torn last one.
    damaged: usize,
}

impl Inner {
    fn load(&mut self) -> Result<SavedState, PersistenceError> {
        self.take_lock()?;
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(self.failed("read", &error)),
        };
        if bytes.is_empty() {
            self.rewrite()?;
            return Ok(self.state.clone());
        }
        let Content { state, damaged, .. } = parse(&bytes)
            .map_err(|problem| PersistenceError(format!("{}: {problem}", self.path.display())))?;
        self.state = state;
        let mut loaded = self.state.clone();
        if damaged > 0 {
            let kept = self.move_aside()?;
            loaded.damage = Some(format!(
                "{}: {damaged} lines cannot be read; the original is kept as {}",
                self.path.display(),
                kept.display()
            ));
        }
        self.rewrite()?;
        Ok(loaded)
    }

    fn take_lock(&mut self) -> Result<(), PersistenceError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let path = with_suffix(&self.path, "lock");
        let lock = private().create(true).truncate(false).open(&path);
        let lock =
            lock.map_err(|error| PersistenceError(format!("cannot open {}: {error}", path.display())))?;
        lock.try_lock()
            .map_err(|_| PersistenceError(format!("{} is in use by another client", self.path.display())))?;
        self.lock = Some(lock);
        Ok(())
    }

    fn save(&mut self, changes: &[SavedChange]) -> Result<(), PersistenceError> {
        for change in changes {
            self.state.apply(change.clone());
        }
        self.lines += changes.len();
        let grown = self.lines > SLACK_LINES + 2 * records(&self.state).len();
        match self.file.take() {
            // Put back only if the write succeeds: after a failure the end of the file is unknown.
            Some(mut file) if !grown => {
                let text: String = changes.iter().map(line).collect();
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_data())
                    .map_err(|error| self.failed("write", &error))?;
                self.file = Some(file);
                Ok(())
            }
            _ => self.rewrite(),
        }
    }

    /// Writes the whole state to a new file, which then takes the place of the old one.
    fn rewrite(&mut self) -> Result<(), PersistenceError> {
        self.file = None;
        let (file, lines) = self.write_new().map_err(|error| self.failed("write", &error))?;
        self.file = Some(file);
        self.lines = lines;
        Ok(())
    }

    fn write_new(&self) -> io::Result<(File, usize)> {
        let path = with_suffix(&self.path, "new");
        let mut file = private().create(true).truncate(true).open(&path)?;
        let records = records(&self.state);
        let text: String = records.iter().map(line).collect();
        file.write_all(format!("{HEADER}\n{text}").as_bytes())?;
        file.sync_all()?;
        fs::rename(&path, &self.path)?;
        sync_directory(&self.path)?;
        Ok((file, records.len()))
    }

    fn move_aside(&self) -> Result<PathBuf, PersistenceError> {
        let free = (1..=DAMAGED_MAX)
            .map(|number| with_suffix(&self.path, &format!("damaged-{number}")))
            .find(|path| !path.exists());
        let free = free.ok_or_else(|| {
            PersistenceError(format!("{}: {DAMAGED_MAX} damaged files lie beside it", self.path.display()))
        })?;
        fs::rename(&self.path, &free).map_err(|error| self.failed("move", &error))?;
        Ok(free)
    }

    fn failed(&self, what: &str, error: &io::Error) -> PersistenceError {
        PersistenceError(format!("cannot {what} {}: {error}", self.path.display()))
    }
}

fn parse(bytes: &[u8]) -> Result<Content, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut content = Content { state: SavedState::default(), lines: 0, torn: false, damaged: 0 };
    let whole = text.ends_with('\n');
    let lines: Vec<&str> = text.lines().collect();
    let (header, records) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    if header != HEADER {
        let version = header.strip_prefix(HEADER_ANY).and_then(|number| number.parse::<u32>().ok());
        if let Some(version) = version.filter(|_| lines.len() > 1 || whole) {
            return Err(format!("was written by version {version}, this one reads {HEADER:?}"));
        }
        content.damaged += 1;
    }
    for (index, record) in records.iter().enumerate() {
        match parse_line(record) {
            Some(change) => {
                content.state.apply(change);
                content.lines += 1;
            }
            None if index + 1 == records.len() && !whole => content.torn = true,
            None => content.damaged += 1,
        }
    }
    Ok(content)
}

fn parse_line(text: &str) -> Option<SavedChange> {
    let (sum, json) = text.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(' ')?;
    (checksum(json) == sum).then(|| serde_json::from_str(json).ok())?
}

fn line(change: &SavedChange) -> String {
    let json = serde_json::to_string(change).expect("saved changes serialise without failing");
    format!("{} {json}\n", checksum(&json))
}

fn checksum(json: &str) -> String {
    Sha256::digest(json).iter().take(CHECKSUM_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The changes that lead from nothing to this state.
fn records(state: &SavedState) -> Vec<SavedChange> {
    let mut records = Vec::new();
    records.extend(state.device.clone().map(|device| SavedChange::Device { device }));
    if let (Some(user), Some(store_id)) = (state.user.clone(), state.store_id) {
        records.push(SavedChange::Store { user, store_id });
    }
    let cursors = state.cursors.iter();
    records.extend(cursors.map(|(id, seq)| SavedChange::Cursor(Position { conversation: *id, seq: *seq })));
    records.extend(state.sends.iter().cloned().map(SavedChange::Send));
    records.extend(state.transport.clone().map(SavedChange::Transport));
    records
}

/// The file holds texts of messages: it is for its owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A rename is durable once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
