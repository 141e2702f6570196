//! Damage in every tenth of every file of a store and of a backup: what was acknowledged is all there, or the
//! loss is told, with the file, and a way leads out. The ways are tried.
//!
//! `TERN_TEST_LONG=1` looks at a hundred places of each file, and goes every way.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use parking_lot::Mutex;
use tern_protocol::{ConversationId, EntryBody, TempId};
use uuid::Uuid;

use super::damage::{copy_dir, data_end, files};
use super::*;
use crate::store::ReadPosition;
use crate::store::contract::Talk;
use crate::store::embedded::verify::Checker;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Opening a store waits for the disk most of the time.
const THREADS: usize = 6;
/// Messages of each conversation.
const MESSAGES: usize = 12;
/// Commits of an image.
const COMMITS: u64 = 3 + 2 * MESSAGES as u64;

/// A store as a killed process leaves it: a part of it in tables, of that a part in the journal too.
struct Image {
    dir: TempDir,
    store_id: StoreId,
    rows: Rows,
}

async fn image() -> Image {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(EmbeddedStore::open(config(source.path()), Metrics::none()).unwrap());
    let shared: Arc<dyn Store> = store.clone();
    let (alice, bob) = (UserId::new("alice").unwrap(), UserId::new("bob").unwrap());
    let mut talks: Vec<_> = (0..2).map(|_| Talk::new(&[&alice, &bob])).collect();
    for name in [&alice, &bob] {
        store.change_user(name, UserChange::Name(Some("A Name".into())), None).await.unwrap();
    }
    for number in 0..MESSAGES {
        for talk in &mut talks {
            let text = format!("message {number} {:064x}", rand::random::<u128>());
            let group = talk.group(&alice, &[(TempId::from_uuid(Uuid::new_v4()), &text)]);
            talk.apply(&shared, group).await;
        }
        if number == MESSAGES / 3 || number == MESSAGES * 2 / 3 {
            store.disk.space.rotate_memtable_and_wait().unwrap();
        }
    }
    store.set_read(&bob, talks[0].id, ReadPosition { seq: 2, messages: 2 }).await.unwrap();
    let (rows, store_id) = (rows(&store).unwrap(), store.store_id());
    store.manifests.note().unwrap();
    // In order, so that the count has reached the last commit; what a kill leaves differs in nothing else.
    drop(shared);
    drop(Arc::into_inner(store).expect("nobody else holds it"));
    copy_dir(&source.path().join("store"), &dir.path().join("store"));
    // What is preallocated for it holds nothing.
    let journal = dir.path().join("store/db/0.jnl");
    fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(data_end(&journal)).unwrap();
    Image { dir, store_id, rows }
}

/// Everything in a store.
fn rows(store: &EmbeddedStore) -> Result<Rows, StoreError> {
    let row = |item: fjall::Guard| {
        let (key, value) = item.into_inner().map_err(failures::read_failed)?;
        Ok((key.to_vec(), value.to_vec()))
    };
    store.disk.space.iter().map(row).collect()
}

/// The entries among rows, by conversation.
fn logs(rows: &Rows) -> BTreeMap<ConversationId, Vec<Entry>> {
    let mut logs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, value) in rows.iter().filter(|(key, _)| keys::kind(key) == keys::Kind::Entry) {
        let log = logs.entry(keys::conversation(key).unwrap()).or_default();
        log.push(values::decode_entry(value).unwrap().0);
    }
    logs
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// One bit of the byte there is another.
    Flip(u64),
    /// It ends there.
    Cut(u64),
    /// So many bytes from there on are those of the same file of another store.
    Graft(u64, u64),
    /// It is that of another store.
    Swap,
    /// It is gone.
    Remove,
}

fn harms(length: u64, places: u64) -> Vec<Harm> {
    let mut harms = vec![Harm::Swap, Harm::Remove];
    for place in 0..places {
        let (at, next) = (length * place / places, length * (place + 1) / places);
        if at < next {
            harms.extend([Harm::Flip((at + next) / 2), Harm::Cut(at), Harm::Graft(at, next - at)]);
        }
    }
    harms
}

fn inflict(harm: Harm, path: &Path, other: &Path) {
    let mut bytes = fs::read(path).unwrap();
    match harm {
        Harm::Flip(at) => bytes[at as usize] ^= 1 << (at % 8),
        Harm::Cut(at) => bytes.truncate(at as usize),
        Harm::Graft(at, length) => {
            let other = fs::read(other).unwrap();
            let range = (at as usize).min(other.len())..((at + length) as usize).min(other.len());
            bytes[at as usize..][..range.len()].copy_from_slice(&other[range]);
        }
        Harm::Swap => bytes = fs::read(other).unwrap(),
        Harm::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

fn open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(config(dir), Metrics::none())
}

/// What became of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Whole,
    Recovered,
    Salvaged,
}

/// Opens it and takes the way that is told, if it must. Panics where something was lost and nobody told.
fn end(image: &Image, dir: &Path, file: &Path, what: &str, every_way: bool) -> End {
    let store_dir = dir.join("store");
    let refused = match open(dir) {
        Ok(store) => match rows(&store) {
            Ok(found) => {
                assert_eq!(store.store_id(), image.store_id, "{what}");
                assert!(found == image.rows, "{what}: it was opened and is not whole");
                drop(store);
                open(dir).unwrap_or_else(|error| panic!("{what}: it opens only once: {error}"));
                return End::Whole;
            }
            // Whoever reads it is told, and no other row is worse for it.
            Err(StoreError::Corrupt(_) | StoreError::Unavailable(_)) => {
                drop(store);
                return salvaged(image, dir, what);
            }
            Err(error) => panic!("{what}: {error}"),
        },
        Err(error) => error,
    };
    let text = refused.to_string();
    let place = file.parent().unwrap().strip_prefix("store").unwrap();
    let name = if place.as_os_str().is_empty() { file.strip_prefix("store").unwrap() } else { place };
    assert!(text.contains(name.to_str().unwrap()), "{what}: which file it is was not told: {text}");
    assert!(text.contains("tern store salvage"), "{what}: no way was told: {text}");
    if !text.contains("tern store recover") {
        return salvaged(image, dir, what);
    }
    if every_way {
        salvaged(image, dir, what);
    }
    match recover_accept_loss(&store_dir) {
        Ok(recovered) => is_prefix(image, dir, &recovered, what),
        Err(error @ OpenError::Beyond { .. }) => {
            assert!(error.to_string().contains("tern store salvage"), "{what}: {error}");
            return salvaged(image, dir, what);
        }
        Err(error) => panic!("{what}: {error}"),
    }
    End::Recovered
}

/// After a recovery: all up to one commit, in order, and it takes writes.
fn is_prefix(image: &Image, dir: &Path, recovered: &Recovered, what: &str) {
    assert_ne!(recovered.store_id, image.store_id, "{what}: clients must notice");
    for _ in 0..2 {
        let store = open(dir).unwrap_or_else(|error| panic!("{what}: it was recovered: {error}"));
        assert_eq!(store.store_id(), recovered.store_id, "{what}");
        let mut checker = Checker::default();
        let found = rows(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
        found.iter().for_each(|(key, value)| checker.row(key, value));
        assert_eq!(checker.finish(None).faults, Vec::<String>::new(), "{what}");
        let (now, before) = (logs(&found), logs(&image.rows));
        for (id, log) in &now {
            assert!(before[id].starts_with(log), "{what}: {id} is not a part of what was there");
        }
        if recovered.commits == COMMITS {
            assert!(now == before, "{what}: nothing is missing, it was said");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let carol = UserId::new("carol").unwrap();
        runtime.block_on(store.change_user(&carol, UserChange::Name(None), None)).unwrap();
    }
}

/// After a salvage: what is there is what was there, and what is not is told.
fn salvaged(image: &Image, dir: &Path, what: &str) -> End {
    let to = tempfile::tempdir().unwrap();
    let salvaged = salvage(&dir.join("store"), &to.path().join("store"));
    let salvaged = salvaged.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(salvaged.findings.faults, Vec::<String>::new(), "{what}");
    let store = open(to.path()).unwrap();
    let now = logs(&rows(&store).unwrap());
    for (id, log) in logs(&image.rows) {
        let now = now.get(&id).map_or(&[][..], |now| now);
        let is_told = |seq: u64| {
            let holes = salvaged.conversations.iter().find(|holes| holes.conversation == id);
            holes.is_none_or(|holes| holes.lost > 0 && (seq < holes.first_seq || !holes.entries.is_empty()))
        };
        for entry in &log {
            match now.iter().find(|other| other.seq == entry.seq) {
                Some(same) if same == entry => {}
                Some(other) => {
                    let is_tombstone = matches!(other.body, EntryBody::Erased);
                    assert!(is_tombstone && is_told(entry.seq), "{what}: {other:?} was never written");
                }
                None => {
                    let told = !salvaged.damage.is_empty() || is_told(entry.seq);
                    assert!(told, "{what}: entry {} is missing and nobody said so", entry.seq);
                }
            }
        }
    }
    End::Salvaged
}

#[test]
fn damage_in_any_tenth_of_any_file_is_harmless_or_told_and_a_way_leads_out() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (image, other) = runtime.block_on(async { (image().await, image().await) });
    let is_long = std::env::var_os("TERN_TEST_LONG").is_some();
    let mut cases = Vec::new();
    for path in files(image.dir.path()) {
        let file = path.strip_prefix(image.dir.path()).unwrap().to_owned();
        assert!(other.dir.path().join(&file).exists(), "{} is in one store only", file.display());
        let harms = harms(data_end(&path), if is_long { 100 } else { 10 });
        cases.extend(harms.into_iter().map(|harm| (file.clone(), harm)));
    }
    let (next, ends) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let silent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((file, harm)) = cases.get(next.fetch_add(1, Atomic::Relaxed)) {
                    let dir = tempfile::tempdir().unwrap();
                    copy_dir(image.dir.path(), dir.path());
                    inflict(*harm, &dir.path().join(file), &other.dir.path().join(file));
                    let what = format!("{} {harm:?}", file.display());
                    let end =
                        catch_unwind(AssertUnwindSafe(|| end(&image, dir.path(), file, &what, is_long)));
                    match end {
                        Ok(end) => *ends.lock().entry((file, end)).or_insert(0) += 1,
                        Err(_) => silent.lock().push(what),
                    }
                }
            });
        }
    });
    let silent = silent.into_inner();
    assert!(silent.is_empty(), "{} of {} ended badly: {silent:#?}", silent.len(), cases.len());
    let ends = ends.into_inner();
    for ((file, end), count) in &ends {
        println!("{}: {count} {end:?}", file.display());
    }
    for end in [End::Whole, End::Recovered, End::Salvaged] {
        assert!(ends.keys().any(|(_, other)| *other == end), "none was {end:?}: the harm does not reach far");
    }
}

#[test]
fn whole_parts_of_another_store_are_harmless_or_told_and_a_way_leads_out() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (image, other) = runtime.block_on(async { (image().await, image().await) });
    for part in ["store/db/keyspaces/0", "store/db/keyspaces/1", "store/db/keyspaces", "store/db"] {
        let dir = image.dir.path();
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir, copy.path());
        fs::remove_dir_all(copy.path().join(part)).unwrap();
        copy_dir(&other.dir.path().join(part), &copy.path().join(part));
        match open(copy.path()) {
            Ok(store) => {
                assert_eq!(part, "store/db/keyspaces/0", "only that is the same in every store");
                assert!(rows(&store).unwrap() == image.rows);
            }
            Err(error) => assert!(error.to_string().contains("of another store"), "{part}: {error}"),
        }
    }
}

#[test]
fn a_keyspace_that_names_no_other_does_not_cost_the_rows() {
    // The database removes what its own keyspace does not name.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let image = runtime.block_on(image());
    let empty = tempfile::tempdir().unwrap();
    drop(fjall::Database::builder(empty.path()).open().unwrap());
    let meta = image.dir.path().join("store/db/keyspaces/0");
    fs::remove_dir_all(&meta).unwrap();
    copy_dir(&empty.path().join("keyspaces/0"), &meta);
    let store = open(image.dir.path()).unwrap();
    assert!(rows(&store).unwrap() == image.rows);
}

#[test]
fn damage_in_any_tenth_of_any_file_of_a_backup_is_noticed_before_it_is_used() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backup = |dir: PathBuf| {
        let image = runtime.block_on(image());
        let store = open(image.dir.path()).unwrap();
        runtime.block_on(store.backup(&dir)).unwrap();
        image
    };
    let dirs = tempfile::tempdir().unwrap();
    let (mine, others) = (dirs.path().join("mine"), dirs.path().join("others"));
    let (image, _other) = (backup(mine.clone()), backup(others.clone()));
    for path in files(&mine) {
        let file = path.strip_prefix(&mine).unwrap();
        let bytes = fs::read(&path).unwrap();
        for harm in harms(bytes.len() as u64, 10) {
            inflict(harm, &path, &others.join(file));
            let to = tempfile::tempdir().unwrap();
            let what = format!("{} {harm:?}", file.display());
            let restored = Backup::open(&mine).and_then(|backup| backup.restore(&to.path().join("store")));
            match restored {
                Ok(_) => {
                    let now = logs(&rows(&open(to.path()).unwrap()).unwrap());
                    assert!(now == logs(&image.rows), "{what}: it was restored and is not whole");
                    assert_eq!(
                        fs::read(&path).unwrap(),
                        bytes,
                        "{what}: only what changes nothing is harmless"
                    );
                }
                Err(error) => {
                    let text = error.to_string();
                    // A manifest of another backup does not fit the rows.
                    let is_named = text.contains(file.to_str().unwrap()) || text.contains("rows-000001.tern");
                    assert!(is_named, "{what}: which file it is was not told: {text}");
                    assert!(!to.path().join("store/store.json").exists(), "{what}");
                }
            }
            fs::write(&path, &bytes).unwrap();
        }
    }
}
