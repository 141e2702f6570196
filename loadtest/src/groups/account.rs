//! What one member of a group has of its log: which messages came, and whether each came once and in
//! order. Pure.

use std::collections::BTreeSet;

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Wrong {
    /// Messages that did not come.
    pub(super) lost: u64,
    /// Messages that came again.
    pub(super) doubled: u64,
    /// Messages that came after a later one.
    pub(super) disordered: u64,
    /// Entries that nobody wrote so.
    pub(super) altered: u64,
}

impl Wrong {
    /// Nothing is.
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Adds those of another member.
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.altered += other.altered;
    }
}

/// The seqs of one group, as one member sees them.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Of messages of others.
    heard: BTreeSet<u64>,
    /// Of own messages, by their acks.
    own: BTreeSet<u64>,
    wrong: Wrong,
}

impl Account {
    /// A message of somebody else.
    pub(super) fn hear(&mut self, seq: u64) {
        let last = self.heard.last().copied().unwrap_or_default();
        if !self.heard.insert(seq) {
            self.wrong.doubled += 1;
        } else if seq < last {
            self.wrong.disordered += 1;
        }
    }

    /// An entry that is none of what was written.
    pub(super) fn cannot_read(&mut self) {
        self.wrong.altered += 1;
    }

    /// An own message was acked.
    pub(super) fn acked(&mut self, seq: u64) {
        if !self.own.insert(seq) {
            self.wrong.doubled += 1;
        }
    }

    /// Own messages.
    pub(super) fn own(&self) -> u64 {
        self.own.len() as u64
    }

    /// Messages of others.
    pub(super) fn heard(&self) -> u64 {
        self.heard.len() as u64
    }

    /// Whether all messages of the group, so many, are here or are own ones.
    pub(super) fn has_all(&self, total: u64) -> bool {
        self.heard() + self.own() >= total
    }

    /// What is wrong, if the group has so many messages. An own message that came back was delivered twice.
    pub(super) fn close(&self, total: u64) -> Wrong {
        let back = self.own.intersection(&self.heard).count() as u64;
        let there = self.heard() + self.own() - back;
        Wrong { lost: total.saturating_sub(there), doubled: self.wrong.doubled + back, ..self.wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(heard: &[u64], own: &[u64]) -> Account {
        let mut account = Account::default();
        heard.iter().for_each(|seq| account.hear(*seq));
        own.iter().for_each(|seq| account.acked(*seq));
        account
    }

    #[test]
    fn a_whole_log_with_own_messages_in_it_holds() {
        let account = account(&[2, 4, 5], &[3, 6]);
        assert!(account.has_all(5) && !account.has_all(6));
        assert!(account.close(5).is_nothing());
    }

    #[test]
    fn lost_doubled_and_disordered_messages_are_counted() {
        assert_eq!(account(&[2, 4], &[3]).close(5).lost, 2);
        assert_eq!(account(&[2, 2, 3], &[]).close(2), Wrong { doubled: 1, ..Wrong::default() });
        assert_eq!(account(&[3, 2], &[]).close(2), Wrong { disordered: 1, ..Wrong::default() });
        assert_eq!(account(&[2, 3], &[3]).close(2).doubled, 1, "an own message came back");
        assert_eq!(account(&[], &[3, 3]).close(1).doubled, 1, "two messages were acked at one place");
    }
}
