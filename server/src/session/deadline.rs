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
    /// When the token ends, with its leeway, by the wall clock in Unix milliseconds.
    expires_ms: u64,
    /// When that is told.
    notice_ms: Option<u64>,
    /// When to look at the wall clock again, which may have been set meanwhile.
    token: Instant,
    /// When to look at the queue, once something waits in it.
    stalls: Option<Instant>,
    /// When to read on.
    resume: Option<Instant>,
}

impl Deadlines {
    /// Of a session that was heard just now and whose token expires then, which may be over. Times of the
    /// wall clock are Unix milliseconds.
    pub(super) fn new(patience: Patience, now: Instant, wall_ms: u64, expires_ms: u64) -> Self {
        let (notice_ms, stalls, resume) = (None, None, None);
        let mut deadlines = Self { patience, heard: now, expires_ms, notice_ms, token: now, stalls, resume };
        deadlines.renewed(now, wall_ms, expires_ms);
        deadlines
    }

    /// There is another token.
    pub(super) fn renewed(&mut self, now: Instant, wall_ms: u64, expires_ms: u64) {
        let left_ms = expires_ms.saturating_sub(wall_ms);
        let notice_ms = ms(self.patience.notice).min(left_ms / 2);
        self.notice_ms = Some(wall_ms.saturating_add(left_ms) - notice_ms);
        // A token that came within its leeway has only the rest of it.
        self.expires_ms = expires_ms.saturating_add(ms(LEEWAY));
        self.look_again(now, wall_ms);
    }

    /// Whether the token is over by the wall clock. Asked whenever something came in: the clock may have been
    /// set.
    pub(super) fn token_is_over(&self, wall_ms: u64) -> bool {
        wall_ms >= self.expires_ms
    }

    fn look_again(&mut self, now: Instant, wall_ms: u64) {
        let next_ms = self.notice_ms.unwrap_or(self.expires_ms).min(self.expires_ms);
        self.token = now + Duration::from_millis(next_ms.saturating_sub(wall_ms)).min(TOKEN_LOOK_MAX);
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
        let sooner = |time: Instant, other: Option<Instant>| other.map_or(time, |other| time.min(other));
        let silent = self.heard + self.patience.silence;
        sooner(sooner(self.token.min(silent), self.stalls), self.resume)
    }

    /// The first thing that is due. `unmoved` says since when the queue has not moved although something
    /// waits in it. Call it again, from what [`Deadlines::next`] says, for what else is.
    pub(super) fn due(&mut self, now: Instant, wall_ms: u64, unmoved: Option<Instant>) -> Option<Due> {
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
        if self.token_is_over(wall_ms) {
            return Some(Due::Expired);
        }
        let expiring = self.notice_ms.take_if(|notice_ms| wall_ms >= *notice_ms);
        self.look_again(now, wall_ms);
        expiring.map(|_| Due::Expiring)
    }
}

/// The wall clock is looked at no less often than this, for a token far from its end.
const TOKEN_LOOK_MAX: Duration = Duration::from_secs(24 * 3600);

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PATIENCE: Patience =
        Patience { silence: Duration::from_secs(45), stalled: STALLED, notice: NOTICE };
    const STALLED: Duration = Duration::from_secs(30);
    const NOTICE: Duration = Duration::from_secs(300);

    /// A session of which the wall clock says 0 when it begins.
    fn session(token_s: u64) -> (Instant, Deadlines) {
        let start = Instant::now();
        (start, Deadlines::new(PATIENCE, start, 0, token_s * 1_000))
    }

    /// What is due after so long, with a wall clock that nobody sets.
    fn due(
        deadlines: &mut Deadlines,
        start: Instant,
        after: Duration,
        unmoved: Option<Instant>,
    ) -> Option<Due> {
        deadlines.due(start + after, ms(after), unmoved)
    }

    /// Sleeps until the next deadline, and says what is due then.
    fn ring(deadlines: &mut Deadlines, start: Instant, unmoved: Option<Instant>) -> (Duration, Option<Due>) {
        let after = deadlines.next() - start;
        (after, due(deadlines, start, after, unmoved))
    }

    #[test]
    fn silence_ends_a_session_and_every_word_puts_it_off() {
        let (start, mut deadlines) = session(3_600);
        deadlines.heard(start + 10 * S);
        assert_eq!(due(&mut deadlines, start, 54 * S, None), None);
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
            assert_eq!(due(&mut deadlines, start, second * S, Some(since)), None, "{second} s");
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
        assert_eq!(due(&mut deadlines, start, 60 * S, None), None);
        assert!(!deadlines.looks_at_queue(), "nothing waits: the next that does begins anew");
    }

    #[test]
    fn a_token_is_noticed_once_and_then_ends_after_its_leeway() {
        let (start, mut deadlines) = session(1_000);
        deadlines.heard(start + 690 * S);
        assert_eq!(ring(&mut deadlines, start, None), (700 * S, Some(Due::Expiring)));
        deadlines.heard(start + 1_029 * S);
        assert_eq!(ring(&mut deadlines, start, None), (1_030 * S, Some(Due::Expired)));
        deadlines.renewed(start + 1_030 * S, 1_030_000, 1_090_000);
        assert_eq!(ring(&mut deadlines, start, None), (1_060 * S, Some(Due::Expiring)), "half a short life");
        // A token that came within its leeway has the rest of it, and is noticed at once.
        let (start, mut deadlines) = session(0);
        assert_eq!(ring(&mut deadlines, start, None), (Duration::ZERO, Some(Due::Expiring)));
        assert_eq!(ring(&mut deadlines, start, None), (30 * S, Some(Due::Expired)));
    }

    #[test]
    fn a_token_ends_by_the_wall_clock_however_that_is_set() {
        let (start, mut deadlines) = session(1_000);
        deadlines.heard(start + 600 * S);
        // An hour ahead: whatever comes in is too late, and so is the next look.
        assert!(!deadlines.token_is_over(600_000) && deadlines.token_is_over(600_000 + 3_600_000));
        assert_eq!(deadlines.due(start + 601 * S, 4_201_000, None), Some(Due::Expired));
        // Set back before anybody looked: it has all its time again, and is told of its end in time.
        let (start, mut deadlines) = session(1_000);
        deadlines.heard(start + 690 * S);
        assert_eq!(deadlines.due(start + 700 * S, 100_000, None), None);
        deadlines.heard(start + 1_290 * S);
        assert_eq!(deadlines.next(), start + 1_300 * S);
        assert_eq!(deadlines.due(start + 1_300 * S, 700_000, None), Some(Due::Expiring));
        deadlines.heard(start + 1_600 * S);
        assert_eq!(deadlines.due(start + 1_630 * S, 1_030_000, None), Some(Due::Expired));
    }

    #[test]
    fn a_token_that_never_ends_is_looked_at_all_the_same() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(PATIENCE, start, 1_800_000_000_000, (1 << 53) - 1);
        deadlines.heard(start + 30 * 24 * 3_600 * S);
        assert_eq!(deadlines.next(), start + TOKEN_LOOK_MAX);
    }

    #[test]
    fn a_pause_in_reading_ends_by_itself() {
        let (start, mut deadlines) = session(3_600);
        deadlines.pause(start + S);
        assert_eq!(due(&mut deadlines, start, S / 2, None), None);
        assert!(!deadlines.reads(), "something else rang");
        assert_eq!(ring(&mut deadlines, start, None), (S, None));
        assert!(deadlines.reads());
        assert_eq!(deadlines.next(), start + 45 * S);
    }
}
