//! Carries out what the session wants done.

use tern_protocol::Close;

use super::Driver;
use super::plan::Ending;
use crate::command::Attempt;
use crate::event::{Event, State};
use crate::session::Effect;
use crate::token::TokenReason;

impl Driver {
    pub(super) fn run_effects(&mut self, now: u64) {
        while let Some(effect) = self.session.pop() {
            match effect {
                Effect::Send(envelope) => {
                    if let Some(link) = self.current.as_ref().map(|active| active.number) {
                        self.push_envelope(link, &envelope, now);
                    }
                }
                Effect::Emit(event) => self.ends.queue.push(event),
                Effect::Forget(conversation) => self.ends.queue.forget(conversation),
                Effect::Resolved { temp_id, result } => {
                    if let Some(resolved) = self.waiters.remove(&temp_id).and_then(|waiter| waiter.resolved) {
                        // Whoever submitted may not want to know.
                        let _ = resolved.send(result);
                    }
                }
                Effect::Save(change) => self.saver.push(change),
                Effect::Answer { question, answer } => {
                    if let Some(asker) = self.questions.remove(&question) {
                        let answer = match answer {
                            None => Attempt::Offline,
                            Some(Ok(frame)) => Attempt::Frame(frame),
                            Some(Err(error)) => Attempt::Refused(error),
                        };
                        // Whoever asked may have given up.
                        let _ = asker.send(answer);
                    }
                }
                Effect::Reauth(code) => self.renew(TokenReason::Rejected(code)),
                Effect::SyncRefused(error) => {
                    let ending = Ending::Closed(Close {
                        code: error.code,
                        reason: error.detail,
                        retry_after_ms: error.retry_after_ms,
                        target: None,
                    });
                    self.on_end(ending, now);
                }
                // Everything up to the heads came over the new link: the old one is not needed.
                Effect::Synced => self.drop_old(),
            }
        }
    }

    pub(super) fn set_state(&mut self, state: State) {
        if *self.ends.state.borrow() != state {
            self.ends.state.send_replace(state.clone());
            self.ends.queue.push(Event::State(state));
        }
    }
}
