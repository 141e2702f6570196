//! How much a client may do wrong before its session ends. Pure.

use std::time::{Duration, Instant};

use tern_protocol::BAD_FRAMES_MAX;

/// Frames over the limit that are refused one by one; with one more the client does not mean to slow down.
pub(super) const FLOODED_MAX: u32 = 100;
/// Without a frame over the limit for this long, all of them are forgiven.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What one session has done wrong.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    bad_frames: u32,
    flooded: u32,
    flooded_at: Option<Instant>,
}

impl Strikes {
    /// A frame was malformed, or of a kind that clients do not send. True if it was one too many.
    pub(super) fn bad_frame(&mut self) -> bool {
        self.bad_frames += 1;
        self.bad_frames >= BAD_FRAMES_MAX
    }

    /// A frame came over the limit of frames. True if it was one too many.
    pub(super) fn flooded(&mut self, now: Instant) -> bool {
        let last = self.flooded_at.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) >= FORGIVEN) {
            self.flooded = 0;
        }
        self.flooded += 1;
        self.flooded > FLOODED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_over_the_limit_is_ended_and_who_stops_is_forgiven() {
        let (start, mut strikes) = (Instant::now(), Strikes::default());
        assert!((0..FLOODED_MAX).all(|_| !strikes.flooded(start)));
        assert!(!strikes.flooded(start + FORGIVEN));
        assert!((1..FLOODED_MAX).all(|_| !strikes.flooded(start + FORGIVEN)));
        assert!(strikes.flooded(start + FORGIVEN));
    }

    #[test]
    fn bad_frames_are_never_forgiven() {
        let mut strikes = Strikes::default();
        assert!((1..BAD_FRAMES_MAX).all(|_| !strikes.bad_frame()));
        assert!(strikes.bad_frame());
    }
}
