//! Salvage: every row of a damaged store that can be read, in a new store that is valid.
//!
//! The old store is only read: it may be on a full disk, on one that takes no writes, or refuse to open. The
//! new one has a new id, since what is missing in it may be given to others.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use fjall::Readable;
use tern_protocol::{ConversationId, Entry, EntryBody, StoreId, UserId};

use self::log::{Facts, Mended};
use self::source::Source;
use self::table::Gap;
use super::directory::{Directory, OpenError};
use super::disk::read_failed;
use super::verify::{Checker, Findings};
use super::{keys, open, values};
use crate::store::{Erasure, Intent, ReadPosition, StoreError};

mod archive;
mod block;
mod journal;
mod log;
mod source;
mod table;
mod write;

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
    pub rows: BTreeMap<&'static str, Tally>,
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
pub struct Tally {
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

impl Damage {
    fn of(gap: &Gap) -> Self {
        let what = format!("{} bytes from byte {} on cannot be read", gap.bytes, gap.at);
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
    /// Somebody writes it.
    #[error("{} is in use by another process: stop that one first", .0.display())]
    Held(PathBuf),
    /// Something is there already.
    #[error("{} is not empty: choose a directory that does not exist yet", .0.display())]
    Occupied(PathBuf),
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
    let _held = hold(from)?;
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
    let logs = survey(&source).map_err(io_in(from))?;
    salvaged.conversations = logs.iter().filter_map(|(id, log)| Holes::of(*id, log)).collect();
    let (store_id, rows) = write::write(to, &logs, &source)?;
    (salvaged.store_id, salvaged.rows) = (Some(store_id), rows);
    salvaged.findings = check(to)?;
    Ok(salvaged)
}

/// Keeps a node from starting on it meanwhile, as far as that can be done without writing.
fn hold(dir: &Path) -> Result<Option<File>, SalvageError> {
    let Ok(lock) = File::open(dir.join("lock")) else { return Ok(None) };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(SalvageError::Held(dir.into())),
        _ => Ok(Some(lock)),
    }
}

/// Reads all rows and makes each log valid.
fn survey(source: &Source) -> io::Result<BTreeMap<ConversationId, Mended>> {
    let mut logs: BTreeMap<ConversationId, Facts> = BTreeMap::new();
    for (key, value) in source.rows()? {
        // What cannot be decoded is left out when the rows are written.
        let _ = note(&mut logs, source, &key, &value);
    }
    Ok(logs.into_iter().filter_map(|(id, facts)| Some((id, facts.mend(id)?))).collect())
}

fn of(logs: &mut BTreeMap<ConversationId, Facts>, id: ConversationId) -> &mut Facts {
    logs.entry(id).or_default()
}

fn note(
    logs: &mut BTreeMap<ConversationId, Facts>,
    source: &Source,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    match keys::kind(key) {
        keys::Kind::Kept => {
            of(logs, keys::conversation(key)?).kept = Some(values::decode("the start of a log", value)?);
        }
        keys::Kind::Shape => {
            of(logs, keys::conversation(key)?).shape = Some(values::decode("a conversation", value)?);
        }
        keys::Kind::Head => of(logs, keys::conversation(key)?).head = Some(values::decode("a head", value)?),
        keys::Kind::Entry => {
            if let Some(entry) = readable(source, key, value) {
                let id = keys::conversation(key)?;
                let marker = entry.temp_id.map(|temp_id| keys::marker(id, &entry.sender, temp_id));
                of(logs, id).entry(&entry, marker.as_deref());
            }
        }
        keys::Kind::Row => {
            let row = values::decode("an inbox row", value)?;
            of(logs, keys::row_conversation(key)?).row(keys::row_user(key)?, row);
        }
        keys::Kind::Marker => {
            let marker = values::decode_marker(value)?;
            of(logs, keys::conversation(key)?).marker(key, marker.seq);
        }
        keys::Kind::Intent => {
            let intent: Intent = values::decode_intent(key, value)?;
            of(logs, intent.conversation).speaks_of(intent.to_seq, 0);
        }
        keys::Kind::Read => {
            let read: ReadPosition = values::decode("a read position", value)?;
            of(logs, keys::row_conversation(key)?).speaks_of(read.seq, read.messages);
        }
        keys::Kind::Commit
        | keys::Kind::User
        | keys::Kind::Erasure
        | keys::Kind::Revocation
        | keys::Kind::Filling
        | keys::Kind::Unknown => {}
    }
    Ok(())
}

/// An entry that may stay. Where parts of a store are missing an old version of it may come to light, and with
/// it somebody who was erased: it counts as lost.
fn readable(source: &Source, key: &[u8], value: &[u8]) -> Option<Entry> {
    let (entry, _) = values::decode_entry(value).ok()?;
    let is_own = keys::entry_seq(key).ok() == Some(entry.seq);
    let was_erased = |user: &UserId| {
        let erasure = source.erasures.get(&keys::hashed(user));
        erasure.is_some_and(|erasure: &Erasure| erasure.open.is_none() && entry.time_ms <= erasure.at_ms)
    };
    let names_erased = !source.damage.is_empty()
        && !source.erasures.is_empty()
        && (was_erased(&entry.sender) || named(&entry.body).iter().any(was_erased));
    (is_own && !names_erased).then_some(entry)
}

fn named(body: &EntryBody) -> &[UserId] {
    match body {
        EntryBody::Created { members: users, .. }
        | EntryBody::Added { users }
        | EntryBody::Removed { users } => users,
        EntryBody::Left { user } | EntryBody::RoleChanged { user, .. } => std::slice::from_ref(user),
        _ => &[],
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
