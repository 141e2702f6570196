//! The end of the current link.

use super::Driver;
use super::plan::Ending;
use crate::event::State;

impl Driver {
    pub(super) fn on_end(&mut self, ending: Ending, now: u64) {
        let Some(ended) = self.current.take() else { return };
        self.session.disconnected(ended.number);
        self.renewing = None;
        self.renew_at = None;
        let lived_ms = now.saturating_sub(ended.opened_ms);
        if self.opening.is_none() {
            self.plan_next(ending, lived_ms, now);
        } else {
            // This one was draining and the next is on its way.
            self.set_state(State::Connecting);
        }
    }
}
