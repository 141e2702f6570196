//! Events as JSON lines in a row of files, for a server without a broker: synced before they count
//! as published, and bounded, so that files nobody reads cannot fill the disk.
//!
//! Files are named `events-<number>.jsonl` with rising numbers; the highest is being written, the
//! oldest go first. A reader follows them by name. It may leave a mark: a file `consumed` with the number
//! of the last file that it has read to its end, so that operators see how far it is behind, and hear of
//! files that go unread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tern_protocol::UserId;
use tokio::sync::Semaphore;

use super::{Events, EventsError, PushEvent};
use crate::ops::metrics::{EventMetrics, Metrics};

mod share;

use share::Shares;

/// Longest line: all fields at their limits, escaped in the longest way, take less.
pub const LINE_BYTES_MAX: u64 = 32 * 1024;

/// The mark of whoever reads the files.
const MARK_FILE: &str = "consumed";
/// Longest mark that is read, in bytes: a number and a line break are shorter.
const MARK_BYTES_MAX: u64 = 32;
/// The same warning comes at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Settings of the event files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileEventsConfig {
    /// Directory of the files; made if absent. They hold previews of messages, so only the user of this
    /// node may read them: run what reads them as the same user. It may write the number of the last file
    /// that it has read to its end into a file `consumed` there.
    pub dir: PathBuf,
    /// Longest file in bytes; at least 32 KiB.
    pub file_bytes_max: u64,
    /// Most files, the one being written included; at least 2. The oldest goes, read or not. One sender fills
    /// at most a quarter of them in ten minutes; what is above is dropped and counted.
    pub files_max: usize,
}

impl Default for FileEventsConfig {
    fn default() -> Self {
        Self { dir: "events".into(), file_bytes_max: 64 * 1024 * 1024, files_max: 8 }
    }
}

/// Why the event files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileEventsError {
    /// A setting is out of its range.
    #[error("events: {0}")]
    Setting(&'static str),
    /// The directory or a file in it cannot be used.
    #[error("cannot use the event directory {}: {source}; make it writable for this user, or choose another", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The event files. Publishers take turns.
pub struct FileEvents {
    files: Arc<Mutex<Files>>,
    /// One publisher at a time: the lock is never waited for.
    turn: Arc<Semaphore>,
    shares: Mutex<Shares>,
    metrics: Metrics,
}

impl FileEvents {
    /// Opens the newest file, or makes the first. A last line that a crash cut short is removed: its
    /// event was never reported as published and comes again.
    pub fn open(config: FileEventsConfig, metrics: Metrics) -> Result<Self, FileEventsError> {
        if config.file_bytes_max < LINE_BYTES_MAX {
            return Err(FileEventsError::Setting("file_bytes_max must be at least 32768"));
        }
        if config.files_max < 2 {
            return Err(FileEventsError::Setting("files_max must be at least 2"));
        }
        let dir = config.dir.clone();
        let shares = Mutex::new(Shares::new(config.file_bytes_max.saturating_mul(config.files_max as u64)));
        let files = Files::open(config, metrics.clone())
            .map_err(|source| FileEventsError::Directory { dir, source })?;
        let (files, turn) = (Arc::new(Mutex::new(files)), Arc::new(Semaphore::new(1)));
        Ok(Self { files, turn, shares, metrics })
    }

    /// The lines of those events that are within the share of their sender, and whose each is.
    fn lines<'a>(&self, events: &'a [PushEvent]) -> Result<(Vec<Vec<u8>>, Vec<&'a UserId>), EventsError> {
        let all = events.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        let (mut shares, now) = (self.shares.lock(), Instant::now());
        let within = all.into_iter().zip(events.iter().map(|event| &event.sender_id));
        Ok(within.filter(|(line, sender)| shares.take(sender, line.len() as u64, now)).unzip())
    }
}

#[async_trait]
impl Events for FileEvents {
    async fn publish(&self, events: &[PushEvent]) -> Result<(), EventsError> {
        if events.is_empty() {
            return Ok(());
        }
        let turn = self.turn.clone().acquire_owned().await.expect("this semaphore is never closed");
        let (lines, senders) = self.lines(events)?;
        let lengths: Vec<u64> = lines.iter().map(|line| line.len() as u64).collect();
        let files = self.files.clone();
        let write = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            files.lock().write(&lines)
        });
        match write.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                self.metrics.events.dropped.increment((events.len() - lengths.len()) as u64);
                Ok(())
            }
            Err(error) => {
                // They come again, and count then.
                let mut shares = self.shares.lock();
                senders.iter().zip(lengths).for_each(|(sender, bytes)| shares.give_back(sender, bytes));
                Err(EventsError(format!("writing the event file failed: {error}")))
            }
        }
    }

    async fn health(&self) -> Result<(), EventsError> {
        let files = self.files.clone();
        let check = tokio::task::spawn_blocking(move || files.lock().check());
        let checked = check.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        checked.map_err(|error| EventsError(format!("the event directory: {error}")))
    }
}

/// JSON escapes line breaks, so one event is one line.
fn line(event: &PushEvent) -> Result<Vec<u8>, EventsError> {
    let mut line = serde_json::to_vec(event).map_err(|error| EventsError(error.to_string()))?;
    line.push(b'\n');
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(EventsError(format!("event {} is longer than {LINE_BYTES_MAX} bytes", event.event_id)));
    }
    Ok(line)
}

struct Files {
    config: FileEventsConfig,
    /// Numbers of the files there are, oldest first.
    numbers: Vec<u64>,
    /// The last of them. `None` after a failed write: what a failed sync left in a file is not known,
    /// so the next write starts a new one.
    current: Option<Current>,
    metrics: Metrics,
    /// When it was last warned that files go unread.
    warned: Option<Instant>,
}

struct Current {
    file: File,
    bytes: u64,
}

impl Files {
    fn open(config: FileEventsConfig, metrics: Metrics) -> io::Result<Self> {
        make_private_dir(&config.dir)?;
        let numbers = numbers(&config.dir)?;
        let mut files = Self { config, numbers, current: None, metrics, warned: None };
        match files.numbers.last() {
            Some(newest) => files.current = Some(repair(&files.path(*newest))?),
            None => files.start_next()?,
        }
        files.remove_oldest()?;
        files.tell();
        Ok(files)
    }

    /// The last write did not fail, and the newest file is there.
    fn check(&self) -> io::Result<()> {
        self.tell();
        if self.current.is_none() {
            return Err(io::Error::other("the last write failed"));
        }
        let newest = self.numbers.last().map(|newest| self.path(*newest));
        newest.map_or(Ok(()), |newest| fs::metadata(newest).map(drop))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.config.dir.join(format!("events-{number:012}.jsonl"))
    }

    fn write(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let result = self.try_write(lines);
        if result.is_err() {
            self.current = None;
        }
        result
    }

    fn try_write(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut pending = Vec::new();
        for line in lines {
            let used = self.current.as_ref().map(|current| current.bytes + pending.len() as u64);
            if used.is_none_or(|used| used + line.len() as u64 > self.config.file_bytes_max) {
                self.flush(&mut pending)?;
                self.start_next()?;
            }
            pending.extend_from_slice(line);
        }
        self.flush(&mut pending)
    }

    /// Appends to the current file; on disk when it returns.
    fn flush(&mut self, pending: &mut Vec<u8>) -> io::Result<()> {
        let Some(current) = self.current.as_mut().filter(|_| !pending.is_empty()) else { return Ok(()) };
        current.file.write_all(pending)?;
        current.file.sync_data()?;
        current.bytes += pending.len() as u64;
        pending.clear();
        Ok(())
    }

    fn start_next(&mut self) -> io::Result<()> {
        // A file left by a failed write may end in half a line.
        if let (None, Some(newest)) = (&self.current, self.numbers.last()) {
            repair(&self.path(*newest))?;
        }
        let number = self.numbers.last().map_or(1, |newest| newest + 1);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(self.path(number))?;
        self.numbers.push(number);
        File::open(&self.config.dir)?.sync_all()?;
        self.current = Some(Current { file, bytes: 0 });
        self.remove_oldest()
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        let mut unread = 0;
        let mark = self.mark();
        while self.numbers.len() > self.config.files_max {
            let number = self.numbers[0];
            match fs::remove_file(self.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(()) if mark.is_some_and(|mark| number <= mark) => {
                    self.metrics.events.removed_read.increment(1);
                }
                Ok(()) => {
                    self.metrics.events.removed_unread.increment(1);
                    unread += 1;
                }
            }
            self.numbers.remove(0);
        }
        if unread > 0 && self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                files = unread,
                mark,
                "event files were removed that nobody says they have read; whoever reads them writes the \
                 number of the last one to the file `consumed` beside them, and events.files_max may be too low"
            );
        }
        self.tell();
        Ok(())
    }

    /// The number of the last file that was read to its end, if anybody says so.
    fn mark(&self) -> Option<u64> {
        let mut text = String::new();
        let file = File::open(self.config.dir.join(MARK_FILE)).ok()?;
        file.take(MARK_BYTES_MAX).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn tell(&self) {
        let EventMetrics { unread_files, .. } = &self.metrics.events;
        let mark = self.mark().unwrap_or(0);
        unread_files.set(self.numbers.iter().filter(|number| **number > mark).count() as f64);
    }
}

/// Makes the directory for its owner only. One that is there already stays as its owner made it.
fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("events-")?.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Cuts a file after its last line break and opens it for appending.
fn repair(path: &Path) -> io::Result<Current> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    // A torn line is never longer than a whole one.
    let start = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut bytes)?;
    let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => start + last as u64 + 1,
        None if start == 0 => 0,
        None => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a file of lines", path.display()),
            ));
        }
    };
    if whole < length {
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(Current { file, bytes: whole })
}

#[cfg(test)]
mod tests;
