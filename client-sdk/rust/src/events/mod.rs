//! The events of a client on their way to the application, in order.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::command::Command;
use crate::event::Event;

mod queue;

pub(crate) use queue::Queue;

/// The events of one client. There is one of it; dropping it discards events from then on, and
/// entries that nobody pulled are not acked.
pub struct Events {
    queue: Arc<Queue>,
    /// Keeps the client running while somebody may still pull.
    _alive: mpsc::Sender<Command>,
}

impl Events {
    pub(crate) fn new(queue: Arc<Queue>, alive: mpsc::Sender<Command>) -> Self {
        Self { queue, _alive: alive }
    }

    /// The next event; `None` once the client has stopped and everything was pulled.
    /// Cancel-safe: an event is never lost. With [`Confirm::Auto`](crate::Confirm::Auto) the call
    /// confirms the entry returned by the call before.
    pub async fn next(&mut self) -> Option<Event> {
        self.queue.pop().await
    }

    /// The next event if there is one already, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.try_pop()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}
