//! Reading a QUIC link: the control stream, datagrams, and no other stream.

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream};
use tern_protocol::{Code, DecodeError, Decoder, Envelope, Frame, Incoming};

use super::super::address::AddressPermit;
use super::super::error::clean_reason;
use super::super::{Inbound, LinkError};
use super::{link_error, var_int};

/// Most bytes taken from the control stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// A client that opens more streams than this, beside the control stream, is not one of ours.
const REFUSED_STREAMS_MAX: u32 = 100;

/// The reading half of a QUIC link.
#[derive(Debug)]
pub struct QuicReader {
    connection: Connection,
    control: RecvStream,
    decoder: Decoder,
    refused_streams: u32,
    _permit: AddressPermit,
}

/// What happened on the connection.
enum Event {
    Chunk(Option<Bytes>),
    Datagram(Bytes),
    RefusedStream,
    /// The connection is lost; what came before is still in the control stream.
    Lost,
}

impl QuicReader {
    pub(super) fn new(connection: Connection, control: RecvStream, permit: AddressPermit) -> Self {
        Self { connection, control, decoder: Decoder::default(), refused_streams: 0, _permit: permit }
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
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
                Err(ReadError::ConnectionLost(error)) => Err(link_error(error)),
                Err(ReadError::Reset(code)) => {
                    let code = u16::try_from(code.into_inner()).ok().map(Code);
                    Err(ended("the control stream was reset", code))
                }
                Err(error) => Err(LinkError::Io(error.into())),
            },
            datagram = self.connection.read_datagram() => Ok(datagram.map_or(Event::Lost, Event::Datagram)),
            stream = self.connection.accept_bi() => Ok(match stream {
                Err(_) => Event::Lost,
                Ok((mut send, mut recv)) => {
                    let _ = send.reset(var_int(Code::UNEXPECTED_FRAME));
                    let _ = recv.stop(var_int(Code::UNEXPECTED_FRAME));
                    Event::RefusedStream
                }
            }),
            stream = self.connection.accept_uni() => Ok(match stream {
                Err(_) => Event::Lost,
                Ok(mut recv) => {
                    let _ = recv.stop(var_int(Code::UNEXPECTED_FRAME));
                    Event::RefusedStream
                }
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
