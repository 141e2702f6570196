//! The clocks: the wall clock for tokens and people, the one that stamps, and the one that waits are measured by.
//!
//! Order and dedupe never depend on the wall clock. What is written with a time of it should not be wrong for
//! ever because it was wrong for a moment: a step of it counts for stamps only once it has stood.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A step of the wall clock counts for stamps after it has stood for so long.
const STEP_STANDS: Duration = Duration::from_secs(30);
/// What the wall clock may be away from the other one without a step, in milliseconds: it is slewed, and a
/// look at both takes a moment.
const SLEW_MS: u64 = 500;

static STAMPS: Mutex<Option<Stamps>> = Mutex::new(None);

/// Now in Unix milliseconds, as the wall clock says.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Now in Unix milliseconds for what is kept: entries, push intents, last-seen. That of the wall clock, but for
/// a step of it that has stood for less than [`STEP_STANDS`].
pub fn stamp_ms() -> u64 {
    let (wall_ms, now) = (unix_ms(), Instant::now());
    STAMPS.lock().get_or_insert_with(|| Stamps::new(wall_ms, now)).read(wall_ms, now)
}

/// The time of the runtime's clock, which stands still where a test wants that.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The clock that stamps. Pure: both clocks that it follows are arguments.
#[derive(Debug)]
struct Stamps {
    /// A moment of the clock that nobody sets, and what the wall clock said or would have said then.
    at: (Instant, u64),
    /// The same after a step that has not stood long enough, with when it was first seen.
    stepped: Option<(Instant, u64, Instant)>,
}

impl Stamps {
    fn new(wall_ms: u64, now: Instant) -> Self {
        Self { at: (now, wall_ms), stepped: None }
    }

    fn read(&mut self, wall_ms: u64, now: Instant) -> u64 {
        let gone_on =
            |(at, at_ms): (Instant, u64)| at_ms + now.saturating_duration_since(at).as_millis() as u64;
        let expected_ms = gone_on(self.at);
        if wall_ms.abs_diff(expected_ms) <= SLEW_MS {
            *self = Self::new(wall_ms, now);
            return wall_ms;
        }
        let same_step =
            self.stepped.filter(|(at, at_ms, _)| wall_ms.abs_diff(gone_on((*at, *at_ms))) <= SLEW_MS);
        let since = same_step.map_or(now, |(_, _, since)| since);
        if now.saturating_duration_since(since) >= STEP_STANDS {
            *self = Self::new(wall_ms, now);
            return wall_ms;
        }
        self.stepped = Some((now, wall_ms, since));
        expected_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_800_000_000_000;
    const SECOND: Duration = Duration::from_secs(1);
    const STEPS_S: [i64; 8] = [1, -1, 600, -600, 12 * 3600, -12 * 3600, 40 * 24 * 3600, -40 * 24 * 3600];

    /// Two clocks of a test, and the one under test.
    struct Bench {
        start: Instant,
        elapsed: Duration,
        set_by_ms: i64,
        stamps: Stamps,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self { start, elapsed: Duration::ZERO, set_by_ms: 0, stamps: Stamps::new(START_MS, start) }
        }

        fn true_ms(&self) -> u64 {
            START_MS + self.elapsed.as_millis() as u64
        }

        /// Reads it after so much more time, with the wall clock set as it is.
        fn after(&mut self, time: Duration) -> u64 {
            self.elapsed += time;
            let wall_ms = self.true_ms().saturating_add_signed(self.set_by_ms);
            self.stamps.read(wall_ms, self.start + self.elapsed)
        }
    }

    #[test]
    fn a_step_for_a_moment_stamps_nothing() {
        for step_s in STEPS_S {
            let mut bench = Bench::new();
            bench.set_by_ms = step_s * 1000;
            for _ in 0..29 {
                assert_eq!(bench.after(SECOND), bench.true_ms(), "{step_s} s");
            }
            bench.set_by_ms = 0;
            assert_eq!(bench.after(SECOND), bench.true_ms(), "{step_s} s");
            // The next one has to stand for itself.
            bench.set_by_ms = step_s * 1000;
            assert_eq!(bench.after(20 * SECOND), bench.true_ms(), "{step_s} s");
        }
    }

    #[test]
    fn a_step_that_stands_counts() {
        for step_s in STEPS_S {
            let mut bench = Bench::new();
            bench.set_by_ms = step_s * 1000;
            let wall_ms = |bench: &Bench| bench.true_ms().saturating_add_signed(bench.set_by_ms);
            assert_eq!(bench.after(SECOND), bench.true_ms());
            assert_eq!(bench.after(29 * SECOND), bench.true_ms());
            assert_eq!(bench.after(SECOND), wall_ms(&bench), "{step_s} s");
            bench.set_by_ms = 0;
            assert_ne!(bench.after(SECOND), bench.true_ms(), "so does the way back");
            assert_eq!(bench.after(STEP_STANDS), bench.true_ms(), "{step_s} s");
        }
    }

    #[test]
    fn a_clock_that_is_slewed_or_seldom_asked_is_followed() {
        let mut bench = Bench::new();
        for _ in 0..1_000 {
            bench.set_by_ms += 400;
            assert_eq!(bench.after(SECOND), bench.true_ms() + bench.set_by_ms as u64);
        }
        assert_eq!(bench.after(24 * 3600 * SECOND), bench.true_ms() + bench.set_by_ms as u64);
        // One that goes on stepping never stands.
        let mut bench = Bench::new();
        for _ in 0..100 {
            bench.set_by_ms += 3_000;
            assert_eq!(bench.after(SECOND), bench.true_ms());
        }
    }
}
