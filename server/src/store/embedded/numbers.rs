//! Which commits the rows of a database are of.

use super::disk::Disk;
use super::failures::read_failed;
use super::identity::Salt;
use super::keys;
use super::values::Commit;
use crate::store::StoreError;

/// Number of the last commit, 0 before the first, and the salt of all of them. The last
/// [`keys::COMMITS_KEPT`] must all be there: a journal that lost its end before the next one began
/// leaves a hole.
pub(super) fn commits(disk: &Disk) -> Result<(u64, Option<Salt>), StoreError> {
    let (mut numbers, mut salt): (Vec<u64>, Option<Salt>) = (Vec::new(), None);
    for item in disk.space.prefix(keys::COMMITS) {
        let commit = Commit::decode(&item.value().map_err(read_failed)?)?;
        if *salt.get_or_insert(commit.salt) != commit.salt {
            let what = "the tables in db/keyspaces/1 are of another store than the journals";
            return Err(StoreError::Corrupt(what.into()));
        }
        numbers.push(commit.number);
    }
    Ok((last_commit(numbers)?, salt))
}

/// The last of the commit numbers that are remembered; the [`keys::COMMITS_KEPT`] before it must be there.
pub(super) fn last_commit(mut numbers: Vec<u64>) -> Result<u64, StoreError> {
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or(0);
    let first = last.saturating_sub(keys::COMMITS_KEPT) + 1;
    if !numbers.iter().copied().eq(first..=last) {
        let there = numbers.iter().filter(|number| **number >= first).count() as u64;
        let missing = last - first + 1 - there;
        return Err(StoreError::Corrupt(format!("{missing} of the commits before {last} are missing")));
    }
    Ok(last)
}
