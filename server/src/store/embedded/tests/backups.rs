//! Backups: whole or not valid, of one moment, and damage in them is told.

use std::fs;
use std::sync::atomic::Ordering::SeqCst;

use tern_protocol::TempId;
use uuid::Uuid;

use super::*;
use crate::store::contract::Talk;

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn say(store: &Arc<dyn Store>, talk: &mut Talk, text: &str) {
    let group = talk.group(&user("alice"), &[(TempId::from_uuid(Uuid::new_v4()), text)]);
    talk.apply(store, group).await;
}

/// A backup of a store with some entries, and the directory it is in.
async fn taken(entries: usize) -> (TempDir, Manifest) {
    let disk = OnDisk::new(true);
    let mut talk = Talk::new(&[&user("alice"), &user("bob")]);
    for _ in 0..entries {
        say(&disk.store(), &mut talk, "a message").await;
    }
    let dir = tempfile::tempdir().unwrap();
    let manifest = disk.store.as_ref().unwrap().backup(&dir.path().join("b")).await.unwrap();
    (dir, manifest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_all_that_was_acked_before_and_nothing_torn() {
    let disk = OnDisk::new(true);
    let dir = tempfile::tempdir().unwrap();
    let acked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut talk = Talk::new(&[&user("alice"), &user("bob")]);
    let id = talk.id;
    let sending = tokio::spawn({
        let (store, acked) = (disk.store(), acked.clone());
        async move {
            loop {
                say(&store, &mut talk, "under load").await;
                acked.store(talk.state.head, SeqCst);
            }
        }
    });
    for round in 0..5 {
        while acked.load(SeqCst) < round * 20 + 1 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let before = acked.load(SeqCst);
        let (backup, to) = (dir.path().join(format!("b{round}")), dir.path().join(format!("s{round}")));
        disk.store.as_ref().unwrap().backup(&backup).await.unwrap();
        let (_, findings) = Backup::open(&backup).unwrap().restore(&to).unwrap();
        assert_eq!(findings.fault_count, 0);
        let store = EmbeddedStore::open(
            EmbeddedConfig { dir: to, cache_mib: 8, free_mib_min: 1, ..EmbeddedConfig::default() },
            Metrics::none(),
        )
        .unwrap();
        let log = store.entries(id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        let head = store.conversation(id).await.unwrap().unwrap().head;
        assert!(head >= before, "acked before the backup began, and not in it: {before} > {head}");
        assert!(log.iter().map(|entry| entry.seq).eq(1..=head));
    }
    sending.abort();
    let _ = sending.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_without_its_manifest_or_with_any_damage_is_refused() {
    let (dir, manifest) = taken(20).await;
    let backup = dir.path().join("b");
    let rows = backup.join("rows-000001.tern");
    let good = (fs::read(backup.join("manifest.json")).unwrap(), fs::read(&rows).unwrap());
    let check = || {
        let to = dir.path().join("restored");
        let restored = Backup::open(&backup).and_then(|backup| backup.restore(&to).map(|_| ()));
        let there = to.exists();
        restored.map_err(|error| (error.to_string(), there))
    };
    for byte in (0..good.1.len()).step_by(37).chain(0..9) {
        let mut bytes = good.1.clone();
        bytes[byte] ^= 0x10;
        fs::write(&rows, &bytes).unwrap();
        let (text, there) = check().unwrap_err();
        assert!(text.contains("rows-000001.tern"), "byte {byte}: {text}");
        assert!(!there, "something was restored");
    }
    fs::write(&rows, &good.1[..good.1.len() - 1]).unwrap();
    assert!(check().unwrap_err().0.contains("length"));
    fs::remove_file(&rows).unwrap();
    assert!(check().unwrap_err().0.contains("is missing"));
    fs::write(&rows, &good.1).unwrap();
    let text = String::from_utf8(good.0.clone()).unwrap();
    let other = text.replace(&format!("\"commits\": {}", manifest.commits), "\"commits\": 9");
    assert_ne!(text, other);
    fs::write(backup.join("manifest.json"), other).unwrap();
    assert!(check().unwrap_err().0.contains("check sum"));
    fs::remove_file(backup.join("manifest.json")).unwrap();
    assert!(check().unwrap_err().0.contains("not finished"));
    fs::write(backup.join("manifest.json"), good.0).unwrap();
    check().unwrap();
    assert!(check().unwrap_err().0.contains("not empty"), "a store is never overwritten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_never_overwrites_and_a_closed_store_gives_none() {
    let (dir, _) = taken(1).await;
    let disk = OnDisk::new(true);
    let store = disk.store.as_ref().unwrap();
    let refused = store.backup(&dir.path().join("b")).await.unwrap_err();
    assert!(matches!(refused, BackupError::Occupied(_)), "{refused}");
    store.close().await;
    let refused = store.backup(&dir.path().join("c")).await.unwrap_err();
    assert!(matches!(refused, BackupError::Store(_)), "{refused}");
    assert!(!Backup::is_one(&dir.path().join("c")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_together_is_told_by_name() {
    let disk = OnDisk::new(true);
    let mut talk = Talk::new(&[&user("alice"), &user("bob")]);
    for _ in 0..5 {
        say(&disk.store(), &mut talk, "a message").await;
    }
    let rows = |keep: &dyn Fn(&[u8]) -> bool| {
        let mut checker = verify::Checker::default();
        for item in disk.store.as_ref().unwrap().disk.space.iter() {
            let (key, value) = item.into_inner().unwrap();
            if keep(&key) {
                checker.row(&key, &value);
            }
        }
        checker.finish(None)
    };
    assert_eq!(rows(&|_| true).faults, Vec::<String>::new());
    let (id, alice) = (talk.id, user("alice"));
    let first_marker = {
        let log = disk.store().entries(id, 1..=1, Order::Ascending, ALL).await.unwrap();
        keys::marker(id, &alice, log[0].temp_id.unwrap())
    };
    for (missing, words) in [
        (keys::entry(id, 3), "entry 4"),
        (keys::entry(id, 5), "the last entry is 4"),
        (keys::head(id), "no head"),
        (keys::shape(id), "members"),
        (keys::row(&alice, id), "1 of its 2 members"),
        (first_marker, "4 dedupe markers are not those of its 5 entries"),
        (keys::commit(2), "commits before 5 are missing"),
    ] {
        let findings = rows(&|key| key != missing);
        assert!(findings.fault_count > 0, "{words}");
        assert!(findings.faults.iter().any(|fault| fault.contains(words)), "{words}: {:?}", findings.faults);
    }
}
