//! Finds out what a stream that the client opened is, from its first bytes and no more.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use smallvec::SmallVec;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::sessions::SessionStream;
use super::varint;

/// Start of a bidirectional WebTransport stream; a session id follows.
const WEBTRANSPORT_BIDI: u64 = 0x41;
/// Type of a unidirectional WebTransport stream; a session id follows.
const WEBTRANSPORT_UNI: u64 = 0x54;
/// Most streams whose first bytes are awaited.
const PENDING_MAX: usize = 16;

/// The first bytes of a stream.
pub(super) type Start = SmallVec<[u8; 2 * varint::BYTES_MAX]>;

/// What a stream is.
pub(super) enum Classified {
    /// A request; its first bytes are to be read again.
    Request(SendStream, RecvStream, Start),
    /// A stream of HTTP/3 of this type.
    Unidirectional(u64, RecvStream),
    /// A stream of a WebTransport session.
    Session(u64, SessionStream),
    /// It ended before it said what it is.
    Ended,
}

/// What the first bytes of a stream say, once they say it: pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain(u64),
    Session(u64),
}

fn kind_of(start: &[u8], bidirectional: bool) -> Option<Kind> {
    let (kind, used) = varint::decode(start)?;
    let webtransport = if bidirectional { WEBTRANSPORT_BIDI } else { WEBTRANSPORT_UNI };
    if kind != webtransport {
        return Some(Kind::Plain(kind));
    }
    varint::decode(&start[used..]).map(|(session, _)| Kind::Session(session))
}

struct Pending {
    send: Option<SendStream>,
    recv: RecvStream,
    start: Start,
    since: Instant,
}

impl Pending {
    /// `None` if the stream ends first.
    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Kind>> {
        loop {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            // One byte at a time, so that the stream is handed on where its header ends.
            let read = ready!(self.recv.poll_read_buf(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(None);
            }
            self.start.push(byte[0]);
            if let Some(kind) = kind_of(&self.start, self.send.is_some()) {
                return Poll::Ready(Some(kind));
            }
        }
    }

    fn classified(self, kind: Option<Kind>) -> Classified {
        match (kind, self.send) {
            (None, _) => Classified::Ended,
            (Some(Kind::Session(id)), send) => {
                Classified::Session(id, SessionStream { send, recv: self.recv })
            }
            (Some(Kind::Plain(_)), Some(send)) => Classified::Request(send, self.recv, self.start),
            (Some(Kind::Plain(kind)), None) => Classified::Unidirectional(kind, self.recv),
        }
    }
}

/// Streams whose first bytes have not all arrived; none of them holds up another.
#[derive(Default)]
pub(super) struct Unclassified(Vec<Pending>);

impl Unclassified {
    /// Adds a stream; whether there was room. One that is not taken is reset.
    pub(super) fn add(&mut self, mut send: Option<SendStream>, mut recv: RecvStream, code: u64) -> bool {
        if self.0.len() >= PENDING_MAX {
            let code = super::halves::var_int(code);
            let _ = send.as_mut().map(|send| send.reset(code));
            let _ = recv.stop(code);
            return false;
        }
        self.0.push(Pending { send, recv, start: Start::new(), since: Instant::now() });
        true
    }

    /// The next stream that has said what it is. Cancel-safe.
    pub(super) async fn next(&mut self) -> Classified {
        poll_fn(|cx| {
            for index in 0..self.0.len() {
                if let Poll::Ready(kind) = self.0[index].poll_kind(cx) {
                    let pending = self.0.remove(index);
                    if self.0.is_empty() {
                        // The connection may be idle for days.
                        self.0 = Vec::new();
                    }
                    return Poll::Ready(pending.classified(kind));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// When the stream that has waited longest has done so for `patience`.
    pub(super) fn until(&self, patience: Duration) -> Option<Instant> {
        self.0.first().map(|pending| pending.since + patience)
    }

    /// Gives up those that wait since before `since`; how many that were.
    pub(super) fn expire(&mut self, since: Instant, code: u64) -> usize {
        let code = super::halves::var_int(code);
        let expired = self.0.extract_if(.., |pending| pending.since <= since);
        expired
            .map(|mut pending| {
                let _ = pending.send.as_mut().map(|send| send.reset(code));
                let _ = pending.recv.stop(code);
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_says_what_it_is_with_the_last_byte_of_its_header_and_not_before(
            kind in prop_oneof![Just(WEBTRANSPORT_BIDI), Just(WEBTRANSPORT_UNI), 0u64..1 << 62],
            session in 0u64..1 << 62,
            bidirectional: bool,
        ) {
            let mut bytes = Vec::new();
            varint::encode(kind, &mut bytes);
            let plain = bytes.len();
            varint::encode(session, &mut bytes);
            let webtransport = kind == if bidirectional { WEBTRANSPORT_BIDI } else { WEBTRANSPORT_UNI };
            let (end, expected) =
                if webtransport { (bytes.len(), Kind::Session(session)) } else { (plain, Kind::Plain(kind)) };
            for cut in 0..end {
                prop_assert_eq!(kind_of(&bytes[..cut], bidirectional), None);
            }
            prop_assert_eq!(kind_of(&bytes[..end], bidirectional), Some(expected));
        }
    }
}
