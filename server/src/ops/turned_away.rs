//! Tells at `info` why clients cannot connect: a line for each reason now and then, however many there are.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The same reason is told at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// A client cannot connect. `reason` is one of a few words, `detail` says more about this one; it must hold
/// nothing that is not told to the client as well.
pub fn turned_away(reason: &'static str, client: IpAddr, detail: &dyn Display) {
    static SELDOM: Mutex<Option<Seldom>> = Mutex::new(None);
    let told = SELDOM.lock().get_or_insert_default().due(reason, Instant::now());
    match told {
        // The others of the same reason were not told.
        Some(others) => tracing::info!(reason, %client, %detail, others, "a client could not connect"),
        None => tracing::debug!(reason, %client, %detail, "a client could not connect"),
    }
}

/// When each reason was told, and how often it was not. Pure.
#[derive(Debug, Default)]
struct Seldom(HashMap<&'static str, (Instant, u64)>);

impl Seldom {
    /// Whether it is to be told now, and how many were not told since the last time.
    fn due(&mut self, reason: &'static str, now: Instant) -> Option<u64> {
        let Some((told, others)) = self.0.get_mut(reason) else {
            self.0.insert(reason, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*told) < EVERY {
            *others += 1;
            return None;
        }
        *told = now;
        Some(std::mem::take(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_now_and_then_with_the_number_of_the_others() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due("tls", now), Some(0));
        assert_eq!(seldom.due("token", now), Some(0), "another reason is told at once");
        for _ in 0..3 {
            assert_eq!(seldom.due("tls", now + EVERY / 2), None);
        }
        assert_eq!(seldom.due("tls", now + EVERY), Some(3));
        assert_eq!(seldom.due("tls", now + 2 * EVERY), Some(0));
    }
}
