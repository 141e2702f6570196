//! Damaged, foreign and busy data directories: what was acknowledged is served, or the store says
//! what is missing and refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tern_protocol::{ConversationId, TempId};
use uuid::Uuid;

use super::*;
use crate::store::contract::Talk;
use crate::store::embedded::tripwire::CountFile;

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

/// A directory as a process leaves it that was killed.
pub(super) struct Image {
    pub(super) dir: TempDir,
    pub(super) talk: ConversationId,
    pub(super) log: Vec<Entry>,
    pub(super) store_id: StoreId,
    /// Length of the journal after each commit.
    pub(super) ends: Vec<u64>,
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&path, &target);
        } else {
            journals::copy(&path, &target).unwrap();
        }
    }
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("store/db/0.jnl")
}

pub(super) fn data_end(path: &Path) -> u64 {
    journals::data_end(&mut fs::File::open(path).unwrap()).unwrap()
}

/// `commits` messages, each acknowledged; if asked, the first half of them moved to a table.
pub(super) async fn image(commits: usize, has_table: bool) -> Image {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let alice = UserId::new("alice").unwrap();
    let mut talk = Talk::new(&[&alice]);
    let mut ends = Vec::new();
    for number in 0..commits {
        let temp_id = TempId::from_uuid(Uuid::new_v4());
        let group = talk.group(&alice, &[(temp_id, "a message that was acknowledged")]);
        talk.apply(&shared, group).await;
        if has_table && number == commits / 2 {
            store.disk.space.rotate_memtable_and_wait().unwrap();
        }
        ends.push(data_end(&journal(source.path())));
    }
    wait_for_count(source.path(), commits as u64);
    store.manifests.note().unwrap();
    copy_dir(source.path(), dir.path());
    let log = store.entries(talk.id, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    Image { dir, talk: talk.id, log, store_id: store.store_id(), ends }
}

/// The tripwire reaches the last commit by itself; a minute only keeps a broken one from hanging.
fn wait_for_count(dir: &Path, count: u64) {
    let started = Instant::now();
    while counted(dir) != count {
        assert!(started.elapsed() < Duration::from_secs(60), "the tripwire is behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn counted(dir: &Path) -> u64 {
    CountFile::open(&dir.join("store/commit-count")).unwrap().unwrap().1.count
}

impl Image {
    pub(super) fn copy(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), dir.path());
        dir
    }

    /// Every acknowledged entry with its marker, at its seq, or an error; never less.
    pub(super) async fn is_intact(&self, store: &EmbeddedStore) -> Result<(), StoreError> {
        let log = store.entries(self.talk, 1..=u64::MAX, Order::Ascending, ALL).await?;
        assert_eq!(log, self.log);
        for entry in &self.log {
            let marker = store.marker(self.talk, &entry.sender, entry.temp_id.unwrap(), 0).await?;
            assert_eq!(marker.map(|marker| marker.seq), Some(entry.seq));
        }
        let state = store.conversation(self.talk).await?.expect("it was acknowledged");
        assert_eq!(state.head, self.log.len() as u64);
        assert_eq!(store.store_id(), self.store_id);
        Ok(())
    }
}

/// Opens a damaged copy: intact, or refused with the way out. Says which.
async fn served_or_refused(image: &Image, dir: &Path, what: &str) -> bool {
    match EmbeddedStore::open(config(dir), Metrics::none()) {
        Ok(store) => match image.is_intact(&store).await {
            Ok(()) => true,
            Err(StoreError::Corrupt(_) | StoreError::Unavailable(_)) => false,
            Err(error) => panic!("{what}: {error}"),
        },
        Err(error @ (OpenError::Lost { .. } | OpenError::Damaged { .. })) => {
            let text = error.to_string();
            assert!(text.contains("tern store recover --accept-loss --data-dir"), "{what}: {text}");
            let again = EmbeddedStore::open(config(dir), Metrics::none()).err();
            assert!(again.is_some(), "{what}: refused only once: {text}");
            false
        }
        Err(OpenError::Newer { .. }) => false, // the damage hit the format number
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Damages the file at many places; returns how many were served and refused.
async fn damage(image: &Image, file: &Path, places: usize) -> (usize, usize) {
    let relative = file.strip_prefix(image.dir.path()).unwrap();
    let end = data_end(file);
    let (mut served, mut refused) = (0, 0);
    for place in 0..places {
        let offset = end * place as u64 / places as u64;
        for is_cut in [false, true] {
            let dir = image.copy();
            let path = dir.path().join(relative);
            if is_cut {
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(offset).unwrap();
            } else {
                let mut bytes = fs::read(&path).unwrap();
                bytes[offset as usize] ^= 1 << (place % 8);
                fs::write(&path, bytes).unwrap();
            }
            let what = format!("{} at {offset}, cut: {is_cut}", relative.display());
            let counter =
                if served_or_refused(image, dir.path(), &what).await { &mut served } else { &mut refused };
            *counter += 1;
        }
    }
    (served, refused)
}

/// Every file of a store, largest last.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_store_has_everything_it_acknowledged() {
    for has_table in [false, true] {
        let image = image(20, has_table).await;
        let store = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).unwrap();
        image.is_intact(&store).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_served_whole_or_refused() {
    for has_table in [false, true] {
        let image = image(12, has_table).await;
        let (_, refused) = damage(&image, &journal(image.dir.path()), 16).await;
        assert!(refused > 0, "the damage must have been noticed somewhere");
    }
}

/// Splits the journal between two commits, as if the database had begun a new one there.
fn split(dir: &Path, ends: &[u64], after: usize, drop: usize) {
    let bytes = fs::read(journal(dir)).unwrap();
    let (first, second) = (ends[after - 1] as usize, ends[after + drop - 1] as usize);
    fs::write(journal(dir), &bytes[..first]).unwrap();
    fs::write(dir.join("store/db/1.jnl"), &bytes[second..]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_between_two_journals_is_noticed() {
    let image = image(12, false).await;
    let open = |dir: &TempDir| EmbeddedStore::open(config(dir.path()), Metrics::none()).map(drop);

    let dir = image.copy();
    split(dir.path(), &image.ends, 6, 0);
    open(&dir).expect("nothing is missing");

    // The end of the sealed journal is gone, to the byte.
    let dir = image.copy();
    split(dir.path(), &image.ends, 6, 2);
    let error = open(&dir).unwrap_err().to_string();
    assert!(error.contains("commit 6 is followed by 9"), "{error}");

    // It is unreadable: nothing of the directory may be changed by looking.
    let dir = image.copy();
    split(dir.path(), &image.ends, 6, 0);
    let mut bytes = fs::read(journal(dir.path())).unwrap();
    let start = bytes.len() - 3;
    bytes[start..].fill(0xff);
    fs::write(journal(dir.path()), &bytes).unwrap();
    for _ in 0..2 {
        let error = open(&dir).unwrap_err().to_string();
        assert!(error.contains("db/0.jnl cannot be used from byte"), "{error}");
        assert_eq!(fs::read(journal(dir.path())).unwrap(), bytes);
    }

    // A journal in the middle is gone.
    let dir = image.copy();
    split(dir.path(), &image.ends, 6, 0);
    fs::rename(dir.path().join("store/db/1.jnl"), dir.path().join("store/db/2.jnl")).unwrap();
    let error = open(&dir).unwrap_err().to_string();
    assert!(error.contains("db/1.jnl is missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_moved_in_time_by_a_flipped_bit_is_noticed() {
    // The sequence number of a commit is outside its check sum. With a lower one its new values
    // would hide behind older ones.
    let image = image(12, false).await;
    let mut bytes = fs::read(journal(image.dir.path())).unwrap();
    let seqno = image.ends[7] as usize + 5;
    let highest_bit = 7 - bytes[seqno].leading_zeros();
    bytes[seqno] ^= 1 << highest_bit;
    fs::write(journal(image.dir.path()), &bytes).unwrap();
    let error = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap().to_string();
    assert!(error.contains("commit 8 is followed by 9 (sequence number"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_lost_before_all_others_is_noticed() {
    // Nothing in the other journals tells; the numbers of the commits do.
    let image = image(12, false).await;
    split(image.dir.path(), &image.ends, 6, 0);
    fs::remove_file(journal(image.dir.path())).unwrap();
    let error = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap().to_string();
    assert!(error.contains("6 of the commits before 12 are missing"), "{error}");
    let error = recover_accept_loss(&image.dir.path().join("store")).unwrap_err();
    assert!(matches!(error, OpenError::Beyond { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_commits_are_counted_and_accepted_only_under_a_new_id() {
    let image = image(12, false).await;
    let dir = image.copy();
    let store_dir = dir.path().join("store");
    let file = fs::OpenOptions::new().write(true).open(journal(dir.path())).unwrap();
    file.set_len(image.ends[8] + 5).unwrap(); // nine commits and a torn one
    let refused = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
    assert!(matches!(refused, OpenError::Lost { found: 9, expected: 12, missing: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("db/0.jnl cannot be used from byte"), "{refused}");
    let length = fs::metadata(journal(dir.path())).unwrap().len();
    assert_eq!(length, image.ends[8] + 5, "looking changes nothing");

    let recovered = recover_accept_loss(&store_dir).unwrap();
    assert_eq!((recovered.commits, recovered.missing), (9, Some(3)));
    assert_eq!(recovered.previous_store_id, image.store_id);
    assert_ne!(recovered.store_id, image.store_id);
    let kept = recovered.journals.unwrap().join("0.jnl");
    assert_eq!(fs::metadata(kept).unwrap().len(), image.ends[8] + 5);

    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    assert_eq!(store.store_id(), recovered.store_id);
    let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
    assert_eq!(log, image.log[..9]);
    // It goes on where it stands.
    let mut talk = Talk { id: image.talk, state: store.conversation(image.talk).await.unwrap().unwrap() };
    let store: Arc<dyn Store> = Arc::new(store);
    let group = talk.group(&image.log[0].sender, &[(TempId::from_uuid(Uuid::new_v4()), "on we go")]);
    talk.apply(&store, group).await;
    drop(store);
    EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_keeps_all_up_to_the_first_damage_and_nothing_after_it() {
    let image = image(12, false).await;
    for (is_split, at) in [(false, 7), (true, 4)] {
        let dir = image.copy();
        if is_split {
            split(dir.path(), &image.ends, 6, 0);
        }
        // In the middle of a commit: its check sum fails.
        let mut bytes = fs::read(journal(dir.path())).unwrap();
        bytes[(image.ends[at - 1] + image.ends[at]) as usize / 2] ^= 0x10;
        fs::write(journal(dir.path()), &bytes).unwrap();
        let refused = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
        assert!(refused.to_string().contains("db/0.jnl cannot be used from byte"), "{refused}");

        let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
        assert_eq!((recovered.commits, recovered.missing), (at as u64, Some(12 - at as u64)));
        assert!(recovered.damage.unwrap().contains("db/0.jnl"));
        assert!(recovered.journals.unwrap().join("0.jnl").exists());
        let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
        let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        assert_eq!(log, image.log[..at]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_leaves_a_whole_store_as_it_is() {
    let image = image(3, false).await;
    let recovered = recover_accept_loss(&image.dir.path().join("store")).unwrap();
    assert_eq!((recovered.store_id, recovered.missing), (image.store_id, Some(0)));
    assert_eq!((recovered.damage, recovered.journals), (None, None));
    let store = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).unwrap();
    image.is_intact(&store).await.unwrap();
    let empty = tempfile::tempdir().unwrap();
    let refused = recover_accept_loss(empty.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Missing { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_cannot_be_used_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(config(dir.path()), Metrics::none());
    let store = open().unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(store);

    let store_dir = dir.path().join("store");
    let identity = fs::read_to_string(store_dir.join("store.json")).unwrap();
    fs::write(store_dir.join("store.json"), r#"{"format":3,"something":"else"}"#).unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 3, .. }), "{error}");
    let error = recover_accept_loss(&store_dir).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 3, .. }), "{error}");
    fs::write(store_dir.join("store.json"), r#"{"format":1,"something":"else"}"#).unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, OpenError::Older { found: 1, .. }), "{error}");

    // Damaged or gone, it is written anew: the commit count knows what was in it.
    let last = identity.rfind(|digit: char| digit.is_ascii_hexdigit()).unwrap();
    let mut changed = identity.clone().into_bytes();
    changed[last] = if changed[last] == b'0' { b'1' } else { b'0' };
    for damaged in [Some(changed), Some(Vec::new()), Some(identity.replace(":2,", ":3,").into()), None] {
        match damaged {
            Some(bytes) => fs::write(store_dir.join("store.json"), bytes).unwrap(),
            None => fs::remove_file(store_dir.join("store.json")).unwrap(),
        }
        open().unwrap();
        assert_eq!(fs::read_to_string(store_dir.join("store.json")).unwrap(), identity);
    }

    fs::rename(store_dir.join("commit-count"), store_dir.join("elsewhere")).unwrap();
    let error = open().err().unwrap();
    assert!(error.to_string().contains("commit-count is missing"), "{error}");
    fs::rename(store_dir.join("elsewhere"), store_dir.join("commit-count")).unwrap();
    open().unwrap();

    fs::write(dir.path().join("a-file"), "").unwrap();
    let error = EmbeddedStore::open(config(&dir.path().join("a-file")), Metrics::none()).err().unwrap();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_killed_while_it_was_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store_dir = dir.path().join("store");
    fs::create_dir_all(store_dir.join("db/keyspaces")).unwrap();
    fs::write(store_dir.join("db/0.jnl"), [0; 100]).unwrap();
    // Without anything that says whose it is it may be anything, and is left alone.
    let error = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    Directory::claim(&store_dir).unwrap().create().unwrap();
    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    store.change_user(&UserId::new("alice").unwrap(), UserChange::Name(None), None).await.unwrap();
}

#[test]
fn a_store_in_use_is_refused_though_somebody_removed_its_locks() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
    for lock in ["store/lock", "store/db/lock"] {
        fs::remove_file(dir.path().join(lock)).unwrap();
    }
    for error in [
        EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap(),
        recover_accept_loss(&dir.path().join("store")).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    }
    drop(store);
}

#[test]
fn what_was_begun_and_not_finished_is_no_store_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::claim(dir.path()).unwrap();
    directory.begin("a restore").unwrap();
    directory.create().unwrap();
    drop(directory);
    for error in [open::open(dir.path(), 0).err().unwrap(), recover_accept_loss(dir.path()).unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("a restore into") && text.contains("remove this directory"), "{text}");
        assert!(!text.contains("recover"), "{text}");
    }
    Directory::claim(dir.path()).unwrap().finish().unwrap();
    open::open(dir.path(), 0).unwrap();
}

/// An image whose count is behind by the last `uncounted` commits, as after a kill under load.
async fn behind(commits: usize, uncounted: u64) -> Image {
    let image = image(commits, false).await;
    let path = image.dir.path().join("store/commit-count");
    let (_, counted) = CountFile::open(&path).unwrap().unwrap();
    CountFile::create(&path, counted.identity, counted.count - uncounted).unwrap();
    image
}

fn flip(path: &Path, at: u64, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= bit;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_commit_with_whole_ones_behind_it_is_no_write_that_was_cut_short() {
    // None of them is counted yet, all of them were acknowledged.
    let image = behind(12, 6).await;
    let (begin, end) = (image.ends[7], image.ends[8]);
    for at in (begin..end).step_by(29).chain([begin + 5]) {
        let dir = image.copy();
        flip(&journal(dir.path()), at, 0x10);
        // The last one was cut short besides.
        let file = fs::OpenOptions::new().write(true).open(journal(dir.path())).unwrap();
        file.set_len(image.ends[11] - 7).unwrap();
        let before = fs::read(journal(dir.path())).unwrap();
        let error = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, OpenError::Damaged { .. }), "{at}: {text}");
        // The sequence number, at five bytes from the start, shows only at the next commit if it is raised.
        let from = if (5..8).contains(&(at - begin)) { end } else { begin };
        assert!(text.contains(&format!("db/0.jnl cannot be used from byte {from} on")), "{at}: {text}");
        assert_eq!(fs::read(journal(dir.path())).unwrap(), before, "looking changes nothing");
        let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
        assert_eq!(recovered.commits, if from == end { 9 } else { 8 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_very_last_commit_is_no_write_that_was_cut_short() {
    let image = behind(12, 6).await;
    let (begin, end) = (image.ends[10], image.ends[11]);
    for at in (begin..end).step_by(31).chain([begin + 6, end - 1]) {
        let dir = image.copy();
        flip(&journal(dir.path()), at, 0x10);
        match EmbeddedStore::open(config(dir.path()), Metrics::none()) {
            // A raised sequence number of the last commit is nobody's loss.
            Ok(store) => {
                assert!((5..13).contains(&(at - begin)), "{at}");
                image.is_intact(&store).await.unwrap();
            }
            Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{at}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_cut_short_goes_and_what_was_cut_off_is_kept() {
    let image = behind(12, 6).await;
    let (begin, end) = (image.ends[10], image.ends[11]);
    for length in (begin + 1..end).step_by(61) {
        let dir = image.copy();
        let bytes = fs::read(journal(dir.path())).unwrap();
        fs::OpenOptions::new().write(true).open(journal(dir.path())).unwrap().set_len(length).unwrap();
        let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
        let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        assert_eq!(log, image.log[..11], "cut at {length}");
        let kept: Vec<_> = fs::read_dir(dir.path().join("store/cut-tails")).unwrap().collect();
        let [Ok(kept)] = &kept[..] else { panic!("{kept:?}") };
        let kept = fs::read(kept.path()).unwrap();
        let cut = &bytes[begin as usize..length as usize];
        assert!(cut.starts_with(&kept) && cut[kept.len()..].iter().all(|byte| *byte == 0), "cut at {length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_ends_before_the_tables_do_is_noticed() {
    let image = image(20, true).await; // eleven are in a table
    let path = image.dir.path().join("store/commit-count");
    let (_, counted) = CountFile::open(&path).unwrap().unwrap();
    CountFile::create(&path, counted.identity, 4).unwrap();
    let file = fs::OpenOptions::new().write(true).open(journal(image.dir.path())).unwrap();
    file.set_len(image.ends[5]).unwrap();
    // Which of those behind the eleventh there were, nothing tells.
    let error = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("ends with commit 6, the tables go on to 11"), "{error}");
    let recovered = recover_accept_loss(&image.dir.path().join("store")).unwrap();
    assert_eq!(recovered.commits, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_store_opens_takes_writes_and_opens_again_wherever_the_journal_was_damaged() {
    let image = image(20, true).await;
    let journal_end = *image.ends.last().unwrap();
    for decile in 0..10 {
        let dir = image.copy();
        flip(&journal(dir.path()), journal_end * decile / 10 + 3, 0x04);
        let refused = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
        assert!(refused.to_string().contains("db/0.jnl"), "{refused}");
        let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
        // What is in a table is not lost with the journal.
        assert!((11..20).contains(&recovered.commits), "decile {decile}: {recovered:?}");
        assert_eq!(recovered.missing, Some(20 - recovered.commits));
        let mut expected = image.log[..recovered.commits as usize].to_vec();
        for round in 0..3 {
            let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
            assert_eq!(store.store_id(), recovered.store_id);
            let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
            assert_eq!(log, expected, "decile {decile}, round {round}");
            let state = store.conversation(image.talk).await.unwrap().unwrap();
            let mut talk = Talk { id: image.talk, state };
            let store: Arc<dyn Store> = Arc::new(store);
            let temp_id = TempId::from_uuid(Uuid::new_v4());
            let group = talk.group(&image.log[0].sender, &[(temp_id, "on we go")]);
            talk.apply(&store, group).await;
            expected = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_after_which_the_store_does_not_open_says_so() {
    let image = image(20, true).await;
    flip(&journal(image.dir.path()), image.ends[15] + 40, 0x04);
    // In a part of a table that the database does not look at.
    let table = image.dir.path().join("store/db/keyspaces/1/tables/0");
    flip(&table, archive::sections(&table).unwrap()["table_version"].start, 0x10);
    let error = recover_accept_loss(&image.dir.path().join("store")).unwrap_err();
    assert!(matches!(error, OpenError::Beyond { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("db/keyspaces/1/tables/0 is not as it was written"), "{text}");
    assert!(text.contains("tern store salvage"), "{text}");
    // Only the start of a node writes there.
    let image = self::image(20, true).await;
    flip(&journal(image.dir.path()), image.ends[15] + 40, 0x04);
    let copy = image.dir.path().join("store/manifest-copy");
    fs::remove_file(&copy).unwrap();
    fs::create_dir(copy.with_extension("new")).unwrap();
    recover_accept_loss(&image.dir.path().join("store")).unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_cut_short_is_done_again_and_nothing_else_opens_the_store() {
    let image = image(20, true).await;
    flip(&journal(image.dir.path()), image.ends[3] + 40, 0x04);
    let store_dir = image.dir.path().join("store");
    // The first thing that it does.
    let directory = Directory::claim(&store_dir).unwrap();
    let identity = directory.identity().unwrap().unwrap();
    directory.set_identity(identity::Identity::renewed(identity.salt)).unwrap();
    drop(directory);
    let refused = EmbeddedStore::open(config(image.dir.path()), Metrics::none()).err().unwrap();
    assert!(refused.to_string().contains("a recovery of it was cut short"), "{refused}");
    let recovered = recover_accept_loss(&store_dir).unwrap();
    assert_eq!((recovered.previous_store_id, recovered.commits), (image.store_id, 11));
    EmbeddedStore::open(config(image.dir.path()), Metrics::none()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_another_store_are_noticed() {
    // Both have the same number of commits and of bytes: nothing but whose they are tells them apart.
    let (image, other) = (image(12, false).await, self::image(12, false).await);
    for (file, words) in [
        ("store/db/0.jnl", "commit 1 of another store"),
        ("store/store.json", "store.json and commit-count are of two stores"),
        ("store/commit-count", "store.json and commit-count are of two stores"),
    ] {
        let dir = image.copy();
        fs::copy(other.dir.path().join(file), dir.path().join(file)).unwrap();
        let error = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap().to_string();
        assert!(error.contains(words), "{file}: {error}");
        let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
        let store = EmbeddedStore::open(config(dir.path()), Metrics::none()).unwrap();
        assert_eq!(store.store_id(), recovered.store_id);
        let log = store.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        assert_eq!(log.len() as u64, recovered.commits);
        assert_eq!(log, image.log[..log.len()], "{file}: nothing foreign is served");
    }
}
