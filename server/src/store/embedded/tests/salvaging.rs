//! Salvage: whatever a damaged store still has is in the new one, and the new one is in order.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tern_protocol::{ConversationId, EntryBody, TempId};
use uuid::Uuid;

use super::damage::{copy_dir, files};
use super::*;
use crate::store::contract::Talk;
use crate::store::{ReadPosition, Upkeep, glance_apart};

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

/// A store as a killed process leaves it, and the logs it had.
struct Image {
    dir: TempDir,
    logs: HashMap<ConversationId, Vec<Entry>>,
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Several conversations, most of it in tables; in the journal there is what is in no table, and what is.
async fn image(messages: usize) -> Image {
    image_of(messages, true).await
}

/// The same, perhaps with all of it in tables and nothing in the journal.
async fn image_of(messages: usize, has_journal: bool) -> Image {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let (alice, bob) = (user("alice"), user("bob"));
    let mut talks: Vec<_> = (0..4).map(|_| Talk::new(&[&alice, &bob])).collect();
    for name in [&alice, &bob] {
        store.change_user(name, UserChange::Name(Some("A Name".into())), None).await.unwrap();
    }
    for number in 0..messages {
        for talk in &mut talks {
            let text = format!("message {number} {:0128x}", rand::random::<u128>());
            let group = talk.group(&alice, &[(TempId::from_uuid(Uuid::new_v4()), &text)]);
            talk.apply(&shared, group).await;
        }
        if number == messages / 3 || number == messages * 2 / 3 {
            store.disk.space.rotate_memtable_and_wait().unwrap();
        }
    }
    store.set_read(&bob, talks[0].id, ReadPosition { seq: 2, messages: 2 }).await.unwrap();
    if !has_journal {
        store.disk.space.rotate_memtable_and_wait().unwrap();
    }
    let mut logs = HashMap::new();
    for talk in &talks {
        let log = store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        logs.insert(talk.id, log);
    }
    copy_dir(source.path(), dir.path());
    // Without what is preallocated, so that a copy costs little.
    let journal = dir.path().join("store/db/0.jnl");
    let mut file = fs::OpenOptions::new().read(true).write(true).open(journal).unwrap();
    let length = if has_journal { journals::data_end(&mut file).unwrap() } else { 0 };
    file.set_len(length).unwrap();
    Image { dir, logs }
}

impl Image {
    fn copy(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), dir.path());
        dir
    }

    /// Salvages, checks the new store and that the old one is as it was. What was salvaged, and how many
    /// entries are there as they were.
    async fn salvage(&self, dir: &Path, what: &str) -> (Salvaged, u64) {
        let to = tempfile::tempdir().unwrap();
        let before = contents(dir);
        let salvaged = salvage(&dir.join("store"), &to.path().join("store"));
        let salvaged = salvaged.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(contents(dir), before, "{what}: something was changed");
        assert_eq!(salvaged.findings.faults, Vec::<String>::new(), "{what}");
        let store = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
        assert_eq!(Some(store.store_id()), salvaged.store_id);
        let mut same = 0;
        for (id, log) in &self.logs {
            let now = store.entries(*id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
            for entry in &now {
                match log.get(entry.seq as usize - 1) {
                    Some(original) if original == entry => same += 1,
                    _ => assert!(!entry.body.is_message(), "{what}: {entry:?} was never written"),
                }
            }
        }
        (salvaged, same)
    }

    fn entries(&self) -> u64 {
        self.logs.values().map(|log| log.len() as u64).sum()
    }
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> =
        files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    found.sort();
    found
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("store/db/keyspaces/1/tables"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_whole_store_everything_is_salvaged() {
    let image = image(60).await;
    let (salvaged, same) = image.salvage(image.dir.path(), "whole").await;
    assert!(salvaged.is_whole(), "{salvaged:?}");
    assert_eq!(same, image.entries());
    let rows = |kind| salvaged.rows[kind].copied;
    assert_eq!((rows("dedupe markers"), rows("users"), rows("inbox rows")), (same, 2, 8));
    let source =
        Directory::identities_in(&image.dir.path().join("store"))[0].map(|identity| identity.store_id);
    assert_eq!(salvaged.previous_store_id, source);
    assert_ne!(salvaged.store_id, source, "clients must notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_a_table_costs_a_part_of_it_and_is_told() {
    let image = image_of(60, false).await;
    let (mut flipped, mut lost) = (0, 0);
    for table in tables(image.dir.path()) {
        let relative = table.strip_prefix(image.dir.path()).unwrap();
        let length = fs::metadata(&table).unwrap().len() as usize;
        for place in 0..12 {
            let dir = image.copy();
            flip(&dir.path().join(relative), length * place / 12);
            let what = format!("{} at {place}/12", relative.display());
            let (salvaged, same) = image.salvage(dir.path(), &what).await;
            let missing = image.entries() - same;
            flipped += 1;
            lost += u64::from(missing > 0);
            assert_eq!(salvaged.conversations.iter().map(|holes| holes.lost).sum::<u64>(), missing, "{what}");
            assert!(missing < image.entries() / 4, "{what}: {missing} of {} are lost", image.entries());
            let is_named = salvaged.damage.iter().any(|damage| damage.file.ends_with(relative));
            assert!(missing == 0 || is_named, "{what}: {:?}", salvaged.damage);
            assert!(!salvaged.is_whole() || missing == 0, "{what}");
        }
        let dir = image.copy();
        fs::remove_file(dir.path().join(relative)).unwrap();
        let (salvaged, _) = image.salvage(dir.path(), "a table is gone").await;
        assert!(!salvaged.is_whole());
    }
    assert!(flipped > 20 && lost > 3, "{lost} of {flipped} flips hit an entry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_journal_costs_one_commit_and_not_those_behind_it() {
    let image = image(60).await;
    let journal = image.dir.path().join("store/db/0.jnl");
    let end = journals::data_end(&mut fs::File::open(&journal).unwrap()).unwrap() as usize;
    for place in 1..16 {
        let dir = image.copy();
        flip(&dir.path().join("store/db/0.jnl"), end * place / 16);
        let what = format!("journal at {place}/16");
        let (_, same) = image.salvage(dir.path(), &what).await;
        assert!(same + 1 >= image.entries(), "{what}: {same} of {}", image.entries());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_its_lists_or_its_id_is_salvaged_whole() {
    let image = image(30).await;
    let store = PathBuf::from("store");
    let trees = store.join("db/keyspaces");
    let version = fs::read_dir(image.dir.path().join(&trees).join("1")).unwrap();
    let version = version.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let version = version.filter(|name| name.starts_with('v')).max().unwrap();
    for gone in [
        store.join("store.json"),
        store.join("commit-count"),
        store.join("lock"),
        store.join("db/version"),
        store.join("db/lock"),
        trees.join("0"),
        trees.join("1/current"),
        trees.join("1").join(version),
    ] {
        for is_emptied in [false, true] {
            let dir = image.copy();
            let path = dir.path().join(&gone);
            match path.is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false if is_emptied => fs::write(&path, "").unwrap(),
                false => fs::remove_file(&path).unwrap(),
            }
            let (_, same) = image.salvage(dir.path(), &gone.display().to_string()).await;
            assert_eq!(same, image.entries(), "{}", gone.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_erased_does_not_come_back_with_an_old_version_of_an_entry() {
    let (source, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let (alice, carol) = (user("alice"), user("carol"));
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..40 {
        let group = talk.group(&carol, &[(TempId::from_uuid(Uuid::new_v4()), "a secret")]);
        talk.apply(&shared, group).await;
    }
    store.disk.space.rotate_memtable_and_wait().unwrap();
    store.begin_erasure(&carol, UserId::erased([7; 16]), 50_000).await.unwrap();
    assert!(store.finish_erasure(&carol).await.unwrap());
    store.disk.space.rotate_memtable_and_wait().unwrap();
    let old = tables(source.path());
    let log = store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    let erased = log.iter().map(|entry| Entry {
        sender: UserId::erased([7; 16]),
        sender_name: None,
        temp_id: None,
        body: EntryBody::Erased,
        ..entry.clone()
    });
    store.rewrite(talk.id, erased.collect(), 40).await.unwrap();
    store.disk.space.rotate_memtable_and_wait().unwrap();
    drop((store, shared));
    // A block of the newest table is damaged, and the journal is gone: the older table has the texts.
    let new: Vec<_> = tables(source.path()).into_iter().filter(|table| !old.contains(table)).collect();
    assert_eq!((old.len(), new.len()), (2, 1));
    let length = fs::metadata(&new[0]).unwrap().len() as usize;
    fs::write(source.path().join("store/db/0.jnl"), "").unwrap();
    flip(&new[0], length / 8);
    let salvaged = salvage(&source.path().join("store"), &to.path().join("store")).unwrap();
    assert_eq!(salvaged.findings.faults, Vec::<String>::new());
    let lost: u64 = salvaged.conversations.iter().map(|holes| holes.lost).sum();
    assert!(lost > 0, "the damage must have hit entries: {salvaged:?}");
    let store = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
    let log = store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    assert!(!format!("{log:?}").contains("secret"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_salvaged_is_refused_with_the_reason() {
    let image = image(3).await;
    let to = tempfile::tempdir().unwrap();
    let (from, new) = (image.dir.path().join("store"), to.path().join("store"));
    let missing = salvage(&from.join("nowhere"), &new).unwrap_err();
    assert!(matches!(missing, SalvageError::Missing(_)), "{missing}");
    let before = contents(image.dir.path());
    let inside = salvage(&from, &from.join("new/store")).unwrap_err();
    assert!(matches!(inside, SalvageError::Inside { .. }), "{inside}");
    assert_eq!(contents(image.dir.path()), before);
    let node = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).unwrap();
    let held = salvage(&from, &new).unwrap_err();
    assert!(matches!(held, SalvageError::Open(OpenError::Locked { .. })), "{held}");
    drop(node);
    fs::create_dir(&new).unwrap();
    fs::write(new.join("something"), "").unwrap();
    let occupied = salvage(&from, &new).unwrap_err();
    assert!(matches!(occupied, SalvageError::Occupied(_)), "{occupied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_table_lost_is_taken_from_the_journal() {
    let image = image(60).await;
    for table in tables(image.dir.path()) {
        let dir = image.copy();
        let table = dir.path().join(table.strip_prefix(image.dir.path()).unwrap());
        let length = fs::metadata(&table).unwrap().len() as usize;
        flip(&table, length / 3);
        let (salvaged, same) = image.salvage(dir.path(), "a block whose rows are in the journal too").await;
        assert_eq!(same, image.entries());
        assert!(!salvaged.damage.is_empty() && salvaged.conversations.is_empty(), "{salvaged:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_all_damage_by_file_and_what_it_costs_and_writes_nothing() {
    let image = image_of(40, false).await;
    let store = image.dir.path().join("store");
    assert_eq!(verify_store(&store).unwrap().faults, Vec::<String>::new());
    // Two blocks of one table, one of another.
    let dir = image.copy();
    let mut damaged = Vec::new();
    for table in tables(image.dir.path()).iter().take(2) {
        let table = dir.path().join(table.strip_prefix(image.dir.path()).unwrap());
        let length = fs::metadata(&table).unwrap().len() as usize;
        flip(&table, length / 5);
        flip(&table, length / 2);
        damaged.push(table);
    }
    let before = contents(dir.path());
    let findings = verify_store(&dir.path().join("store")).unwrap();
    assert_eq!(contents(dir.path()), before);
    for table in damaged {
        let told = findings.faults.iter().filter(|fault| fault.contains(&table.display().to_string()));
        assert!(told.count() >= 2, "{}: {:#?}", table.display(), findings.faults);
    }
    let lost = findings.faults.iter().any(|fault| fault.contains(" lost ") && fault.contains("entries"));
    assert!(lost, "{:#?}", findings.faults);
    let told = |fault: &&String| fault.contains("/tables/") || fault.contains(" lost ");
    let invented: Vec<&String> = findings.faults.iter().filter(|fault| !told(fault)).collect();
    assert!(invented.is_empty(), "what follows from the damage is no fault of its own: {invented:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_check_finds_in_order_opens_and_is_read_whole() {
    let image = image(20).await;
    let (mut good, mut bad) = (0, 0);
    for file in files(&image.dir.path().join("store")) {
        let relative = file.strip_prefix(image.dir.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len() as usize;
        // Evenly, and where tables have their indexes: near the end.
        let places = (0..6).map(|sixth| length * sixth / 6);
        let places = places.chain([20, 50, 400, 700].into_iter().filter_map(|back| length.checked_sub(back)));
        for place in places.filter(|place| *place < length) {
            let dir = image.copy();
            flip(&dir.path().join(relative), place);
            let what = format!("{} at {place} of {length}", relative.display());
            let findings =
                verify_store(&dir.path().join("store")).unwrap_or_else(|error| panic!("{what}: {error}"));
            if findings.fault_count > 0 {
                bad += 1;
                continue;
            }
            good += 1;
            let store = EmbeddedStore::open(config(dir.path()), Metrics::none());
            let store = store.unwrap_or_else(|error| panic!("{what}: in order, and: {error}"));
            for (id, log) in &image.logs {
                let now = store.entries(*id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
                assert_eq!(now, *log, "{what}");
            }
        }
    }
    assert!(bad > 20, "{good} in order, {bad} not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_what_a_node_finds_of_whose_tables_they_are() {
    let (image, other) = (image_of(5, false).await, image_of(5, false).await);
    // In order, but it names another keyspace than ours.
    let (dir, foreign) = (image.copy(), tempfile::tempdir().unwrap());
    let db = fjall::Database::builder(foreign.path()).open().unwrap();
    db.keyspace("other", fjall::KeyspaceCreateOptions::default).unwrap();
    drop(db);
    let (store, own) = (dir.path().join("store"), dir.path().join("store/db/keyspaces/0"));
    fs::remove_dir_all(&own).unwrap();
    copy_dir(&foreign.path().join("keyspaces/0"), &own);
    assert!(archive::tables(&own).unwrap().is_some_and(|tables| !tables.is_empty()));
    let findings = verify_store(&store).unwrap();
    assert_eq!(findings.faults, ["db/keyspaces/0 is missing or damaged; a node writes it anew"]);
    drop(EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap());
    assert_eq!(verify_store(&store).unwrap().faults, [""; 0], "and did");
    // All rows are in order, but another store's.
    let (dir, spaces) = (image.copy(), "store/db/keyspaces");
    fs::remove_dir_all(dir.path().join(spaces)).unwrap();
    copy_dir(&other.dir.path().join(spaces), &dir.path().join(spaces));
    let findings = verify_store(&dir.path().join("store")).unwrap();
    assert_eq!(findings.faults, ["the tables in db/keyspaces are of another store"]);
    let refused = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap().to_string();
    assert!(refused.contains("the tables in db/keyspaces are of another store"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_store_with_a_damaged_block_serves_the_rest() {
    const PLACES: usize = 64;
    let image = image_of(60, false).await;
    let (alice, mut noticed) = (user("alice"), 0);
    let table = tables(image.dir.path()).into_iter().max_by_key(|table| fs::metadata(table).unwrap().len());
    let table = table.unwrap();
    let relative = table.strip_prefix(image.dir.path()).unwrap();
    let length = fs::metadata(&table).unwrap().len() as usize;
    for place in 0..PLACES {
        let dir = image.copy();
        flip(&dir.path().join(relative), length * place / PLACES);
        // Some damage is found at once: salvage is the way out of that.
        let Ok(store) = EmbeddedStore::open(config(dir.path()), Metrics::none()) else { continue };
        let rows = store.inbox(&alice, None, usize::MAX).await.unwrap();
        let shards: Vec<u8> = (0..=255).collect();
        let intents = store.intents(&shards, 0..=u64::MAX, usize::MAX).await.unwrap();
        store.clear_intents(&intents).await.unwrap();
        store.change_user(&alice, UserChange::Name(Some("Another".into())), None).await.unwrap();
        let ids: Vec<ConversationId> = rows.iter().map(|row| row.conversation).collect();
        let glances = glance_apart(&store, &ids).await.unwrap();
        let listed = store.conversations(None, usize::MAX).await.unwrap();
        let mut read = 0;
        for (id, log) in &image.logs {
            let page = store.entries(*id, 1..=u64::MAX, Order::Ascending, ALL).await;
            read += usize::from(page.is_ok_and(|page| page == *log));
        }
        let lost = (4 - rows.len()) + glances.damaged.len() + (4 - listed.len()) + (4 - read);
        let left = image.entries() as usize - intents.len();
        assert!(left <= image.entries() as usize / 2, "place {place}: {left} intents");
        noticed += u32::from(lost > 0 || left > 0);
        // Also where another row said the same, and nothing was missing.
        assert!(store.damage().is_some() || lost == 0 && left == 0, "place {place}");
        store.health().await.expect("it goes on");
        if let Some(words) = store.damage() {
            assert!(words.contains("tern store salvage"), "{words}");
            let refused = store.backup(&dir.path().join("backup")).await.map(drop);
            let refused = refused.map_or_else(|error| error.to_string(), |()| "tern store salvage".into());
            assert!(refused.contains("tern store salvage"), "{refused}");
        }
    }
    assert!(noticed > 3, "{noticed} of {PLACES}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_must_not_be_written_is_read_through_a_scratch_directory() {
    let image = image(20).await;
    let (scratch, store) = (tempfile::tempdir().unwrap(), image.dir.path().join("store"));
    let before = contents(image.dir.path());
    let copy = Scratch::of(&store, scratch.path()).unwrap();
    let held = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap();
    assert!(matches!(held, OpenError::Locked { .. }), "{held}");
    let opened = EmbeddedConfig { dir: copy.path().into(), ..config(scratch.path()) };
    let opened = EmbeddedStore::open(opened, Metrics::none()).unwrap();
    for (id, log) in &image.logs {
        assert_eq!(opened.entries(*id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap(), *log);
    }
    opened.backup(&scratch.path().join("backup")).await.unwrap();
    opened.compact().await.unwrap();
    opened.close().await;
    drop(opened);
    assert_eq!(contents(image.dir.path()), before, "not even tables that were merged are gone");
    drop(copy);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "only the backup is left");
    assert_eq!(Backup::open(&scratch.path().join("backup")).unwrap().verify().unwrap().fault_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scratch_directory_in_the_store_is_refused() {
    let image = image(3).await;
    let store = image.dir.path().join("store");
    let link = image.dir.path().join("link");
    std::os::unix::fs::symlink(&store, &link).unwrap();
    let before = contents(&store);
    for scratch in [store.clone(), store.join("db/new/scratch"), link.join("scratch"), store.join("../store")]
    {
        for dir in [&store, &link] {
            let refused = Scratch::of(dir, &scratch).err().unwrap();
            assert!(matches!(refused, OpenError::ScratchInside { .. }), "{refused}");
        }
        assert_eq!(contents(&store), before, "{}", scratch.display());
    }
    // Beside it, it is none of its files.
    let beside = image.dir.path().join("store-scratch");
    drop(Scratch::of(&store, &beside).unwrap());
    let missing = Scratch::of(&beside, &store).err().unwrap();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_the_same_in_each_store_are_written_anew() {
    let image = image(5).await;
    for (name, bytes) in
        [("version", None), ("version", Some("FJ")), ("version", Some("xxxx")), ("lock", None)]
    {
        let dir = image.copy();
        let path = dir.path().join("store/db").join(name);
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let store = EmbeddedStore::open(config(dir.path()), Metrics::none());
        let store = store.unwrap_or_else(|error| panic!("{name} {bytes:?}: {error}"));
        for (id, log) in &image.logs {
            assert_eq!(store.entries(*id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap(), *log);
        }
    }
}
