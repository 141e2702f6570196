//! Remembers what was decided a moment ago, so that most retries and followers need no look into the store.
//! Pure.

use std::collections::VecDeque;

use tern_protocol::{SENDS_IN_FLIGHT_MAX, TempId, UserId};

use super::ask::Ask;
use super::state::ChangeKey;
use crate::store::{GROUP_ENTRIES_MAX, Marker};

/// Markers of the newest commits that are kept: those of one full group. A follower that comes later finds
/// its predecessor in the store.
const RECENT_MAX: usize = GROUP_ENTRIES_MAX;
/// Changes refused for good that are kept: what two full sessions can have on their way.
const REFUSED_MAX: usize = 2 * SENDS_IN_FLIGHT_MAX;

/// The markers of the newest commits of a conversation; the oldest go first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(ChangeKey, Marker)>);

impl Recent {
    /// A change was committed.
    pub(super) fn remember(&mut self, key: ChangeKey, marker: Marker) {
        if self.0.len() == RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, marker));
    }

    /// The marker of a change, if it was committed here a moment ago.
    pub(super) fn marker(&self, sender: &UserId, temp_id: TempId) -> Option<Marker> {
        // The newest first: that is what is asked for.
        let found = self.0.iter().rev().find(|(key, _)| key.1 == temp_id && key.0 == *sender);
        found.map(|(_, marker)| *marker)
    }

    /// Memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(ChangeKey, Marker)>()
    }
}

/// Changes that were refused for good, remembered for those pipelined behind them: they name a predecessor
/// that will never be in the log.
#[derive(Debug, Default)]
pub(super) struct FinalRefusals(VecDeque<ChangeKey>);

impl FinalRefusals {
    /// A change was refused for good.
    pub(super) fn remember(&mut self, key: ChangeKey) {
        if self.0.len() == REFUSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(key);
    }

    /// Whoever was pipelined behind one of them has nothing to wait for. One that is asked for again is
    /// unresolved again, for itself and for who follows it.
    pub(super) fn release(&mut self, batch: &mut [Ask]) {
        for ask in batch {
            if self.0.is_empty() {
                return;
            }
            let is = |key: &ChangeKey, temp_id| key.1 == temp_id && key.0 == ask.sender;
            ask.after = ask.after.filter(|&before| !self.0.iter().any(|key| is(key, before)));
            self.0.retain(|key| !is(key, ask.temp_id));
        }
    }

    /// Memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<ChangeKey>()
    }
}

#[cfg(test)]
mod tests {
    use tern_protocol::ConversationId;

    use super::*;
    use crate::conversation::Change;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn temp(n: usize) -> TempId {
        TempId::from_bytes((n as u128).to_be_bytes())
    }

    fn key(name: &str, n: usize) -> ChangeKey {
        (user(name), temp(n))
    }

    fn ask(sender: &str, n: usize, after: Option<usize>) -> Ask {
        Ask {
            conversation: ConversationId::from_bytes([7; 16]),
            peer: None,
            sender: user(sender),
            sender_name: None,
            asker: None,
            temp_id: temp(n),
            after: after.map(temp),
            age_ms: 0,
            right: None,
            change: Change::Leave,
        }
    }

    #[test]
    fn a_follower_of_a_change_refused_for_good_waits_for_nothing() {
        let mut refusals = FinalRefusals::default();
        refusals.remember(key("alice", 1));
        let mut batch = [ask("alice", 2, Some(1)), ask("bob", 2, Some(1)), ask("alice", 3, Some(2))];
        refusals.release(&mut batch);
        assert_eq!(batch.map(|ask| ask.after), [None, Some(temp(1)), Some(temp(2))]);
    }

    #[test]
    fn one_that_is_asked_for_again_is_waited_for_again() {
        let mut refusals = FinalRefusals::default();
        refusals.remember(key("alice", 1));
        let mut batch = [ask("alice", 1, None), ask("alice", 2, Some(1))];
        refusals.release(&mut batch);
        assert_eq!(batch[1].after, Some(temp(1)));
        let mut later = [ask("alice", 3, Some(1))];
        refusals.release(&mut later);
        assert_eq!(later[0].after, Some(temp(1)));
    }

    #[test]
    fn both_memories_are_bounded_and_the_oldest_goes() {
        let (mut recent, mut refusals) = (Recent::default(), FinalRefusals::default());
        for n in 0..2 * REFUSED_MAX {
            recent.remember(key("alice", n), Marker { seq: n as u64, digest: [0; 16] });
            refusals.remember(key("alice", n));
        }
        assert_eq!((recent.0.len(), refusals.0.len()), (RECENT_MAX, REFUSED_MAX));
        assert!(recent.marker(&user("alice"), temp(0)).is_none());
        let newest = 2 * REFUSED_MAX - 1;
        assert_eq!(recent.marker(&user("alice"), temp(newest)).map(|marker| marker.seq), Some(newest as u64));
        assert!(recent.marker(&user("bob"), temp(newest)).is_none(), "a temp_id is its sender's own");
    }
}
