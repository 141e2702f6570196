//! Compacting: nothing of what was replaced stays on the disk, in no file, and a disk that fails is told.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tern_protocol::{EntryBody, TempId};
use uuid::Uuid;

use super::*;
use crate::budget::Budget;
use crate::store::contract::Talk;
use crate::store::{Appended, Upkeep};

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };
/// A hang, not a slow machine.
const HANGS: Duration = Duration::from_secs(60);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn temp_id() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

/// Files under a directory that hold these bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if fs::read(&path).is_ok_and(|file| file.windows(bytes.len()).any(|part| part == bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A text that nothing can pack.
fn noise(length: usize) -> String {
    (0..length / 32).map(|_| format!("{:032x}", rand::random::<u128>())).collect()
}

async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < HANGS, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_replaced_text_is_in_any_file_after_compacting() {
    let disk = OnDisk::new(true);
    let (alice, shared) = (user("alice"), disk.store());
    let store = disk.store.clone().unwrap();
    let mut talk = Talk::new(&[&alice]);
    for number in 0..20 {
        let text = format!("CANARY{number} {}", noise(64));
        let group = talk.group(&alice, &[(temp_id(), &text)]);
        talk.apply(&shared, group).await;
        if number == 10 {
            store.disk.space.rotate_memtable_and_wait().unwrap();
        }
    }
    let dir = disk.dir.path();
    let lost = dir.join("store/lost-journals-1");
    for left in [dir.join("store/cut-tails"), lost] {
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0.jnl"), "CANARY").unwrap();
    }
    let log = store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    let erased = log.iter().map(|entry| Entry { body: EntryBody::Erased, ..entry.clone() }).collect();
    store.rewrite(talk.id, erased, 20).await.unwrap();
    assert!(holding(dir, b"CANARY").len() >= 4, "it must be seen where it is: {:?}", holding(dir, b"CANARY"));
    // Others write meanwhile.
    let mut other = Talk::new(&[&alice]);
    let writing = tokio::spawn(async move {
        loop {
            let group = other.group(&alice, &[(temp_id(), "meanwhile")]);
            other.apply(&shared, group).await;
        }
    });
    let compacted = store.compact().await.unwrap();
    writing.abort();
    let _ = writing.await;
    assert_eq!(holding(dir, b"CANARY"), [""; 0]);
    assert_eq!(compacted.held_files, 0);
    assert_eq!(store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacting_a_running_store_leaves_no_old_files_and_says_what_is_there() {
    let disk = OnDisk::new(true);
    let (alice, shared) = (user("alice"), disk.store());
    let store = disk.store.clone().unwrap();
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..20 {
        let texts: Vec<_> = (0..16).map(|_| (temp_id(), noise(16_000))).collect();
        let texts: Vec<_> = texts.iter().map(|(temp_id, text)| (*temp_id, &**text)).collect();
        let group = talk.group(&alice, &texts);
        talk.apply(&shared, group).await;
    }
    let dir = disk.dir.path().join("store");
    let tables = || space::used(&dir.join("db/keyspaces")).unwrap();
    store.compact().await.unwrap();
    let once = tables();
    let again = store.compact().await.unwrap();
    assert!(tables() < once + once / 5, "{} bytes, then {}", once, tables());
    assert_eq!((again.held_files, again.bytes_after), (0, space::used(&dir).unwrap()));
    assert!(again.bytes_needed > once, "{again:?}");
    let frozen = store.submit(0, |reply| Op::Snapshot { reply }).await.unwrap();
    // What reads, reads on; and is said to hold files.
    assert!(store.compact().await.unwrap().held_files > 0);
    drop(frozen);
    assert_eq!(store.compact().await.unwrap().held_files, 0);
}

/// A store whose end is noted instead of ending the process, and the free space that it is told.
fn watched(dir: &Path) -> (EmbeddedStore, Arc<Mutex<Vec<String>>>, Arc<AtomicU64>) {
    let (ends, free) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(u64::MAX)));
    let (noted, told) = (ends.clone(), free.clone());
    let hooks = Hooks {
        commit: Box::new(OwnedWriteBatch::commit),
        fatal: Arc::new(move |reason: &str| noted.lock().push(reason.to_owned())),
        free: Some(Box::new(move || Some(told.load(SeqCst)))),
    };
    (
        EmbeddedStore::open_with(config(dir), hooks, Metrics::none(), &Budget::new(usize::MAX)).unwrap(),
        ends,
        free,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_write_its_tables_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ends, _) = watched(dir.path());
    store.change_user(&user("alice"), UserChange::Name(None), None).await.unwrap();
    store.health().await.unwrap();
    let tables = store.disk.space.path().join("tables");
    fs::rename(&tables, tables.with_extension("away")).unwrap();
    let failed = tokio::time::timeout(HANGS, store.compact()).await.expect("it hangs");
    assert!(failed.is_err(), "{failed:?}");
    assert!(store.health().await.is_err(), "it is not ready");
    wait_for("nobody noticed", || !ends.lock().is_empty()).await;
    assert!(ends.lock()[0].contains("takes no more"), "{:?}", ends.lock());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_little_room_no_message_is_taken_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ends, free) = watched(dir.path());
    let (store, alice) = (Arc::new(store), user("alice"));
    let shared: Arc<dyn Store> = store.clone();
    let mut talk = Talk::new(&[&alice]);
    let known = talk.group(&alice, &[(temp_id(), "before")]);
    talk.apply(&shared, known.clone()).await;
    let next = Arc::new(talk.group(&alice, &[(temp_id(), "while it is full")]));
    free.store(1024, SeqCst);
    wait_for("it was not noticed", || store.disk.room.check().is_err()).await;
    let refused = store.append(&next).await;
    assert!(matches!(&refused, Err(StoreError::Full(why)) if why.contains("free 1 MiB")), "{refused:?}");
    let why = store.health().await.unwrap_err().to_string();
    assert!(why.contains("free 1 MiB"), "{why}");
    // What was taken before is still known, and what only reads still works.
    let retried = store.append(&Arc::new(known)).await.unwrap();
    assert!(matches!(retried, Appended::Duplicates(_)), "{retried:?}");
    store.set_read(&alice, talk.id, ReadPosition { seq: 1, messages: 1 }).await.unwrap();
    free.store(u64::MAX, SeqCst);
    wait_for("it does not heal", || store.disk.room.check().is_ok()).await;
    assert_eq!(store.append(&next).await.unwrap(), Appended::Applied);
    assert!(ends.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_on_a_full_disk_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { free_mib_min: u32::MAX, ..config(dir.path()) };
    let store = EmbeddedStore::open(config, Metrics::none()).unwrap();
    let why = store.health().await.unwrap_err().to_string();
    assert!(why.contains("free ") && why.contains(" MiB"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_compacting_could_not_do_is_told_with_the_file() {
    let disk = OnDisk::new(true);
    let store = disk.store.clone().unwrap();
    let dir = disk.dir.path().join("store");
    let failed = async || match store.compact().await {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    };
    // A file where a directory is expected, and a directory in the place of a file.
    fs::write(dir.join("cut-tails"), "").unwrap();
    let why = failed().await;
    assert!(why.contains("removing") && why.contains("store/cut-tails failed: "), "{why}");
    fs::remove_file(dir.join("cut-tails")).unwrap();
    fs::create_dir(dir.join("manifest-copy.new")).unwrap();
    let why = failed().await;
    assert!(why.contains("writing") && why.contains("store/manifest-copy failed: "), "{why}");
    fs::remove_dir(dir.join("manifest-copy.new")).unwrap();
    store.compact().await.unwrap();
}
