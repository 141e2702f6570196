//! The end of the current link.

use super::Driver;
use super::plan::Ending;

impl Driver {
    pub(super) fn on_end(&mut self, ending: Ending, now: u64) {
        let Some(ended) = self.current.take() else { return };
        self.session.disconnected(ended.number);
        self.renewing = None;
        self.renew_at = None;
        let lived_ms = now.saturating_sub(ended.opened_ms);
        // The next session may be on its way already, if this one was draining.
        if self.opening.is_none() {
            self.plan_next(ending, lived_ms, now);
        }
    }
}
