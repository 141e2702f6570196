//! All rows of a damaged store, looked through once: what is left of each log, and of what is known of people.

use std::collections::BTreeMap;
use std::io;

use tern_protocol::{ConversationId, Entry, EntryBody, UserId};

use super::log::{Facts, Mended};
use super::people::{People, PeopleRows};
use super::source::Source;
use crate::store::embedded::values::Shape;
use crate::store::embedded::{keys, values};
use crate::store::{Intent, ReadPosition, StoreError};

/// What all rows together tell.
pub(super) struct Survey {
    pub(super) logs: BTreeMap<ConversationId, Mended>,
    pub(super) people: PeopleRows,
}

/// Reads all rows, makes each log valid, and lets all rows about people say the same.
pub(super) fn survey(source: &Source) -> io::Result<Survey> {
    let (mut logs, mut people) = (BTreeMap::new(), People::default());
    for (key, value) in source.rows()? {
        // What cannot be decoded is left out when the rows are written.
        let _ = note(&mut logs, &mut people, source, &key, &value);
    }
    let mut logs: BTreeMap<_, _> =
        logs.into_iter().filter_map(|(id, facts)| Some((id, facts.mend(id)?))).collect();
    let people = people.mend(&mut logs);
    Ok(Survey { logs, people })
}

fn of(logs: &mut BTreeMap<ConversationId, Facts>, id: ConversationId) -> &mut Facts {
    logs.entry(id).or_default()
}

fn note(
    logs: &mut BTreeMap<ConversationId, Facts>,
    people: &mut People,
    source: &Source,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    match keys::kind(key) {
        keys::Kind::Kept => {
            of(logs, keys::conversation(key)?).kept = Some(values::decode("the start of a log", value)?);
        }
        keys::Kind::Shape => {
            let shape: Shape = values::decode("a conversation", value)?;
            let log = of(logs, keys::conversation(key)?);
            let users = shape.members.iter().flat_map(|member| member.added_by.iter().chain([&member.user]));
            users.filter(|user| source.erased_ms(user).is_some()).for_each(|user| log.erased(user));
            log.shape = Some(shape);
        }
        keys::Kind::Head => of(logs, keys::conversation(key)?).head = Some(values::decode("a head", value)?),
        keys::Kind::Entry => {
            if let Some(entry) = readable(source, key, value) {
                let id = keys::conversation(key)?;
                let marker = entry.temp_id.map(|temp_id| keys::marker(id, &entry.sender, temp_id));
                let log = of(logs, id);
                // It is of after the erasure, or it would not be readable.
                users(&entry).filter(|user| source.erased_ms(user).is_some()).for_each(|user| log.back(user));
                log.entry(&entry, marker.as_deref());
            }
        }
        keys::Kind::Row => {
            let (row, user) = (values::decode("an inbox row", value)?, keys::row_user(key)?);
            let log = of(logs, keys::row_conversation(key)?);
            if source.erased_ms(&user).is_some() {
                log.erased(&user);
            }
            log.row(user, row);
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
        keys::Kind::Block => {
            let (since_ms, (by, user)) = (values::decode("a block", value)?, keys::block_sides(key)?);
            if ![&by, &user].into_iter().any(|user| source.is_erased(user, since_ms)) {
                people.block(by, user, since_ms);
            }
        }
        keys::Kind::Tally => {
            let user = keys::named_user(key)?;
            if source.erased_ms(&user).is_none() {
                people.tally(user, values::decode("a tally", value)?);
            }
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
pub(super) fn readable(source: &Source, key: &[u8], value: &[u8]) -> Option<Entry> {
    let (entry, _) = values::decode_entry(value).ok()?;
    let is_own = keys::entry_seq(key).ok() == Some(entry.seq);
    let names_erased = users(&entry).any(|user| source.is_erased(user, entry.time_ms));
    (is_own && !names_erased).then_some(entry)
}

/// Who wrote it, and whom it names.
fn users(entry: &Entry) -> impl Iterator<Item = &UserId> {
    std::iter::once(&entry.sender).chain(named(&entry.body))
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
