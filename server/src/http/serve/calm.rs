//! Whether the frames of an HTTP/2 client are about something: requests earn, frames that ask nothing cost,
//! and who overdraws is ended. Pure.
//!
//! What a single frame may do is bounded by the HTTP/2 library: it ends a connection for a header that unpacks
//! to more than four times its limit, for endless CONTINUATION, for many small or empty DATA, and for many
//! resets of requests that were not accepted yet. It answers without end what comes one by one: SETTINGS, PING,
//! PRIORITY, WINDOW_UPDATE, headers over the limit, resets of requests that run.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{Head, Kind};

/// What a client may overdraw at once; also the most it can save.
const BURST: i64 = 1000;
/// What it gets back for free each second.
const PER_S: i64 = 100;
/// Earned by a request.
const REQUEST: i64 = 10;
/// Earned by a frame of an answer: the client says that it has taken it.
const ANSWER: i64 = 2;
/// Bytes of a header that cost as much as a WINDOW_UPDATE.
const HEADER_BYTES: usize = 512;
/// The flag of an answer to SETTINGS or PING.
const ACK: u8 = 0x1;

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Calm {
    left: i64,
    at: Instant,
}

impl Calm {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// A frame came in; `is_request`: it begins a request. Whether that is still all right.
    pub(super) fn received(&mut self, head: &Head, is_request: bool, now: Instant) -> bool {
        let whole = now.saturating_duration_since(self.at).as_secs();
        if whole > 0 {
            self.left = self.left.saturating_add((whole as i64).saturating_mul(PER_S)).min(BURST);
            self.at += Duration::from_secs(whole);
        }
        let earned = if is_request { REQUEST } else { 0 };
        self.left = (self.left + earned - cost(head)).min(BURST);
        self.left > 0
    }

    /// A frame of an answer went out.
    pub(super) fn answered(&mut self) {
        self.left = (self.left + ANSWER).min(BURST);
    }
}

fn cost(head: &Head) -> i64 {
    let ack = head.flags & ACK != 0;
    match head.kind {
        Kind::Headers | Kind::Continuation => 1 + (head.length / HEADER_BYTES) as i64,
        // The library looks at these itself.
        Kind::Data => 0,
        Kind::WindowUpdate => 1,
        Kind::Settings | Kind::Ping if ack => 1,
        Kind::Settings | Kind::Ping | Kind::Other => 5,
        // A request that was begun for nothing.
        Kind::Reset => 2 * REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::END_STREAM;
    use super::*;

    fn head(kind: Kind, flags: u8, length: usize) -> Head {
        Head { kind, flags, stream: 1, length }
    }

    /// How many rounds of these frames, a request where it says so, are taken within a moment.
    fn rounds(frames: &[(Head, bool)]) -> usize {
        let now = Instant::now();
        let mut calm = Calm::new(now);
        (0..100_000).take_while(|_| frames.iter().all(|(head, new)| calm.received(head, *new, now))).count()
    }

    #[test]
    fn requests_may_come_as_fast_as_they_like() {
        let request = head(Kind::Headers, END_STREAM, 1500);
        assert_eq!(rounds(&[(request, true)]), 100_000);
        // And a client that says for each frame of an answer twice that it has room again.
        let now = Instant::now();
        let mut calm = Calm::new(now);
        for _ in 0..100_000 {
            calm.answered();
            assert!((0..2).all(|_| calm.received(&head(Kind::WindowUpdate, 0, 4), false, now)));
        }
    }

    #[test]
    fn frames_that_ask_nothing_are_few() {
        for (kind, most) in [
            (Kind::Settings, 200),
            (Kind::Ping, 200),
            (Kind::Other, 200),
            (Kind::WindowUpdate, 1000),
            (Kind::Reset, 50),
        ] {
            let taken = rounds(&[(head(kind, 0, 4), false)]);
            assert!(taken < most && taken >= most - 1, "{kind:?}: {taken}");
        }
    }

    #[test]
    fn requests_that_are_taken_back_and_headers_that_fill_their_limit_are_few() {
        let begun = (head(Kind::Headers, 0, 30), true);
        assert!(rounds(&[begun, (head(Kind::Reset, 0, 4), false)]) < 100);
        assert!(rounds(&[(head(Kind::Headers, END_STREAM, 15_000), true)]) < 60);
    }

    #[test]
    fn who_slows_down_may_go_on() {
        let now = Instant::now();
        let mut calm = Calm::new(now);
        for second in 1..100_u32 {
            let now = now + Duration::from_secs(second.into());
            assert!((0..20).all(|_| calm.received(&head(Kind::Ping, 0, 8), false, now)), "{second}");
        }
    }
}
