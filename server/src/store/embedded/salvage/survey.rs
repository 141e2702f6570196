//! All rows of a damaged store, looked through once: what is left of each log, and of what is known of people.

use std::collections::BTreeMap;
use std::io;

use tern_protocol::{ConversationId, Entry, EntryBody, UserId};

use super::log::{Facts, Mended};
use super::people::{People, PeopleRows};
use super::source::Source;
use crate::store::embedded::{keys, values};
use crate::store::{Erasure, Intent, ReadPosition, StoreError};

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
        keys::Kind::Block => {
            people.block(key, values::decode("a block", value)?)?;
        }
        keys::Kind::Tally => people.tally(key, values::decode("a tally", value)?)?,
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
