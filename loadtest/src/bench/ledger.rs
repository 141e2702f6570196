//! What is checked of every message of the benchmark: acked once, delivered once, in order, at the
//! seq of its ack. Pure.

use std::fmt;

/// What is wrong with one message, or one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It came again, or after a later one.
    Late { number: u64, last: u64 },
    /// One or several before it are missing.
    Hole { expected: u64, found: u64 },
    /// It is not at the seq behind the one before.
    Place { number: u64, expected: u64, found: u64 },
    /// The last ones are missing.
    Missing { after: u64, total: u64 },
    /// Acks and entries do not name the same seqs.
    Differ { acked: u64, delivered: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { number, last } => write!(f, "message {number} came after {last}"),
            Self::Hole { expected, found } => write!(f, "message {found} came where {expected} is next"),
            Self::Place { number, expected, found } => {
                write!(f, "message {number} is at seq {found}, not {expected}")
            }
            Self::Missing { after, total } => write!(f, "messages after {after} of {total} are missing"),
            Self::Differ { acked, delivered } => {
                write!(f, "message 1 was acked at seq {acked} and delivered at seq {delivered}")
            }
        }
    }
}

/// Messages 1, 2, 3… of one pair as one side sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    last: u64,
    /// Seq of message 1; every other one follows from it, since nobody else writes there.
    first_seq: Option<u64>,
}

impl Ledger {
    /// Takes the next one. After a fault the following ones are judged by themselves.
    pub(super) fn take(&mut self, number: u64, seq: u64) -> Result<(), Fault> {
        let next = self.last + 1;
        if number < next {
            return Err(Fault::Late { number, last: self.last });
        }
        self.last = number;
        if number > next {
            return Err(Fault::Hole { expected: next, found: number });
        }
        let first = *self.first_seq.get_or_insert(seq.wrapping_sub(number - 1));
        let expected = first.wrapping_add(number - 1);
        if seq == expected { Ok(()) } else { Err(Fault::Place { number, expected, found: seq }) }
    }

    /// Number of the last one taken.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Everything up to `total` is there.
    pub(super) fn complete(&self, total: u64) -> Result<(), Fault> {
        if self.last >= total { Ok(()) } else { Err(Fault::Missing { after: self.last, total }) }
    }

    /// This ledger of acks and that of entries name the same seqs.
    pub(super) fn agrees(&self, delivered: &Self) -> Result<(), Fault> {
        match (self.first_seq, delivered.first_seq) {
            (Some(acked), Some(delivered)) if acked != delivered => Err(Fault::Differ { acked, delivered }),
            // Where one has nothing, `complete` says so.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(seqs: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (number, seq) in seqs {
            ledger.take(*number, *seq).unwrap();
        }
        ledger
    }

    #[test]
    fn an_unbroken_row_holds_wherever_it_begins() {
        let ledger = filled(&[(1, 1), (2, 2), (3, 3)]);
        assert_eq!((ledger.last(), ledger.complete(3)), (3, Ok(())));
        assert_eq!(ledger.agrees(&filled(&[(1, 1), (2, 2)])), Ok(()));
        filled(&[(1, 40), (2, 41)]);
    }

    #[test]
    fn a_repeated_and_a_late_message_are_found() {
        let mut ledger = filled(&[(1, 1), (2, 2)]);
        assert_eq!(ledger.take(2, 2), Err(Fault::Late { number: 2, last: 2 }));
        assert_eq!(ledger.take(1, 1), Err(Fault::Late { number: 1, last: 2 }));
        assert_eq!(ledger.take(3, 3), Ok(()), "the next one is judged by itself");
    }

    #[test]
    fn a_lost_message_is_found_in_the_middle_and_at_the_end() {
        let mut ledger = filled(&[(1, 1)]);
        assert_eq!(ledger.take(3, 3), Err(Fault::Hole { expected: 2, found: 3 }));
        assert_eq!(ledger.take(4, 4), Ok(()));
        assert_eq!(ledger.complete(5), Err(Fault::Missing { after: 4, total: 5 }));
        assert_eq!(Ledger::default().complete(1), Err(Fault::Missing { after: 0, total: 1 }));
    }

    #[test]
    fn a_hole_in_the_log_is_found_though_every_message_came() {
        let mut ledger = filled(&[(1, 1)]);
        assert_eq!(ledger.take(2, 3), Err(Fault::Place { number: 2, expected: 2, found: 3 }));
    }

    #[test]
    fn acks_that_name_other_seqs_than_the_entries_are_found() {
        let (acks, entries) = (filled(&[(1, 1), (2, 2)]), filled(&[(1, 2), (2, 3)]));
        assert_eq!(acks.agrees(&entries), Err(Fault::Differ { acked: 1, delivered: 2 }));
    }
}
