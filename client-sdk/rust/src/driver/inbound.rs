//! What comes in: commands of the application, frames of the links, results of token renewal.

use std::time::Duration;

use tern_protocol::{Code, Envelope, Error, Frame, GoAway, Ping, Pong, Position, Reauth, Token, UserId};

use super::plan::Ending;
use super::saver::Outcome;
use super::{Active, Driver, Schedule};
use crate::command::{Attempt, Command, Question, Submission};
use crate::draft::Draft;
use crate::error::CloseCause;
use crate::event::{Event, State};
use crate::link::Inbound;
use crate::persistence::{SavedChange, SavedSend};
use crate::session::{Change, LinkNumber};
use crate::token::{TokenError, TokenReason};

/// Token renewals of one link that may fail; then the server ends it, and a new token is asked for
/// at the next connect.
const RENEWALS_MAX: u32 = 3;
/// Wait before a renewal is tried again.
const RENEW_RETRY: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn on_command(&mut self, command: Command, now: u64) {
        match command {
            Command::Submit(submission) => self.on_submit(submission, now),
            Command::Ask(Question { frame, answer }) => match self.session.ask(frame) {
                Ok(number) => {
                    self.questions.insert(number, answer);
                }
                Err(full) => {
                    let refusal = if full { Attempt::Full } else { Attempt::Offline };
                    // Whoever asked may have given up.
                    let _ = answer.send(refusal);
                }
            },
            Command::Read { conversation, seq } => self.session.read(Position { conversation, seq }),
            Command::Watch(users) => self.session.watch(users),
            Command::Typing(to) => self.session.typing(to),
            Command::Close => self.stop = Some(CloseCause::Requested),
        }
    }

    fn on_submit(&mut self, submission: Submission, now: u64) {
        let Submission { temp_id, change, mut waiter } = submission;
        if self.waiters.contains_key(&temp_id) {
            if let Some(resolved) = waiter.resolved.take() {
                // Whoever submitted may have given up.
                let _ = resolved.send(Err(crate::SendError::InUse));
            }
            return;
        }
        let kept = match &change {
            Change::Message { to, draft } if self.saver.keeps() => {
                let (to, Draft { text, data, reply_to }) = (to.clone(), draft.clone());
                let send = SavedSend { temp_id, to, text, data, reply_to, created_ms: now };
                self.saver.push(SavedChange::Send(send));
                true
            }
            _ => false,
        };
        if !kept && let Some(accepted) = waiter.accepted.take() {
            // Whoever submitted may not want to know.
            let _ = accepted.send(());
        }
        self.waiters.insert(temp_id, waiter);
        self.session.submit(temp_id, change, !kept, now);
    }

    pub(super) fn on_saved(&mut self, outcome: Outcome, now: u64) {
        let report = self.saver.settle(outcome, now);
        for temp_id in &report.saved {
            if let Some(accepted) = self.waiters.get_mut(temp_id).and_then(|waiter| waiter.accepted.take()) {
                // Whoever submitted may not want to know.
                let _ = accepted.send(());
            }
        }
        self.session.saved(&report.saved, now);
        if !report.not_saved.is_empty() {
            let problem = report.problem.clone().unwrap_or_else(|| "the state cannot be written".into());
            for temp_id in report.not_saved {
                self.session.not_saved(temp_id, &problem);
            }
        }
        if let Some(problem) = report.problem {
            self.ends.queue.push(Event::Persistence { problem });
        }
    }

    pub(super) fn on_inbound(&mut self, link: LinkNumber, inbound: Inbound, now: u64) {
        let is_current = self.current.as_ref().is_some_and(|active| active.number == link);
        if let Some(active) = self.active(link) {
            active.heard(&inbound, now);
        }
        match inbound {
            Inbound::Frame(envelope) => self.on_frame(link, is_current, envelope, now),
            // The other side is at fault; what the frame held is fetched or asked for again.
            Inbound::Bad(error) => tracing::warn!(%error, "a frame of the server could not be read"),
            Inbound::End(end) if is_current => self.on_end(end.into(), now),
            Inbound::End(_) => self.drop_old(),
        }
    }

    fn active(&mut self, link: LinkNumber) -> Option<&mut Active> {
        [&mut self.current, &mut self.old].into_iter().flatten().find(|active| active.number == link)
    }

    fn on_frame(&mut self, link: LinkNumber, is_current: bool, envelope: Envelope, now: u64) {
        match envelope.frame {
            Frame::Ping(Ping { nonce }) => self.push(link, Pong { nonce }.into(), now),
            Frame::Pong(_) => {}
            Frame::Close(close) if is_current => self.on_end(Ending::Closed(close), now),
            Frame::Close(_) => self.drop_old(),
            Frame::GoAway(go_away) if is_current => self.on_go_away(go_away, now),
            Frame::TokenExpiring(_) if is_current => self.renew(TokenReason::Expiring),
            Frame::Reauthed(_) => {
                if let Some(active) = self.active(link) {
                    active.reauths = 0;
                }
            }
            frame => {
                self.session.received(link, Envelope { request: envelope.request, frame }, now);
            }
        }
    }

    fn on_go_away(&mut self, go_away: GoAway, now: u64) {
        if self.opening.is_some() || self.schedule.is_some() {
            return;
        }
        let spread = u64::from(go_away.spread_ms.min(go_away.deadline_ms));
        let wait = (spread as f64 * rand::random::<f64>()) as u64;
        self.schedule =
            Some(Schedule { at: now + wait, reason: TokenReason::Connect, target: go_away.target });
        if let Some(active) = &self.current {
            self.set_state(State::Draining { transport: active.link.transport });
        }
    }

    /// Asks for a new token for the live session.
    pub(super) fn renew(&mut self, reason: TokenReason) {
        self.renew_at = None;
        let Some(active) = self.current.as_mut().filter(|active| active.reauths < RENEWALS_MAX) else {
            return;
        };
        if self.renewing.is_none() {
            active.reauths += 1;
            let source = self.config.token.clone();
            self.renewing = Some(Box::pin(async move { source.token(reason).await }));
        }
    }

    pub(super) fn on_token(&mut self, result: Result<String, TokenError>, now: u64) {
        match result {
            Ok(token) => {
                if let Some(link) = self.current.as_ref().map(|active| active.number) {
                    self.push(link, Reauth { token: Token(token) }.into(), now);
                }
            }
            Err(TokenError::Temporary(_)) => self.renew_at = Some(now + RENEW_RETRY.as_millis() as u64),
            // The session goes on while it may; the next connect asks again, and then stops.
            Err(TokenError::Permanent(why)) => tracing::info!(why, "the token is not renewed"),
        }
    }

    pub(super) fn push(&mut self, link: LinkNumber, frame: Frame, now: u64) {
        self.push_envelope(link, &Envelope { request: None, frame }, now);
    }

    /// Queues a frame on a link. One that no link can carry is refused as the server would do it.
    pub(super) fn push_envelope(&mut self, link: LinkNumber, envelope: &Envelope, now: u64) {
        let Some(active) = self.active(link) else { return };
        let Err(too_large) = active.push(envelope, now) else { return };
        let refusal = Error {
            code: Code::FRAME_TOO_LARGE,
            temporary: false,
            retry_after_ms: None,
            detail: format!("the frame has {} bytes", too_large.0),
            temp_id: None,
            conversation: None,
        };
        self.session.received(link, Envelope { request: envelope.request, frame: refusal.into() }, now);
    }

    /// Stops because the session is another user's.
    pub(super) fn wrong_user(&mut self, expected: UserId, found: UserId) {
        self.stop = Some(CloseCause::WrongUser { expected, found });
    }
}
