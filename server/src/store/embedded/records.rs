//! The commits in the bytes of a journal: which are whole, and what those that are not look like.
//!
//! The format is that of fjall 3 (file `version`: "FJL", 3). A journal is a row of commits, zeros
//! after the last one; integers are little-endian:
//! start `1` · items u32 · seqno u64, then per item `2` · kind u8 · compression u8 · keyspace u64 ·
//! key length u16 · value length u32 · stored length u32 · key · value, then end `3` · xxh3 of the
//! items u64 · "FJL", 3.

use std::fmt;
use std::io::{self, Read};

use xxhash_rust::xxh3::Xxh3;

use super::identity::Salt;
use super::keys;
use super::values::Commit;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Bytes before the first item of a commit.
const START_BYTES: usize = 13;
/// A disk writes so many bytes whole or not at all.
const SECTOR: usize = 512;
/// Sequence numbers are also used up by changes of tables, but never so many between two commits. They are
/// outside the check sum.
const SEQNO_STEP_MAX: u64 = 1 << 32;
/// A search for commits behind a broken one gives up after reading each byte so often, on average.
const READS_MAX: u64 = 64;

/// What the next commit must come after.
#[derive(Clone, Copy)]
pub(super) struct Order {
    salt: Salt,
    /// Sequence number and number of the last commit.
    last: Option<(u64, u64)>,
}

impl Order {
    /// Any commit of the store with this salt may come.
    pub(super) fn after_nothing(salt: Salt) -> Self {
        Self { salt, last: None }
    }

    /// Number of the last commit.
    pub(super) fn last(&self) -> Option<u64> {
        self.last.map(|(_, number)| number)
    }
}

/// Why a commit cannot be used.
pub(super) enum Wrong {
    Io(io::Error),
    /// The bytes end before the commit does.
    Short(&'static str),
    /// Its bytes are there and make no commit.
    Broken(&'static str),
    /// A whole commit that cannot come there: no write cut short looks like that.
    Misplaced(String),
}

impl Wrong {
    /// It may be a write that was cut short.
    pub(super) fn may_be_torn(&self) -> bool {
        matches!(self, Self::Short(_) | Self::Broken(_))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Short(what) | Self::Broken(what) => f.write_str(what),
            Self::Misplaced(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads commits one after the other.
pub(super) struct Reader<R> {
    input: R,
    at: u64,
    /// Nothing but zeros from here on.
    end: u64,
    /// Key and value of the item read last.
    item: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// `input` stands at byte `at`.
    pub(super) fn new(input: R, at: u64, end: u64) -> Self {
        Self { input, at, end, item: Vec::new() }
    }

    /// Where it stands.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Reads one commit; what the next one must come after.
    pub(super) fn commit(&mut self, order: &Order) -> Result<Order, Wrong> {
        let (seqno, commit) = self.whole()?;
        let Some(commit) = commit else {
            return Err(Wrong::Misplaced("a commit without a number is there".into()));
        };
        if commit.salt != order.salt {
            return Err(Wrong::Misplaced(format!("commit {} of another store is there", commit.number)));
        }
        if let Some((last_seqno, last)) = order.last
            && (seqno <= last_seqno || seqno - last_seqno > SEQNO_STEP_MAX || commit.number != last + 1)
        {
            return Err(Wrong::Misplaced(format!(
                "commit {last} is followed by {} (sequence number {seqno} after {last_seqno})",
                commit.number
            )));
        }
        Ok(Order { salt: order.salt, last: Some((seqno, commit.number)) })
    }

    /// Reads one commit, of whatever store it is.
    pub(super) fn any_commit(&mut self) -> Result<Option<Commit>, Wrong> {
        Ok(self.whole()?.1)
    }

    fn whole(&mut self) -> Result<(u64, Option<Commit>), Wrong> {
        let [START] = self.take()? else { return Err(Wrong::Broken("no commit begins there")) };
        let items = u32::from_le_bytes(self.take()?);
        let seqno = u64::from_le_bytes(self.take()?);
        let mut commit = None;
        let mut sum = Xxh3::new();
        for _ in 0..items {
            commit = self.item(&mut sum)?.or(commit);
        }
        let [END] = self.take()? else { return Err(ends_elsewhere()) };
        let expected = u64::from_le_bytes(self.take()?);
        if self.take()? != TRAILER {
            return Err(ends_elsewhere());
        }
        if sum.digest() != expected {
            return Err(Wrong::Broken("the check sum of a commit is wrong"));
        }
        Ok((seqno, commit))
    }

    /// Reads one item; the number of the commit, if it is the one that holds it.
    fn item(&mut self, sum: &mut Xxh3) -> Result<Option<Commit>, Wrong> {
        let head: [u8; 21] = self.take()?;
        let [ITEM, ..] = head else { return Err(Wrong::Broken("an item of a commit is missing")) };
        let key = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let value = u32::from_le_bytes([head[17], head[18], head[19], head[20]]) as usize;
        if (key + value) as u64 > self.end.saturating_sub(self.at) {
            return Err(Wrong::Short("an item is longer than the file"));
        }
        self.item.resize(key + value, 0);
        self.input.read_exact(&mut self.item)?;
        self.at += self.item.len() as u64;
        sum.update(&head);
        sum.update(&self.item);
        let (key, value) = self.item.split_at(key);
        if !key.starts_with(keys::COMMITS) {
            return Ok(None);
        }
        Commit::decode(value).map(Some).map_err(|_| Wrong::Broken("the number of a commit cannot be read"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        // The last bytes of a commit are not zeros, so no whole one reaches past the end.
        if self.end.saturating_sub(self.at) < N as u64 {
            return Err(Wrong::Short("a commit is cut short"));
        }
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }
}

fn ends_elsewhere() -> Wrong {
    Wrong::Broken("a commit does not end where it should")
}

/// What was found behind a broken commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// A whole one of the same store, so many bytes behind the start of the broken one.
    Commit { at: u64, number: u64 },
    /// So much that might be one that the search was given up.
    Unclear,
}

/// Looks for a whole commit of the same store behind the broken one that `tail` begins with. A write that
/// was cut short is the last thing in a journal: with a whole commit behind it, it is damage.
pub(super) fn later_commit(tail: &[u8], order: &Order) -> Option<Later> {
    let mut left = READS_MAX * tail.len() as u64;
    for at in 1..tail.len().saturating_sub(START_BYTES) {
        if tail[at] != START || tail[at + START_BYTES] != ITEM {
            continue;
        }
        let mut reader = Reader::new(&tail[at..], at as u64, tail.len() as u64);
        match reader.any_commit() {
            Ok(Some(commit)) if commit.salt == order.salt => {
                return Some(Later::Commit { at: at as u64, number: commit.number });
            }
            _ => {}
        }
        match left.checked_sub(reader.at() - at as u64) {
            Some(rest) => left = rest,
            None => return Some(Later::Unclear),
        }
    }
    None
}

/// Whether bytes of the commit that `tail` begins with were not written: its end, or a sector of it. `at` is
/// where the tail begins in its file. A commit of which nothing is missing was not cut short but damaged.
pub(super) fn is_something_missing(tail: &[u8], at: u64) -> bool {
    let ends = tail.ends_with(&TRAILER) || is_full_length(tail);
    let first = SECTOR - (at % SECTOR as u64) as usize;
    let (head, rest) = tail.split_at(first.min(tail.len()));
    !ends || is_hole(head) || rest.chunks_exact(SECTOR).any(is_hole)
}

fn is_hole(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// By its own lengths, the commit ends exactly where the bytes do.
fn is_full_length(tail: &[u8]) -> bool {
    let mut reader = Reader::new(tail, 0, tail.len() as u64);
    matches!(reader.whole(), Err(Wrong::Broken(_))) && reader.at == tail.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::identity::Identity;
    use crate::store::embedded::values;

    fn commit(salt: Salt, number: u64, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![START];
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        let mut items = Vec::new();
        let row = values::encode(&Commit { number, salt });
        for (key, value) in [(&b"e"[..], text), (keys::COMMITS, &row)] {
            items.extend([ITEM, 0, 0]);
            items.extend(1_u64.to_le_bytes());
            items.extend((key.len() as u16).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend(key);
            items.extend(value);
        }
        bytes.extend(&items);
        bytes.push(END);
        let mut sum = Xxh3::new();
        sum.update(&items);
        bytes.extend(sum.digest().to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    #[test]
    fn a_whole_commit_behind_a_broken_one_is_found_wherever_that_is_broken() {
        let salt = Identity::new().salt;
        let order = Order::after_nothing(salt);
        let (first, second) = (commit(salt, 7, &[b'x'; 100]), commit(salt, 8, b"later"));
        for at in 0..first.len() {
            let mut tail = [&first[..], &second].concat();
            tail[at] ^= 0x41;
            let found = later_commit(&tail, &order);
            assert_eq!(found, Some(Later::Commit { at: first.len() as u64, number: 8 }), "broken at {at}");
        }
    }

    #[test]
    fn a_commit_of_another_store_inside_a_text_is_none_of_this_one() {
        let salt = Identity::new().salt;
        let foreign = commit(Identity::new().salt, 8, b"a text that looks like a commit");
        let mut tail = commit(salt, 7, &foreign);
        let last = tail.len() - 1;
        tail.truncate(last);
        assert_eq!(later_commit(&tail, &Order::after_nothing(salt)), None);
        assert!(is_something_missing(&tail, 0));
    }

    #[test]
    fn a_text_full_of_beginnings_does_not_hold_up_the_search() {
        let salt = Identity::new().salt;
        // At each beginning stands a commit of 65,535 items without a key and a value, which goes on to the end.
        let mut text = Vec::new();
        for _ in 0..4000 {
            text.extend([ITEM, START, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ITEM, 0, 0, 0, 0, 0, 0]);
        }
        let mut tail = commit(salt, 7, &text);
        tail.truncate(tail.len() - 1);
        assert_eq!(later_commit(&tail, &Order::after_nothing(salt)), Some(Later::Unclear));
    }

    #[test]
    fn a_commit_of_which_nothing_is_missing_was_not_cut_short() {
        let salt = Identity::new().salt;
        let whole = commit(salt, 7, &[b'x'; 3000]);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert!(!is_something_missing(&damaged, 300), "damaged at {at}");
        }
        for length in 1..whole.len() {
            assert!(is_something_missing(&whole[..length], 300), "cut at {length}");
        }
        // The sectors of one write reach the disk in any order.
        for sector in 0..6 {
            let mut holed = whole.clone();
            let begin = (sector * SECTOR).saturating_sub(300);
            holed[begin..(sector + 1) * SECTOR - 300].fill(0);
            assert!(is_something_missing(&holed, 300), "without sector {sector}");
        }
    }
}
