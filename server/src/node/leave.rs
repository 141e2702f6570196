//! Sends the sessions of a node that stops away: asks them to leave, and closes those that are left at the
//! deadline they were told.

use std::sync::Arc;
use std::time::Duration;

use tern_protocol::Code;
use tokio::time::{sleep, sleep_until};

use crate::clock::now;
use crate::drain::{DrainConfig, Leaving};
use crate::roster::{Outgoing, Roster, Seat};
use crate::session::{LAST_FRAME, STOPS, close_for};

/// Sessions told something between two pauses of [`PAUSE`].
const BURST: usize = 1000;
/// Pause between bursts, so that a large node does not stall on telling everybody.
const PAUSE: Duration = Duration::from_millis(10);

/// Returns once a last frame has had its time. Whoever says Hello meanwhile is asked to leave as well, and
/// after the deadline turned away.
pub(super) async fn send_away(roster: &Roster, drain: &DrainConfig) {
    let leaving = Leaving::new(now(), drain.deadline(), drain.spread());
    in_bursts(&roster.leave(leaving), |seats| {
        let go_away = Outgoing::new(leaving.go_away(now()));
        for seat in seats {
            let _ = seat.outbox.push_control(&go_away);
        }
    })
    .await;
    sleep_until(leaving.deadline.into()).await;
    in_bursts(&roster.shut(), |seats| {
        for seat in seats {
            seat.outbox.close(close_for(Code::SHUTDOWN, STOPS));
        }
    })
    .await;
    sleep(LAST_FRAME).await;
}

async fn in_bursts(seats: &[Arc<Seat>], mut tell: impl FnMut(&[Arc<Seat>])) {
    for burst in seats.chunks(BURST) {
        tell(burst);
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::SeatGuard;
    use crate::roster::tests::seat;

    const MS: Duration = Duration::from_millis(1);

    fn begin(roster: &Roster, number: u64) -> SeatGuard {
        roster.begin(seat(number, &format!("user{number}"), "phone"), 20).guard
    }

    fn closed(guards: &[SeatGuard]) -> usize {
        guards.iter().filter(|guard| guard.seat().outbox.closing().is_some()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_asked_and_none_is_closed_before_the_deadline_and_then_only_so_many_at_a_time() {
        let roster = Roster::default();
        let guards: Vec<SeatGuard> = (1..=3 * BURST as u64).map(|number| begin(&roster, number)).collect();
        let drain = DrainConfig { deadline_ms: 8_000, spread_ms: 1_000 };
        let away = {
            let roster = roster.clone();
            tokio::spawn(async move { send_away(&roster, &drain).await })
        };
        let start = now();
        sleep(4 * PAUSE).await;
        assert!(guards.iter().all(|guard| guard.seat().outbox.unsent_bytes() > 0), "each has its GoAway");
        sleep_until((start + 8_000 * MS).into()).await;
        assert_eq!(closed(&guards), 0, "they were told 8 s");
        let mut steps = Vec::new();
        for _ in 0..200 {
            let before = closed(&guards);
            sleep(MS).await;
            steps.push(closed(&guards) - before);
        }
        assert_eq!(steps.iter().sum::<usize>(), guards.len());
        assert_eq!(steps.iter().max(), Some(&BURST));
        away.await.unwrap();
    }
}
