//! What is known of a connection by the bytes on it: whether anything was asked, whether answers are taken, and
//! when to look again. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::calm::Calm;
use super::frames::{Heads, Kind};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that are followed; the library allows a client far fewer at a time and resets the others.
const STREAMS_MAX: usize = 1024;

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To the first bytes, all of the preface if it is one.
    pub(super) begin: Duration,
    /// From a request to its answer being taken.
    pub(super) answer: Duration,
    /// Without a request, on HTTP/2.
    pub(super) idle: Duration,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing was asked.
    Silent,
    /// An answer was not taken.
    Unread,
    /// Too many frames that ask nothing.
    Flood,
}

impl Fault {
    /// For whoever reads the last frame.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Silent => "nothing was asked in time",
            Self::Unread => "an answer was not taken in time",
            Self::Flood => "too many frames that ask nothing",
        }
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    opened: Instant,
    speaks: Speaks,
    /// Since when the system does not take what is written.
    unsent: Option<Instant>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum Speaks {
    /// It has sent so many bytes of the preface.
    Nothing(usize),
    Http1,
    Http2(Box<Http2>),
}

#[derive(Debug)]
struct Http2 {
    received: Heads,
    sent: Heads,
    /// When requests came whose answers are not sent to the end. Ids rise, so the oldest is first.
    open: BTreeMap<u32, Instant>,
    last: u32,
    idle_since: Instant,
    calm: Calm,
}

impl Watch {
    pub(super) fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, opened: now, speaks: Speaks::Nothing(0), unsent: None, fault: None }
    }

    /// Bytes came in.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: Instant) {
        if let Speaks::Nothing(matched) = self.speaks {
            let wanted = &PREFACE[matched..];
            let length = wanted.len().min(bytes.len());
            self.speaks = match matched + length {
                _ if wanted[..length] != bytes[..length] => Speaks::Http1,
                whole if whole == PREFACE.len() => Speaks::Http2(Box::new(Http2::new(now))),
                part => Speaks::Nothing(part),
            };
            bytes = &bytes[length..];
        }
        if let Speaks::Http2(http2) = &mut self.speaks
            && !http2.received(bytes, now)
        {
            self.fault = self.fault.or(Some(Fault::Flood));
        }
    }

    /// The system took bytes.
    pub(super) fn sent(&mut self, bytes: &[u8], now: Instant) {
        if let Speaks::Http2(http2) = &mut self.speaks {
            http2.sent(bytes, now);
        }
    }

    /// Whether everything written so far was taken.
    pub(super) fn flushed(&mut self, all: bool, now: Instant) {
        self.unsent = if all { None } else { self.unsent.or(Some(now)) };
    }

    /// Everything but what HTTP/2 is: nothing on it has to be told to [`Watch::received`] or [`Watch::sent`].
    pub(super) fn is_http1(&self) -> bool {
        matches!(self.speaks, Speaks::Http1)
    }

    /// Why it has to end, if it has to.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The last stream that the client has opened, if a frame can be sent now that ends the connection.
    pub(super) fn last_stream(&self) -> Option<u32> {
        match &self.speaks {
            Speaks::Http2(http2) if http2.sent.between_frames() => Some(http2.last),
            _ => None,
        }
    }

    /// Looks at what is due; when to look again, or why it has to end.
    pub(super) fn look(&mut self, now: Instant) -> Result<Instant, Fault> {
        let Patience { begin, answer, idle } = self.patience;
        // What is not known of yet is due no sooner.
        let mut next = now + answer.min(idle);
        let mut due = |at: Instant, fault| {
            next = next.min(at);
            (at <= now).then_some(fault)
        };
        let unsent = self.unsent.and_then(|since| due(since + answer, Fault::Unread));
        let asked = match &self.speaks {
            Speaks::Nothing(_) => due(self.opened + begin, Fault::Silent),
            Speaks::Http1 => None,
            Speaks::Http2(http2) => match http2.open.first_key_value() {
                Some((_, since)) => due(*since + answer, Fault::Unread),
                None => due(http2.idle_since + idle, Fault::Silent),
            },
        };
        self.fault = self.fault.or(unsent).or(asked);
        self.fault.map_or(Ok(next), Err)
    }
}

impl Http2 {
    fn new(now: Instant) -> Self {
        Self {
            received: Heads::default(),
            sent: Heads::default(),
            open: BTreeMap::new(),
            last: 0,
            idle_since: now,
            calm: Calm::new(now),
        }
    }

    /// Whether these are still frames worth reading.
    fn received(&mut self, bytes: &[u8], now: Instant) -> bool {
        let Self { received, open, last, idle_since, calm, .. } = self;
        let mut good = true;
        received.take(bytes, |head| {
            let is_request = head.kind == Kind::Headers && head.stream > *last;
            if is_request {
                *last = head.stream;
                open.insert(head.stream, now);
            }
            if head.kind == Kind::Reset {
                close(open, head.stream, idle_since, now);
            }
            good &= calm.received(&head, is_request, now) && open.len() <= STREAMS_MAX;
        });
        good
    }

    fn sent(&mut self, bytes: &[u8], now: Instant) {
        let Self { sent, open, idle_since, calm, .. } = self;
        sent.take(bytes, |head| {
            if head.kind == Kind::Data {
                calm.answered();
            }
            if head.kind == Kind::Reset || head.ends_stream() {
                close(open, head.stream, idle_since, now);
            }
        });
    }
}

fn close(open: &mut BTreeMap<u32, Instant>, stream: u32, idle_since: &mut Instant, now: Instant) {
    if open.remove(&stream).is_some() && open.is_empty() {
        *idle_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{END_STREAM, enhance_your_calm};
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PATIENCE: Patience = Patience {
        begin: Duration::from_secs(10),
        answer: Duration::from_secs(30),
        idle: Duration::from_secs(60),
    };

    fn frame(kind: u8, flags: u8, stream: u8) -> Vec<u8> {
        vec![0, 0, 0, kind, flags, 0, 0, 0, stream]
    }

    fn headers(stream: u8) -> Vec<u8> {
        frame(1, END_STREAM, stream)
    }

    fn http2() -> (Instant, Watch) {
        let start = Instant::now();
        let mut watch = Watch::new(PATIENCE, start);
        watch.received(PREFACE, start);
        (start, watch)
    }

    #[test]
    fn who_asks_nothing_or_sends_half_a_preface_is_let_go_after_ten_seconds() {
        for part in [0, 1, PREFACE.len() - 1] {
            let start = Instant::now();
            let mut watch = Watch::new(PATIENCE, start);
            watch.received(&PREFACE[..part], start + S);
            assert_eq!(watch.look(start + 9 * S), Ok(start + 10 * S), "{part} bytes");
            assert_eq!(watch.look(start + 10 * S), Err(Fault::Silent), "{part} bytes");
        }
    }

    #[test]
    fn what_is_no_preface_is_http_1_and_has_limits_of_its_own() {
        let start = Instant::now();
        for first in [&b"G"[..], b"PRI * HTTP/1"] {
            let mut watch = Watch::new(PATIENCE, start);
            watch.received(first, start);
            assert!(watch.is_http1());
            assert_eq!(watch.look(start + 100 * S), Ok(start + 130 * S));
        }
    }

    #[test]
    fn what_the_system_does_not_take_for_half_a_minute_will_never_be_read() {
        let start = Instant::now();
        let mut watch = Watch::new(PATIENCE, start);
        watch.received(b"GET", start);
        watch.flushed(false, start + S);
        watch.flushed(true, start + 2 * S);
        watch.flushed(false, start + 5 * S);
        // A little was taken, but not all.
        watch.flushed(false, start + 20 * S);
        assert_eq!(watch.look(start + 34 * S), Ok(start + 35 * S));
        assert_eq!(watch.look(start + 35 * S), Err(Fault::Unread));
    }

    #[test]
    fn a_request_of_http_2_is_answered_and_the_answer_taken_within_half_a_minute() {
        let (start, mut watch) = http2();
        watch.received(&[headers(1), headers(3)].concat(), start + S);
        watch.sent(&frame(1, END_STREAM, 1), start + 2 * S);
        watch.sent(&frame(0, 0, 3), start + 29 * S);
        assert_eq!(watch.look(start + 30 * S), Ok(start + 31 * S));
        assert_eq!(watch.look(start + 31 * S), Err(Fault::Unread), "the other one is not at its end");
        for end in [frame(0, END_STREAM, 3), frame(3, 0, 3)] {
            let (start, mut watch) = http2();
            watch.received(&headers(3), start);
            watch.sent(&end, start + S);
            assert_eq!(watch.look(start + 60 * S), Ok(start + 61 * S), "idle since then");
            assert_eq!(watch.look(start + 61 * S), Err(Fault::Silent));
        }
    }

    #[test]
    fn a_request_that_the_client_took_back_is_not_waited_for() {
        let (start, mut watch) = http2();
        watch.received(&headers(1), start);
        watch.received(&frame(3, 0, 1), start + S);
        assert_eq!(watch.look(start + 59 * S), Ok(start + 61 * S));
    }

    #[test]
    fn a_flood_is_a_fault_at_once_and_the_first_fault_stays() {
        let (start, mut watch) = http2();
        watch.received(&frame(6, 0, 0).repeat(100), start);
        assert_eq!(watch.fault(), None);
        watch.received(&frame(6, 0, 0).repeat(100), start);
        assert_eq!(watch.fault(), Some(Fault::Flood));
        assert_eq!(watch.look(start + 90 * S), Err(Fault::Flood));
    }

    #[test]
    fn the_last_frame_comes_between_frames_only() {
        let (start, mut watch) = http2();
        watch.received(&headers(5), start);
        assert_eq!(watch.last_stream(), Some(5));
        watch.sent(&headers(5)[..4], start);
        assert_eq!(watch.last_stream(), None);
        watch.sent(&headers(5)[4..], start);
        watch.sent(&enhance_your_calm(5, "x"), start);
        assert_eq!(watch.last_stream(), Some(5));
    }
}
