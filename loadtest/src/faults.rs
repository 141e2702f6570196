//! What a run found wrong: how often, and the first ones in words.

use std::fmt;

/// Faults that are told in words; of more only the number is told.
const FAULTS_SHOWN_MAX: usize = 10;

/// Faults of many clients: the first ones in words, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Faults {
    /// How many.
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) first: Vec<String>,
}

impl Faults {
    /// Adds one.
    pub(crate) fn add(&mut self, where_: impl fmt::Display, what: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < FAULTS_SHOWN_MAX {
            self.first.push(format!("{where_}: {what}"));
        }
    }

    /// Adds those of another.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = FAULTS_SHOWN_MAX - self.first.len();
        self.first.extend(other.first.into_iter().take(room));
    }

    /// None so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_faults_the_first_are_told_and_all_are_counted() {
        let (mut all, mut more) = (Faults::default(), Faults::default());
        for number in 0..8 {
            all.add("pair 1", number);
            more.add("pair 2", number);
        }
        all.merge(more);
        assert_eq!((all.count, all.first.len()), (16, FAULTS_SHOWN_MAX));
        assert_eq!(all.first[8], "pair 2: 0");
    }
}
