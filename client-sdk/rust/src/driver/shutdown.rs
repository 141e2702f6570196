//! The end of a client: what was confirmed is acked and saved, the server is told, waiters are told.

use std::time::Duration;

use super::{Driver, Ends};
use crate::error::CloseCause;
use crate::event::{Event, State};

/// How long the last frames and the last save may take.
const FLUSH_TIME: Duration = Duration::from_secs(2);

impl Driver {
    /// Gives what is left when everything else, the persistence included, has been let go.
    pub(super) async fn shut_down(mut self) -> (Ends, CloseCause) {
        self.opening = None;
        self.ends.commands.close();
        let now = self.clock.now_ms();
        self.take_confirmed();
        self.run_effects(now);
        self.drop_old();
        let goodbye = self.current.take().map(|mut active| {
            active.say_goodbye(now);
            tokio::spawn(active.finish())
        });
        self.session.close();
        self.run_effects(now);
        // Whatever does not get through in this time is retried after the next start.
        let _ = tokio::time::timeout(FLUSH_TIME, self.save_rest()).await;
        if let Some(goodbye) = goodbye {
            let _ = tokio::time::timeout(FLUSH_TIME, goodbye).await;
        }
        let cause = self.stop.take().unwrap_or(CloseCause::Requested);
        (self.ends, cause)
    }

    async fn save_rest(&mut self) {
        loop {
            let now = self.clock.now_ms();
            self.saver.start(now);
            if self.saver.done() {
                return;
            }
            let outcome = self.saver.finished().await;
            self.saver.settle(outcome, now);
        }
    }
}

impl Ends {
    /// Tells every handle that the client has stopped.
    pub(super) fn close(self, cause: CloseCause) {
        let state = State::Closed { cause };
        self.queue.push(Event::State(state.clone()));
        self.permits.close();
        self.queue.close();
        self.state.send_replace(state);
    }
}
