//! Says now and then that clients know more than the store: the one sign of an old copy of the data that was
//! put back.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tern_protocol::ConversationId;

/// Between two lines. One client can cause as many as it likes.
const QUIET: Duration = Duration::from_secs(60);

/// Counts the cursors that were above a head.
#[derive(Default)]
pub(super) struct Rollback(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<Instant>,
    since: u64,
}

impl Rollback {
    /// A member's client named a seq that the conversation does not have.
    pub(super) fn note(&self, conversation: ConversationId, seq: u64, head: u64, now: Instant) {
        if let Some(cursors) = self.due(now) {
            tracing::warn!(
                %conversation,
                seq,
                head,
                cursors,
                "a client knows more of a conversation than the store; most likely an old copy of the data directory \
                 was put back, of which clients cannot know: they will take other messages for those they have. \
                 Restore a backup with tern store restore instead, which gives the store a new id"
            );
        }
    }

    /// How many there were since the last line, if it is time for one.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.since += 1;
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_are_counted() {
        let (rollback, start) = (Rollback::default(), Instant::now());
        assert_eq!(rollback.due(start), Some(1));
        assert_eq!(rollback.due(start + Duration::from_secs(1)), None);
        assert_eq!(rollback.due(start + Duration::from_secs(59)), None);
        assert_eq!(rollback.due(start + QUIET), Some(3));
        assert_eq!(rollback.due(start + QUIET), None);
    }
}
