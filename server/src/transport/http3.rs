//! HTTP/3 on a QUIC connection: one driver that hands out requests, and routes the streams and datagrams of
//! WebTransport sessions past h3, which would lose or block them.

mod adapter;
mod classify;
mod exchange;
mod frames;
mod halves;
mod sessions;
mod settings;
mod shared;
mod strikes;
pub(in crate::transport) mod varint;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::address::AddressPermit;
use super::{EstablishError, TransportConfig};
use adapter::{Lent, Quic, RequestStream};
use classify::{Classified, Start, Unclassified};
use frames::FrameReader;
use halves::{Receiver, var_int};
use shared::{Shared, Use};
use strikes::Strikes;

pub(in crate::transport) use exchange::Connected;
pub use exchange::{ConnectRequest, Exchange, HttpRequest, Resolved, ResponseWriter};
pub use frames::{BodyReader, FrameError};
pub(in crate::transport) use sessions::{Arrival, application_code, stream_code};
pub(in crate::transport) use shared::{NoPlace, SessionPlace};

/// Largest header of a request, in bytes as HTTP/3 counts them.
const HEADER_BYTES_MAX: u64 = 16 * 1024;
/// A connection whose sessions have ended is closed after this time: Chromium leaves that to the server.
const LINGER: Duration = Duration::from_secs(1);
/// A client-opened bidirectional stream has an id that is a multiple of this.
const REQUEST_ID_STEP: u64 = 4;

/// The control stream, the two of QPACK, and pushes, which only servers may open.
const CONTROL: u64 = 0x00;
const PUSH: u64 = 0x01;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// A QUIC connection that speaks HTTP/3. Dropping it closes the connection.
pub struct Http3Connection {
    h3: h3::server::Connection<Quic, Bytes>,
    connection: Connection,
    shared: Arc<Shared>,
    unclassified: Unclassified,
    strikes: Strikes,
    /// The client has said that it will ask no more, and h3 has nothing more to do.
    asks_no_more: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    config: Arc<TransportConfig>,
    _permit: AddressPermit,
}

impl Http3Connection {
    pub(super) async fn establish(
        connection: Connection,
        permit: AddressPermit,
        config: Arc<TransportConfig>,
    ) -> Result<Self, EstablishError> {
        let mut builder = h3::server::builder();
        builder
            .max_field_section_size(HEADER_BYTES_MAX)
            .send_grease(false)
            .enable_extended_connect(true)
            .enable_datagram(true)
            .enable_webtransport(true)
            .max_webtransport_sessions(config.webtransport_sessions_max as u64);
        let building = builder.build(Quic::new(connection.clone()));
        let h3 = match timeout(config.handshake_timeout(), building).await {
            Err(_) => return Err(EstablishError::HandshakeTimeout),
            Ok(h3) => h3.map_err(|error| EstablishError::Handshake(error.to_string()))?,
        };
        Ok(Self {
            h3,
            connection,
            shared: Shared::new(),
            unclassified: Unclassified::default(),
            strikes: Strikes::new(),
            asks_no_more: false,
            alarm: None,
            config,
            _permit: permit,
        })
    }

    /// Address of the client.
    pub fn remote(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// The settings it runs with.
    pub fn config(&self) -> &Arc<TransportConfig> {
        &self.config
    }

    /// No new sessions from now on; the connection ends with those that it has.
    pub fn drain(&self) {
        self.shared.state().draining = true;
    }

    /// The next request, `None` when the connection is over. Call it again and again for as long as
    /// there are requests or sessions: they live by it. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Exchange> {
        loop {
            self.set_alarm();
            let Self { h3, connection, shared, unclassified, alarm, asks_no_more, .. } = self;
            let event = tokio::select! {
                stream = connection.accept_bi() => {
                    let (send, recv) = stream.ok()?;
                    Event::Opened(Some(send), recv)
                }
                stream = connection.accept_uni() => Event::Opened(None, stream.ok()?),
                datagram = connection.read_datagram() => Event::Datagram(datagram.ok()?),
                classified = unclassified.next() => Event::Classified(classified),
                accepted = poll_fn(|cx| h3.poll_accept_request_stream(cx)), if !*asks_no_more => {
                    Event::Accepted(accepted.ok()?.map(Box::new))
                }
                () = shared.changed() => Event::Changed,
                () = elapsed(alarm) => Event::Alarm,
            };
            if let Some(exchange) = self.on_event(event, Instant::now()) {
                return Some(exchange);
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) -> Option<Exchange> {
        match event {
            Event::Opened(send, recv) => {
                if !self.unclassified.add(send, recv, Code::H3_EXCESSIVE_LOAD.value()) {
                    self.strike(1, now);
                }
            }
            Event::Classified(classified) => self.on_classified(classified, now),
            Event::Datagram(bytes) => self.on_datagram(bytes),
            Event::Accepted(None) => {
                self.asks_no_more = true;
                self.drain();
            }
            Event::Accepted(Some(stream)) => {
                let lent = stream.lent().clone();
                let resolver = self
                    .h3
                    .create_resolver(h3::frame::FrameStream::new(h3::stream::BufRecvStream::new(*stream)));
                let connection = self.connection.clone();
                return Some(Exchange::new(resolver, lent, connection, self.shared.begin()));
            }
            Event::Changed => {
                let wasted = std::mem::take(&mut self.shared.state().wasted);
                self.strike(wasted, now);
            }
            Event::Alarm => self.on_alarm(now),
        }
        None
    }

    fn on_classified(&mut self, classified: Classified, now: Instant) {
        match classified {
            Classified::Request(send, recv, start) => self.on_request(send, recv, &start),
            Classified::Unidirectional(kind, recv) => self.on_unidirectional(kind, recv, now),
            Classified::Session(id, _) if id % REQUEST_ID_STEP != 0 => {
                self.end(Code::H3_ID_ERROR, "no session has this id");
            }
            Classified::Session(id, stream) => {
                let refusal = stream_code(tern_protocol::Code::UNEXPECTED_FRAME.0.into());
                if !self.shared.state().sessions.put_stream(id, stream, refusal, now) {
                    self.strike(1, now);
                }
            }
            Classified::Ended => self.strike(1, now),
        }
    }

    fn on_request(&mut self, send: SendStream, recv: RecvStream, start: &Start) {
        let id = u64::from(recv.id());
        let lent = Lent::new(send, FrameReader::new(recv, start));
        self.h3.inner.conn.requests.push_back(RequestStream::new(lent, id));
    }

    fn on_unidirectional(&mut self, kind: u64, mut recv: RecvStream, now: Instant) {
        let id = u64::from(recv.id());
        let stream = match kind {
            CONTROL => Receiver::control(self.connection.clone(), FrameReader::new(recv, &[]), id),
            QPACK_ENCODER | QPACK_DECODER => Receiver::qpack(kind as u8, FrameReader::new(recv, &[]), id),
            PUSH => return self.end(Code::H3_STREAM_CREATION_ERROR, "clients do not push"),
            _ => {
                let _ = recv.stop(var_int(Code::H3_STREAM_CREATION_ERROR.value()));
                return self.strike(1, now);
            }
        };
        self.h3.inner.conn.streams.push_back(stream);
    }

    /// A datagram begins with a quarter of the id of its session.
    fn on_datagram(&mut self, mut bytes: Bytes) {
        match varint::decode(&bytes) {
            Some((quarter, used)) if quarter < 1 << 60 => {
                let payload = bytes.split_off(used);
                self.shared.state().sessions.put_datagram(quarter * REQUEST_ID_STEP, payload);
            }
            _ => self.end(Code::H3_DATAGRAM_ERROR, "a datagram begins with the id of its session"),
        }
    }

    fn strike(&mut self, count: u32, now: Instant) {
        if count > 0 && self.strikes.add(count, now) {
            self.end(Code::H3_EXCESSIVE_LOAD, "too many streams came to nothing");
        }
    }

    fn on_alarm(&mut self, now: Instant) {
        let patience = self.config.hello_timeout();
        if let Some(since) = now.checked_sub(patience) {
            let unclassified = self.unclassified.expire(since, Code::H3_EXCESSIVE_LOAD.value());
            let early = self.shared.state().sessions.expire(since);
            self.strike((unclassified + early) as u32, now);
        }
        if self.idle_until().is_some_and(|until| until <= now) {
            self.end(Code::H3_NO_ERROR, "nothing is asked here");
        }
    }

    /// When the connection is of no further use.
    fn idle_until(&self) -> Option<Instant> {
        let state = self.shared.state();
        match state.usage() {
            Use::Busy => None,
            Use::Over(since) | Use::Unused(since) | Use::Answered(since) if state.draining => Some(since),
            Use::Over(since) => Some(since + LINGER),
            Use::Unused(since) => Some(since + self.config.hello_timeout()),
            Use::Answered(since) => Some(since + self.config.http_idle_timeout()),
        }
    }

    fn set_alarm(&mut self) {
        let patience = self.config.hello_timeout();
        let early = self.shared.state().sessions.early_until(patience);
        let next = [self.idle_until(), self.unclassified.until(patience), early].into_iter().flatten().min();
        match (next, &mut self.alarm) {
            (None, alarm) => *alarm = None,
            (Some(next), Some(alarm)) if alarm.deadline() == next => {}
            (Some(next), Some(alarm)) => alarm.as_mut().reset(next),
            (Some(next), alarm) => *alarm = Some(Box::pin(sleep_until(next))),
        }
    }

    /// Ends the connection; what is awaited then fails.
    fn end(&self, code: Code, reason: &'static str) {
        tracing::debug!(remote = %self.remote(), %code, reason, "HTTP/3 connection closed");
        self.connection.close(var_int(code.value()), reason.as_bytes());
    }
}

enum Event {
    Opened(Option<SendStream>, RecvStream),
    Classified(Classified),
    Datagram(Bytes),
    Accepted(Option<Box<RequestStream>>),
    Changed,
    Alarm,
}

async fn elapsed(alarm: &mut Option<Pin<Box<Sleep>>>) {
    match alarm {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
