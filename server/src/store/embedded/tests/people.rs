//! What is known of people where parts of a store are missing: a block is whole or gone, a count is true, and who
//! was erased stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bytes::Bytes;
use tern_protocol::{ConversationId, TempId};
use uuid::Uuid;

use super::*;
use crate::store::contract::Talk;
use crate::store::embedded::tripwire::CountFile;
use crate::store::embedded::values::{Head, Row, Shape};
use crate::store::{BlockChange, BlockOutcome, Erasure, People, ReadPosition, Tally};

type Rows = BTreeMap<Bytes, Bytes>;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn rows(store: &EmbeddedStore) -> Rows {
    let row = |item: fjall::Guard| item.into_inner().unwrap();
    store
        .disk
        .space
        .iter()
        .map(row)
        .map(|(key, value)| (key.to_vec().into(), value.to_vec().into()))
        .collect()
}

/// A store of these rows in place of those of another.
fn store_of(rows: &Rows, like: &TempDir) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let identity = Directory::identities_in(&like.path().join("store"))[0].unwrap();
    let commits = rows.keys().filter(|key| key.starts_with(keys::COMMITS)).count();
    let directory = Directory::claim(&dir.path().join("store")).unwrap();
    CountFile::create(&directory.count(), identity, commits as u64).unwrap();
    let (disk, _) = open::open_database(&directory, identity.salt, 0).unwrap();
    let mut ingestion = disk.space.start_ingestion().unwrap();
    for (key, value) in rows {
        ingestion.write(key.clone(), value.clone()).unwrap();
    }
    ingestion.finish().unwrap();
    drop(disk);
    directory.set_identity(identity).unwrap();
    dir
}

/// What is salvaged of a store, which must be in order, and its rows.
fn salvaged(dir: &TempDir, what: &str) -> (Salvaged, Rows) {
    let to = tempfile::tempdir().unwrap();
    let salvaged = salvage(&dir.path().join("store"), &to.path().join("store")).unwrap();
    assert_eq!(salvaged.findings.faults, [""; 0], "{what}");
    let store = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
    (salvaged, rows(&store))
}

async fn say(store: &Arc<dyn Store>, talk: &mut Talk, sender: &UserId) {
    let group = talk.group(sender, &[(TempId::from_uuid(Uuid::new_v4()), "hi")]);
    talk.apply(store, group).await;
}

async fn block(store: &dyn Store, by: &UserId, of: &UserId, at_ms: u64) -> BlockOutcome {
    let (by, user, blocked) = (by.clone(), of.clone(), at_ms > 0);
    store.set_block(BlockChange { by, user, blocked, at_ms, right: None }).await.unwrap()
}

/// Alice blocks bob, with whom she has a pair, and carol; she has put dave in a group.
async fn blocking() -> (TempDir, Rows) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let (alice, bob, carol, dave) = (user("alice"), user("bob"), user("carol"), user("dave"));
    say(&shared, &mut Talk::pair(&alice, &bob), &alice).await;
    let mut group = Talk::new(&[&alice, &dave]);
    Arc::make_mut(&mut group.state).members[1].added_by = Some(alice.clone());
    say(&shared, &mut group, &alice).await;
    // As old as the pair's head, by which it is told where both rows are lost.
    assert_eq!(block(&*store, &alice, &bob, 1000).await, BlockOutcome::Changed);
    assert_eq!(block(&*store, &alice, &carol, 2000).await, BlockOutcome::Changed);
    let rows = rows(&store);
    drop((store, shared));
    (dir, rows)
}

/// Without what only the row of a count itself knows.
fn without_pace(mut rows: Rows) -> Rows {
    rows.retain(|key, _| keys::kind(key) != keys::Kind::Commit);
    for (key, value) in &mut rows {
        if keys::kind(key) == keys::Kind::Tally {
            let tally: Tally = values::decode("a tally", value).unwrap();
            *value = values::encode(&Tally { paced_ms: 0, ..tally });
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_which_anything_is_left_is_whole_again_and_a_check_sees_that_it_was_not() {
    let (dir, rows) = blocking().await;
    let (alice, bob, carol, dave) = (user("alice"), user("bob"), user("carol"), user("dave"));
    let whole = store_of(&rows, &dir);
    assert_eq!(verify_store(&whole.path().join("store")).unwrap().faults, [""; 0]);
    assert!(salvaged(&whole, "whole").0.is_whole());
    let flag = keys::shape(ConversationId::pair(&alice, &bob));
    for lost in [
        vec![keys::block(&alice, &bob)],
        vec![keys::block_of(&bob, &alice)],
        vec![keys::block(&alice, &bob), keys::block_of(&bob, &alice)],
        vec![keys::block(&alice, &bob), flag.clone()],
        vec![keys::block(&alice, &carol)],
        vec![keys::block_of(&carol, &alice), keys::tally(&alice)],
        vec![keys::tally(&alice)],
        vec![keys::tally(&dave)],
        vec![flag.clone()],
    ] {
        let (mut left, what) = (rows.clone(), format!("{lost:?}"));
        // A pair may be younger than a block.
        let is_seen = lost != [flag.clone()];
        for key in lost {
            let value = left.remove(&key).expect("it was there");
            if key == flag {
                let shape: Shape = values::decode("a conversation", &value).unwrap();
                left.insert(key, values::encode(&Shape { blocked_by: Vec::new(), ..shape }));
            }
        }
        let damaged = store_of(&left, &dir);
        let findings = verify_store(&damaged.path().join("store")).unwrap();
        assert_eq!(findings.fault_count > 0, is_seen, "{what}: {:?}", findings.faults);
        let (salvaged, found) = salvaged(&damaged, &what);
        assert_eq!(without_pace(found), without_pace(rows.clone()), "{what}");
        assert!(!salvaged.is_whole(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_erased_leaves_no_row_of_a_block_though_its_other_one_is_lost() {
    let (dir, mut rows) = blocking().await;
    let (alice, bob) = (user("alice"), user("bob"));
    rows.remove(&keys::block(&alice, &bob));
    let damaged = store_of(&rows, &dir);
    let store = EmbeddedStore::open(config(damaged.path()), Metrics::none()).unwrap();
    assert!(!store.forget_blocks(&bob, 9).await.unwrap());
    let state = store.conversation(ConversationId::pair(&alice, &bob)).await.unwrap().unwrap();
    assert_eq!(state.blocked_by, [] as [UserId; 0]);
    let left = self::rows(&store);
    let of_bob = |key: &&Bytes| keys::kind(key) == keys::Kind::Block && has(key, "bob");
    assert_eq!(left.keys().find(of_bob), None);
    drop(store);
    assert_eq!(verify_store(&damaged.path().join("store")).unwrap().faults, [""; 0]);
}

/// Everything that can be kept of a user; a group that they put bob in and are no member of.
async fn everything_of(store: &Arc<dyn Store>, who: &UserId, seen_ms: u64) -> ConversationId {
    let (alice, bob) = (user("alice"), user("bob"));
    let (mut group, mut theirs) = (Talk::new(&[&alice, who]), Talk::new(&[&alice, &bob]));
    say(store, &mut group, who).await;
    say(store, &mut group, &alice).await;
    store.set_read(who, group.id, ReadPosition { seq: 2, messages: 2 }).await.unwrap();
    Arc::make_mut(&mut theirs.state).members[1].added_by = Some(who.clone());
    say(store, &mut theirs, who).await;
    say(store, &mut Talk::pair(&alice, who), who).await;
    assert_eq!(block(&**store, who, &bob, 1000).await, BlockOutcome::Changed);
    assert_eq!(block(&**store, &alice, who, 1000).await, BlockOutcome::Changed);
    for change in [UserChange::Name(Some(format!("name of {who}"))), UserChange::LastSeen(seen_ms)] {
        store.change_user(who, change, None).await.unwrap();
    }
    theirs.id
}

fn has(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|part| part == name.as_bytes())
}

/// The rows that name somebody.
fn naming(rows: &Rows, name: &str) -> Rows {
    let named = rows.iter().filter(|(key, value)| has(key, name) || has(value, name));
    named.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_of_whom_was_erased_comes_back_and_what_is_newer_stays() {
    let source = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let (carol, dave) = (user("carol"), user("dave"));
    let of_carol = everything_of(&shared, &carol, 40_000).await;
    let of_dave = everything_of(&shared, &dave, 40_000).await;
    let mut rows = rows(&store);
    drop((store, shared));
    let left = Row { first_seq: 1, until: Some(Head { seq: 1, messages: 1, time_ms: 1000 }) };
    for (who, id) in [(&carol, of_carol), (&dave, of_dave)] {
        // They left the group that they made.
        rows.insert(keys::row(who, id), values::encode(&left));
    }
    // Carol was erased after all of it, dave before.
    for (who, at_ms) in [(&carol, 50_000), (&dave, 500)] {
        rows.insert(keys::erasure(who), values::encode(&Erasure { at_ms, open: None }));
    }
    let kinds: BTreeSet<u8> = naming(&rows, "carol").keys().map(|key| key[0]).collect();
    assert_eq!(kinds, b"aceikmpru".iter().copied().collect(), "every kind of row that can name a user");
    let dir = store_of(&rows, &source);
    let (_, found) = salvaged(&dir, "whole");
    assert_eq!(naming(&found, "carol"), naming(&rows, "carol"), "nothing is old where nothing is missing");
    fs::write(dir.path().join("store/db/9.jnl"), [7; 100]).unwrap();
    let (salvaged, found) = salvaged(&dir, "damaged");
    assert!(!salvaged.damage.is_empty());
    let back = naming(&found, "carol");
    assert!(back.is_empty(), "{back:?}");
    let (expected, found) = (naming(&rows, "dave"), naming(&found, "dave"));
    assert_eq!(found, expected, "who came back after an erasure stays");
}
