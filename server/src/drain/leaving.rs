//! What clients are told when the node goes. Pure.

use std::time::{Duration, Instant};

use tern_protocol::GoAway;

/// Who is told within this time of the beginning is told the whole deadline.
const PROMPT: Duration = Duration::from_millis(100);
/// What a client needs to open another session and to catch up there. Of a short deadline, a quarter.
const MOVE: Duration = Duration::from_secs(2);

/// The part of a deadline that a client has to itself once it was asked to leave.
pub(super) fn time_to_move(deadline: Duration) -> Duration {
    MOVE.min(deadline / 4)
}

/// The node goes: sessions are asked to leave, and those that are left are closed, none before the time
/// it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When sessions are closed.
    pub deadline: Instant,
    told: Duration,
    spread: Duration,
}

impl Leaving {
    /// From `now` on, for `told`; clients spread their leaving over `spread`.
    pub fn new(now: Instant, told: Duration, spread: Duration) -> Self {
        Self { deadline: now + told + PROMPT, told, spread }
    }

    /// What somebody is told now. Asked to leave, they have [`time_to_move`] before they are closed.
    pub fn go_away(&self, now: Instant) -> GoAway {
        let left = self.deadline.saturating_duration_since(now).min(self.told);
        let spread = self.spread.min(left - time_to_move(left));
        let ms = |time: Duration| time.as_millis() as u32;
        GoAway { deadline_ms: ms(left), spread_ms: ms(spread), target: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn nobody_is_closed_before_the_deadline_they_were_told_and_all_have_time_to_move() {
        let start = Instant::now();
        let leaving = Leaving::new(start, 30 * S, 29 * S);
        for late_ms in [0, 50, 100, 500, 5_000, 25_000, 29_999, 30_100, 60_000] {
            let now = start + Duration::from_millis(late_ms);
            let told = leaving.go_away(now);
            let until = now + Duration::from_millis(told.deadline_ms.into());
            assert!(until <= leaving.deadline.max(now), "{late_ms}: {told:?}");
            let last = Duration::from_millis(told.spread_ms.into());
            let left = Duration::from_millis(told.deadline_ms.into());
            assert!(last + time_to_move(left) <= left + Duration::from_millis(1), "{late_ms}: {told:?}");
        }
        assert_eq!(leaving.go_away(start).deadline_ms, 30_000);
        assert_eq!(leaving.go_away(start + PROMPT).deadline_ms, 30_000);
        assert_eq!(leaving.go_away(start).spread_ms, 28_000);
        assert_eq!(leaving.go_away(start + 29 * S).deadline_ms, 1_100);
    }
}
