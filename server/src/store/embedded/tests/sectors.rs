//! A disk that cannot read some of its sectors: what is in them is lost and told, and a way leads to the rest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::damage::{copy_dir, image};
use super::*;
use crate::store::embedded::table::{Table, fill};

/// What a read of a failed sector says, on every Unix.
const EIO: i32 = 5;
const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

/// Puts a file in the place of another that can be opened, but of which no byte can be read: the memory of this
/// process, which has nothing at its start.
fn make_unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    symlink("/proc/self/mem", path).unwrap();
    assert_eq!(fs::read(path).unwrap_err().raw_os_error(), Some(EIO));
}

#[test]
fn a_failed_sector_costs_what_is_in_it_and_no_more() {
    let whole: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8).collect();
    let (bad, from) = (9_000..9_100_u64, 1_234_u64);
    let read = |part: &mut [u8], at: u64| {
        let end = at + part.len() as u64;
        if at < bad.end && bad.start < end {
            return Err(std::io::Error::from_raw_os_error(EIO));
        }
        part.copy_from_slice(&whole[at as usize..end as usize]);
        Ok(())
    };
    let mut bytes = vec![0; whole.len() - from as usize];
    fill(&mut bytes, from, read).unwrap();
    // Disks and the system read 4,096 bytes at a time.
    for (at, byte) in (from..).zip(&bytes) {
        let expected = if (8_192..12_288).contains(&at) { 0xff } else { whole[at as usize] };
        assert_eq!(*byte, expected, "byte {at}");
    }
    // Another failure is none of the disk's sectors.
    let refused = fill(&mut bytes, 0, |_, _| Err(std::io::ErrorKind::PermissionDenied.into()));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_ends_neither_a_check_nor_a_salvage() {
    let image = image(20, true).await;
    for file in
        ["db/keyspaces/1/tables/0", "db/keyspaces/1/current", "db/keyspaces/0/current", "commit-count"]
    {
        let dir = image.copy();
        let store = dir.path().join("store");
        make_unreadable(&store.join(file));
        let findings = verify_store(&store).unwrap_or_else(|error| panic!("{file}: {error}"));
        let place = Path::new(file).parent().unwrap().to_str().unwrap();
        let is_told = findings.faults.iter().any(|fault| fault.contains(place));
        assert!(is_told, "{file}: {:#?}", findings.faults);
        let to = tempfile::tempdir().unwrap();
        let salvaged = salvage(&store, &to.path().join("store"));
        let salvaged = salvaged.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(salvaged.findings.faults, Vec::<String>::new(), "{file}");
        let new = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
        let log = new.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        assert_eq!(log, image.log, "{file}: the journal has what is in tables too");
        assert_eq!(salvaged.damage.is_empty(), file == "commit-count" || file.contains("/0/"), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_file_that_cannot_be_read_is_served_or_told_with_the_file_and_the_way() {
    let image = image(20, true).await;
    // Of these there is a second copy, or one right content.
    for file in
        ["store.json", "manifest-copy", "db/version", "db/keyspaces/1/current", "db/keyspaces/0/current"]
    {
        let dir = image.copy();
        make_unreadable(&dir.path().join("store").join(file));
        let store = EmbeddedStore::open(config(dir.path()), Metrics::none());
        let store = store.unwrap_or_else(|error| panic!("{file}: {error}"));
        image.is_intact(&store).await.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    for file in ["db/keyspaces/1/tables/0", "commit-count"] {
        let dir = image.copy();
        make_unreadable(&dir.path().join("store").join(file));
        let error = EmbeddedStore::open(config(dir.path()), Metrics::none()).err().unwrap();
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("tern store salvage"), "{file}: {text}");
        assert_eq!(text.contains("tern store recover"), file == "commit-count", "{file}: {text}");
    }
    // The count can be made anew.
    let dir = image.copy();
    make_unreadable(&dir.path().join("store/commit-count"));
    let recovered = recover_accept_loss(&dir.path().join("store")).unwrap();
    assert_eq!((recovered.commits, recovered.missing), (20, None));
}

#[test]
fn a_failed_sector_is_damage_with_a_way_out_and_other_failures_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::claim(dir.path()).unwrap();
    let failed = failures::in_file("db/0.jnl", std::io::Error::from_raw_os_error(EIO));
    for source in [failed, std::io::Error::from_raw_os_error(EIO)] {
        let error = directory.io(source);
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("tern store salvage"), "{error}");
    }
    let denied = failures::in_file("db/0.jnl", std::io::ErrorKind::PermissionDenied.into());
    assert!(matches!(directory.io(denied), OpenError::Io { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_cut_between_two_blocks_is_told() {
    let image = image(20, true).await;
    let table = image.dir.path().join("store/db/keyspaces/1/tables/0");
    let data = archive::sections(&table).unwrap()["data"].clone();
    for length in [0, data.end] {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(image.dir.path(), dir.path());
        let store = dir.path().join("store");
        let table = store.join("db/keyspaces/1/tables/0");
        fs::OpenOptions::new().write(true).open(&table).unwrap().set_len(length).unwrap();
        let gaps = Table::open(&table, 0).unwrap().gaps();
        assert_eq!(gaps.iter().map(|gap| (gap.at, gap.bytes)).collect::<Vec<_>>(), [(length, 0)]);
        let to = tempfile::tempdir().unwrap();
        let salvaged = salvage(&store, &to.path().join("store")).unwrap();
        assert!(salvaged.damage.iter().any(|damage| damage.file == table), "{length}: {salvaged:?}");
        let new = EmbeddedStore::open(config(to.path()), Metrics::none()).unwrap();
        let log = new.entries(image.talk, 1..=u64::MAX, Order::Ascending, ALL).await.unwrap();
        assert_eq!(log, image.log, "{length}: the journal has what the table lost");
    }
}
