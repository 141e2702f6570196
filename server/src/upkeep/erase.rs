//! Erasing a user: their messages become tombstones, their id goes from all logs, and nothing else of
//! them stays. Each step can be repeated, so an erasure that was cut short is simply done again.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tern_protocol::{Close, Code, ConversationId, DEDUPE_WINDOW_S, Entry, EntryBody, TempId, UserId};
use tokio::sync::oneshot;

use super::Parts;
use crate::clock::unix_ms;
use crate::conversation::{Ask, Change, Committed, Refusal, Reply, Submission};
use crate::delivery::{Class, Except, Parcel, Which};
use crate::roster::Outgoing;
use crate::store::{GROUP_ENTRIES_MAX, Order, PageLimit, StoreError, has_profile};

/// Entries read at a time; their tombstones fit in one write.
const PAGE: PageLimit = PageLimit { entries: GROUP_ENTRIES_MAX, bytes: 512 * 1024 };
/// Blocks forgotten in one step.
const BLOCKS_PAGE: usize = 256;
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
    /// Nothing is kept of them: perhaps the id is misspelt.
    #[error("nothing is kept of the user {0}, so nobody was erased: check the id")]
    Unknown(UserId),
    /// Such ids are never of users.
    #[error("{0} stands for a user who was erased already")]
    Already(UserId),
}

/// Erases a user. Who never connected is erased too, if others have written to them. Again is fine.
///
/// No step rests on another conversation's: from the first on, whatever bears an older token of theirs and
/// whatever makes them a member is refused by the store, so that what was found done stays done.
pub async fn erase(parts: &Parts, user: &UserId) -> Result<Erased, EraseError> {
    if user.is_erased() {
        return Err(EraseError::Already(user.clone()));
    }
    if !is_known(parts, user).await? {
        return Err(EraseError::Unknown(user.clone()));
    }
    let fresh = UserId::erased(rand::random());
    // From here on no token that exists opens a session.
    let erasure = parts.store.begin_erasure(user, fresh.clone(), unix_ms()).await?;
    let became = erasure.open.map_or(fresh, |open| open.became);
    close_sessions(parts, user).await?;
    let erasing = Erasing { parts, user, became: &became, began_ms: erasure.at_ms };
    while parts.store.forget_blocks(user, BLOCKS_PAGE).await? {}
    let mut erased = Erased { became: became.clone(), conversations: 0, entries: 0 };
    for _ in 0..ROUNDS_MAX {
        let mut ends = Vec::new();
        for row in parts.store.inbox(user, None, usize::MAX).await? {
            let (seq, entries) = erasing.erase_in(row.conversation).await?;
            erased.entries += entries;
            ends.push((row.conversation, seq));
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

/// Something is kept of the user, or was until they were erased.
async fn is_known(parts: &Parts, user: &UserId) -> Result<bool, StoreError> {
    Ok(has_profile(&*parts.store, user).await?
        || parts.store.standing(user).await?.erasure.is_some()
        || !parts.store.inbox(user, None, 1).await?.is_empty())
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
            class: Class::Close(Which::All),
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

/// An erasure that has begun.
struct Erasing<'a> {
    parts: &'a Parts,
    user: &'a UserId,
    became: &'a UserId,
    began_ms: u64,
}

impl Erasing<'_> {
    /// Tombstones first, then the entry that says so: who hears of it and reads again finds them. Its seq, and
    /// how many entries were rewritten.
    async fn erase_in(&self, id: ConversationId) -> Result<(u64, usize), EraseError> {
        let (read, before) = self.scrub(id, 0).await?;
        let seq = self.say(id).await?;
        // What came in before the user was out.
        let (_, after) = self.scrub(id, read).await?;
        self.parts.store.rewrite(id, Vec::new(), seq).await?;
        Ok((seq, before + after))
    }

    /// Rewrites the entries after `after`; the last that was looked at, and how many were rewritten.
    async fn scrub(&self, id: ConversationId, after: u64) -> Result<(u64, usize), EraseError> {
        let (mut last, mut rewritten) = (after, 0);
        loop {
            let page = self.parts.store.entries(id, last + 1..=u64::MAX, Order::Ascending, PAGE).await?;
            let Some(newest) = page.last() else { return Ok((last, rewritten)) };
            last = newest.seq;
            let changed: Vec<_> =
                page.into_iter().filter_map(|entry| without(entry, self.user, self.became)).collect();
            if !changed.is_empty() {
                rewritten += changed.len();
                self.parts.store.rewrite(id, changed, 0).await?;
            }
        }
    }

    /// Takes the user out and writes the entry that says that they were erased; its seq.
    async fn say(&self, id: ConversationId) -> Result<u64, EraseError> {
        // The same after a crash, so that it is said once.
        let digest = Sha256::digest([self.became.as_str().as_bytes(), id.as_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let mut temp_id = TempId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid());
        for _ in 0..ATTEMPTS_MAX {
            match self.submit(id, temp_id).await {
                // An append that was under way made them a member again: another name for another leave.
                Ok(committed) if committed.duplicate && self.is_member(id).await? => {
                    temp_id = TempId::from_uuid(uuid::Uuid::new_v4());
                }
                Ok(committed) => return Ok(committed.seq),
                Err(refusal) if refusal.code().temporary() => tokio::time::sleep(PAUSE).await,
                Err(refusal) => return Err(EraseError::Refused { conversation: id, refusal }),
            }
        }
        let refusal = Refusal::Unavailable("the store does not answer");
        Err(EraseError::Refused { conversation: id, refusal })
    }

    async fn is_member(&self, id: ConversationId) -> Result<bool, StoreError> {
        Ok(self.parts.store.conversation(id).await?.is_some_and(|state| state.member(self.user).is_some()))
    }

    async fn submit(&self, id: ConversationId, temp_id: TempId) -> Result<Committed, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let ask = Ask {
            conversation: id,
            peer: None,
            sender: self.became.clone(),
            sender_name: None,
            asker: None,
            temp_id,
            after: None,
            // An earlier attempt may be as old as the erasure.
            age_ms: unix_ms().saturating_sub(self.began_ms).min(u64::from(DEDUPE_WINDOW_S) * 1000),
            right: None,
            change: Change::Erase { user: self.user.clone() },
        };
        let reply = Reply::new(move |outcome| drop(reply.send(outcome)));
        self.parts.router.submit(Submission { ask, arrived: Instant::now(), reply });
        outcome.await.unwrap_or(Err(Refusal::Unavailable("the conversation stopped before it answered")))
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
    use std::sync::Arc;

    use tern_protocol::{Data, EntryId, Role};

    use super::*;
    use crate::budget::Memory;
    use crate::conversation::{ConversationConfig, Conversations, Outcome};
    use crate::delivery::Delivery;
    use crate::ops::metrics::Metrics;
    use crate::roster::Roster;
    use crate::router::Router;
    use crate::store::memory::MemoryStore;
    use crate::store::shaky::{Call, Fault, Shaky};
    use crate::store::{BlockChange, Right};
    use crate::upkeep::Accounts;

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

    /// Everything an erasure is done with, over a store that can misbehave.
    fn parts(shaky: &Arc<Shaky>) -> Parts {
        let delivery = Delivery::new(Roster::default(), Metrics::none());
        let config = ConversationConfig::default();
        let owners = Conversations::new(
            &config,
            &Memory::unlimited(),
            shaky.clone(),
            shaky.clone(),
            delivery.clone(),
            Metrics::none(),
        );
        let accounts = Accounts::new(shaky.clone(), delivery.clone(), Metrics::none());
        Parts { store: shaky.clone(), router: Router::new(owners), delivery, accounts }
    }

    async fn ask(parts: &Parts, sender: &str, issued_ms: u64, change: Change, id: ConversationId) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let ask = Ask {
            conversation: id,
            peer: None,
            sender: user(sender),
            sender_name: Some(sender.into()),
            asker: None,
            temp_id: TempId::from_uuid(uuid::Uuid::new_v4()),
            after: None,
            age_ms: 0,
            right: Some(Right::own(issued_ms)),
            change,
        };
        let reply = Reply::new(move |outcome| drop(reply.send(outcome)));
        parts.router.submit(Submission { ask, arrived: Instant::now(), reply });
        outcome.await.unwrap()
    }

    fn say(text: &str) -> Change {
        Change::Message { text: text.into(), data: None, reply_to: None }
    }

    fn group(number: u8) -> ConversationId {
        ConversationId::from_bytes([number; 16])
    }

    async fn make_group(parts: &Parts, id: ConversationId, members: &[&str]) {
        let members = members.iter().map(|name| user(name)).collect();
        let create = Change::Create { name: "crew".into(), members };
        ask(parts, "alice", 1, create, id).await.unwrap();
    }

    /// The log of a group as text.
    async fn log(parts: &Parts, id: ConversationId) -> String {
        let all = PageLimit { entries: usize::MAX, bytes: usize::MAX };
        format!("{:?}", parts.store.entries(id, 1..=u64::MAX, Order::Ascending, all).await.unwrap())
    }

    #[tokio::test]
    async fn what_was_asked_for_before_an_erasure_is_not_written_after_it() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        make_group(&parts, group(1), &["bob"]).await;
        ask(&parts, "bob", 5, say("secret"), group(1)).await.unwrap();
        erase(&parts, &user("bob")).await.unwrap();
        // A request whose body was still coming when the erasure ended.
        let refused = ask(&parts, "bob", 5, say("secret again"), group(1)).await.unwrap_err();
        assert!(!refused.code().temporary(), "{refused:?}");
        let add = Change::Add { users: vec![user("bob")] };
        ask(&parts, "alice", 1, add, group(1)).await.unwrap();
        assert!(ask(&parts, "bob", 5, say("and again"), group(1)).await.is_err());
        let later = unix_ms() + 1_000;
        ask(&parts, "bob", later, say("hello, I am new"), group(1)).await.unwrap();
        let log = log(&parts, group(1)).await;
        assert!(!log.contains("secret") && !log.contains("and again") && log.contains("I am new"), "{log}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_write_about_the_user_meanwhile_is_rewritten_too() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        make_group(&parts, group(1), &["bob", "carol"]).await;
        let step = Duration::from_secs(1);
        shaky.slow_reads(step);
        let erasing = tokio::spawn({
            let parts = parts.clone();
            async move { erase(&parts, &user("bob")).await }
        });
        // The log is read, and looks like its end; an admin's removal of him is under way and takes its time.
        let reads = shaky.calls(Call::Entries);
        while shaky.calls(Call::Entries) == reads {
            tokio::time::sleep(step / 10).await;
        }
        shaky.script([Fault::Conflict, Fault::Conflict]);
        ask(&parts, "alice", 1, Change::Remove { users: vec![user("bob")] }, group(1)).await.unwrap();
        erasing.await.unwrap().unwrap();
        shaky.slow_reads(Duration::ZERO);
        let log = log(&parts, group(1)).await;
        assert!(log.contains("Removed") && !log.contains("bob"), "{log}");
    }

    #[tokio::test]
    async fn an_erasure_takes_the_blocks_by_the_user_and_of_them_along() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        make_group(&parts, group(1), &["bob", "carol"]).await;
        for (by, of) in [("bob", "alice"), ("alice", "bob"), ("alice", "carol")] {
            let change = BlockChange { by: user(by), user: user(of), blocked: true, at_ms: 1, right: None };
            parts.store.set_block(change).await.unwrap();
        }
        erase(&parts, &user("bob")).await.unwrap();
        let of_alice = parts.store.blocks(&user("alice"), None, 9).await.unwrap();
        assert_eq!(of_alice.iter().map(|blocked| blocked.user.as_str()).collect::<Vec<_>>(), ["carol"]);
        assert_eq!(parts.store.blocks(&user("bob"), None, 9).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_erasure_ends_while_others_add_the_user_again_and_again() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        for number in 1..=20 {
            make_group(&parts, group(number), if number < 10 { &["bob"] } else { &[] }).await;
        }
        let (adders, stop) = (parts.clone(), tokio_util::sync::CancellationToken::new());
        let stopped = stop.clone();
        let adding = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                for number in 1..=20 {
                    let add = Change::Add { users: vec![user("bob")] };
                    let _ = ask(&adders, "alice", 1, add, group(number)).await;
                }
            }
        });
        tokio::task::yield_now().await;
        let erased = erase(&parts, &user("bob")).await;
        stop.cancel();
        adding.await.unwrap();
        assert!(erased.unwrap().conversations >= 9);
        assert_eq!(parts.store.open_erasures().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_erasure_ends_over_a_store_that_misbehaves() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        for number in 1..=10 {
            make_group(&parts, group(number), &["bob"]).await;
            ask(&parts, "bob", 5, say("secret"), group(number)).await.unwrap();
        }
        let late = Duration::from_millis(250);
        shaky.dice(
            11,
            &[
                (200, Fault::UnknownApplied),
                (100, Fault::UnknownLost),
                (150, Fault::UnknownLate(late)),
                (150, Fault::Conflict),
                (100, Fault::ErrorApplied),
            ],
        );
        // An operator runs it until it is done.
        let mut tries = 0;
        while let Err(error) = erase(&parts, &user("bob")).await {
            tries += 1;
            assert!(tries < 20, "{error}");
        }
        shaky.calm();
        shaky.landed().await;
        for number in 1..=10 {
            let log = log(&parts, group(number)).await;
            assert!(!log.contains("bob") && !log.contains("secret"), "{log}");
            assert_eq!(log.matches("Left").count(), 1, "said once: {log}");
        }
    }

    #[tokio::test]
    async fn erasing_an_id_of_which_nothing_is_kept_says_so() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let parts = parts(&shaky);
        make_group(&parts, group(1), &["bob"]).await;
        let nobody = erase(&parts, &user("bop")).await.unwrap_err();
        assert!(matches!(nobody, EraseError::Unknown(_)), "{nobody}");
        assert_eq!(parts.store.standing(&user("bop")).await.unwrap().erasure, None);
        erase(&parts, &user("bob")).await.expect("others have made bob a member");
        erase(&parts, &user("bob")).await.expect("again is fine");
    }
}
