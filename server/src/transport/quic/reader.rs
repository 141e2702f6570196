//! Reading a link over QUIC: the control stream, datagrams, and no other stream.

use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use tern_protocol::{Code, DecodeError, Decoder, Envelope, Frame, Incoming};
use tokio::time::timeout;

use super::super::address::AddressPermit;
use super::super::carrier::{Beside, Carrier};
use super::super::error::clean_reason;
use super::super::webtransport::SessionEnd;
use super::super::{Inbound, LinkError};

/// Most bytes taken from the control stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// A client that opens more streams than this, beside the control stream, is not one of ours.
const REFUSED_STREAMS_MAX: u32 = 100;
/// A browser that ends a session resets its streams as well; the capsule that says why may come after.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// The reading half of a link over QUIC, native or WebTransport.
#[derive(Debug)]
pub struct QuicReader {
    carrier: Carrier,
    control: RecvStream,
    /// Where a session is ended; a connection of native QUIC is simply closed.
    end: Option<SessionEnd>,
    decoder: Decoder,
    refused_streams: u32,
    _permit: Option<AddressPermit>,
}

/// What happened on the connection.
enum Event {
    Chunk(Option<Bytes>),
    Datagram(Bytes),
    RefusedStream,
    Lost,
}

impl QuicReader {
    pub(in crate::transport) fn new(
        carrier: Carrier,
        control: RecvStream,
        end: Option<SessionEnd>,
        permit: Option<AddressPermit>,
    ) -> Self {
        Self { carrier, control, end, decoder: Decoder::default(), refused_streams: 0, _permit: permit }
    }

    #[cfg(test)]
    pub(super) fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// See [`LinkReader::recv`](crate::transport::LinkReader::recv).
    pub(in crate::transport) async fn recv(&mut self) -> Result<Inbound, LinkError> {
        loop {
            match self.decoder.next() {
                Ok(Some(Incoming::Frame(envelope))) => return Ok(Inbound::Frame(envelope)),
                Ok(Some(Incoming::Skipped(_))) => continue,
                Ok(None) => {}
                Err(error) if error.fatal() => return Err(error.into()),
                Err(error) => return Ok(Inbound::Bad(error)),
            }
            match self.event().await? {
                Event::Chunk(Some(bytes)) => self.decoder.extend(&bytes),
                Event::Chunk(None) => {
                    self.decoder.finish()?;
                    return Err(ended("the control stream ended", Some(Code::NORMAL)));
                }
                Event::Datagram(bytes) => {
                    if let Some(inbound) = read_datagram(&bytes) {
                        return Ok(inbound);
                    }
                }
                Event::RefusedStream => self.count_refused()?,
                Event::Lost => {}
            }
        }
    }

    /// Waits for the next event; the control stream goes first, so that nothing that arrived
    /// before a close is lost.
    async fn event(&mut self) -> Result<Event, LinkError> {
        tokio::select! {
            biased;
            chunk = self.control.read_chunk(READ_BYTES, true) => match chunk {
                Ok(chunk) => Ok(Event::Chunk(chunk.map(|chunk| chunk.bytes))),
                Err(ReadError::ConnectionLost(error)) => Err(self.carrier.lost(error)),
                Err(ReadError::Reset(code)) => {
                    let reset = ended("the control stream was reset", self.carrier.code_of(code));
                    Err(Box::pin(end_or(&mut self.end, reset)).await)
                }
                Err(error) => Err(LinkError::Io(error.into())),
            },
            error = session_end(&mut self.end) => Err(error),
            beside = self.carrier.beside() => Ok(match beside {
                Beside::Datagram(bytes) => Event::Datagram(bytes),
                Beside::RefusedStream => Event::RefusedStream,
                Beside::Lost => Event::Lost,
            }),
        }
    }

    fn count_refused(&mut self) -> Result<(), LinkError> {
        self.refused_streams += 1;
        if self.refused_streams <= REFUSED_STREAMS_MAX {
            return Ok(());
        }
        Err(LinkError::Violation {
            code: Code::UNEXPECTED_FRAME,
            websocket: 1008,
            rule: "clients open one stream only",
        })
    }
}

async fn session_end(end: &mut Option<SessionEnd>) -> LinkError {
    match end {
        Some(end) => end.wait().await,
        None => std::future::pending().await,
    }
}

/// What the client says about the end of the session, if it says so soon.
async fn end_or(end: &mut Option<SessionEnd>, otherwise: LinkError) -> LinkError {
    match end {
        Some(end) => timeout(END_PATIENCE, end.wait()).await.unwrap_or(otherwise),
        None => otherwise,
    }
}

fn ended(reason: &str, code: Option<Code>) -> LinkError {
    LinkError::Closed { code, reason: clean_reason(reason) }
}

/// A datagram is one whole frame of a kind that may be lost; it can come late, early or twice, so
/// nothing else is taken from it.
fn read_datagram(bytes: &[u8]) -> Option<Inbound> {
    let bad = |rule| Some(Inbound::Bad(DecodeError::Header(rule)));
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    match decoder.next() {
        Ok(_) if decoder.buffered() > 0 => bad("a datagram holds exactly one frame"),
        Ok(Some(Incoming::Frame(envelope @ Envelope { frame: Frame::Typing(_), .. }))) => {
            Some(Inbound::Frame(envelope))
        }
        Ok(Some(Incoming::Frame(_))) => bad("only typing may come as a datagram"),
        Ok(Some(Incoming::Skipped(_))) => None,
        Ok(None) => bad("a datagram holds exactly one frame"),
        // What breaks a stream breaks only this datagram.
        Err(error) if error.fatal() => bad("a datagram holds exactly one frame"),
        Err(error) => Some(Inbound::Bad(error)),
    }
}
