//! How long to wait before the next attempt: exponential, full jitter, never less than a server's hint.

use std::time::Duration;

/// Exponential back-off with full jitter: attempt n waits a random time below
/// `min(max, first * 2^n)`, and a server's hint is a floor under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end of the first wait. Default 250 ms.
    pub first: Duration,
    /// Upper end of the longest wait. Default 30 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before the retry that follows `failures` failures in a row (from 1).
    /// `random` is uniform in 0..1; `hint` is what the server asked for.
    ///
    /// With a hint the jitter comes on top of it, so that clients told the same time do not
    /// come back in the same instant.
    pub fn wait(&self, failures: u32, hint: Option<Duration>, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.max);
        hint.unwrap_or_default().saturating_add(ceiling.mul_f64(random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_jitter_is_full() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        let ceilings: Vec<_> = (1..=6).map(|n| backoff.wait(n, None, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.wait(5, None, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(u32::MAX, None, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn a_hint_is_a_floor_with_jitter_above_it() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        let hint = Some(Duration::from_secs(5));
        assert_eq!(backoff.wait(1, hint, 0.0), Duration::from_secs(5));
        assert_eq!(backoff.wait(1, hint, 1.0), Duration::from_millis(5100));
    }
}
