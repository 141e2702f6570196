//! What an outbox holds, as it is charged to the budget of the process: in steps, so that little traffic costs
//! nobody anything.

use crate::budget::{Budget, Charge};

/// Unsent bytes that every session may have: they are counted with the session.
pub(super) const FREE_BYTES: usize = 4 * 1024;
/// What is above is charged in steps of so many bytes.
const STEP_BYTES: usize = 4 * 1024;

/// The charge of one outbox.
#[derive(Debug)]
pub(super) struct Weight(Charge);

impl Weight {
    pub(super) fn new(memory: &Budget) -> Self {
        Self(memory.charge(0))
    }

    /// Makes room for so many unsent bytes, if there is any.
    pub(super) fn try_hold(&mut self, bytes: usize) -> bool {
        let charged = charged(bytes);
        charged <= self.0.bytes() || self.0.try_resize(charged)
    }

    /// So many bytes are unsent.
    pub(super) fn hold(&mut self, bytes: usize) {
        let charged = charged(bytes);
        if charged != self.0.bytes() {
            self.0.resize(charged);
        }
    }
}

fn charged(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_BYTES).next_multiple_of(STEP_BYTES)
}
