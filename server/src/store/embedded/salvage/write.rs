//! The rows of a salvaged store: what was read as it is where it fits, the rest made to fit.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tern_protocol::StoreId;

use super::source::{Rows, Source};
use super::survey::{Survey, readable};
use super::{RowCount, SalvageError};
use crate::store::embedded::directory::Directory;
use crate::store::embedded::failures::read_failed;
use crate::store::embedded::identity::{Identity, Salt};
use crate::store::embedded::tripwire::CountFile;
use crate::store::embedded::{keys, open, values};
use crate::store::{Erasure, Kept, ReadPosition, StoreError, User};

/// Number of the one commit of a salvaged store.
const COMMIT: u64 = 1;

type Tallies = BTreeMap<&'static str, RowCount>;

/// Makes a store of what the survey of `source` found and of its other rows; its id, and what became of the rows.
pub(super) fn write(to: &Path, survey: &Survey, source: &Source) -> Result<(StoreId, Tallies), SalvageError> {
    let mut writing = Writing { survey, source, rows: Tallies::new() };
    let store_id = writing.write(to)?;
    Ok((store_id, writing.rows))
}

/// The rows of the new store.
struct Writing<'a> {
    survey: &'a Survey,
    source: &'a Source,
    rows: Tallies,
}

impl Writing<'_> {
    fn write(&mut self, to: &Path) -> Result<StoreId, SalvageError> {
        let failed = |source| SalvageError::Write { path: to.into(), source };
        let from = |source| SalvageError::Io { path: to.into(), source };
        let directory = Directory::claim(to)?;
        directory.begin("a salvage")?;
        let identity = Identity::new();
        CountFile::create(&directory.count(), identity, COMMIT).map_err(from)?;
        let (disk, _) = open::open_database(&directory, identity.salt, 0)?;
        let mut rows = disk.space.start_ingestion().map_err(|error| failed(read_failed(error)))?;
        let (survey, source) = (self.survey, self.source);
        let mut made = made(survey, identity.salt).peekable();
        let mut read = source.rows().map_err(from)?;
        let mut next = self.kept(&mut read);
        loop {
            let is_made = match (made.peek(), &next) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((key, _)), Some((other, _))) => key <= other,
            };
            let (key, value) = if is_made { made.next() } else { next.take() }.expect("it was looked at");
            if !is_made || next.as_ref().is_some_and(|(other, _)| *other == key) {
                next = self.kept(&mut read);
            } else if !self::is_made(keys::kind(&key)) {
                self.rows.entry(name(keys::kind(&key))).or_default().made += 1;
            }
            rows.write(key, value).map_err(|error| failed(read_failed(error)))?;
        }
        rows.finish().map_err(|error| failed(read_failed(error)))?;
        drop(disk);
        directory.set_identity(identity)?;
        directory.finish()?;
        Ok(identity.store_id)
    }

    /// The next row that is taken as it is, or mended.
    fn kept(&mut self, read: &mut Rows<'_>) -> Option<(Bytes, Bytes)> {
        loop {
            let (key, value) = read.next()?;
            let kind = keys::kind(&key);
            let tally = self.rows.entry(name(kind)).or_default();
            match keep(self.survey, self.source, kind, &key, &value) {
                Ok(Some(kept)) if kept == value => tally.copied += 1,
                Ok(Some(mended)) => {
                    tally.made += 1;
                    return Some((key, mended));
                }
                // Those are written anew, as they were if nothing was wrong.
                Ok(None) if is_made(kind) => {
                    tally.copied += u64::from(!matches!(kind, keys::Kind::Commit | keys::Kind::Filling));
                    continue;
                }
                Ok(None) | Err(_) => {
                    tally.dropped += 1;
                    continue;
                }
            }
            return Some((key, value));
        }
    }
}

/// Rows of this kind follow from what was found out about each log.
fn is_made(kind: keys::Kind) -> bool {
    use keys::Kind::{Commit, Filling, Head, Kept, Shape};
    matches!(kind, Commit | Head | Kept | Shape | Filling)
}

/// What rows are called.
fn name(kind: keys::Kind) -> &'static str {
    match kind {
        keys::Kind::Kept => "starts of logs",
        keys::Kind::Shape => "members' lists",
        keys::Kind::Entry => "entries",
        keys::Kind::Head => "heads",
        keys::Kind::Row => "inbox rows",
        keys::Kind::Marker => "dedupe markers",
        keys::Kind::Commit => "commit numbers",
        keys::Kind::Intent => "push intents",
        keys::Kind::Read => "read positions",
        keys::Kind::User => "users",
        keys::Kind::Erasure => "erasures",
        keys::Kind::Revocation => "revocations",
        keys::Kind::Filling => "filling",
        keys::Kind::Block => "blocks",
        keys::Kind::Tally => "tallies",
        keys::Kind::Unknown => "rows of an unknown kind",
    }
}

/// The row as it goes into the new store; `None`: it does not.
fn keep(
    survey: &Survey,
    source: &Source,
    kind: keys::Kind,
    key: &[u8],
    value: &Bytes,
) -> Result<Option<Bytes>, StoreError> {
    let logs = &survey.logs;
    let as_it_is = |stays: bool| stays.then(|| value.clone());
    Ok(match kind {
        kind if is_made(kind) => None,
        keys::Kind::Entry => {
            let (log, seq) = (logs.get(&keys::conversation(key)?), keys::entry_seq(key)?);
            let stays = log.is_some_and(|log| log.has(seq)) && readable(source, key, value).is_some();
            as_it_is(stays)
        }
        keys::Kind::Row => {
            let row: values::Row = values::decode("an inbox row", value)?;
            let (user, log) = (keys::row_user(key)?, logs.get(&keys::row_conversation(key)?));
            let Some(log) = log else { return Ok(None) };
            match log.shape.members.iter().find(|member| member.user == user) {
                Some(member) => Some(values::member_row(member.first_seq)),
                None => as_it_is(row.until.is_some_and(|until| {
                    until.seq <= log.head.seq && !source.is_erased(&user, until.time_ms)
                })),
            }
        }
        keys::Kind::Marker => {
            values::decode_marker(value)?;
            as_it_is(logs.get(&keys::conversation(key)?).is_some_and(|log| log.has_markers))
        }
        keys::Kind::Intent => {
            let intent = values::decode_intent(key, value)?;
            let log = logs.get(&intent.conversation);
            let fits = intent.from_seq <= intent.to_seq && keys::intent_shard(key)? == intent.shard();
            let is_erased =
                intent.sender.as_ref().is_some_and(|sender| source.is_erased(sender, intent.time_ms));
            as_it_is(fits && !is_erased && log.is_some_and(|log| intent.to_seq <= log.head.seq))
        }
        keys::Kind::Read => read(survey, source, key, value)?,
        keys::Kind::User => {
            let user: User = values::decode("a user", value)?;
            as_it_is(!source.is_erased(&keys::named_user(key)?, user.last_seen_ms))
        }
        keys::Kind::Erasure => {
            values::decode::<Erasure>("an erasure", value)?;
            as_it_is(true)
        }
        keys::Kind::Revocation => {
            values::decode::<u64>("a revocation", value)?;
            as_it_is(true)
        }
        keys::Kind::Block | keys::Kind::Tally => survey.people.get(key),
        keys::Kind::Kept
        | keys::Kind::Shape
        | keys::Kind::Head
        | keys::Kind::Commit
        | keys::Kind::Filling
        | keys::Kind::Unknown => None,
    })
}

/// A read position, not beyond the head.
fn read(survey: &Survey, source: &Source, key: &[u8], value: &Bytes) -> Result<Option<Bytes>, StoreError> {
    let (user, id) = (keys::row_user(key)?, keys::row_conversation(key)?);
    let read: ReadPosition = values::decode("a read position", value)?;
    let Some(log) = survey.logs.get(&id) else { return Ok(None) };
    // It tells no time.
    if source.erased_ms(&user).is_some() && !log.back.contains(&user) {
        return Ok(None);
    }
    let (seq, messages) = (read.seq.min(log.head.seq), read.messages.min(log.head.messages));
    let fits = (seq, messages) == (read.seq, read.messages);
    Ok(Some(if fits { value.clone() } else { values::encode(&ReadPosition { seq, messages }) }))
}

/// The rows that follow from what was found out about each log and about people, in the order of their keys.
fn made<'a>(survey: &'a Survey, salt: Salt) -> impl Iterator<Item = (Bytes, Bytes)> + use<'a> {
    let Survey { logs, people } = survey;
    let of = |rows: &'a BTreeMap<Bytes, Bytes>| rows.iter().map(|(key, value)| (key.clone(), value.clone()));
    let (tallies, blocks) = (of(&people.tallies), of(&people.blocks));
    let kept = logs.iter().filter(|(_, log)| log.kept != Kept::default());
    let kept = kept.map(|(id, log)| (keys::kept(*id), values::encode(&log.kept)));
    let shapes = logs.iter().map(|(id, log)| (keys::shape(*id), values::encode(&log.shape)));
    let tombstones = logs.iter().flat_map(|(id, log)| {
        let entries = log.holes.iter().flat_map(|hole| hole.tombstones(*id));
        entries.map(|entry| (keys::entry(*id, entry.seq), values::encode(&entry)))
    });
    let heads = logs.iter().map(|(id, log)| (keys::head(*id), values::encode(&log.head)));
    let mut rows = BTreeMap::new();
    for (id, log) in logs {
        rows.extend(
            log.without_row()
                .map(|member| (keys::row(&member.user, *id), values::member_row(member.first_seq))),
        );
    }
    let commit = values::Commit { number: COMMIT, salt };
    let commit = std::iter::once((keys::commit(COMMIT), values::encode(&commit)));
    tallies.chain(kept).chain(shapes).chain(tombstones).chain(heads).chain(rows).chain(blocks).chain(commit)
}
