//! Recovery under an accepted loss: it makes nothing worse than it found it, and says so where it cannot help.

use std::fs;
use std::path::{Path, PathBuf};

use super::damage::{Image, files, image};
use super::*;

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut tables = files(&dir.join("store/db/keyspaces/1/tables"));
    tables.sort();
    tables
}

/// The file that names the tables of ours.
fn manifest(dir: &Path) -> PathBuf {
    let tree = dir.join("store/db/keyspaces/1");
    tree.join(archive::Manifest::name(&fs::read(tree.join("current")).unwrap()).unwrap())
}

/// Every message is salvaged: the tables have the first eleven, the journal the rest.
async fn is_salvaged(image: &Image, dir: &Path, what: &str) {
    let to = tempfile::tempdir().unwrap();
    let salvaged = salvage(&dir.join("store"), &to.path().join("store"));
    salvaged.unwrap_or_else(|error| panic!("{what}: {error}"));
    let store = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
    let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    assert!(log.len() >= 11, "{what}: {} messages are left", log.len());
    assert_eq!(log[..11], image.log[..11], "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_leaves_the_tables_where_the_database_would_remove_them() {
    let image = image(20, true).await;
    let relative = |path: PathBuf| path.strip_prefix(image.dir.path()).unwrap().to_owned();
    let lists = [
        PathBuf::from("store/db/keyspaces/0/current"),
        PathBuf::from("store/db/keyspaces/1/current"),
        relative(manifest(image.dir.path())),
    ];
    // Which store it is stands in all three places, or only in the tables.
    for (is_known, has_copy) in [(true, true), (true, false), (false, false)] {
        for (list, is_gone) in lists.iter().flat_map(|list| [(list, true), (list, false)]) {
            let dir = image.copy();
            let store = dir.path().join("store");
            let what = format!("{} {is_gone} {is_known} {has_copy}", list.display());
            flip(&store.join("db/0.jnl"), image.ends[2] as usize + 40);
            if !has_copy {
                fs::remove_file(store.join("manifest-copy")).unwrap();
            }
            if !is_known {
                fs::remove_file(store.join("commit-count")).unwrap();
                // Not one commit of the journal can be read.
                fs::write(store.join("db/0.jnl"), [0xff; 100]).unwrap();
            }
            let list = dir.path().join(list);
            match is_gone {
                true => fs::remove_file(&list).unwrap(),
                false => flip(&list, 9),
            }
            let before = tables(dir.path());
            match recover_accept_loss(&store) {
                Ok(recovered) => {
                    assert_eq!(recovered.commits, 11, "{what}: {recovered:?}");
                    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
                    let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
                    assert_eq!(log, image.log[..11], "{what}");
                }
                Err(error) => {
                    assert!(matches!(error, OpenError::Beyond { .. }), "{what}: {error}");
                    assert!(error.to_string().contains("tern store salvage"), "{what}: {error}");
                    // With its copy each is written anew; that of the database's own keyspace needs none.
                    assert!(!has_copy && !list.starts_with(store.join("db/keyspaces/0")), "{what}: {error}");
                    assert_eq!(tables(dir.path()), before, "{what}");
                    is_salvaged(&image, dir.path(), &what).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_nothing_left_but_its_count_is_not_replaced_by_an_empty_one() {
    let image = image(5, false).await;
    let store = image.dir.path().join("store");
    fs::remove_dir_all(store.join("db")).unwrap();
    fs::remove_file(store.join("store.json")).unwrap();
    let count = fs::read(store.join("commit-count")).unwrap();
    for _ in 0..2 {
        let error = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap();
        assert!(matches!(error, OpenError::Lost { found: 0, expected: 5, .. }), "{error}");
        assert_eq!(fs::read(store.join("commit-count")).unwrap(), count);
    }
    // Nor if the count cannot be read.
    let dir = image.copy();
    let store = dir.path().join("store");
    fs::remove_file(store.join("store.json")).unwrap();
    fs::write(store.join("commit-count"), "tern").unwrap();
    let error = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
    assert!(error.to_string().contains("commit-count cannot be read"), "{error}");
    // Accepted, it goes on empty and as another one.
    let recovered = recover_accept_loss(&image.dir.path().join("store")).unwrap();
    assert_eq!((recovered.commits, recovered.missing), (0, Some(5)));
    assert_eq!(recovered.previous_store_id, image.store_id);
    let store = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).unwrap();
    assert_eq!(store.store_id(), recovered.store_id);
}

#[test]
fn a_store_that_was_made_and_never_written_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    Directory::claim(&dir.path().join("store")).unwrap().create().unwrap();
    fs::remove_file(dir.path().join("store/store.json")).unwrap();
    EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_advised_is_done_or_salvage_is() {
    let image = image(20, true).await;
    for name in ["store.json", "commit-count"] {
        fs::remove_file(image.dir.path().join("store").join(name)).unwrap();
    }
    let refused = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap().to_string();
    assert!(refused.contains("commit-count is missing") && refused.contains("recover"), "{refused}");
    // Whose it was stands in each of its commits; what its clients called it, and how many there were, nowhere.
    let dir = image.copy();
    let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
    assert_eq!((recovered.commits, recovered.missing), (20, None));
    assert_eq!(recovered.previous_store_id, StoreId::from_bytes([0; 16]));
    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    assert_eq!(log, image.log);
    // Nothing says whose it was.
    let dir = image.copy();
    fs::remove_dir_all(dir.path().join("store/db/keyspaces/1/tables")).unwrap();
    fs::write(dir.path().join("store/db/0.jnl"), "").unwrap();
    let error = recover_accept_loss(&dir.path().join("store")).unwrap_err();
    assert!(matches!(error, OpenError::Beyond { .. }), "{error}");
    assert!(error.to_string().contains("no file says which store it is"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_its_tables_and_their_list_is_told_with_a_way_out() {
    let image = image(20, true).await;
    let tree = image.dir.path().join("store/db/keyspaces/1");
    fs::remove_dir_all(tree.join("tables")).unwrap();
    for is_listed in [true, false] {
        if !is_listed {
            fs::remove_file(tree.join("current")).unwrap();
        }
        let error = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap();
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
        let what = if is_listed { "tables/0 is missing" } else { "current is missing" };
        assert!(error.to_string().contains(&format!("db/keyspaces/1/{what}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_a_store_without_its_database_says_what_is_missing() {
    let image = image(5, false).await;
    let store = image.dir.path().join("store");
    fs::remove_dir_all(store.join("db")).unwrap();
    let findings = verify_store(&store).unwrap();
    let is_told = findings.faults.iter().any(|fault| fault.contains("5 of the last commits are missing"));
    assert!(is_told, "{:#?}", findings.faults);
    for name in ["store.json", "commit-count"] {
        fs::remove_file(store.join(name)).unwrap();
    }
    assert!(matches!(verify_store(&store), Err(OpenError::Missing { .. })));
}
