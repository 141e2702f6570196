//! Where a page of a user's list begins. Pure.
//!
//! The list is ordered by the latest change, so what changes while somebody pages through it moves to the
//! front, out of their way. When they reach the end they are led over what has changed since they began,
//! once more from the front: whatever was there the whole time is shown at least once.

use std::fmt;
use std::str::FromStr;

use tern_protocol::{ConversationId, ConversationSummary};

use crate::store::{InboxCursor, InboxRow};

/// Rounds over what has changed meanwhile: a list that changes faster than it is read does not end otherwise.
const ROUNDS_MAX: u8 = 8;

/// Place in a user's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor {
    /// When this round began, in Unix milliseconds.
    began_ms: u64,
    /// What changed before this time was shown in the round before.
    until_ms: u64,
    /// Rounds before this one.
    rounds: u8,
    /// The last row that was shown in this round.
    after: Option<InboxCursor>,
}

/// How a list goes on after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// With a page at this place.
    Page(ListCursor),
    /// With what has changed since this time, if something has.
    Changes(u64),
    /// It does not.
    End,
}

impl ListCursor {
    /// The start of the list.
    pub(super) fn start(now_ms: u64) -> Self {
        Self { began_ms: now_ms, until_ms: 0, rounds: 0, after: None }
    }

    /// Where the store is to begin.
    pub(super) fn after(&self) -> Option<InboxCursor> {
        self.after
    }

    /// The next place in the same round, after this row.
    pub(super) fn past(self, summary: &ConversationSummary) -> Self {
        let (last_time_ms, conversation) = (summary.last_time_ms, summary.conversation);
        Self { after: Some(InboxCursor { last_time_ms, conversation }), ..self }
    }

    /// A round over what has changed since this one began.
    pub(super) fn again(self, now_ms: u64) -> Self {
        Self { began_ms: now_ms, until_ms: self.began_ms, rounds: self.rounds + 1, after: None }
    }

    /// What of the rows that the store gave is the page, and how it goes on. `all`: the store has no more.
    pub(super) fn take(self, mut rows: Vec<InboxRow>, limit: usize, mut all: bool) -> (Vec<InboxRow>, Then) {
        let shown = rows.iter().position(|row| row.last_time_ms < self.until_ms);
        if let Some(shown) = shown {
            rows.truncate(shown);
            all = true;
        }
        let last = rows.last().map(InboxRow::place);
        let next = if rows.len() > limit {
            rows.truncate(limit);
            rows.last().map(InboxRow::place)
        } else {
            last.filter(|_| !all)
        };
        let then = match next {
            Some(place) => Then::Page(Self { after: Some(place), ..self }),
            // One page of one moment: nothing can have slipped past it.
            None if self.after.is_none() || self.rounds >= ROUNDS_MAX => Then::End,
            None => Then::Changes(self.began_ms),
        };
        (rows, then)
    }
}

impl fmt::Display for ListCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.began_ms, self.until_ms, self.rounds)?;
        match self.after {
            Some(after) => write!(f, ".{}.{}", after.last_time_ms, after.conversation),
            None => Ok(()),
        }
    }
}

impl FromStr for ListCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(());
        let (began_ms, until_ms, rounds) = (number()?, number()?, number()?);
        let after = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(time), Some(conversation), None) => {
                let last_time_ms = time.parse().map_err(|_| ())?;
                let conversation: ConversationId = conversation.parse().map_err(|_| ())?;
                Some(InboxCursor { last_time_ms, conversation })
            }
            _ => return Err(()),
        };
        Ok(Self { began_ms, until_ms, rounds: u8::try_from(rounds).map_err(|_| ())?, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ReadPosition;

    fn row(number: u8, last_time_ms: u64) -> InboxRow {
        InboxRow {
            conversation: ConversationId::from_bytes([number; 16]),
            last_seq: 1,
            last_messages: 1,
            last_time_ms,
            first_seq: 1,
            until_seq: None,
            read: ReadPosition::default(),
        }
    }

    fn numbers(rows: &[InboxRow]) -> Vec<u8> {
        rows.iter().map(|row| row.conversation.as_bytes()[0]).collect()
    }

    #[test]
    fn a_cursor_survives_its_text() {
        let start = ListCursor::start(7);
        let place = InboxCursor { last_time_ms: 5, conversation: ConversationId::from_bytes([3; 16]) };
        for cursor in [start, ListCursor { after: Some(place), ..start.again(9) }] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "1", "1.2", "1.2.x", "1.2.300", "1.2.3.4", "1.2.3.4.x", "1.2.3.4.5.6"] {
            assert_eq!(bad.parse::<ListCursor>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn a_page_has_so_many_rows_and_goes_on_after_the_last() {
        let rows = vec![row(1, 9), row(2, 8), row(3, 7)];
        let cursor = ListCursor::start(100);
        let (page, then) = cursor.take(rows.clone(), 2, false);
        assert_eq!(numbers(&page), [1, 2]);
        let Then::Page(next) = then else { panic!("{then:?}") };
        assert_eq!(next.after(), Some(rows[1].place()));
        let (page, then) = cursor.take(rows[..1].to_vec(), 2, false);
        assert_eq!(numbers(&page), [1]);
        assert_eq!(then, Then::Page(ListCursor { after: Some(rows[0].place()), ..cursor }));
        assert_eq!(cursor.take(rows, 3, true).1, Then::End, "all of it in one moment");
    }

    #[test]
    fn the_end_leads_over_what_has_changed_meanwhile_and_no_further() {
        let cursor = ListCursor::start(100);
        let last = ListCursor { after: Some(row(4, 6).place()), ..cursor };
        assert_eq!(last.take(vec![row(5, 5)], 2, true).1, Then::Changes(100));
        let again = last.again(120);
        let rows = vec![row(9, 130), row(8, 100), row(1, 9)];
        let (page, then) = again.take(rows.clone(), 2, true);
        assert_eq!((numbers(&page), then), (vec![9, 8], Then::End));
        let (page, then) = again.take(rows, 1, false);
        assert_eq!(numbers(&page), [9]);
        let Then::Page(next) = then else { panic!("{then:?}") };
        assert_eq!(next.take(vec![row(8, 100)], 2, true).1, Then::Changes(120));
        let tired = ListCursor { rounds: ROUNDS_MAX, ..next };
        assert_eq!(tired.take(Vec::new(), 2, true).1, Then::End);
    }
}
