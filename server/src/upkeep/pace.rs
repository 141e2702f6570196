//! What time it is for ageing: never later than the last time and what has passed since. A clock that is ahead
//! for a moment must not cost anybody's history. Pure.

use std::time::{Duration, Instant};

/// So much the clock may gain between two looks: corrections, and pauses of the machine that it does not count.
const TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// A clock that stays ahead this long is right, and was wrong before.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The time for ageing as of the last look.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Instant, u64)>,
    ahead_since: Option<Instant>,
}

/// What one look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The time to age by, in Unix milliseconds.
    pub(super) now_ms: u64,
    /// The clock is ahead of it by so many milliseconds and is not believed yet; `None`: it is believed.
    pub(super) ahead_ms: Option<u64>,
}

impl Pace {
    /// Looks at the clock: `wall_ms` is what it says.
    pub(super) fn look(&mut self, now: Instant, wall_ms: u64) -> Look {
        let expected = self.last.map_or(wall_ms, |(at, ms)| {
            ms.saturating_add(now.saturating_duration_since(at).as_millis() as u64)
        });
        let is_ahead = wall_ms > expected.saturating_add(TOLERANCE_MS);
        self.ahead_since = is_ahead.then(|| self.ahead_since.unwrap_or(now));
        let is_believed = self.ahead_since.is_none_or(|since| now.duration_since(since) >= BELIEVED_AFTER);
        let now_ms = if is_believed { wall_ms } else { expected };
        if is_believed {
            self.ahead_since = None;
        }
        self.last = Some((now, now_ms));
        Look { now_ms, ahead_ms: (!is_believed).then(|| wall_ms - expected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3600 * 1000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    const START_MS: u64 = 1_000 * DAY_MS;

    fn hours(hours: u64) -> Duration {
        Duration::from_millis(hours * HOUR_MS)
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_moment_ages_nothing() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.look(start, START_MS), Look { now_ms: START_MS, ahead_ms: None });
        let jumped = pace.look(start + hours(1), START_MS + HOUR_MS + 40 * DAY_MS);
        assert_eq!(jumped, Look { now_ms: START_MS + HOUR_MS, ahead_ms: Some(40 * DAY_MS) });
        let back = pace.look(start + hours(2), START_MS + 2 * HOUR_MS);
        assert_eq!(back, Look { now_ms: START_MS + 2 * HOUR_MS, ahead_ms: None });
    }

    #[test]
    fn a_clock_that_stays_ahead_is_believed_after_a_day_and_not_before() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.look(start, START_MS);
        for hour in 1..=24 {
            let look = pace.look(start + hours(hour), START_MS + hour * HOUR_MS + 40 * DAY_MS);
            assert_eq!(look.now_ms, START_MS + hour * HOUR_MS, "hour {hour}");
        }
        let look = pace.look(start + hours(25), START_MS + 25 * HOUR_MS + 40 * DAY_MS);
        assert_eq!(look, Look { now_ms: START_MS + 25 * HOUR_MS + 40 * DAY_MS, ahead_ms: None });
    }

    #[test]
    fn a_clock_that_jumps_again_and_again_is_not_believed_for_it() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.look(start, START_MS);
        for hour in 1..100 {
            let jump = if hour % 2 == 0 { 40 * DAY_MS } else { 0 };
            let look = pace.look(start + hours(hour), START_MS + hour * HOUR_MS + jump);
            assert_eq!(look.now_ms, START_MS + hour * HOUR_MS, "hour {hour}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_gains_a_little_is_followed() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.look(start, START_MS);
        let slewed = START_MS + HOUR_MS + TOLERANCE_MS;
        assert_eq!(pace.look(start + hours(1), slewed).now_ms, slewed);
        let back = START_MS - 40 * DAY_MS;
        assert_eq!(pace.look(start + hours(2), back).now_ms, back);
        let look = pace.look(start + hours(3), START_MS + 3 * HOUR_MS);
        assert_eq!(look.now_ms, back + HOUR_MS, "and what it says then is a jump like any other");
    }
}
