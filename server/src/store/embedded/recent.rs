//! Which dedupe markers are surely not there, so that the disk need not be asked for them.
//!
//! Filters over the markers of one stretch of time after another. They say «perhaps» of every marker that was
//! written in their time, so a «no» of all filters that reach back far enough is certain. Nothing is known of
//! the time before the start, unless the store was empty then, and nothing is ever taken out: then the answer
//! is «perhaps», and the disk is asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

/// Markers in the first filter of a process: small, for a node with little to do.
const FIRST_MARKERS: usize = 128 * 1024;
/// Markers in a filter once there is much to do.
const MARKERS_MAX: usize = 4 * 1024 * 1024;
/// Bits for each marker: about one answer of 300 is «perhaps» for nothing.
const BITS_A_MARKER: usize = 12;
/// Bits set for a marker, all in one cache line.
const BITS_SET: usize = 8;
/// Most filters, some 70 MiB when all are full: 15 minutes of 50,000 messages/s.
const FILTERS_MAX: usize = 12;
/// The clocks of clients may be wrong by so much.
const MARGIN: Duration = Duration::from_secs(15 * 60);

/// Words of a cache line.
const LINE: usize = 8;

/// The markers that this process has written.
pub(super) struct RecentMarkers(RwLock<Filters>);

struct Filters {
    /// The newest is the last.
    filters: VecDeque<Filter>,
}

struct Filter {
    /// When it became the newest; `None`: before anything was written.
    began: Option<Instant>,
    lines: Vec<[u64; LINE]>,
    markers: usize,
    markers_max: usize,
}

impl RecentMarkers {
    /// What was written before `began` is not known; `None`: nothing was.
    pub(super) fn new(began: Option<Instant>) -> Self {
        Self(RwLock::new(Filters { filters: VecDeque::from([Filter::new(began, FIRST_MARKERS)]) }))
    }

    /// Markers are about to be written, by their keys.
    pub(super) fn written<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, now: Instant) {
        let mut filters = self.0.write();
        for key in keys {
            filters.insert(xxh3_64(key), now);
        }
    }

    /// There is surely no marker with this key that is younger than `age_ms`, with a margin.
    pub(super) fn surely_absent(&self, key: &[u8], age_ms: u64, now: Instant) -> bool {
        let since = Duration::from_millis(age_ms).checked_add(MARGIN).and_then(|age| now.checked_sub(age));
        let hash = xxh3_64(key);
        for filter in self.0.read().filters.iter().rev() {
            if filter.contains(hash) {
                return false;
            }
            match (filter.began, since) {
                (None, _) => return true,
                (Some(began), Some(since)) if began <= since => return true,
                _ => {}
            }
        }
        false
    }
}

impl Filters {
    fn insert(&mut self, hash: u64, now: Instant) {
        let newest = self.filters.back().expect("there is always one");
        if newest.markers == newest.markers_max {
            let markers_max = (newest.markers_max * 2).min(MARKERS_MAX);
            if self.filters.len() == FILTERS_MAX {
                self.filters.pop_front();
            }
            self.filters.push_back(Filter::new(Some(now), markers_max));
        }
        self.filters.back_mut().expect("there is always one").insert(hash);
    }
}

impl Filter {
    fn new(began: Option<Instant>, markers_max: usize) -> Self {
        let lines = (markers_max * BITS_A_MARKER).div_ceil(LINE * 64);
        Self { began, lines: vec![[0; LINE]; lines], markers: 0, markers_max }
    }

    fn insert(&mut self, hash: u64) {
        let line = self.line(hash);
        for (word, bit) in places(hash) {
            self.lines[line][word] |= bit;
        }
        self.markers += 1;
    }

    fn contains(&self, hash: u64) -> bool {
        let line = &self.lines[self.line(hash)];
        places(hash).all(|(word, bit)| line[word] & bit != 0)
    }

    fn line(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }
}

/// One bit in each word of the line.
fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // Other bits than those that choose the line.
    let bits = (hash & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BITS_SET).map(move |at| (at, 1 << ((bits >> (at * 6 + 16)) & 63)))
}

const _: () = assert!(BITS_SET == LINE && (BITS_SET - 1) * 6 + 16 + 6 <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: usize) -> [u8; 8] {
        number.to_be_bytes()
    }

    #[test]
    fn what_was_written_is_never_surely_absent() {
        let start = Instant::now();
        let markers = RecentMarkers::new(Some(start));
        let count = FIRST_MARKERS * 5 / 2; // two filters and a half
        for number in 0..count {
            markers.written(std::iter::once(&key(number)[..]), start + HOUR);
        }
        let now = start + HOUR + HOUR;
        let absent = |number: usize, age_ms| markers.surely_absent(&key(number), age_ms, now);
        assert!((0..count).all(|number| !absent(number, 3_600_000)));
        let strangers = (count..2 * count).filter(|number| !absent(*number, 3_600_000 / 2)).count();
        assert!(strangers < count / 50, "{strangers} of {count} asked for nothing");
    }

    #[test]
    fn before_the_start_nothing_is_sure() {
        let start = Instant::now() + 10 * HOUR;
        let markers = RecentMarkers::new(Some(start));
        assert!(!markers.surely_absent(b"x", 0, start + MARGIN / 2), "within the margin");
        assert!(markers.surely_absent(b"x", 0, start + MARGIN));
        assert!(!markers.surely_absent(b"x", 1, start + MARGIN));
        assert!(markers.surely_absent(b"x", 3_600_000, start + MARGIN + HOUR));
        assert!(!markers.surely_absent(b"x", u64::MAX, start + 5 * HOUR), "an age nobody knows");
    }

    #[test]
    fn the_oldest_filters_go_and_what_they_knew_is_not_sure_any_more() {
        let start = Instant::now();
        let mut filters = Filters { filters: VecDeque::from([Filter::new(None, 1)]) };
        let whole = RecentMarkers::new(None);
        assert!(whole.surely_absent(b"x", u64::MAX, start), "a store that was empty is known whole");
        for number in 0..(1 << (FILTERS_MAX + 2)) {
            filters.insert(xxh3_64(&key(number)), start + Duration::from_secs(number as u64));
        }
        assert!(filters.filters.len() == FILTERS_MAX);
        let markers = RecentMarkers(RwLock::new(filters));
        let now = start + HOUR * 10;
        assert!(!markers.surely_absent(b"x", 36_000_000, now));
    }
}
