//! Reading a WebSocket link: whole frames in binary messages, or one JSON text each.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::sink::Sink;
use futures_util::stream::Stream;
use tern_protocol::{Code, Decoder, Incoming, TempId};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use uuid::Uuid;

use super::super::error::clean_reason;
use super::super::{Inbound, LinkError, TransportConfig};
use super::{Metered, Shared};
use crate::roster::Format;

/// Bytes of a control frame around its payload, as clients send it: header and mask.
const CONTROL_HEADER_BYTES: usize = 6;

/// The reading half of a WebSocket link.
#[derive(Debug)]
pub struct WebSocketReader {
    shared: Arc<Shared>,
    format: Format,
    decoder: Decoder,
    control: ControlBudget,
    heard: Instant,
    /// After so long without a word the peer is pinged, and after so long it is dead.
    ping_after: Duration,
    dead_after: Duration,
    /// Goes off when there may be something to do about a silent peer; set on only when it does, not with
    /// every message.
    silence: Pin<Box<Sleep>>,
}

impl WebSocketReader {
    pub(super) fn new(shared: Arc<Shared>, format: Format, config: &TransportConfig) -> Self {
        let (heard, ping_after) = (Instant::now(), config.ping_after());
        let control = ControlBudget::new(config.websocket_control_frames_per_s, heard);
        let silence = Box::pin(sleep_until(heard + ping_after));
        let (decoder, dead_after) = (Decoder::default(), config.dead_after());
        Self { shared, format, decoder, control, heard, ping_after, dead_after, silence }
    }

    #[cfg(test)]
    pub(super) fn allow_pings(&mut self) {
        self.control = ControlBudget::new(u32::MAX, self.heard);
    }

    /// See [`LinkReader::recv`](crate::transport::LinkReader::recv).
    pub(in crate::transport) async fn recv(&mut self) -> Result<Inbound, LinkError> {
        match self.next_inbound().await {
            Ok(inbound) => Ok(inbound),
            Err(error) => Err(self.shared.note(error)),
        }
    }

    async fn next_inbound(&mut self) -> Result<Inbound, LinkError> {
        loop {
            if let Some(inbound) = self.decoded()? {
                return Ok(inbound);
            }
            let message = poll_fn(|cx| self.poll_message(cx)).await?;
            self.heard = Instant::now();
            match (message, self.format) {
                (Message::Binary(bytes), Format::Binary) => {
                    self.end_of_message();
                    self.decoder.extend(&bytes);
                }
                (Message::Text(text), Format::Json) => {
                    self.end_of_message();
                    return Ok(read_json(&text));
                }
                (Message::Binary(_), Format::Json) => {
                    return Err(unacceptable("this WebSocket speaks JSON: text messages only"));
                }
                (Message::Text(_), Format::Binary) => {
                    return Err(unacceptable("this WebSocket speaks tern.v1: binary messages only"));
                }
                (Message::Ping(payload) | Message::Pong(payload), _) => {
                    self.control_frame(&payload)?;
                    return Ok(Inbound::Alive);
                }
                (Message::Close(frame), _) => {
                    self.answer_close();
                    return Err(closed(frame));
                }
                // Only ever written.
                (Message::Frame(_), _) => {}
            }
        }
    }

    /// A frame of the last binary message. A frame never goes on in the next one.
    fn decoded(&mut self) -> Result<Option<Inbound>, LinkError> {
        loop {
            match self.decoder.next() {
                Ok(Some(Incoming::Frame(envelope))) => return Ok(Some(Inbound::Frame(envelope))),
                Ok(Some(Incoming::Skipped(_))) => {}
                Ok(None) => return self.decoder.finish().map(|()| None).map_err(LinkError::from),
                Err(error) if error.fatal() => return Err(error.into()),
                Err(error) => return Ok(Some(Inbound::Bad(error))),
            }
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, LinkError>> {
        let mut socket = self.shared.socket.lock();
        match Pin::new(&mut *socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => return Poll::Ready(Ok(message)),
            Poll::Ready(Some(Err(_))) if socket.get_ref().flooded => {
                return Poll::Ready(Err(flood("a message has a reasonable number of fragments")));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(LinkError::of_websocket(error))),
            Poll::Ready(None) => return Poll::Ready(Err(LinkError::Reset)),
            Poll::Pending => {}
        }
        while self.silence.as_mut().poll(cx).is_ready() {
            let (now, dead) = (Instant::now(), self.heard + self.dead_after);
            if dead <= now {
                return Poll::Ready(Err(LinkError::IdleTimeout));
            }
            let ping = self.heard + self.ping_after;
            if ping <= now {
                ping_silent(&mut socket, cx);
            }
            self.silence.as_mut().reset(if ping <= now { dead } else { ping });
        }
        Poll::Pending
    }

    fn end_of_message(&self) {
        self.shared.socket.lock().get_mut().read = 0;
    }

    /// Pings are answered by the socket itself.
    fn control_frame(&mut self, payload: &Bytes) -> Result<(), LinkError> {
        {
            let mut socket = self.shared.socket.lock();
            let read = &mut socket.get_mut().read;
            *read = read.saturating_sub(payload.len() + CONTROL_HEADER_BYTES);
        }
        if self.control.take(self.heard) { Ok(()) } else { Err(flood("pings are few")) }
    }

    /// Sends the answer to the peer's close frame, if the socket takes it at once.
    fn answer_close(&self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(&mut *self.shared.socket.lock()).poll_next(&mut cx);
    }
}

/// A person with a WebSocket tool sends no pings, but the tool answers them. Where nothing can be written,
/// nothing is: what waits there asks for an answer as well.
fn ping_silent(socket: &mut WebSocketStream<Metered>, cx: &mut Context<'_>) {
    let mut socket = Pin::new(socket);
    if let Poll::Ready(Ok(())) = socket.as_mut().poll_ready(cx)
        && socket.as_mut().start_send(Message::Ping(Bytes::new())).is_ok()
    {
        let _ = socket.poll_flush(cx);
    }
}

fn read_json(text: &str) -> Inbound {
    match tern_protocol::from_json(text, || TempId::from_uuid(Uuid::now_v7())) {
        Ok(envelope) => Inbound::Frame(envelope),
        Err(error) => Inbound::Bad(error),
    }
}

fn unacceptable(rule: &'static str) -> LinkError {
    LinkError::Violation { code: Code::MALFORMED, websocket: 1003, rule }
}

fn flood(rule: &'static str) -> LinkError {
    LinkError::Violation { code: Code::LIMIT_EXCEEDED, websocket: 1008, rule }
}

/// 1000 and 1001 (a page that is left) are ordinary ends; without a code none is known.
fn closed(frame: Option<CloseFrame>) -> LinkError {
    let Some(frame) = frame else {
        return LinkError::Closed { code: None, reason: String::new() };
    };
    let code = match u16::from(frame.code) {
        1000 | 1001 => Code::NORMAL,
        number => Code(number),
    };
    LinkError::Closed { code: Some(code), reason: clean_reason(&frame.reason) }
}

/// How many control frames are still allowed in the current second.
#[derive(Debug)]
struct ControlBudget {
    per_s: u32,
    left: u32,
    second: Instant,
}

impl ControlBudget {
    fn new(per_s: u32, now: Instant) -> Self {
        Self { per_s, left: per_s, second: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            (self.left, self.second) = (self.per_s, now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::super::loopback::ANY;
    use super::super::super::{Link, LinkReader};
    use super::super::from_upgraded;
    use super::*;

    #[test]
    fn a_client_may_ping_ten_times_a_second_and_no_more() {
        let now = Instant::now();
        let mut budget = ControlBudget::new(10, now);
        for _ in 0..10 {
            assert!(budget.take(now + Duration::from_millis(999)));
        }
        assert!(!budget.take(now + Duration::from_millis(999)));
        assert!(budget.take(now + Duration::from_millis(1000)));
    }

    fn websocket(link: Link) -> WebSocketReader {
        match link.split().0 {
            LinkReader::WebSocket(reader) => reader,
            LinkReader::Quic(_) => panic!("not a WebSocket"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_once_and_then_dead_after_its_time() {
        let (mut client, io) = tokio::io::duplex(1024);
        let config = TransportConfig::default();
        let start = Instant::now();
        let mut reader = websocket(from_upgraded(io, Format::Binary, &config, ANY).await);
        assert!(matches!(reader.recv().await, Err(LinkError::IdleTimeout)));
        assert_eq!(start.elapsed().as_secs(), 45);
        drop(reader);
        let mut sent = Vec::new();
        client.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, [0x89, 0], "one ping, without a payload");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_is_alive_for_as_long_as_it_does() {
        let (mut client, io) = tokio::io::duplex(1024);
        let config = TransportConfig::default();
        let start = Instant::now();
        let mut reader = websocket(from_upgraded(io, Format::Json, &config, ANY).await);
        let answering = async {
            let mut ping = [0; 2];
            for _ in 0..10 {
                client.read_exact(&mut ping).await.unwrap();
                client.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
            }
        };
        let reading = async {
            for _ in 0..10 {
                assert!(matches!(reader.recv().await, Ok(Inbound::Alive)));
            }
            reader.recv().await
        };
        let (ended, ()) = tokio::join!(reading, answering);
        assert!(matches!(ended, Err(LinkError::IdleTimeout)));
        assert_eq!(start.elapsed().as_secs(), 10 * 25 + 45);
    }
}
