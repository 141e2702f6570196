//! What one link has of a QUIC connection: the whole of it, or a WebTransport session.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt};
use tern_protocol::Code;

use super::LinkError;
use super::http3::{Arrival, application_code};
use super::webtransport::WebTransportSession;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Carrier {
    /// Native QUIC.
    Whole(Connection),
    /// WebTransport.
    Session(Arc<WebTransportSession>),
}

/// What arrived beside the control stream.
#[derive(Debug)]
pub(super) enum Beside {
    /// A datagram.
    Datagram(Bytes),
    /// A further stream was opened, and refused.
    RefusedStream,
    /// The connection is lost; what came before is still in the control stream.
    Lost,
}

impl Carrier {
    pub(super) fn session(session: WebTransportSession) -> Self {
        Self::Session(Arc::new(session))
    }

    fn connection(&self) -> &Connection {
        match self {
            Self::Whole(connection) => connection,
            Self::Session(session) => session.connection(),
        }
    }

    /// Opens a unidirectional stream if there is credit for one now, `None` if not. Its first bytes
    /// are to be the header that is given.
    pub(super) fn open_uni(&self) -> Option<Result<(SendStream, Vec<u8>), ConnectionError>> {
        match self {
            Self::Whole(connection) => {
                let opened = connection.open_uni().now_or_never()?;
                Some(opened.map(|stream| (stream, Vec::new())))
            }
            Self::Session(session) => {
                let opened = session.open_uni().now_or_never()?;
                Some(opened.map(|stream| (stream, session.stream_header())))
            }
        }
    }

    /// Whether the client takes datagrams.
    pub(super) fn has_datagrams(&self) -> bool {
        self.connection().max_datagram_size().is_some()
    }

    pub(super) fn send_datagram(&self, payload: Bytes) -> Result<(), SendDatagramError> {
        match self {
            Self::Whole(connection) => connection.send_datagram(payload),
            Self::Session(session) => session.send_datagram(&payload),
        }
    }

    /// The next thing beside the control stream. Cancel-safe.
    pub(super) async fn beside(&self) -> Beside {
        match self {
            Self::Whole(connection) => beside_native(connection).await,
            Self::Session(session) => match session.next().await {
                Arrival::Datagram(bytes) => Beside::Datagram(bytes),
                Arrival::Refused | Arrival::Control(..) => Beside::RefusedStream,
            },
        }
    }

    /// The code that a stream was reset or stopped with, if it is one of ours.
    pub(super) fn code_of(&self, code: VarInt) -> Option<Code> {
        let code = match self {
            Self::Whole(_) => Some(code.into_inner()),
            Self::Session(_) => application_code(code.into_inner()).map(u64::from),
        };
        code.and_then(|code| u16::try_from(code).ok()).map(Code)
    }

    /// The end of the connection, as an end of the link.
    pub(super) fn lost(&self, error: ConnectionError) -> LinkError {
        match self {
            Self::Whole(_) => LinkError::of_connection(error),
            Self::Session(_) => LinkError::of_session(error),
        }
    }
}

async fn beside_native(connection: &Connection) -> Beside {
    tokio::select! {
        datagram = connection.read_datagram() => datagram.map_or(Beside::Lost, Beside::Datagram),
        stream = connection.accept_bi() => stream.map_or(Beside::Lost, |(mut send, recv)| {
            let _ = send.reset(var_int(Code::UNEXPECTED_FRAME));
            refuse(recv)
        }),
        stream = connection.accept_uni() => stream.map_or(Beside::Lost, refuse),
    }
}

fn refuse(mut recv: RecvStream) -> Beside {
    let _ = recv.stop(var_int(Code::UNEXPECTED_FRAME));
    Beside::RefusedStream
}

pub(super) fn var_int(code: Code) -> VarInt {
    VarInt::from_u32(code.0.into())
}
