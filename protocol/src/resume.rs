//! The rules of catching up, as pure functions that server and clients share.

use crate::limits::{GAP_TAIL, GAP_WHOLE_MAX};

/// What a client with a cursor is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// Nothing.
    UpToDate,
    /// Entries `from..=to`, few enough to be sent whole.
    Whole {
        /// First entry to send.
        from: u64,
        /// Last entry to send.
        to: u64,
    },
    /// Entries `gap_from..=gap_to` are only named; `from..=to` are sent.
    Tail {
        /// First entry left out.
        gap_from: u64,
        /// Last entry left out.
        gap_to: u64,
        /// First entry to send.
        from: u64,
        /// Last entry to send.
        to: u64,
    },
    /// The cursor is above the head: it belongs to another store or another life of it.
    Ahead,
}

/// What is missing after `cursor` in a log whose visible part is `first_seq..=head`.
///
/// ```
/// use tern_protocol::resume::{CatchUp, catch_up};
/// assert_eq!(catch_up(10, 1, 12), CatchUp::Whole { from: 11, to: 12 });
/// ```
pub fn catch_up(cursor: u64, first_seq: u64, head: u64) -> CatchUp {
    if cursor > head {
        return CatchUp::Ahead;
    }
    let from = (cursor + 1).max(first_seq);
    if from > head {
        return CatchUp::UpToDate;
    }
    if head - from < GAP_WHOLE_MAX {
        return CatchUp::Whole { from, to: head };
    }
    let tail = head - GAP_TAIL + 1;
    CatchUp::Tail { gap_from: from, gap_to: tail - 1, from: tail, to: head }
}

/// Where an entry goes that arrives at a receiver which has applied everything up to `applied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It is the next one: apply it.
    Next,
    /// It was applied before: drop it.
    Old,
    /// Entries `from..=to` are missing before it: keep it aside and get them.
    Early {
        /// First missing entry.
        from: u64,
        /// Last missing entry.
        to: u64,
    },
}

/// Decides the race between catching up and live delivery: an entry is applied exactly at its
/// turn, whichever way it came.
pub fn place(applied: u64, seq: u64) -> Placement {
    if seq <= applied {
        Placement::Old
    } else if seq == applied + 1 {
        Placement::Next
    } else {
        Placement::Early { from: applied + 1, to: seq - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_up_to_500_is_whole_and_a_larger_one_has_a_tail_of_50() {
        let table = [
            ((0, 1, 0), CatchUp::UpToDate),
            ((5, 1, 5), CatchUp::UpToDate),
            ((6, 1, 5), CatchUp::Ahead),
            ((0, 1, 1), CatchUp::Whole { from: 1, to: 1 }),
            ((0, 1, 500), CatchUp::Whole { from: 1, to: 500 }),
            ((0, 1, 501), CatchUp::Tail { gap_from: 1, gap_to: 451, from: 452, to: 501 }),
            ((100, 1, 600), CatchUp::Whole { from: 101, to: 600 }),
            ((100, 1, 601), CatchUp::Tail { gap_from: 101, gap_to: 551, from: 552, to: 601 }),
            // The log of a member starts where they joined.
            ((0, 200, 210), CatchUp::Whole { from: 200, to: 210 }),
            ((0, 200, 900), CatchUp::Tail { gap_from: 200, gap_to: 850, from: 851, to: 900 }),
            ((205, 300, 310), CatchUp::Whole { from: 300, to: 310 }),
            ((0, 11, 10), CatchUp::UpToDate),
        ];
        for ((cursor, first, head), expected) in table {
            assert_eq!(catch_up(cursor, first, head), expected, "cursor {cursor} in {first}..={head}");
        }
    }

    #[test]
    fn an_entry_is_applied_exactly_at_its_turn() {
        assert_eq!(place(0, 1), Placement::Next);
        assert_eq!(place(7, 7), Placement::Old);
        assert_eq!(place(7, 1), Placement::Old);
        assert_eq!(place(7, 8), Placement::Next);
        assert_eq!(place(7, 11), Placement::Early { from: 8, to: 10 });
    }
}
