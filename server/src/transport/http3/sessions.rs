//! Which WebTransport session the streams and datagrams of a connection belong to, and what waits for
//! sessions that are not known yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::halves::var_int;

/// Most streams, and most datagrams, that wait for their session: they may overtake its CONNECT.
const EARLY_MAX: usize = 16;
/// Most datagrams that wait to be read by one session; then the oldest is dropped.
const DATAGRAMS_MAX: usize = 16;
/// `WEBTRANSPORT_BUFFERED_STREAM_REJECTED`.
const BUFFERED_STREAM_REJECTED: u64 = 0x3994_bd84;
/// Error code of WebTransport over HTTP/3 for the application's first code, see [`stream_code`].
const FIRST_STREAM_CODE: u64 = 0x52e4_a40f_a8db;

/// The HTTP/3 error code that stands for a code of the application (draft-ietf-webtrans-http3, 4.3):
/// every 31st code is reserved.
pub(in crate::transport) fn stream_code(code: u32) -> u64 {
    let code = u64::from(code);
    FIRST_STREAM_CODE + code + code / 0x1e
}

/// The code of the application that an HTTP/3 error code stands for.
pub(in crate::transport) fn application_code(code: u64) -> Option<u32> {
    let shifted = code.checked_sub(FIRST_STREAM_CODE)?;
    u32::try_from(shifted - shifted / 0x1f).ok().filter(|found| stream_code(*found) == code)
}

/// A stream that a client opened in a session.
#[derive(Debug)]
pub(super) struct SessionStream {
    /// Absent for a unidirectional one.
    pub(super) send: Option<SendStream>,
    /// What follows the header of the stream.
    pub(super) recv: RecvStream,
}

impl SessionStream {
    fn refuse(mut self, code: u64) {
        if let Some(send) = &mut self.send {
            let _ = send.reset(var_int(code));
        }
        let _ = self.recv.stop(var_int(code));
    }
}

/// What arrived for a session.
#[derive(Debug)]
pub(in crate::transport) enum Arrival {
    /// The first bidirectional stream, once.
    Control(SendStream, RecvStream),
    /// A datagram.
    Datagram(Bytes),
    /// A further stream was opened, and refused.
    Refused,
}

#[derive(Debug, Default)]
struct Mail {
    control: Option<(SendStream, RecvStream)>,
    has_control: bool,
    datagrams: VecDeque<Bytes>,
    refused: u32,
}

/// Hands over what arrives for one session.
#[derive(Debug, Default)]
pub(in crate::transport) struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

impl Mailbox {
    /// Waits for the next arrival. Cancel-safe; one reader.
    pub(in crate::transport) async fn next(&self) -> Arrival {
        loop {
            if let Some(arrival) = self.take() {
                return arrival;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Arrival> {
        let mut mail = self.mail.lock();
        if let Some((send, recv)) = mail.control.take() {
            return Some(Arrival::Control(send, recv));
        }
        if mail.refused > 0 {
            mail.refused -= 1;
            return Some(Arrival::Refused);
        }
        mail.datagrams.pop_front().map(Arrival::Datagram)
    }

    /// Whether the stream is taken: a session has one stream of its client, the others are refused.
    fn put_stream(&self, stream: SessionStream, refusal: u64) -> bool {
        let mut mail = self.mail.lock();
        let taken = match stream {
            SessionStream { send: Some(send), recv } if !mail.has_control => {
                mail.has_control = true;
                mail.control = Some((send, recv));
                true
            }
            stream => {
                mail.refused = mail.refused.saturating_add(1);
                stream.refuse(refusal);
                false
            }
        };
        drop(mail);
        self.arrived.notify_one();
        taken
    }

    fn put_datagram(&self, bytes: Bytes) {
        let mut mail = self.mail.lock();
        if mail.datagrams.len() >= DATAGRAMS_MAX {
            mail.datagrams.pop_front();
        }
        mail.datagrams.push_back(bytes);
        drop(mail);
        self.arrived.notify_one();
    }
}

/// The sessions of one connection.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: SmallVec<[(u64, Arc<Mailbox>); 1]>,
    early_streams: Vec<(u64, Instant, SessionStream)>,
    early_datagrams: VecDeque<(u64, Bytes)>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Adds a session; it gets what came before it. `refusal` is for streams that it does not take.
    pub(super) fn open(&mut self, id: u64, refusal: u64) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        self.open.push((id, mailbox.clone()));
        for (_, _, stream) in self.early_streams.extract_if(.., |(session, ..)| *session == id) {
            mailbox.put_stream(stream, refusal);
        }
        self.early_datagrams.retain(|(session, bytes)| {
            if *session == id {
                mailbox.put_datagram(bytes.clone());
            }
            *session != id
        });
        mailbox
    }

    pub(super) fn close(&mut self, id: u64) {
        self.open.retain(|(open, _)| *open != id);
    }

    /// Hands a stream to its session, or keeps it for a while; whether one of them did.
    pub(super) fn put_stream(&mut self, id: u64, stream: SessionStream, refusal: u64, now: Instant) -> bool {
        if let Some((_, mailbox)) = self.open.iter().find(|(open, _)| *open == id) {
            return mailbox.put_stream(stream, refusal);
        }
        if self.early_streams.len() >= EARLY_MAX {
            stream.refuse(BUFFERED_STREAM_REJECTED);
            return false;
        }
        self.early_streams.push((id, now, stream));
        true
    }

    /// Hands a datagram to its session, or keeps it for a while; it may be lost.
    pub(super) fn put_datagram(&mut self, id: u64, bytes: Bytes) {
        if let Some((_, mailbox)) = self.open.iter().find(|(open, _)| *open == id) {
            mailbox.put_datagram(bytes);
        } else if self.early_datagrams.len() < EARLY_MAX {
            self.early_datagrams.push_back((id, bytes));
        }
    }

    /// When the stream that has waited longest for its session has done so for `patience`.
    pub(super) fn early_until(&self, patience: Duration) -> Option<Instant> {
        self.early_streams.first().map(|(_, since, _)| *since + patience)
    }

    /// Refuses what waits since before `since`; how many streams that were.
    pub(super) fn expire(&mut self, since: Instant) -> usize {
        let expired = self.early_streams.extract_if(.., |(_, came, _)| *came <= since);
        let count = expired.map(|(_, _, stream)| stream.refuse(BUFFERED_STREAM_REJECTED)).count();
        if self.early_streams.is_empty() {
            self.early_datagrams.clear();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stream_codes_come_back_and_avoid_the_reserved_ones(code: u32) {
            let mapped = stream_code(code);
            prop_assert_ne!((mapped - 0x21) % 0x1f, 0);
            prop_assert_eq!(application_code(mapped), Some(code));
        }
    }

    #[test]
    fn codes_that_are_no_applications_are_not_taken_for_one() {
        assert_eq!(application_code(0x10c), None);
        assert_eq!(application_code(FIRST_STREAM_CODE + 0x1e), None, "reserved");
        assert_eq!(application_code(u64::MAX), None);
    }

    #[tokio::test]
    async fn datagrams_wait_for_their_session_and_the_oldest_goes_first_when_there_are_too_many() {
        let mut sessions = Sessions::default();
        for number in 0..=EARLY_MAX as u8 {
            sessions.put_datagram(4, Bytes::from(vec![number]));
        }
        sessions.put_datagram(8, Bytes::from_static(b"other"));
        let mailbox = sessions.open(4, 0);
        for number in [90, 91] {
            sessions.put_datagram(4, Bytes::from(vec![number]));
        }
        let mut seen = Vec::new();
        while let Some(Arrival::Datagram(bytes)) = mailbox.take() {
            seen.push(bytes[0]);
        }
        assert_eq!(seen[..2], [2, 3], "two made room for the last");
        assert_eq!(seen[seen.len() - 2..], [90, 91]);
        assert_eq!(seen.len(), DATAGRAMS_MAX);
    }

    #[test]
    fn a_session_that_is_closed_gets_nothing_more() {
        let mut sessions = Sessions::default();
        let mailbox = sessions.open(0, 0);
        sessions.close(0);
        sessions.put_datagram(0, Bytes::from_static(b"late"));
        assert!(mailbox.take().is_none());
        assert_eq!(sessions.len(), 0);
    }
}
