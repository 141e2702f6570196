//! Salvage: every row of a damaged store that can be read, in a new store that is valid.
//!
//! The old store is only read: it may be on a full disk, on one that takes no writes, or refuse to open. The
//! new one has a new id, since what is missing in it may be given to others.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fjall::Readable;
use tern_protocol::{ConversationId, StoreId};

use self::log::Mended;
use self::source::Source;
use self::survey::survey;
use super::directory::{Directory, OpenError};
use super::failures::read_failed;
use super::files::lies_in;
use super::open;
use super::table::Gap;
use super::verify::{Checker, Findings};
use crate::store::StoreError;

mod examine;
mod journal;
mod log;
mod people;
mod source;
mod survey;
mod write;

pub use examine::verify_store;

/// What was salvaged, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Id of the new store.
    pub store_id: Option<StoreId>,
    /// Id of the old one, if that can be read.
    pub previous_store_id: Option<StoreId>,
    /// Files or parts of files that could not be read.
    pub damage: Vec<Damage>,
    /// Rows by what they are.
    pub rows: BTreeMap<&'static str, RowCount>,
    /// Conversations of which something is lost.
    pub conversations: Vec<Holes>,
    /// What the check of the new store says.
    pub findings: Findings,
}

/// A file, or a part of it, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// How many rows of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCount {
    /// Were taken as they are.
    pub copied: u64,
    /// Were made from others, since they are missing or did not fit.
    pub made: u64,
    /// Were read and left out: what they belong to is lost.
    pub dropped: u64,
}

/// What is lost of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holes {
    /// Which.
    pub conversation: ConversationId,
    /// Lost entries in the log, first and last seq; tombstones stand there. Those before its new start have
    /// none.
    pub entries: Vec<(u64, u64)>,
    /// First entry of the log now.
    pub first_seq: u64,
    /// How many entries are lost in all. Before the start some may have aged out.
    pub lost: u64,
    /// Its dedupe markers: a message that is sent again may be stored twice.
    pub markers: bool,
    /// Its members' list or its head: they were made from other rows.
    pub state: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl Damage {
    fn of(gap: &Gap) -> Self {
        let what = match gap.bytes {
            0 => format!("it ends at byte {}, and does not say that it is its end", gap.at),
            bytes => format!("{bytes} bytes from byte {} on cannot be read", gap.at),
        };
        Self { file: gap.file.clone(), what }
    }
}

impl Salvaged {
    /// Everything was readable and is there.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
            && self.conversations.is_empty()
            && self.rows.values().all(|tally| tally.made == 0 && tally.dropped == 0)
    }
}

/// Why nothing was salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// No rows are in it.
    #[error("there is no store in {}: it has no directory db", .0.display())]
    Missing(PathBuf),
    /// Something is there already.
    #[error("{} is not empty: choose a directory that does not exist yet", .0.display())]
    Occupied(PathBuf),
    /// Nothing is written to the old store.
    #[error("{} lies in the store {}: choose a directory elsewhere", .to.display(), .from.display())]
    Inside {
        /// Of the new store.
        to: PathBuf,
        /// The old one.
        from: PathBuf,
    },
    /// The old store cannot be looked at.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The new store could not be written.
    #[error("cannot write the new store in {}: {source}", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system or the database said.
        #[source]
        source: StoreError,
    },
    /// The new store could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Copies every readable row of the store in `from` into a new one in `to`, which must be empty or absent.
/// Changes nothing in `from`. What it returns was opened as a node would, and checked.
pub fn salvage(from: &Path, to: &Path) -> Result<Salvaged, SalvageError> {
    let io_in = |path: &Path| {
        let path = path.to_owned();
        move |source| SalvageError::Io { path, source }
    };
    if !from.join("db").is_dir() {
        return Err(SalvageError::Missing(from.into()));
    }
    if lies_in(to, from).map_err(io_in(from))? {
        return Err(SalvageError::Inside { to: to.into(), from: from.into() });
    }
    let _held = Directory::hold(from)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SalvageError::Occupied(to.into()));
    }
    let identities = Directory::identities_in(from);
    // A place that is damaged or of another store is no reason to leave rows behind.
    let salt = match identities.map(|identity| identity.map(|identity| identity.salt)) {
        [Some(told), Some(counted)] => (told == counted).then_some(told),
        [told, counted] => told.or(counted),
    };
    let source = Source::open(&from.join("db"), salt).map_err(io_in(from))?;
    let previous_store_id = identities.iter().flatten().next().map(|identity| identity.store_id);
    let mut salvaged = Salvaged { previous_store_id, damage: source.damage.clone(), ..Salvaged::default() };
    let survey = survey(&source).map_err(io_in(from))?;
    salvaged.conversations = survey.logs.iter().filter_map(|(id, log)| Holes::of(*id, log)).collect();
    let (store_id, rows) = write::write(to, &survey, &source)?;
    (salvaged.store_id, salvaged.rows) = (Some(store_id), rows);
    salvaged.findings = check(to)?;
    Ok(salvaged)
}

impl fmt::Display for Holes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lost = Vec::new();
        if self.lost > 0 {
            let ranges: Vec<_> = self.entries.iter().map(|(from, to)| format!("{from}–{to}")).collect();
            let before = format!("its log begins with {}", self.first_seq);
            let where_to = if ranges.is_empty() { before } else { ranges.join(", ") };
            lost.push(format!("{} entries ({where_to})", self.lost));
        }
        if self.markers {
            lost.push("its dedupe markers (what is sent again may be stored twice)".into());
        }
        if self.state {
            lost.push("its members' list or its head".into());
        }
        write!(f, "{} lost {}", self.conversation, lost.join("; "))
    }
}

impl Holes {
    /// `None` if nothing is lost of it.
    fn of(conversation: ConversationId, log: &Mended) -> Option<Self> {
        let entries: Vec<_> = log.holes.iter().map(|hole| (hole.from, hole.to)).collect();
        let state = log.is_shape_new || log.is_head_new;
        let (first_seq, lost, markers) = (log.kept.first_seq, log.lost(), !log.has_markers);
        let is_whole = lost == 0 && !markers && !state;
        (!is_whole).then_some(Self { conversation, entries, first_seq, lost, markers, state })
    }
}

/// Opens the new store as a node does and checks all of it.
fn check(to: &Path) -> Result<Findings, SalvageError> {
    let opened = open::open(to, 0)?;
    let mut checker = Checker::default();
    for item in opened.disk.db.snapshot().iter(&opened.disk.space) {
        match item.into_inner().map_err(read_failed) {
            Ok((key, value)) => checker.row(&key, &value),
            Err(error) => checker.fault(error.to_string()),
        }
    }
    Ok(checker.finish(Some(opened.commits)))
}
