//! When a link pings, and when it counts as dead. Pure.

use std::collections::BTreeSet;

/// A link on which nothing was heard so long after something that has an answer is dead, in ms. A server that
/// was killed and is back is noticed so even where its transport says nothing.
pub(super) const ANSWER_MS: u64 = 6_000;

/// What the other side owes, or gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// The answer to this request: of one that comes in pieces, the first of them.
    To(u64),
    /// That to a ping. Who gives it is alive, however slow with the others.
    Pong,
}

/// What a link is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    Ping,
    /// It is dead: nothing was heard for so many seconds.
    Dead(u64),
}

/// Watches one link.
#[derive(Debug)]
pub(super) struct Pulse {
    keepalive_ms: u64,
    dead_after_ms: u64,
    sent_ms: u64,
    heard_ms: u64,
    /// Requests that are not answered yet, by their numbers, which rise.
    requests: BTreeSet<u64>,
    /// The last request that left before the last ping.
    pinged: Option<u64>,
    /// Since when nothing was heard, while an answer is owed.
    owed_ms: Option<u64>,
    /// A ping has left since something was heard.
    is_probed: bool,
}

impl Pulse {
    /// A link that pings after so many seconds and is dead after so many of silence.
    pub(super) fn new(keepalive_s: u32, dead_after_s: u32, now: u64) -> Self {
        let ms = |seconds: u32| u64::from(seconds.max(1)) * 1000;
        Self {
            keepalive_ms: ms(keepalive_s),
            dead_after_ms: ms(dead_after_s),
            sent_ms: now,
            heard_ms: now,
            requests: BTreeSet::new(),
            pinged: None,
            owed_ms: None,
            is_probed: false,
        }
    }

    /// Something leaves; to some of it the other side owes an answer.
    pub(super) fn sent(&mut self, owed: Option<Owed>, now: u64) {
        self.sent_ms = now;
        if owed.is_some() {
            self.owed_ms.get_or_insert(now);
        }
        match owed {
            Some(Owed::To(request)) => {
                self.requests.insert(request);
            }
            Some(Owed::Pong) => self.pinged = self.requests.last().copied(),
            None => {}
        }
    }

    /// Something came in. Requests that it does not answer are waited for as from now on.
    pub(super) fn heard(&mut self, answer: Option<Owed>, now: u64) {
        self.heard_ms = now;
        self.is_probed = false;
        match answer {
            Some(Owed::Pong) => {
                let pinged = self.pinged.take();
                self.requests.retain(|request| Some(*request) > pinged);
            }
            Some(Owed::To(request)) => {
                self.requests.remove(&request);
            }
            None => {}
        }
        self.owed_ms = (!self.requests.is_empty()).then_some(now);
    }

    /// What is due. A ping that is asked for leaves.
    pub(super) fn tick(&mut self, now: u64) -> Beat {
        if now >= self.dead_at() {
            return Beat::Dead(now.saturating_sub(self.heard_ms) / 1000);
        }
        if now < self.ping_at() {
            return Beat::Nothing;
        }
        self.is_probed = true;
        Beat::Ping
    }

    /// When something may be due next.
    pub(super) fn wake_at(&self) -> u64 {
        self.dead_at().min(self.ping_at())
    }

    fn dead_at(&self) -> u64 {
        let silent = self.heard_ms + self.dead_after_ms;
        self.owed_ms.map_or(silent, |owed| silent.min(owed + ANSWER_MS))
    }

    fn ping_at(&self) -> u64 {
        let idle = self.sent_ms + self.keepalive_ms;
        // A server that is slow with an answer is not dead: a ping it answers at once.
        match self.owed_ms.filter(|_| !self.is_probed) {
            Some(owed) => idle.min(owed + ANSWER_MS / 2),
            None => idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000;

    fn pulse() -> Pulse {
        Pulse::new(20, 45, 0)
    }

    #[test]
    fn a_quiet_link_pings_and_is_dead_only_after_its_time() {
        let mut pulse = pulse();
        assert_eq!((pulse.wake_at(), pulse.tick(20 * S - 1)), (20 * S, Beat::Nothing));
        assert_eq!(pulse.tick(20 * S), Beat::Ping);
        pulse.sent(None, 20 * S);
        assert_eq!((pulse.wake_at(), pulse.tick(44 * S)), (40 * S, Beat::Ping));
        assert_eq!(pulse.tick(45 * S), Beat::Dead(45));
    }

    #[test]
    fn an_answer_that_is_owed_is_waited_for_six_seconds_with_a_ping_in_between() {
        let mut pulse = pulse();
        pulse.sent(Some(Owed::To(1)), 10 * S);
        // More that is owed puts nothing off.
        pulse.sent(Some(Owed::To(2)), 12 * S);
        assert_eq!((pulse.wake_at(), pulse.tick(13 * S - 1)), (13 * S, Beat::Nothing));
        assert_eq!(pulse.tick(13 * S), Beat::Ping);
        pulse.sent(Some(Owed::Pong), 13 * S);
        assert_eq!((pulse.wake_at(), pulse.tick(15 * S)), (16 * S, Beat::Nothing));
        assert_eq!(pulse.tick(16 * S), Beat::Dead(16));
    }

    #[test]
    fn whoever_answers_the_ping_is_alive_however_slow_with_the_answer() {
        let mut pulse = pulse();
        pulse.sent(Some(Owed::To(1)), 0);
        assert_eq!(pulse.tick(3 * S), Beat::Ping);
        pulse.sent(Some(Owed::Pong), 3 * S);
        pulse.heard(Some(Owed::Pong), 4 * S);
        assert_eq!((pulse.wake_at(), pulse.tick(20 * S)), (23 * S, Beat::Nothing));
        // The next question is watched like the first, by whatever ping it is followed.
        pulse.sent(Some(Owed::Pong), 20 * S);
        pulse.sent(Some(Owed::To(2)), 20 * S);
        pulse.heard(Some(Owed::Pong), 21 * S);
        assert_eq!((pulse.wake_at(), pulse.tick(24 * S)), (24 * S, Beat::Ping));
        pulse.sent(Some(Owed::Pong), 24 * S);
        assert_eq!(pulse.tick(27 * S), Beat::Dead(6));
    }

    #[test]
    fn an_answer_to_one_request_is_none_to_the_next() {
        let mut pulse = pulse();
        pulse.sent(Some(Owed::To(1)), 0);
        pulse.sent(Some(Owed::To(2)), 0);
        pulse.heard(Some(Owed::To(1)), S);
        assert_eq!((pulse.wake_at(), pulse.tick(4 * S)), (4 * S, Beat::Ping));
        pulse.sent(Some(Owed::Pong), 4 * S);
        assert_eq!(pulse.tick(7 * S), Beat::Dead(6));
        // What comes by itself is a sign of life, and no answer.
        pulse.heard(None, 7 * S);
        assert_eq!(pulse.wake_at(), 10 * S);
        pulse.heard(Some(Owed::To(2)), 8 * S);
        assert_eq!(pulse.wake_at(), 24 * S, "nothing is owed");
    }

    #[test]
    fn what_has_no_answer_is_not_waited_for() {
        let mut pulse = pulse();
        pulse.sent(None, S);
        assert_eq!(pulse.tick(20 * S), Beat::Nothing);
    }
}
