//! Erasing a user: their messages become tombstones, their id goes from all logs, and nothing else of
//! them stays. Each step can be repeated, so an erasure that was cut short is simply done again.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tern_protocol::{Close, Code, ConversationId, Entry, EntryBody, TempId, UserId};
use tokio::sync::oneshot;

use super::Parts;
use crate::clock::unix_ms;
use crate::conversation::{Ask, Change, Committed, Refusal, Reply, Submission};
use crate::delivery::{Class, Except, Parcel};
use crate::roster::Outgoing;
use crate::store::{GROUP_ENTRIES_MAX, Order, PageLimit, StoreError};

/// Entries read at a time; their tombstones fit in one write.
const PAGE: PageLimit = PageLimit { entries: GROUP_ENTRIES_MAX, bytes: 512 * 1024 };
/// Longest wait for the user's sessions to end.
const SESSIONS_WAIT: Duration = Duration::from_secs(10);
/// Pause before something temporary is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts at an append that the store does not take.
const ATTEMPTS_MAX: usize = 50;
/// Rounds over the user's conversations: others may add them anew meanwhile, but not for ever.
const ROUNDS_MAX: usize = 10;

/// What was erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// What stands in the user's place now.
    pub became: UserId,
    /// Conversations they were in.
    pub conversations: usize,
    /// Entries that were rewritten.
    pub entries: usize,
}

/// Why an erasure did not end. It can be done again.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry that says it could not be written.
    #[error("{conversation}: {refusal}")]
    Refused {
        /// Where.
        conversation: ConversationId,
        /// Why.
        refusal: Refusal,
    },
    /// The user's sessions did not end.
    #[error("the user's sessions do not end; run it again")]
    Sessions,
    /// Others add the user to conversations as fast as they are taken out.
    #[error("the user is being added to conversations again and again; run it again")]
    Contended,
    /// Such ids are never of users.
    #[error("{0} stands for a user who was erased already")]
    Already(UserId),
}

/// Erases a user. A user who is not known is erased too: others may have written to them.
pub async fn erase(parts: &Parts, user: &UserId) -> Result<Erased, EraseError> {
    if user.is_erased() {
        return Err(EraseError::Already(user.clone()));
    }
    let became = UserId::erased(rand::random());
    // From here on no token that exists opens a session.
    let erasure = parts.store.begin_erasure(user, became, unix_ms()).await?;
    let became = erasure.open.map_or_else(|| UserId::erased(rand::random()), |open| open.became);
    close_sessions(parts, user).await?;
    let mut erased = Erased { became, conversations: 0, entries: 0 };
    for _ in 0..ROUNDS_MAX {
        let mut ends = Vec::new();
        for row in parts.store.inbox(user, None, usize::MAX).await? {
            ends.push((row.conversation, erase_in(parts, user, &mut erased, row.conversation).await?));
        }
        erased.conversations = erased.conversations.max(ends.len());
        if parts.store.finish_erasure(user).await? {
            for (conversation, seq) in ends {
                tell(parts, conversation, seq).await?;
            }
            return Ok(erased);
        }
    }
    Err(EraseError::Contended)
}

async fn close_sessions(parts: &Parts, user: &UserId) -> Result<(), EraseError> {
    let started = Instant::now();
    let close = Outgoing::new(Close {
        code: Code::TOKEN_INVALID,
        reason: "the user was erased".into(),
        retry_after_ms: None,
        target: None,
    });
    loop {
        // Again each time: somebody who was just being greeted may have got in.
        parts.delivery.hand_out(Parcel {
            to: [user.clone()].into(),
            class: Class::Close,
            body: close.clone(),
            except: Except::Nobody,
            arrived: None,
        });
        if !parts.delivery.is_here(user) {
            return Ok(());
        }
        if started.elapsed() > SESSIONS_WAIT {
            return Err(EraseError::Sessions);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tombstones first, then the entry that says so: who hears of it and reads again finds them.
async fn erase_in(
    parts: &Parts,
    user: &UserId,
    erased: &mut Erased,
    id: ConversationId,
) -> Result<u64, EraseError> {
    let read = scrub(parts, user, erased, id, 0).await?;
    let seq = say(parts, user, &erased.became, id).await?;
    // What came in before the user was out.
    scrub(parts, user, erased, id, read).await?;
    parts.store.rewrite(id, Vec::new(), seq).await?;
    Ok(seq)
}

/// Rewrites the entries after `after`; the last that was looked at.
async fn scrub(
    parts: &Parts,
    user: &UserId,
    erased: &mut Erased,
    id: ConversationId,
    after: u64,
) -> Result<u64, EraseError> {
    let mut last = after;
    loop {
        let page = parts.store.entries(id, last + 1..=u64::MAX, Order::Ascending, PAGE).await?;
        let Some(newest) = page.last() else { return Ok(last) };
        last = newest.seq;
        let changed: Vec<_> =
            page.into_iter().filter_map(|entry| without(entry, user, &erased.became)).collect();
        if !changed.is_empty() {
            erased.entries += changed.len();
            parts.store.rewrite(id, changed, 0).await?;
        }
    }
}

/// The entry without the user, if they are in it.
fn without(mut entry: Entry, user: &UserId, became: &UserId) -> Option<Entry> {
    let before = entry.clone();
    let swap = |id: &mut UserId| {
        if id == user {
            id.clone_from(became);
        }
    };
    if entry.sender == *user {
        entry.sender_name = None;
        entry.temp_id = None;
        if entry.body.is_message() {
            entry.body = EntryBody::Erased;
        }
    }
    swap(&mut entry.sender);
    match &mut entry.body {
        EntryBody::Created { members: users, .. }
        | EntryBody::Added { users }
        | EntryBody::Removed { users } => {
            users.iter_mut().for_each(swap);
        }
        EntryBody::Left { user } | EntryBody::RoleChanged { user, .. } => swap(user),
        EntryBody::Message { .. }
        | EntryBody::Renamed { .. }
        | EntryBody::Erased
        | EntryBody::Opaque { .. } => {}
    }
    (entry != before).then_some(entry)
}

/// Takes the user out and writes the entry that says that they were erased; its seq.
async fn say(parts: &Parts, user: &UserId, became: &UserId, id: ConversationId) -> Result<u64, EraseError> {
    // The same after a crash, so that it is said once.
    let digest = Sha256::digest([became.as_str().as_bytes(), id.as_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let temp_id = TempId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid());
    for _ in 1..ATTEMPTS_MAX {
        match submit(parts, user, became, id, temp_id).await {
            Ok(committed) if committed.duplicate && is_member(parts, user, id).await? => {
                // Somebody has added them again since: another name for another leave.
                let again = TempId::from_uuid(uuid::Uuid::new_v4());
                return match submit(parts, user, became, id, again).await {
                    Ok(committed) => Ok(committed.seq),
                    Err(refusal) => Err(EraseError::Refused { conversation: id, refusal }),
                };
            }
            Ok(committed) => return Ok(committed.seq),
            Err(Refusal::Unavailable(_) | Refusal::Busy(_) | Refusal::OutOfOrder) => {
                tokio::time::sleep(PAUSE).await
            }
            Err(refusal) => return Err(EraseError::Refused { conversation: id, refusal }),
        }
    }
    Err(EraseError::Refused { conversation: id, refusal: Refusal::Unavailable("the store does not answer") })
}

async fn is_member(parts: &Parts, user: &UserId, id: ConversationId) -> Result<bool, StoreError> {
    Ok(parts.store.conversation(id).await?.is_some_and(|state| state.member(user).is_some()))
}

async fn submit(
    parts: &Parts,
    user: &UserId,
    became: &UserId,
    id: ConversationId,
    temp_id: TempId,
) -> Result<Committed, Refusal> {
    let (reply, outcome) = oneshot::channel();
    let ask = Ask {
        conversation: id,
        peer: None,
        sender: became.clone(),
        sender_name: None,
        asker: None,
        temp_id,
        after: None,
        age_ms: 0,
        issued_ms: None,
        change: Change::Erase { user: user.clone() },
    };
    let reply = Reply::new(move |outcome| drop(reply.send(outcome)));
    parts.router.submit(Submission { ask, arrived: Instant::now(), reply });
    outcome.await.unwrap_or(Err(Refusal::Unavailable("the conversation stopped before it answered")))
}

/// Tells the members who are connected that entries have changed.
async fn tell(parts: &Parts, id: ConversationId, seq: u64) -> Result<(), StoreError> {
    let Some(state) = parts.store.conversation(id).await? else { return Ok(()) };
    let to: Vec<UserId> = state.members.iter().map(|member| member.user.clone()).collect();
    let body = Outgoing::new(tern_protocol::Erased { conversation: id, seq });
    parts.delivery.hand_out(Parcel::control(to, body));
    Ok(())
}

#[cfg(test)]
mod tests {
    use tern_protocol::{Data, EntryId, Role};

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn entry(sender: &str, body: EntryBody) -> Entry {
        Entry {
            seq: 7,
            id: EntryId::from_bytes([1; 16]),
            time_ms: 5,
            sender: user(sender),
            sender_name: Some("A Name".into()),
            temp_id: Some(TempId::from_bytes([2; 16])),
            messages: 4,
            body,
        }
    }

    #[test]
    fn nothing_of_the_user_is_left_in_any_entry() {
        let (bob, became) = (user("bob"), UserId::erased([7; 16]));
        let both = || vec![user("alice"), user("bob")];
        let bodies = [
            EntryBody::Message {
                text: "secret".into(),
                data: Some(Data::new("\"secret\"").unwrap()),
                reply_to: Some(1),
            },
            EntryBody::Created { name: "Team".into(), members: both() },
            EntryBody::Added { users: both() },
            EntryBody::Removed { users: both() },
            EntryBody::Left { user: user("bob") },
            EntryBody::Renamed { name: "Other".into() },
            EntryBody::RoleChanged { user: user("bob"), role: Role::Admin },
        ];
        for body in bodies {
            for sender in ["alice", "bob"] {
                let before = entry(sender, body.clone());
                let after = without(before.clone(), &bob, &became).unwrap_or_else(|| before.clone());
                let text = format!("{after:?}");
                assert!(!text.contains("bob"), "{text}");
                assert_eq!((after.seq, after.id, after.time_ms), (before.seq, before.id, before.time_ms));
                if sender == "bob" {
                    assert!(!text.contains("secret") && !text.contains("A Name"), "{text}");
                    assert_eq!((&after.sender, after.temp_id), (&became, None));
                    assert_eq!(after.body == EntryBody::Erased, before.body.is_message(), "{text}");
                } else {
                    assert_eq!((&after.sender, after.temp_id), (&before.sender, before.temp_id));
                }
                assert_eq!(without(after, &bob, &became), None, "once is enough");
            }
        }
        let other = entry("alice", EntryBody::text("bob said so"));
        assert_eq!(without(other, &bob, &became), None, "what others wrote stays as it is");
    }
}
