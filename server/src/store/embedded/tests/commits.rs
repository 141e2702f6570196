//! What shares a commit, what fails with it, and what a full queue does.

use std::sync::mpsc;

use futures_util::future::join_all;
use tern_protocol::TempId;
use uuid::Uuid;

use super::*;
use crate::budget::Budget;
use crate::store::contract::Talk;
use crate::store::{Appended, BlockChange, BlockOutcome, People};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn temp_id() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

/// A store whose commits wait for a word from the test.
struct Gated {
    /// True lets it go on, false makes it fail. First, so that a test that fails lets the store end.
    go_on: mpsc::Sender<bool>,
    store: Arc<EmbeddedStore>,
    /// A commit has begun.
    begun: mpsc::Receiver<()>,
    /// Why the process would have ended.
    fatal: mpsc::Receiver<String>,
    _dir: TempDir,
}

impl Gated {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (begin, begun) = mpsc::channel();
        let (go_on, word) = mpsc::channel();
        let (end, fatal) = mpsc::channel();
        let commit = move |batch: OwnedWriteBatch| {
            let _ = begin.send(());
            match word.recv() {
                Ok(false) => Err(fjall::Error::Poisoned),
                Ok(true) | Err(_) => batch.commit(),
            }
        };
        let fatal_hook = move |reason: &str| drop(end.send(reason.into()));
        let hooks = Hooks { commit: Box::new(commit), fatal: Arc::new(fatal_hook), free: None };
        let store = Arc::new(
            EmbeddedStore::open_with(config(dir.path()), hooks, Metrics::none(), &Budget::new(usize::MAX))
                .unwrap(),
        );
        Self { store, begun, go_on, fatal, _dir: dir }
    }

    /// Starts a write that holds the committer in its commit until the test says a word.
    fn hold(&self) -> tokio::task::JoinHandle<Result<bool, StoreError>> {
        let store = self.store.clone();
        let held =
            tokio::spawn(
                async move { store.change_user(&user("first"), UserChange::Name(None), None).await },
            );
        self.begun.recv().unwrap();
        held
    }

    /// Waits until so many writes are in the queue.
    async fn until_waiting(&self, writes: usize) {
        let queue = self.store.queue.as_ref().unwrap();
        while queue.waiting() < writes {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_share_a_commit_see_each_other() {
    let gated = Gated::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let talk = Talk::new(&[&alice]);
    let (same, other) = (temp_id(), temp_id());
    let first = talk.group(&alice, &[(same, "a")]);
    let rival = talk.group(&alice, &[(other, "b")]);
    let retry = talk.group(&alice, &[(same, "a")]);
    let mut next = Talk { id: talk.id, state: first.state.clone() }.group(&alice, &[(other, "b")]);
    next.entries[0].push = false;
    let (first, rival, retry, next) = (Arc::new(first), Arc::new(rival), Arc::new(retry), Arc::new(next));
    let id = talk.id;

    let held = gated.hold();
    // All six wait in the queue, in this order, before the commit in front of them ends.
    let mut appends = Vec::new();
    for group in [first, rival, retry, next] {
        let store = gated.store.clone();
        appends.push(tokio::spawn(async move { store.append(&group).await }));
        gated.until_waiting(appends.len()).await;
    }
    let store = gated.store.clone();
    let reads = tokio::spawn(async move {
        tokio::join!(
            biased;
            store.set_read(&bob, id, ReadPosition { seq: 2, messages: 2 }),
            store.set_read(&bob, id, ReadPosition { seq: 1, messages: 1 }),
        )
    });
    gated.until_waiting(6).await;
    gated.go_on.send(true).unwrap();
    held.await.unwrap().unwrap();
    gated.begun.recv().unwrap();
    assert!(!appends.iter().any(|append| append.is_finished()), "nobody is answered before the commit");
    assert_eq!(gated.store.conversation(id).await.unwrap(), None, "nothing is seen before the commit");
    gated.go_on.send(true).unwrap();

    let answers: Vec<_> =
        join_all(appends).await.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    let duplicate = Appended::Duplicates(vec![(0, Marker { seq: 1, digest: [1; 16] })]);
    assert_eq!(answers, [Appended::Applied, Appended::Conflict { head: 1 }, duplicate, Appended::Applied]);
    let (read, lower) = reads.await.unwrap();
    assert_eq!((read.unwrap(), lower.unwrap()), (true, false));
    assert_eq!(gated.store.conversation(id).await.unwrap().unwrap().head, 2);
    assert!(gated.begun.try_recv().is_err(), "two commits in all");
    drop(gated.go_on);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_acks_nobody_and_ends_the_process() {
    let gated = Gated::new();
    let alice = user("alice");
    let talk = Talk::new(&[&alice]);
    let id = talk.id;
    let group = talk.group(&alice, &[(temp_id(), "lost")]);
    let store = gated.store.clone();
    let appended = tokio::spawn(async move { store.append(&Arc::new(group)).await });
    gated.begun.recv().unwrap();
    gated.go_on.send(false).unwrap();
    let answer = appended.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(gated.fatal.recv().unwrap().contains("a commit failed"));
    let later = gated.store.change_user(&alice, UserChange::Name(None), None).await;
    assert!(matches!(later, Err(StoreError::Unavailable(_))), "{later:?}");
    assert_eq!(gated.store.conversation(id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_makes_writers_wait_and_loses_nothing() {
    let gated = Gated::new();
    let held = gated.hold();
    let users: Vec<_> = (0..committer::QUEUE_OPS_MAX + 50).map(|n| user(&format!("user-{n}"))).collect();
    let (store, all) = (gated.store.clone(), users.clone());
    let writes = tokio::spawn(async move {
        join_all(all.iter().map(|user| store.change_user(user, UserChange::Name(None), None))).await
    });
    gated.until_waiting(committer::QUEUE_OPS_MAX).await;
    assert!(!writes.is_finished());
    drop(gated.go_on); // no commit waits from here on
    held.await.unwrap().unwrap();
    for written in writes.await.unwrap() {
        written.unwrap();
    }
    let found = gated.store.users(&users).await.unwrap();
    assert!(found.iter().all(Option::is_some));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_writes_what_is_queued_and_refuses_what_comes_later() {
    let gated = Gated::new();
    let held = gated.hold();
    let (store, closing) = (gated.store.clone(), gated.store.clone());
    let queued =
        tokio::spawn(async move { store.change_user(&user("queued"), UserChange::Name(None), None).await });
    let queue = gated.store.queue.as_ref().unwrap();
    while queue.waiting() < 1 {
        tokio::task::yield_now().await;
    }
    let closed = tokio::spawn(async move { closing.close().await });
    while queue.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    drop(gated.go_on);
    closed.await.unwrap();
    held.await.unwrap().unwrap();
    queued.await.unwrap().unwrap();
    let late = gated.store.change_user(&user("late"), UserChange::Name(None), None).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    gated.store.close().await; // once more is fine
    let users = gated.store.users(&[user("queued"), user("late")]).await.unwrap();
    assert_eq!(users, [Some(User::default()), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_measured_by_its_entries() {
    let (dir, exporter) = (tempfile::tempdir().unwrap(), crate::ops::metrics::Exporter::new());
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(config(dir.path()), exporter.metrics()).unwrap());
    let alice = user("alice");
    let mut talk = Talk::new(&[&alice]);
    let group = talk.group(&alice, &[(temp_id(), "a"), (temp_id(), "b"), (temp_id(), "c")]);
    talk.apply(&store, group).await;
    let read = ReadPosition { seq: 1, messages: 1 };
    store.set_read(&user("bob"), talk.id, read).await.unwrap();
    let text = exporter.render();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("tern_store_commit_entries_sum"), "tern_store_commit_entries_sum 3");
    assert_eq!(line("tern_store_commit_entries_count"), "tern_store_commit_entries_count 1");
}

#[tokio::test]
async fn a_block_that_meets_what_cannot_be_read_is_made_whole_later_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    let (alice, bob) = (user("alice"), user("bob"));
    let id = ConversationId::pair(&alice, &bob);
    let store: Arc<dyn Store> = Arc::new(open());
    let mut talk = Talk::pair(&alice, &bob);
    let group = talk.group(&alice, &[(temp_id(), "hi")]);
    talk.apply(&store, group).await;
    drop(store);
    let store = open();
    let (head, block) = (keys::head(id), keys::block(&alice, &bob));
    let whole = store.disk.space.get(&head).unwrap().expect("the pair");
    store.disk.space.insert(&head[..], b"damaged").unwrap();
    let change = BlockChange { by: alice.clone(), user: bob.clone(), blocked: true, at_ms: 1, right: None };
    assert!(matches!(store.set_block(change.clone()).await, Err(StoreError::Corrupt(_))));
    assert!(store.blocks(&alice, None, 10).await.unwrap().is_empty());
    assert!(store.disk.space.get(&block).unwrap().is_none(), "no row of it");
    assert!(store.disk.space.get(keys::tally(&alice)).unwrap().is_none(), "nor does it count");
    store.disk.space.insert(&head[..], whole).unwrap();
    assert_eq!(store.set_block(change).await.unwrap(), BlockOutcome::Changed);
    assert_eq!(store.conversation(id).await.unwrap().unwrap().blocked_by, [alice]);
}
