//! Events kept in memory, for tests that look at what would have left.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Events, EventsError, PushEvent};

/// Keeps every event, in order, without a limit: not for production.
#[derive(Default)]
pub struct MemoryEvents {
    published: Mutex<Vec<PushEvent>>,
}

impl MemoryEvents {
    /// With no events.
    pub fn new() -> Self {
        Self::default()
    }

    /// All events so far, in the order they were published.
    pub fn published(&self) -> Vec<PushEvent> {
        self.published.lock().clone()
    }
}

#[async_trait]
impl Events for MemoryEvents {
    async fn publish(&self, events: &[PushEvent]) -> Result<(), EventsError> {
        self.published.lock().extend_from_slice(events);
        Ok(())
    }

    async fn health(&self) -> Result<(), EventsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::contract::{self, Fixture};

    struct Memory(Arc<MemoryEvents>);

    #[async_trait]
    impl Fixture for Memory {
        fn events(&self) -> Arc<dyn Events> {
            self.0.clone()
        }

        async fn reopen(&mut self) {} // there is nothing to open

        async fn published(&self) -> Vec<PushEvent> {
            self.0.published()
        }
    }

    contract::suite!(Memory(Arc::new(MemoryEvents::new())));
}
