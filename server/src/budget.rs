//! A limit in bytes that parts of the process share: whoever keeps something in memory charges it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be in use at once. Cheap to clone; all clones are one budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
    /// The budget of which this is a part.
    whole: Option<Budget>,
}

impl Budget {
    /// Nothing is in use.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Account { limit, used: AtomicUsize::new(0), whole: None }))
    }

    /// A part of this budget with a limit of its own: what is charged to the part is charged to both.
    pub fn part(&self, limit: usize) -> Self {
        Self(Arc::new(Account { limit, used: AtomicUsize::new(0), whole: Some(self.clone()) }))
    }

    /// Charges these bytes if there is room for them.
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        self.try_add(bytes).then(|| Charge { budget: self.clone(), bytes })
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

    fn try_add(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.0.limit);
        // Only the number counts, nothing is published with it.
        if self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let fits_whole = self.0.whole.as_ref().is_none_or(|whole| whole.try_add(bytes));
        if !fits_whole {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits_whole
    }

    fn add(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.add(bytes);
        }
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
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
}
