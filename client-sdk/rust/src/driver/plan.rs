//! What to do when an attempt or a session has ended: the class of the code decides. Pure.

use std::time::Duration;

use tern_protocol::{Class, Close, Code};

use crate::backoff::Backoff;
use crate::error::CloseCause;
use crate::token::{TokenError, TokenReason};

/// Refused tokens in a row after which the client stops.
const TOKENS_REFUSED_MAX: u32 = 3;
/// A session that lived this long counts as a success: the back-off starts anew. In ms.
const STABLE_MS: u64 = 10_000;

/// How an attempt or a session ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ending {
    /// The link broke or could not be made.
    Lost(String),
    /// The server said why.
    Closed(Close),
    /// There was no token.
    NoToken(TokenError),
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    Retry(Retry),
    Stop(CloseCause),
}

/// Another attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Retry {
    pub(super) wait: Duration,
    /// What the token source is told.
    pub(super) reason: TokenReason,
    /// Where the server sends us.
    pub(super) target: Option<String>,
    /// The cursors do not hold.
    pub(super) resync: bool,
    /// For people.
    pub(super) cause: String,
}

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Plan {
    failures: u32,
    tokens_refused: u32,
}

impl Plan {
    /// A session was opened.
    pub(super) fn opened(&mut self) {
        self.tokens_refused = 0;
    }

    /// What follows an ending, after a session of `lived_ms` (0: there was none). `random` is
    /// uniform in 0..1.
    pub(super) fn after(&mut self, ending: Ending, lived_ms: u64, backoff: &Backoff, random: f64) -> Next {
        if lived_ms >= STABLE_MS {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let close = match ending {
            Ending::Lost(cause) => return self.retry(backoff, random, cause),
            Ending::NoToken(TokenError::Permanent(why)) => return Next::Stop(CloseCause::Token(why)),
            Ending::NoToken(error) => return self.retry(backoff, random, error.to_string()),
            Ending::Closed(close) => close,
        };
        let hint = close.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
        let wait = backoff.wait(self.failures, hint, random);
        // "Now" is once: a server that closes each new session at once is not hammered.
        let soon = if self.failures > 1 { wait } else { hint.unwrap_or_default() };
        let refused = CloseCause::Refused { code: close.code, detail: close.reason.clone() };
        let mut retry = Retry {
            wait,
            reason: TokenReason::Connect,
            target: close.target.clone(),
            resync: false,
            cause: format!("{}: {}", close.code, close.reason),
        };
        match close.code.class() {
            // A stalled network makes a Hello late, not wrong.
            Class::Fix if close.code == Code::HELLO_TIMEOUT => {}
            Class::Fix => return Next::Stop(refused),
            // Coming back would drive out the session that drove out this one.
            Class::Authenticate if close.code == Code::SESSION_REPLACED => return Next::Stop(refused),
            Class::Authenticate => {
                self.tokens_refused += 1;
                if self.tokens_refused >= TOKENS_REFUSED_MAX {
                    return Next::Stop(refused);
                }
                retry.reason = TokenReason::Rejected(close.code);
                retry.wait = soon;
            }
            Class::Reconnect => retry.wait = soon,
            Class::Resync => {
                retry.resync = true;
                retry.wait = soon;
            }
            Class::Normal | Class::BackOff | Class::Unknown => {}
        }
        Next::Retry(retry)
    }

    fn retry(&self, backoff: &Backoff, random: f64, cause: String) -> Next {
        let wait = backoff.wait(self.failures, None, random);
        Next::Retry(Retry { wait, reason: TokenReason::Connect, target: None, resync: false, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(8) };

    fn closed(code: Code, retry_after_ms: Option<u32>) -> Ending {
        Ending::Closed(Close { code, reason: "why".into(), retry_after_ms, target: None })
    }

    fn first(ending: Ending) -> Next {
        Plan::default().after(ending, 0, &BACKOFF, 1.0)
    }

    fn wait_of(next: Next) -> Duration {
        match next {
            Next::Retry(retry) => retry.wait,
            Next::Stop(cause) => panic!("stopped: {cause}"),
        }
    }

    #[test]
    fn the_class_of_the_code_decides() {
        let stop = |next| matches!(next, Next::Stop(CloseCause::Refused { .. }));
        assert!(stop(first(closed(Code::UNSUPPORTED_VERSION, None))));
        assert!(stop(first(closed(Code::MALFORMED, None))));
        assert!(stop(first(closed(Code::SESSION_REPLACED, None))));
        assert_eq!(wait_of(first(closed(Code::HELLO_TIMEOUT, None))), Duration::from_secs(1));
        assert_eq!(wait_of(first(closed(Code::DRAINING, None))), Duration::ZERO);
        assert_eq!(wait_of(first(closed(Code::OVER_CAPACITY, Some(5_000)))), Duration::from_secs(6));
        assert_eq!(wait_of(first(closed(Code(4_999), None))), Duration::from_secs(1));
        assert_eq!(wait_of(first(closed(Code::NORMAL, None))), Duration::from_secs(1));
        let Next::Retry(retry) = first(closed(Code::CURSOR_AHEAD, None)) else { panic!() };
        assert!(retry.resync && retry.wait.is_zero());
    }

    #[test]
    fn a_refused_token_is_replaced_at_once_and_only_so_often() {
        let mut plan = Plan::default();
        let Next::Retry(retry) = plan.after(closed(Code::TOKEN_EXPIRED, None), 0, &BACKOFF, 1.0) else {
            panic!()
        };
        assert_eq!(retry.reason, TokenReason::Rejected(Code::TOKEN_EXPIRED));
        assert!(retry.wait.is_zero());
        assert_eq!(
            wait_of(plan.after(closed(Code::TOKEN_INVALID, None), 0, &BACKOFF, 1.0)),
            Duration::from_secs(2)
        );
        let third = plan.after(closed(Code::TOKEN_INVALID, None), 0, &BACKOFF, 1.0);
        assert!(matches!(third, Next::Stop(CloseCause::Refused { code: Code::TOKEN_INVALID, .. })));
    }

    #[test]
    fn a_revoked_token_is_replaced_once_its_hint_is_over() {
        let Next::Retry(retry) = first(closed(Code::TOKEN_REVOKED, Some(700))) else { panic!() };
        assert_eq!(retry.reason, TokenReason::Rejected(Code::TOKEN_REVOKED));
        assert_eq!(retry.wait, Duration::from_millis(700), "until a new one can be told from it");
        let Next::Retry(retry) = first(closed(Code::SESSION_CLOSED, None)) else { panic!() };
        assert_eq!((retry.reason, retry.wait.is_zero()), (TokenReason::Rejected(Code::SESSION_CLOSED), true));
    }

    #[test]
    fn a_source_without_tokens_stops_the_client_and_a_busy_one_does_not() {
        let gone = Ending::NoToken(TokenError::Permanent("signed out".into()));
        assert_eq!(first(gone), Next::Stop(CloseCause::Token("signed out".into())));
        let busy = Ending::NoToken(TokenError::Temporary("offline".into()));
        assert_eq!(wait_of(first(busy)), Duration::from_secs(1));
    }

    #[test]
    fn the_wait_grows_until_a_session_was_stable() {
        let mut plan = Plan::default();
        let mut lost = |lived_ms| wait_of(plan.after(Ending::Lost("x".into()), lived_ms, &BACKOFF, 1.0));
        assert_eq!(lost(0).as_secs(), 1);
        assert_eq!(lost(100).as_secs(), 2, "a session that dies at once is no success");
        assert_eq!(lost(0).as_secs(), 4);
        assert_eq!(lost(STABLE_MS).as_secs(), 1);
    }
}
