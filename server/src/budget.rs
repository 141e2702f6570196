//! Limits in bytes: whoever keeps something in memory charges it here. One budget is that of the process,
//! with a part for each kind of thing that clients make it keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

mod machine;

pub use machine::{Limits, MemoryConfig};

/// What is kept for clients, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPart {
    /// Connections, from accept to their end, whatever they become.
    Connections,
    /// Sessions, from Hello to their last frame.
    Sessions,
    /// What waits to be sent to sessions. A frame for many counts once for each.
    Outboxes,
    /// Conversations that are kept ready, and changes that wait in them.
    Conversations,
    /// Reads of sessions that wait for their turn.
    Reads,
    /// Writes that wait to be durable.
    Commits,
    /// Push events on their way out.
    Push,
    /// Answers to requests over HTTP that are not taken yet.
    Answers,
}

impl MemoryPart {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Sessions,
        Self::Outboxes,
        Self::Conversations,
        Self::Reads,
        Self::Commits,
        Self::Push,
        Self::Answers,
    ];

    /// Its name, as a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Sessions => "sessions",
            Self::Outboxes => "outboxes",
            Self::Conversations => "conversations",
            Self::Reads => "reads",
            Self::Commits => "commits",
            Self::Push => "push",
            Self::Answers => "answers",
        }
    }

    /// Whether the last tenth of the budget is closed to it: who is here already may finish, and whoever
    /// comes new hears why they cannot stay.
    fn is_new_work(self) -> bool {
        matches!(self, Self::Sessions | Self::Reads | Self::Answers)
    }
}

/// The budget of the process. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Memory {
    whole: Budget,
    parts: Arc<[Budget; MemoryPart::ALL.len()]>,
}

impl Memory {
    /// Nothing is in use of so many bytes.
    pub fn new(limit: usize) -> Self {
        let whole = Budget::new(limit);
        let part = |part: MemoryPart| match part.is_new_work() {
            true => whole.part_below(usize::MAX, limit / 10 * 9),
            false => whole.part(usize::MAX),
        };
        Self { parts: Arc::new(MemoryPart::ALL.map(part)), whole }
    }

    /// So much that nothing is refused: for commands and tests.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// The budget of one part.
    pub fn part(&self, part: MemoryPart) -> &Budget {
        &self.parts[part as usize]
    }

    /// All parts together.
    pub fn whole(&self) -> &Budget {
        &self.whole
    }

    /// New work is refused: nine tenths of it are in use.
    pub fn is_short(&self) -> bool {
        self.whole.used() >= self.whole.limit() / 10 * 9
    }
}

/// Bytes that may be in use at once. Cheap to clone; all clones are one budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
    /// Charges for which there was no room.
    refused: AtomicU64,
    /// The budget of which this is a part, and how full it may be for a new charge.
    whole: Option<(Budget, usize)>,
}

impl Budget {
    /// Nothing is in use.
    pub fn new(limit: usize) -> Self {
        Self::make(limit, None)
    }

    /// A part of this budget with a limit of its own: what is charged to the part is charged to both.
    pub fn part(&self, limit: usize) -> Self {
        self.part_below(limit, self.limit())
    }

    /// A part that takes new charges only while this budget is filled to less than `ceiling` bytes.
    fn part_below(&self, limit: usize, ceiling: usize) -> Self {
        Self::make(limit, Some((self.clone(), ceiling)))
    }

    fn make(limit: usize, whole: Option<(Self, usize)>) -> Self {
        Self(Arc::new(Account { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0), whole }))
    }

    /// Charges these bytes if there is room for them.
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let fits = self.try_add(bytes, self.limit());
        if !fits {
            self.count_refused();
        }
        fits.then(|| Charge { budget: self.clone(), bytes })
    }

    /// Whether [`Budget::try_charge`] would charge so many bytes now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.try_add(bytes, self.limit()) && {
            self.take(bytes);
            true
        }
    }

    /// Charges what is there already, whether there is room for it or not. Its owner makes room by letting go.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.add(bytes);
        Charge { budget: self.clone(), bytes }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be in use.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Charges of this budget and its parts for which there was no room.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn count_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        if let Some((whole, _)) = &self.0.whole {
            whole.count_refused();
        }
    }

    fn try_add(&self, bytes: usize, limit: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        // Only the number counts, nothing is published with it.
        if self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let fits_whole = self.0.whole.as_ref().is_none_or(|(whole, ceiling)| whole.try_add(bytes, *ceiling));
        if !fits_whole {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits_whole
    }

    fn add(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some((whole, _)) = &self.0.whole {
            whole.add(bytes);
        }
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some((whole, _)) = &self.0.whole {
            whole.take(bytes);
        }
    }
}

/// Bytes in use until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Makes room for it to become larger, if there is any; smaller it may always become.
    pub fn try_resize(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.bytes || self.budget.try_add(bytes - self.bytes, self.budget.limit());
        if !fits {
            self.budget.count_refused();
            return false;
        }
        if bytes < self.bytes {
            self.budget.take(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }

    /// Bytes that are charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept has become larger or smaller.
    pub fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.add(bytes - self.bytes);
        } else {
            self.budget.take(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.take(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_charged() {
        let budget = Budget::new(100);
        let first = budget.try_charge(60).unwrap();
        assert!(budget.try_charge(41).is_none());
        assert_eq!(budget.used(), 60, "a refused charge leaves nothing");
        let second = budget.try_charge(40).unwrap();
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_part_counts_in_the_whole_and_is_bounded_by_both() {
        let whole = Budget::new(100);
        let (one, two) = (whole.part(60), whole.part(60));
        let first = one.try_charge(60).unwrap();
        assert!(one.try_charge(1).is_none(), "its own limit");
        assert!(two.try_charge(50).is_none(), "the limit of the whole");
        assert_eq!((one.used(), two.used(), whole.used()), (60, 0, 60));
        drop(first);
        assert_eq!((one.used(), whole.used()), (0, 0));
    }

    #[test]
    fn what_is_there_already_counts_even_beyond_the_limit() {
        let budget = Budget::new(100);
        let mut kept = budget.charge(90);
        kept.resize(150);
        assert_eq!(budget.used(), 150);
        assert!(budget.try_charge(1).is_none());
        kept.resize(10);
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn every_part_counts_in_the_process_and_is_told_by_its_name() {
        let memory = Memory::new(1000);
        let charges: Vec<Charge> =
            MemoryPart::ALL.map(|part| memory.part(part).charge(1 + part as usize)).into();
        for part in MemoryPart::ALL {
            assert_eq!(memory.part(part).used(), 1 + part as usize, "{}", part.label());
        }
        assert_eq!(memory.whole().used(), (1..=MemoryPart::ALL.len()).sum::<usize>());
        drop(charges);
        assert_eq!(memory.whole().used(), 0);
    }

    #[test]
    fn new_work_is_refused_before_what_is_here_already_and_each_refusal_is_counted() {
        let memory = Memory::new(1000);
        let _kept = memory.part(MemoryPart::Outboxes).try_charge(890).unwrap();
        assert!(!memory.is_short());
        for part in MemoryPart::ALL {
            let found = memory.part(part).try_charge(20);
            let is_new = matches!(part, MemoryPart::Sessions | MemoryPart::Reads | MemoryPart::Answers);
            assert_eq!(found.is_none(), is_new, "{}", part.label());
            assert_eq!(memory.part(part).refused(), u64::from(is_new), "{}", part.label());
        }
        let _more = memory.part(MemoryPart::Conversations).try_charge(110).unwrap();
        assert!(memory.is_short());
        assert!(memory.part(MemoryPart::Connections).try_charge(1).is_none());
        assert_eq!(memory.part(MemoryPart::Connections).refused(), 1);
    }

    #[test]
    fn a_charge_grows_only_where_there_is_room() {
        let budget = Budget::new(100);
        let mut kept = budget.try_charge(50).unwrap();
        assert!(!kept.try_resize(101) && kept.bytes() == 50 && budget.refused() == 1);
        assert!(kept.try_resize(100) && budget.used() == 100);
        assert!(kept.try_resize(1) && budget.used() == 1);
    }
}
