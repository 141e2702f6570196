//! The way to the next session: when it is opened, and what changes when it is open.

use super::open::{Attempt, Opened};
use super::plan::{Ending, Next};
use super::{Active, Driver, Schedule};
use crate::event::State;
use crate::persistence::{SavedChange, SavedTransport, Transport};
use crate::session::WrongUser;
use crate::token::TokenReason;

/// A fallback that won is preferred for this long; then the better transport is tried first
/// again. In ms (10 min).
const FALLBACK_MEMORY_MS: u64 = 10 * 60 * 1000;

impl Driver {
    pub(super) fn schedule_now(&mut self, reason: TokenReason) {
        let at = self.clock.now_ms();
        self.schedule = Some(Schedule { at, reason, target: None });
    }

    /// Starts an attempt as scheduled.
    pub(super) fn open(&mut self) {
        let Some(Schedule { reason, target, .. }) = self.schedule.take() else { return };
        let addresses = match &target {
            None => self.addresses.clone(),
            Some(target) => self.addresses.moved_to(target).unwrap_or_else(|| {
                tracing::warn!(target, "the server names a place that cannot be used");
                self.addresses.clone()
            }),
        };
        let attempt = Attempt {
            config: self.config.clone(),
            dialer: self.dialer.clone(),
            addresses,
            first: self.preferred(),
            device: self.device.clone(),
            reason,
        };
        self.opening = Some(Box::pin(attempt.run()));
        if self.current.is_none() {
            self.set_state(State::Connecting);
        }
    }

    fn preferred(&mut self) -> Transport {
        let now = self.clock.now_ms();
        match &self.won_last {
            Some(won) if now.saturating_sub(won.time_ms) < FALLBACK_MEMORY_MS => won.transport,
            _ => Transport::Quic,
        }
    }

    pub(super) fn on_opened(&mut self, opened: Opened, now: u64) {
        let Opened { link, welcome, fallback } = opened;
        self.link_last += 1;
        let number = self.link_last;
        let transport = link.transport;
        if let Err(WrongUser { expected, found }) = self.session.connected(number, &welcome, now) {
            return self.wrong_user(expected, found);
        }
        self.plan.opened();
        let keepalive = std::time::Duration::from_secs(welcome.limits.keepalive_s.max(1).into());
        self.dialer.set_keepalive(keepalive);
        self.remember(transport, fallback, now);
        // A third link would only follow a second drain during the first: that one waits no more.
        self.drop_old();
        self.old = self.current.take();
        self.renewing = None;
        self.renew_at = None;
        self.current = Some(Active::new(number, link, &welcome, now));
        self.ends.session.send_replace(Some(welcome));
        self.set_state(match &self.degraded {
            Some(cause) => State::Degraded { transport, cause: cause.clone() },
            None => State::Online { transport },
        });
    }

    /// Keeps who won, and why the better transport lost, for the next attempts.
    fn remember(&mut self, transport: Transport, fallback: Option<String>, now: u64) {
        self.degraded = None;
        if transport == Transport::WebSocket && self.addresses.has_fallback() {
            let known = self.won_last.as_ref().filter(|won| won.transport == transport);
            let cause = fallback.clone().or_else(|| known.and_then(|won| won.cause.clone()));
            self.degraded.clone_from(&cause);
            if fallback.is_none() && known.is_some() {
                // It was only preferred, not tested: the memory does not get younger.
                return;
            }
        }
        let won = SavedTransport { transport, cause: self.degraded.clone(), time_ms: now };
        let same = self.won_last.as_ref().is_some_and(|last| {
            last.transport == transport && transport != Transport::WebSocket && last.cause == won.cause
        });
        if !same {
            self.saver.push(SavedChange::Transport(won.clone()));
        }
        self.won_last = Some(won);
    }

    pub(super) fn on_open_failed(&mut self, ending: Ending, now: u64) {
        // The transport that is remembered may be the one that does not work any more.
        if matches!(ending, Ending::Lost(_)) {
            self.won_last = None;
        }
        self.plan_next(ending, 0, now);
    }

    /// Decides what follows an ending.
    pub(super) fn plan_next(&mut self, ending: Ending, lived_ms: u64, now: u64) {
        match self.plan.after(ending, lived_ms, &self.config.backoff, rand::random()) {
            Next::Stop(cause) if self.current.is_none() => self.stop = Some(cause),
            // The next session is refused, the current one still serves; its end will decide.
            Next::Stop(cause) => tracing::warn!(%cause, "no new session"),
            Next::Retry(retry) => {
                if retry.resync {
                    self.session.resync();
                }
                let at = now + retry.wait.as_millis() as u64;
                self.schedule = Some(Schedule { at, reason: retry.reason, target: retry.target });
                self.ends.trouble.send_replace(Some(retry.cause.clone()));
                if self.current.is_none() {
                    let retry_at = std::time::SystemTime::now() + retry.wait;
                    self.set_state(State::Offline { cause: retry.cause, retry_at });
                }
            }
        }
    }

    /// Ends the link that was replaced: says goodbye, and lets the writer finish by itself.
    pub(super) fn drop_old(&mut self) {
        let Some(mut old) = self.old.take() else { return };
        self.session.disconnected(old.number);
        let now = self.clock.now_ms();
        old.say_goodbye(now);
        tokio::spawn(old.finish());
    }
}
