//! When a session has to be looked at although nothing came in: its token, silence, a queue that does not
//! move, and the end of a pause in reading. Pure; each has a time of its own.

use std::time::{Duration, Instant};

use crate::auth::LEEWAY;

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without anything from the client.
    pub(super) silence: Duration,
    /// Without anything taken by the client although something waits.
    pub(super) stalled: Duration,
    /// From the notice to the expiry of a token.
    pub(super) notice: Duration,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing was heard for too long.
    Silent,
    /// Nothing was taken for too long.
    Stalled,
    /// The token has expired.
    Expired,
    /// The token is about to expire; told once.
    Expiring,
}

/// The deadlines of one session.
#[derive(Debug)]
pub(super) struct Deadlines {
    patience: Patience,
    heard: Instant,
    expires: Instant,
    notice: Option<Instant>,
    /// When to look at the queue, once something waits in it.
    stalls: Option<Instant>,
    /// When to read on.
    resume: Option<Instant>,
}

impl Deadlines {
    /// Of a session that was heard just now and whose token expires after `left`, which may be over.
    pub(super) fn new(patience: Patience, now: Instant, left: Left) -> Self {
        let mut deadlines =
            Self { patience, heard: now, expires: now, notice: None, stalls: None, resume: None };
        deadlines.renewed(now, left);
        deadlines
    }

    /// There is another token.
    pub(super) fn renewed(&mut self, now: Instant, left: Left) {
        // A token that came within its leeway has only the rest of it.
        self.expires = now + left.with_leeway;
        self.notice = Some(now + left.token - self.patience.notice.min(left.token / 2));
    }

    /// Something came in.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Something waits in the queue, which was empty before.
    pub(super) fn filled(&mut self, now: Instant) {
        self.stalls = Some(now + self.patience.stalled);
    }

    /// The queue will be looked at.
    pub(super) fn looks_at_queue(&self) -> bool {
        self.stalls.is_some()
    }

    /// Nothing is read until then.
    pub(super) fn pause(&mut self, until: Instant) {
        self.resume = Some(until);
    }

    /// Frames are read.
    pub(super) fn reads(&self) -> bool {
        self.resume.is_none()
    }

    /// When [`Deadlines::due`] must be called at the latest.
    pub(super) fn next(&self) -> Instant {
        let token = self.notice.unwrap_or(self.expires);
        let sooner = |time: Instant, other: Option<Instant>| other.map_or(time, |other| time.min(other));
        let silent = self.heard + self.patience.silence;
        sooner(sooner(token.min(silent), self.stalls), self.resume)
    }

    /// The first thing that is due. `unmoved` says since when the queue has not moved although something
    /// waits in it. Call it again, from what [`Deadlines::next`] says, for what else is.
    pub(super) fn due(&mut self, now: Instant, unmoved: Option<Instant>) -> Option<Due> {
        self.resume = self.resume.filter(|resume| now < *resume);
        if now >= self.heard + self.patience.silence {
            return Some(Due::Silent);
        }
        if self.stalls.is_some_and(|stalls| now >= stalls) {
            // What moved since then has all its time.
            self.stalls = unmoved.map(|since| since + self.patience.stalled);
            if self.stalls.is_some_and(|stalls| now >= stalls) {
                return Some(Due::Stalled);
            }
        }
        if now >= self.expires {
            return Some(Due::Expired);
        }
        self.notice.take_if(|notice| now >= *notice).map(|_| Due::Expiring)
    }
}

/// What is left of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    token: Duration,
    with_leeway: Duration,
}

impl Left {
    /// Of a token that expires then; both in Unix milliseconds.
    pub(super) fn of(expires_ms: u64, wall_ms: u64) -> Self {
        let left = |end_ms: u64| Duration::from_millis(end_ms.saturating_sub(wall_ms));
        let leeway_ms = LEEWAY.as_millis() as u64;
        Self { token: left(expires_ms), with_leeway: left(expires_ms.saturating_add(leeway_ms)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PATIENCE: Patience =
        Patience { silence: Duration::from_secs(45), stalled: STALLED, notice: NOTICE };
    const STALLED: Duration = Duration::from_secs(30);
    const NOTICE: Duration = Duration::from_secs(300);

    fn session(token_s: u64) -> (Instant, Deadlines) {
        let start = Instant::now();
        (start, Deadlines::new(PATIENCE, start, Left::of(token_s * 1_000, 0)))
    }

    /// Sleeps until the next deadline, and says what is due then.
    fn ring(deadlines: &mut Deadlines, start: Instant, unmoved: Option<Instant>) -> (Duration, Option<Due>) {
        let now = deadlines.next();
        (now - start, deadlines.due(now, unmoved))
    }

    #[test]
    fn silence_ends_a_session_and_every_word_puts_it_off() {
        let (start, mut deadlines) = session(3_600);
        deadlines.heard(start + 10 * S);
        assert_eq!(deadlines.due(start + 54 * S, None), None);
        assert_eq!(ring(&mut deadlines, start, None), (55 * S, Some(Due::Silent)));
    }

    #[test]
    fn a_queue_that_does_not_move_ends_the_session_at_its_own_time() {
        let (start, mut deadlines) = session(3_600);
        let since = start + 7 * S;
        deadlines.filled(since);
        // The client goes on talking.
        for second in 8..37 {
            deadlines.heard(start + second * S);
            assert_eq!(deadlines.due(start + second * S, Some(since)), None, "{second} s");
        }
        assert_eq!(ring(&mut deadlines, start, Some(since)), (37 * S, Some(Due::Stalled)));
    }

    #[test]
    fn a_queue_that_moves_is_looked_at_again_when_it_would_have_stood_still_too_long() {
        let (start, mut deadlines) = session(3_600);
        assert!(!deadlines.looks_at_queue());
        deadlines.filled(start);
        assert!(deadlines.looks_at_queue());
        deadlines.heard(start + 20 * S);
        assert_eq!(ring(&mut deadlines, start, Some(start + 25 * S)), (30 * S, None));
        deadlines.heard(start + 50 * S);
        assert_eq!(ring(&mut deadlines, start, Some(start + 25 * S)), (55 * S, Some(Due::Stalled)));
        deadlines.filled(start);
        assert_eq!(deadlines.due(start + 60 * S, None), None);
        assert!(!deadlines.looks_at_queue(), "nothing waits: the next that does begins anew");
    }

    #[test]
    fn a_token_is_noticed_once_and_then_ends_after_its_leeway() {
        let (start, mut deadlines) = session(1_000);
        deadlines.heard(start + 690 * S);
        assert_eq!(ring(&mut deadlines, start, None), (700 * S, Some(Due::Expiring)));
        deadlines.heard(start + 1_029 * S);
        assert_eq!(ring(&mut deadlines, start, None), (1_030 * S, Some(Due::Expired)));
        deadlines.renewed(start + 1_030 * S, Left::of(60_000, 0));
        assert_eq!(ring(&mut deadlines, start, None), (1_060 * S, Some(Due::Expiring)), "half a short life");
        // A token that came within its leeway has the rest of it, and is noticed at once.
        let (start, mut deadlines) = session(0);
        assert_eq!(ring(&mut deadlines, start, None), (Duration::ZERO, Some(Due::Expiring)));
        assert_eq!(ring(&mut deadlines, start, None), (30 * S, Some(Due::Expired)));
    }

    #[test]
    fn a_pause_in_reading_ends_by_itself() {
        let (start, mut deadlines) = session(3_600);
        deadlines.pause(start + S);
        assert_eq!(deadlines.due(start + S / 2, None), None);
        assert!(!deadlines.reads(), "something else rang");
        assert_eq!(ring(&mut deadlines, start, None), (S, None));
        assert!(deadlines.reads());
        assert_eq!(deadlines.next(), start + 45 * S);
    }
}
